//! Real file systems that fill up, get room again, or turn read-only: mounted where nobody else sees them.
//!
//! A test runs itself again in a mount namespace of its own, as root or as the root of a user namespace. Where neither can be had
//! the tests say on standard error that they were left out; with `LAKELOG_MOUNTS=required` they fail instead. No installed package makes a
//! container mount anything, so that it is CI is no reason to fail.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use lakelog::{Batch, Context, ErrorKind, Position, Result, ScanOptions, Settings, Store, TrimOptions};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::child;
use crate::cli::Shell;

/// What a test mounts.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// In memory: also for users who are root in their own namespace only.
    Tmpfs,
    /// In a file: needs a loop device, so the real root.
    Ext4,
}

/// Runs a test in a process that may mount file systems of this kind.
fn where_it_may_mount(test: &str, kind: Kind, run: impl FnOnce()) {
    if child::role().is_some() {
        return run();
    }
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let wrapper: &[&str] = if is_root { &["unshare", "--mount"] } else { &["unshare", "--map-root-user", "--mount"] };
    let probe = match kind {
        Kind::Tmpfs => "mount -t tmpfs -o size=64k none /mnt",
        Kind::Ext4 => "losetup --find && command -v mkfs.ext4",
    };
    let tried = Command::new(wrapper[0]).args(&wrapper[1..]).args(["sh", "-c", probe]).output();
    let refused = match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(refused) = refused {
        let message = format!("{test}: NOT RUN, no file system of kind {kind:?} can be mounted: {refused}");
        assert!(env::var_os("LAKELOG_MOUNTS").is_none_or(|wanted| wanted != "required"), "{message}");
        // Not the macro: the harness would keep to itself what it prints.
        io::stderr().write_all(format!("{message}\n").as_bytes()).unwrap();
        return;
    }
    child::passes(child::again_under(wrapper, test, "mounts"));
}

/// A mounted file system, gone when dropped.
struct Disk {
    scratch: TempDir,
    source: String,
    options: String,
    kind: Kind,
}

