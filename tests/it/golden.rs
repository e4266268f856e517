//! Files that an earlier version wrote, in `tests/fixtures/golden`: a store with its checkpoint, the same checkpoint as Postgres holds it, and
//! dumps, with a description of what is in them; and in `trimmed` the same of one that begins at a snapshot and has lost values to redactions.
//! Every later version has to read them as described. Until the first release they are renewed with the format, by
//! `LAKELOG_REGENERATE=1 cargo test --all-features --test it -- golden::`; `LAKELOG_REGENERATE=postgres` renews the checkpoint in Postgres alone,
//! from the store that is there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use lakelog::dump::{DumpOptions, dump};
use lakelog::log::LogFiles;
use lakelog::{
    Batch, Context, Digest, Env, ErrorKind, Position, PostgresSettings, Redact, RedactOptions, RequestId, Settings,
    Store, TrimOptions,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::Shell;
use crate::postgres_server::{Server, binaries};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden");

/// The two stores: their folders within that one.
const PLAIN: &str = ".";
const TRIMMED: &str = "trimmed";

/// The state that the incremental dump goes on from.
const SINCE: u64 = 8;

/// Partitions whose entries the description names; of the others it has the digest.
const NAMED: [&str; 3] = ["auth", "p", "q"];

/// What is in the store.
#[derive(Debug, Deserialize, Serialize)]
struct Description {
    log_id: String,
    head: u64,
    chain: String,
    /// Where its base stands: below the head, so that opening replays something.
    checkpoint: u64,
    /// The answer of `log --all`.
    log: Vec<Value>,
    /// The answers of `scan` at the head.
    entries: Vec<Value>,
    /// The answer of `history p k1`.
    history: Vec<Value>,
    /// The digest of all entries, keys, versions and values, as of every position; `redacted` where one of them was.
    states: BTreeMap<u64, String>,
}

/// The folder with the files, which are written anew first when that is asked for.
fn golden() -> &'static Path {
    static WRITTEN: OnceLock<()> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let asked = std::env::var("LAKELOG_REGENERATE").unwrap_or_default();
        if asked == "1" {
            regenerate();
        }
        if asked == "1" || asked == "postgres" {
            regenerate_postgres();
        }
    });
    Path::new(FOLDER)
}

fn description(of: &str) -> Description {
    serde_json::from_slice(&fs::read(golden().join(of).join("description.json")).unwrap()).unwrap()
}

fn settings() -> Settings {
    Settings { segment_bytes: 64 << 10, min_free_bytes: Some(0), ..Settings::default() }
}

/// Everything that a log can hold, over three segments, and two checkpoints.
async fn fill(store: &Store) {
    let me = || Context::new("ann").reason("golden");
    let text = |number: usize| format!("value {number} ").repeat(2_000).into_bytes();
    let ten =
        (0..10).fold(Batch::new(), |batch, n| batch.set(b"p", format!("k{n}").as_bytes(), format!("v{n}").as_bytes()));
    store.write(me(), ten).await.unwrap();
    // Field 4 of a user is the address, which an index knows.
    let user = [&[0x22, 15][..], b"ann@example.org"].concat();
    store.write(me(), Batch::new().set(b"auth", b"users/ann", &user)).await.unwrap();
    for number in 0..4 {
        store
            .write(Context::new("bob"), Batch::new().set(b"bulk", format!("{number}").as_bytes(), &text(number)))
            .await
            .unwrap();
    }
    store.checkpoint().await.unwrap();
    store.write(me(), Batch::new().set(b"p", b"k1", b"changed").delete(b"p", b"k2")).await.unwrap();
    let twice = RequestId { id: "once".to_owned(), digest: Digest::of_bytes(b"once") };
    store
        .write(me().request(twice), Batch::new().set(b"q", b"\x00\xff", b"").set(b"q", b"k", b"\x00\x01\x02"))
        .await
        .unwrap();
    let gone =
        store.write(me(), Batch::new().delete_range(b"p", b"k").set(b"p", b"k1", b"alone")).await.unwrap().position;
    store.mark(me(), "before-undo", None).await.unwrap();
    store.undo(me(), gone, gone).await.unwrap();
    for number in 4..7 {
        store
            .write(Context::new("bob"), Batch::new().set(b"bulk", format!("{number}").as_bytes(), &text(number)))
            .await
            .unwrap();
    }
    store.write(me(), Batch::new().delete_range(b"bulk", b"")).await.unwrap();
    store.checkpoint().await.unwrap();
    store.write(me(), Batch::new().set(b"auth", b"users/bob", &user).delete(b"auth", b"users/ann")).await.unwrap();
    store.mark(me(), "last", None).await.unwrap();
}

