//! The drills of `docs/operations.md`: the commands that the page shows are run as they stand there, and what they print is compared.
//!
//! Blocks marked `sh drill=NAME` are run in their order by one bash in an empty directory, after the block `every`; a block marked
//! `text drill=NAME` says what the block before it prints. There `...` stands for anything within a line, and a line of it alone for any
//! lines.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use lakelog::{Batch, Context, ErrorKind, Position, Settings, Store};

use crate::postgres_server::Server;

const PAGE: &str = include_str!("../../docs/operations.md");

/// Says in the output where a block ends.
const END: &str = "--- the end of a block ---";

/// Commands of the page and what they print, where the page says it.
#[derive(Debug, Default)]
struct Block {
    line: usize,
    commands: String,
    expected: Option<String>,
}

/// The blocks of a drill.
fn blocks(name: &str) -> Vec<Block> {
    let (sh, text) = (format!("sh drill={name}"), format!("text drill={name}"));
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = PAGE.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(mark) = line.strip_prefix("```").filter(|mark| !mark.is_empty()) else { continue };
        let content: String = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .flat_map(|line| [line, "\n"])
            .collect();
        if mark == sh {
            blocks.push(Block { line: number + 1, commands: content, expected: None });
        } else if mark == text {
            let before = blocks.last_mut().unwrap_or_else(|| panic!("line {}: what prints this?", number + 1));
            assert!(before.expected.replace(content).is_none(), "line {}: said twice", number + 1);
        }
    }
    blocks
}

/// Whether a line is as said, `...` being anything.
fn line_is(said: &str, line: &str) -> bool {
    let mut parts = said.split("...");
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        match parts.peek() {
            Some(_) => match rest.split_once(part) {
                Some((_, behind)) => rest = behind,
                None => return false,
            },
            None => return rest.ends_with(part),
        }
    }
    true
}

/// Whether lines are as said, a line `...` being any number of them.
fn lines_are(said: &[&str], lines: &[&str]) -> bool {
    match (said.split_first(), lines.split_first()) {
        (None, None) => true,
        (Some((&"...", said)), _) => (0..=lines.len()).any(|skipped| lines_are(said, &lines[skipped..])),
        (Some((first, said)), Some((line, lines))) => line_is(first, line) && lines_are(said, lines),
        _ => false,
    }
}

/// A directory to drill in, with the samples at hand.
fn ground() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/samples"), dir.path().join("samples")).unwrap();
    dir
}