impl Disk {
    fn new(kind: Kind, mib: u64) -> Disk {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("disk")).unwrap();
        let (source, options) = match kind {
            Kind::Tmpfs => ("none".to_owned(), format!("size={mib}m")),
            Kind::Ext4 => {
                let image = scratch.path().join("image");
                fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
                run(Command::new("mkfs.ext4").arg("-q").arg("-F").arg(&image));
                (image.to_str().unwrap().to_owned(), "loop,errors=remount-ro".to_owned())
            }
        };
        let disk = Disk { scratch, source, options, kind };
        disk.mount(&disk.options);
        disk
    }

    fn path(&self) -> PathBuf {
        self.scratch.path().join("disk")
    }

    fn mount(&self, options: &str) {
        let kind = match self.kind {
            Kind::Tmpfs => "tmpfs",
            Kind::Ext4 => "ext4",
        };
        run(Command::new("mount").args(["-t", kind, "-o", options, &self.source]).arg(self.path()));
    }

    /// Unmounted and mounted again, as after a restart.
    fn remount(&self) {
        run(Command::new("umount").arg(self.path()));
        self.mount(&self.options);
    }

    /// A file that leaves only so many bytes free.
    fn fill(&self, left: u64) -> PathBuf {
        let filler = self.path().join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        let block = [7; 4096];
        while free(&self.path()) > left {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
        // What the file system has not placed yet does not count before.
        file.sync_all().unwrap();
        filler
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn free(path: &Path) -> u64 {
    use lakelog::env::Fs as _;
    lakelog::env::OsFs.space(path).unwrap().free
}

/// A store under test, and what it acknowledged.
struct Kept {
    dir: PathBuf,
    open: Option<Store>,
    entries: BTreeMap<Vec<u8>, (Vec<u8>, Position)>,
    number: u64,
}

/// Keys that are written over and over: what is live stays small, so a trim has something to give back.
const KEYS: u64 = 8;

impl Kept {
    fn settings() -> Settings {
        Settings {
            segment_bytes: 1 << 20,
            memtable_soft_bytes: 1 << 20,
            // What waits for its checkpoint, and a few merges, find room in what is kept: a generation of the base takes 2 MiB at least.
            memtable_hard_bytes: 4 << 20,
            min_free_bytes: Some(24 << 20),
            scrub_bytes_per_second: 0,
            ..Settings::default()
        }
    }

    async fn create(dir: PathBuf) -> Kept {
        let store = Store::builder(&dir).settings(Kept::settings()).create().await.unwrap();
        Kept { dir, open: Some(store), entries: BTreeMap::new(), number: 0 }
    }

    fn store(&self) -> &Store {
        self.open.as_ref().unwrap()
    }

    async fn write(&mut self) -> Result<()> {
        self.number += 1;
        let key = (self.number % KEYS).to_string().into_bytes();
        let mut value = self.number.to_le_bytes().to_vec();
        value.resize(64 << 10, 3);
        let done = self.store().write(Context::new("test"), Batch::new().set(b"p", &key, &value)).await?;
        self.entries.insert(key, (value, done.position));
        Ok(())
    }

    /// Writes until it is refused.
    async fn exhaust(&mut self) -> lakelog::Error {
        for _ in 0..100_000 {
            if let Err(error) = self.write().await {
                return error;
            }
        }
        panic!("the disk never got full");
    }

    /// Everything acknowledged is there, and nothing else.
    async fn check(&self) {
        let mut found = BTreeMap::new();
        let mut entries = self.store().scan(ScanOptions::new(b"p")).unwrap();
        while let Some(entry) = entries.next().await {
            let entry = entry.unwrap();
            found.insert(entry.key().to_vec(), (entry.value.to_vec(), entry.version));
        }
        assert!(found == self.entries, "other entries than were acknowledged");
    }

    async fn open(&mut self) -> Result<()> {
        self.open = Some(Store::builder(&self.dir).settings(Kept::settings()).open().await?);
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        self.open.take().unwrap().close().await
    }

    async fn trim(&self, before: Position) {
        self.store().trim(Context::new("test"), TrimOptions::before(before)).await.unwrap();
    }
}

fn fills_up_and_gets_room_again(disk: &Disk) {
    Runtime::new().unwrap().block_on(async {
        let mut kept = Kept::create(disk.path().join("store")).await;
        kept.write().await.unwrap();
        let filler = disk.fill(40 << 20);
        let refused = kept.exhaust().await;
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{}", refused.report());
        kept.check().await;
        assert_eq!(kept.write().await.unwrap_err().kind(), ErrorKind::Unavailable, "still full");

        // Somebody makes room: it goes on by itself.
        fs::remove_file(filler).unwrap();
        kept.write().await.unwrap();
        let refused = kept.exhaust().await;
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{}", refused.report());
        kept.check().await;

        // Nobody does: what was kept from ordinary writes is enough to give up history.
        let head = kept.store().head();
        for before in [Position(head.0 / 2), head] {
            kept.trim(before).await;
        }
        kept.write().await.unwrap();
        kept.check().await;

        // Full to the last byte: it closes, opens and reads.
        let refused = kept.exhaust().await;
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{}", refused.report());
        let filler = disk.fill(0);
        kept.close().await.unwrap();
        kept.open().await.unwrap();
        kept.check().await;
        fs::remove_file(filler).unwrap();
        kept.trim(kept.store().head()).await;
        kept.write().await.unwrap();
        kept.close().await.unwrap();
        kept.open().await.unwrap();
        kept.check().await;
        kept.close().await.unwrap();
    });
}

#[test]
fn fault_12_a_small_tmpfs_fills_up_and_gets_room_again() {
    where_it_may_mount("disk::fault_12_a_small_tmpfs_fills_up_and_gets_room_again", Kind::Tmpfs, || {
        fills_up_and_gets_room_again(&Disk::new(Kind::Tmpfs, 128));
    });
}

#[test]
fn fault_12_a_small_ext4_fills_up_and_gets_room_again() {
    where_it_may_mount("disk::fault_12_a_small_ext4_fills_up_and_gets_room_again", Kind::Ext4, || {
        fills_up_and_gets_room_again(&Disk::new(Kind::Ext4, 128));
    });
}

/// Large transactions for `apply`: few fill a segment.
fn line(number: u64) -> String {
    let value = "v".repeat(1 << 20);
    format!(r#"{{"ops":[{{"op":"set","partition":"p","key":"{}","value":"{number:08}{value}"}}]}}"#, number % KEYS)
}

#[test]
fn fault_12_apply_goes_on_when_the_disk_has_room_again() {
    where_it_may_mount("disk::fault_12_apply_goes_on_when_the_disk_has_room_again", Kind::Tmpfs, || {
        // Two segments of the usual size and a bit.
        let disk = Disk::new(Kind::Tmpfs, 256);
        let shell = Shell::new();
        let store = disk.path().join("store");
        shell.ok(&["--store", store.to_str().unwrap(), "init"]);
        let filler = disk.fill(24 << 20);
        let mut child = shell.spawn(&["--store", store.to_str().unwrap(), "apply", "-"]);
        let mut input = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut positions = 0;
        let mut number = 0;
        let mut apply = || {
            number += 1;
            writeln!(input, "{}", line(number)).unwrap();
            let answer: Value = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
            (number, answer)
        };
        let (refused, answer) =
            (0..200).map(|_| apply()).inspect(|_| positions += 1).find(|(_, a)| a["position"].is_null()).unwrap();
        positions -= 1;
        assert_eq!(answer["error"], "unavailable", "{answer}");
        assert!(refused > 32, "a segment has room for more: {refused}");
        fs::remove_file(filler).unwrap();
        for _ in 0..3 {
            positions += 1;
            let (_, answer) = apply();
            assert_eq!(answer["position"], positions, "{answer}");
        }
        let last = number;
        drop(input);
        assert_eq!(child.wait().unwrap().code(), Some(7), "a line failed");
        let found = shell.json(&["--store", store.to_str().unwrap(), "get", "p", &(last % KEYS).to_string()]);
        assert!(found[0]["value"].as_str().unwrap().starts_with(&format!("{last:08}")));
    });
}

#[test]
fn fault_15_an_ext4_that_turns_read_only_under_an_open_store() {
    where_it_may_mount("disk::fault_15_an_ext4_that_turns_read_only_under_an_open_store", Kind::Ext4, || {
        let disk = Disk::new(Kind::Ext4, 64);
        Runtime::new().unwrap().block_on(async {
            let mut kept = Kept::create(disk.path().join("store")).await;
            for _ in 0..20 {
                kept.write().await.unwrap();
            }
            // What the kernel does when it finds its own structures damaged.
            let device = Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(disk.path()).output().unwrap();
            let device = String::from_utf8(device.stdout).unwrap();
            let device = device.trim().trim_start_matches("/dev/");
            fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").unwrap();
            let failed = kept.exhaust().await;
            assert_eq!(failed.kind(), ErrorKind::Unknown, "{}", failed.report());
            assert_eq!(kept.write().await.unwrap_err().kind(), ErrorKind::Closed);
            kept.check().await;
            assert_eq!(kept.close().await.unwrap_err().kind(), ErrorKind::Closed);
            assert_eq!(kept.open().await.unwrap_err().kind(), ErrorKind::Unavailable);

            disk.remount();
            kept.open().await.unwrap();
            // The one whose fate is unknown may be there.
            let head = kept.store().head();
            if kept.entries.values().all(|(_, position)| *position < head) {
                let key = ((kept.number - 1) % KEYS).to_string().into_bytes();
                let entry = kept.store().get(b"p", &key).await.unwrap().unwrap();
                assert_eq!((entry.version, &entry.value[..8]), (head, &(kept.number - 1).to_le_bytes()[..]));
                kept.entries.insert(key, (entry.value.to_vec(), entry.version));
            }
            kept.check().await;
            kept.write().await.unwrap();
            kept.close().await.unwrap();
        });
    });
}

#[test]
fn fault_15_a_tmpfs_that_was_mounted_read_only() {
    where_it_may_mount("disk::fault_15_a_tmpfs_that_was_mounted_read_only", Kind::Tmpfs, || {
        let disk = Disk::new(Kind::Tmpfs, 64);
        let dir = disk.path().join("store");
        let runtime = Runtime::new().unwrap();
        let mut kept = runtime.block_on(async {
            let mut kept = Kept::create(dir.clone()).await;
            kept.write().await.unwrap();
            kept.close().await.unwrap();
            kept
        });
        disk.mount("remount,ro");
        let shell = Shell::new();
        let store = dir.to_str().unwrap();
        shell.fails(&["--store", store, "set", "p", "k", "v"], 6, "unavailable");
        shell.fails(&["--store", store, "get", "p", "1"], 6, "unavailable");
        assert_eq!(shell.json(&["--store", store, "log"]).len(), 1);
        assert_eq!(shell.json(&["--store", store, "verify"])[0]["ok"], true);
        disk.mount("remount,rw");
        runtime.block_on(async {
            kept.open().await.unwrap();
            kept.check().await;
            kept.write().await.unwrap();
            kept.close().await.unwrap();
        });
    });
}