/// A floor with a snapshot and the former one, a value erased from both frames and snapshots, and one from a frame above the floor.
async fn trim_and_redact(store: &Store) {
    let me = || Context::new("ann").reason("golden");
    let set = async |value: &[u8]| store.write(me(), Batch::new().set(b"q", b"secret", value)).await.unwrap().position;
    store.delete_mark(me(), "before-undo").await.unwrap();
    store.trim(me(), TrimOptions::before(Position(SINCE))).await.unwrap();
    set(b"the first secret").await;
    let second = set(b"the second secret").await;
    store.write(me(), Batch::new().set(b"q", b"k", b"after")).await.unwrap();
    store.delete_mark(me(), "last").await.unwrap();
    store.trim(me(), TrimOptions::before(second.next())).await.unwrap();
    let what = Redact::Key { partition: b"q".to_vec(), key: b"secret".to_vec() };
    assert_eq!(store.redact(me(), RedactOptions::new(what)).await.unwrap().values, 2);
    let third = store.write(me(), Batch::new().set(b"q", b"third", b"a third secret").set(b"q", b"kept", b"v")).await;
    let what = Redact::Key { partition: b"q".to_vec(), key: b"third".to_vec() };
    assert_eq!(store.redact(me(), RedactOptions::new(what)).await.unwrap().values, 1);
    store.checkpoint().await.unwrap();
    store.mark(me(), "third", Some(third.unwrap().position)).await.unwrap();
}

fn regenerate() {
    let _ = fs::remove_dir_all(FOLDER);
    write_golden(PLAIN);
    write_golden(TRIMMED);
}

fn write_golden(of: &str) {
    let folder = Path::new(FOLDER).join(of);
    let shell = Shell::new();
    let store_dir = shell.path("store");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::builder(&store_dir).settings(settings()).create().await.unwrap();
        fill(&store).await;
        if of == TRIMMED {
            trim_and_redact(&store).await;
        }
        store.close().await.unwrap();
    });
    pack(&store_dir, &folder.join("store"));
    let files = LogFiles::open(&Env::os(), &store_dir.join("log")).unwrap();
    let write = |name: &str, options: DumpOptions| {
        let out = File::create(folder.join(name)).unwrap();
        dump(&Env::os(), &files, options, out, name, &mut |_, _| {}).unwrap();
    };
    let plain = DumpOptions { compress: false, ..DumpOptions::default() };
    write("full.dump", plain);
    if of == PLAIN {
        write("compressed.dump", DumpOptions { compress: true, ..plain });
        write("since.dump", DumpOptions { since: Some(Position(SINCE)), compress: true, ..plain });
    }
    runtime.block_on(async {
        let store = Store::builder(&store_dir).settings(settings()).open().await.unwrap();
        let out = File::create(folder.join("state.dump")).unwrap();
        store.dump_state(None, out, "state.dump", true).await.unwrap();
        store.close().await.unwrap();
    });
    // Described from the files as they are now in the repository.
    let shell = unpacked(of);
    let text = serde_json::to_string_pretty(&describe(&shell)).unwrap();
    fs::write(folder.join("description.json"), text + "\n").unwrap();
}