/// Runs a drill; `shell` is what runs bash, `before` what is done first in it.
fn run(dir: &Path, name: &str, shell: &[&str], before: &str, envs: &[(&str, &str)]) -> Output {
    let mut script = format!("set -euo pipefail\nexec 2>&1\n{before}\n");
    for block in blocks("every").into_iter().chain(blocks(name)) {
        script += &format!("{}\necho '{END}'\n", block.commands);
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_lakelog"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).args(["bash", "-c", &script]).current_dir(dir).stdin(Stdio::null());
    for variable in ["LAKELOG_LOG", "LAKELOG_BASE", "LAKELOG_STORE"] {
        command.env_remove(variable);
    }
    command.env("PATH", path).env("GNUPGHOME", dir.join("gnupg")).envs(envs.iter().copied()).output().unwrap()
}

/// Runs a drill and compares what it prints with what the page says.
fn drill(dir: &Path, name: &str, shell: &[&str], before: &str, envs: &[(&str, &str)]) {
    let blocks: Vec<Block> = blocks("every").into_iter().chain(blocks(name)).collect();
    assert!(blocks.len() > 1 && blocks.iter().any(|block| block.expected.is_some()), "no such drill: {name}");
    let output = run(dir, name, shell, before, envs);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{name}: {}\n{printed}{}", output.status, String::from_utf8_lossy(&output.stderr));
    let mut parts = printed.split(&format!("{END}\n")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(parts.pop().as_deref(), Some(""), "{printed}");
    assert_eq!(parts.len(), blocks.len(), "{printed}");
    for (Block { line, expected, .. }, printed) in blocks.iter().zip(parts) {
        let Some(expected) = expected else { continue };
        let (said, lines): (Vec<_>, Vec<_>) = (expected.lines().collect(), printed.lines().collect());
        assert!(lines_are(&said, &lines), "{name}, the block at line {line} prints:\n{printed}");
    }
}

/// One that needs nothing but the binary.
fn plain_drill(name: &str) {
    drill(ground().path(), name, &["env"], "", &[]);
}

#[test]
fn what_is_compared_is_compared() {
    for (said, line) in
        [("a", "a"), ("...", ""), ("a...", "abc"), ("a...c", "abc"), ("a...b...c", "a-b-b-c"), ("...c", "abc")]
    {
        assert!(line_is(said, line), "{said} {line}");
    }
    for (said, line) in [("a", "ab"), ("a...d", "abc"), ("b...", "abc"), ("a...b...c", "ac"), ("", "a")] {
        assert!(!line_is(said, line), "{said} {line}");
    }
    assert!(lines_are(&["a", "...", "c"], &["a", "b", "b", "c"]) && lines_are(&["..."], &[]));
    assert!(
        !lines_are(&["a", "..."], &["b", "a"]) && !lines_are(&["a"], &["a", "b"]) && !lines_are(&["a", "b"], &["a"])
    );
}

#[test]
fn every_block_of_commands_belongs_to_a_drill_that_is_run() {
    let mut names: Vec<&str> = PAGE.lines().filter_map(|line| line.strip_prefix("```sh drill=")).collect();
    names.dedup();
    let tests = include_str!("operations.rs");
    for name in names.into_iter().filter(|name| *name != "every") {
        assert!(
            tests.contains(&format!("drill(\"{name}\")")) || tests.contains(&format!(", \"{name}\", ")),
            "{name} is never run"
        );
    }
    let unmarked = PAGE.lines().filter(|line| line.starts_with("```sh") && !line.contains("drill="));
    assert_eq!(unmarked.collect::<Vec<_>>(), [] as [&str; 0]);
}

#[test]
fn backup() {
    plain_drill("backup");
}

#[test]
fn position() {
    plain_drill("position");
}

#[test]
fn archive() {
    plain_drill("archive");
}

#[test]
fn standby() {
    plain_drill("standby");
}

#[test]
fn damage() {
    plain_drill("damage");
}

#[test]
fn audit() {
    plain_drill("audit");
}

#[test]
fn upgrade() {
    plain_drill("upgrade");
}

#[test]
fn encryption() {
    let ground = ground();
    drill(ground.path(), "encryption", &["env"], "mkdir -m 700 gnupg", &[]);
    // The agent that gpg started.
    let _ = Command::new("gpgconf").args(["--kill", "all"]).env("GNUPGHOME", ground.path().join("gnupg")).status();
}

#[test]
fn base() {
    let url = Server::shared().database();
    drill(ground().path(), "base", &["env"], "", &[("BASE", &url)]);
}

/// What the page says of a full disk, on a disk that only seems to be full: this works wherever tests run.
#[tokio::test]
async fn a_disk_without_room_refuses_writes_until_there_is_some() {
    let dir = tempfile::tempdir().unwrap();
    let open = |kept: u64| {
        let settings = Settings { segment_bytes: 64 << 10, min_free_bytes: Some(kept), ..Settings::default() };
        Store::builder(dir.path()).settings(settings).open_or_create()
    };
    open(0).await.unwrap().close().await.unwrap();
    let full = open(u64::MAX).await.unwrap();
    let mut written = 0_u64;
    let refused = loop {
        let batch = Batch::new().set(b"p", format!("{written}").as_bytes(), &[7; 4_000]);
        match full.write(Context::new("test"), batch).await {
            Ok(done) => written = done.position.0,
            Err(error) => break error,
        }
        assert!(written < 100, "never full");
    };
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.message().contains("no space"), "{refused}");
    assert_eq!(full.head(), Position(written));
    assert!(written > 1 && full.get(b"p", b"0").await.unwrap().is_some());
    full.close().await.unwrap();
    let roomy = open(0).await.unwrap();
    let done = roomy.write(Context::new("test"), Batch::new().set(b"p", b"k", &[7; 4_000])).await.unwrap();
    assert_eq!(done.position, Position(written + 1));
    roomy.close().await.unwrap();
}

/// On a real file system that is full, where one may be mounted.
#[test]
fn full_disk() {
    let ground = ground();
    fs::create_dir(ground.path().join("metadata")).unwrap();
    let unshare = ["unshare", "--map-root-user", "--mount"];
    let mount = "mount -t tmpfs -o size=600m none metadata";
    let may =
        Command::new(unshare[0]).args(&unshare[1..]).args(["sh", "-c", mount]).current_dir(ground.path()).output();
    if !may.is_ok_and(|output| output.status.success()) {
        eprintln!("no file system may be mounted here: the drill with a real one is left out");
        return;
    }
    drill(ground.path(), "full-disk", &unshare, mount, &[]);
}