/// The checkpoint of the golden store in Postgres, at the same position, as the statements and rows that make it again. Written in two
/// steps, so that the second one supersedes what the first one brought.
fn regenerate_postgres() {
    let described: Description =
        serde_json::from_slice(&fs::read(Path::new(FOLDER).join("description.json")).unwrap()).unwrap();
    let (golden, server) = (unpacked(PLAIN), Server::shared());
    let url = server.database();
    for position in [SINCE, described.checkpoint] {
        let mut shell = Shell::new();
        let part = shell.path("part").to_str().unwrap().to_owned();
        golden.ok(&["dump", "--at", &position.to_string(), "-o", &part]);
        shell.ok(&["restore", &part]);
        shell.base = Some(url.clone());
        assert_eq!(shell.json(&["checkpoint"])[0]["checkpoint"], position);
    }
    let mut dump = std::process::Command::new(binaries().join("pg_dump"));
    let output = dump.args(["--schema=lakelog", "--no-owner", "--no-privileges", "-d", &url]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // What only the newest psql knows, and comments that name the server's version.
    let text = String::from_utf8(output.stdout).unwrap();
    let kept =
        text.lines().filter(|line| !["\\restrict", "\\unrestrict", "--"].iter().any(|word| line.starts_with(word)));
    let statements: String = kept.flat_map(|line| [line, "\n"]).collect();
    let packed = zstd::encode_all(statements.as_bytes(), 19).unwrap();
    fs::write(Path::new(FOLDER).join("postgres.sql.zst"), packed).unwrap();
}

fn describe(shell: &Shell) -> Description {
    let stats = shell.json(&["stats"]).remove(0);
    let verified = shell.json(&["verify"]).remove(0);
    assert_eq!(verified["ok"], true, "{verified}");
    let head = stats["head"].as_u64().unwrap();
    Description {
        log_id: stats["log_id"].as_str().unwrap().to_owned(),
        head,
        chain: verified["chain"].as_str().unwrap().to_owned(),
        checkpoint: stats["checkpoint"].as_u64().unwrap(),
        log: shell.json(&["log", "--all"]),
        entries: NAMED.iter().flat_map(|partition| shell.json(&["scan", partition])).collect(),
        history: shell.json(&["history", "p", "k1"]),
        states: states(shell, head),
    }
}

/// The digests of everything at each position from the floor on.
fn states(shell: &Shell, head: u64) -> BTreeMap<u64, String> {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut builder = Store::builder(shell.path("store")).settings(settings());
        if let Some(base) = &shell.base {
            builder = builder.with_postgres(PostgresSettings::new(base).unwrap());
        }
        let store = builder.open().await.unwrap();
        let floor = store.stats().await.unwrap().floor.0;
        let mut states = BTreeMap::new();
        for position in floor..=head {
            let mut entries = store.at(Position(position)).await.unwrap().scan_all(false);
            let mut bytes = Vec::new();
            let mut erased = false;
            while let Some(entry) = entries.next().await {
                let entry = match entry {
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        erased = true;
                        break;
                    }
                    entry => entry.unwrap(),
                };
                for part in [&entry.encoded_key[..], &entry.version.0.to_le_bytes(), &entry.value[..]] {
                    bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
                    bytes.extend_from_slice(part);
                }
            }
            let digest = if erased { "redacted".to_owned() } else { hex::encode(Digest::of_bytes(&bytes).0) };
            states.insert(position, digest);
        }
        store.close().await.unwrap();
        states
    })
}

/// Packs a folder file by file: preallocated room takes no place so.
fn pack(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            pack(&entry.path(), &to.join(name));
        } else if kind.is_file() && !["LOCK", "spare.seg"].contains(&name.as_str()) {
            let packed = zstd::encode_all(File::open(entry.path()).unwrap(), 19).unwrap();
            fs::write(to.join(name + ".zst"), packed).unwrap();
        }
    }
}

fn unpack(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        match name.strip_suffix(".zst") {
            Some(name) => {
                fs::write(to.join(name), zstd::decode_all(File::open(entry.path()).unwrap()).unwrap()).unwrap()
            }
            None => unpack(&entry.path(), &to.join(name)),
        }
    }
}

/// A shell on a copy of a golden store.
fn unpacked(of: &str) -> Shell {
    let shell = Shell::new();
    unpack(&Path::new(FOLDER).join(of).join("store"), &shell.path("store"));
    shell
}

/// Whether an answer says what was recorded; it may say more.
fn says(found: &Value, recorded: &Value) -> bool {
    match (found, recorded) {
        (Value::Object(found), Value::Object(recorded)) => {
            recorded.iter().all(|(name, value)| found.get(name).is_some_and(|found| says(found, value)))
        }
        (Value::Array(found), Value::Array(recorded)) => {
            found.len() == recorded.len() && found.iter().zip(recorded).all(|(found, recorded)| says(found, recorded))
        }
        _ => found == recorded,
    }
}

#[track_caller]
fn same(found: Vec<Value>, recorded: &[Value]) {
    assert!(says(&Value::from(found.clone()), &Value::from(recorded.to_vec())), "{found:#?}\nis not\n{recorded:#?}");
}

/// Entries, log and every state are as described.
fn compare(shell: &Shell, described: &Description) {
    let found = describe(shell);
    assert_eq!((&found.log_id, found.head, &found.chain), (&described.log_id, described.head, &described.chain));
    same(found.log, &described.log);
    same(found.entries, &described.entries);
    same(found.history, &described.history);
    assert_eq!(found.states, described.states);
}

fn path(of: &str, name: &str) -> String {
    golden().join(of).join(name).to_str().unwrap().to_owned()
}

#[test]
fn fault_32_the_store_opens_on_its_checkpoint() {
    for of in [PLAIN, TRIMMED] {
        let described = description(of);
        let shell = unpacked(of);
        // The base is taken as it is, not built anew from the log.
        assert!(described.checkpoint > 0 && described.checkpoint < described.head);
        assert_eq!(shell.json(&["stats"])[0]["checkpoint"], described.checkpoint);
        compare(&shell, &described);
        let next = shell.json(&["set", "p", "later", "v"]).remove(0)["position"].as_u64();
        assert_eq!(next, Some(described.head + 1));
        shell.ok(&["checkpoint"]);
        assert_eq!(shell.json(&["verify"])[0]["ok"], true);
    }
}

#[test]
fn fault_32_the_store_opens_on_its_checkpoint_in_postgres() {
    let described = description(PLAIN);
    let mut shell = unpacked(PLAIN);
    fs::remove_dir_all(shell.path("store/base")).unwrap();
    let url = Server::shared().database();
    let database = url.rsplit('/').next().unwrap();
    let statements = shell.path("postgres.sql");
    fs::write(&statements, zstd::decode_all(File::open(path(PLAIN, "postgres.sql.zst")).unwrap()).unwrap()).unwrap();
    Server::shared().load(database, &statements);
    shell.base = Some(url.clone());
    let superseded =
        || Server::shared().sql(database, "select count(*) from lakelog.superseded").parse::<u32>().unwrap();
    assert!(superseded() > 10);
    let (id, made) = ("select id, generation from lakelog.bases", "select max(made) from lakelog.schema_versions");
    let before = [id, made].map(|query| Server::shared().sql(database, query));
    // The base is taken as it is, not built anew from the log.
    assert_eq!(shell.json(&["stats"])[0]["checkpoint"], described.checkpoint);
    compare(&shell, &described);
    assert_eq!([id, made].map(|query| Server::shared().sql(database, query)), before);
    let next = shell.json(&["set", "p", "later", "v"]).remove(0)["position"].as_u64();
    assert_eq!(next, Some(described.head + 1));
    shell.ok(&["checkpoint"]);
    assert_eq!(shell.json(&["verify"])[0]["ok"], true);
    assert!(!shell.path("store/base").exists());
}

#[test]
fn fault_32_the_store_opens_without_its_checkpoint() {
    for of in [PLAIN, TRIMMED] {
        let described = description(of);
        let shell = unpacked(of);
        fs::remove_dir_all(shell.path("store/base")).unwrap();
        let floor = described.states.keys().next().copied();
        assert_eq!(shell.json(&["stats"])[0]["checkpoint"].as_u64(), floor);
        compare(&shell, &described);
    }
}

#[test]
fn the_trimmed_store_holds_what_it_is_there_for() {
    let described = description(TRIMMED);
    let floor = *described.states.keys().next().unwrap();
    assert!(floor > SINCE && floor < described.head, "{floor}");
    // In a frame above the floor, and in the state at it.
    let erased: Vec<u64> =
        described.states.iter().filter(|(_, state)| *state == "redacted").map(|(at, _)| *at).collect();
    assert!(erased.contains(&floor) && erased.len() > 2 && erased.len() < described.states.len(), "{erased:?}");
    let shell = unpacked(TRIMMED);
    for (key, at) in [("secret", floor), ("third", *erased.last().unwrap())] {
        shell.fails(&["get", "q", key, "--at", &at.to_string()], 3, "not_found");
        let versions = shell.json(&["history", "q", key]);
        assert_eq!((&versions[0]["redacted"], &versions[0]["value"]), (&true.into(), &Value::Null), "{key}");
    }
    let snapshots = fs::read_dir(shell.path("store/log")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(snapshots.filter(|name| name.to_str().unwrap().starts_with("snapshot-")).count(), 2);
    for name in ["store", "store/log", "store/base"] {
        for entry in fs::read_dir(shell.path(name)).unwrap().map(|entry| entry.unwrap().path()) {
            let bytes = if entry.is_file() { fs::read(&entry).unwrap() } else { Vec::new() };
            assert!(!bytes.windows(7).any(|window| window == b" secret"), "{}", entry.display());
        }
    }
}

#[test]
fn fault_32_the_dumps_are_restored() {
    for (of, name) in [(PLAIN, "full.dump"), (PLAIN, "compressed.dump"), (TRIMMED, "full.dump")] {
        let described = description(of);
        let shell = Shell::new();
        shell.ok(&["verify", &path(of, name)]);
        shell.ok(&["restore", &path(of, name)]);
        compare(&shell, &described);
        let again: PathBuf = shell.path("again");
        shell.ok(&["dump", "--no-compress", "-o", again.to_str().unwrap()]);
        assert!(
            fs::read(again).unwrap() == fs::read(path(of, "full.dump")).unwrap(),
            "{of} {name}: a dump of what was restored is another"
        );
    }
    let shell = Shell::new();
    let first = shell.path("first");
    let whole = unpacked(PLAIN);
    whole.ok(&["dump", "--at", &SINCE.to_string(), "-o", first.to_str().unwrap()]);
    shell.ok(&["restore", first.to_str().unwrap(), &path(PLAIN, "since.dump")]);
    compare(&shell, &description(PLAIN));
}

#[test]
fn fault_32_the_state_is_restored() {
    for of in [PLAIN, TRIMMED] {
        let described = description(of);
        let shell = Shell::new();
        shell.ok(&["restore", &path(of, "state.dump")]);
        let stats = shell.json(&["stats"]).remove(0);
        assert_eq!((&stats["head"], &stats["floor"]), (&described.head.into(), &described.head.into()));
        assert_ne!(stats["log_id"], described.log_id);
        let entries = NAMED.iter().flat_map(|partition| shell.json(&["scan", partition])).collect();
        same(entries, &described.entries);
        assert_eq!(
            states(&shell, described.head),
            BTreeMap::from([(described.head, described.states[&described.head].clone())])
        );
        assert_eq!(shell.json(&["verify"])[0]["ok"], true);
    }
}
