//! The real process, killed at random moments, against a witness outside that holds what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use lakelog::env::Env;
use lakelog::event::Transaction;
use lakelog::log::{Check, LogFiles};
use lakelog::{Batch, Context, Digest, Position, RequestId, ScanOptions, Settings, Store, TrimOptions};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::child;
use crate::cli::Shell;

/// Keys that are written over and over.
const KEYS: u64 = 300;
const ACKNOWLEDGED_MAX: u64 = 300;
/// Transactions under way at once.
const WRITERS: u64 = 16;

/// Small segments and memtables, so that a short life sees many rotations and checkpoints.
fn settings() -> Settings {
    Settings {
        segment_bytes: 64 << 10,
        min_free_bytes: Some(0),
        memtable_soft_bytes: 32 << 10,
        checkpoint_log_bytes: 64 << 10,
        scrub_bytes_per_second: 0,
        ..Settings::default()
    }
}

/// Key and value of a transaction: two partitions get both, so that half of it would show.
fn content(life: u64, number: u64) -> (String, String) {
    ((number % KEYS).to_string(), format!("{life:08}{number:08}"))
}

/// The witness: outside of the processes that die, it believes what they said while they lived.
struct Witness {
    dir: PathBuf,
    runtime: Runtime,
    /// Key to the value and position that were acknowledged last.
    entries: BTreeMap<String, (String, u64)>,
    /// Position to the request that was acknowledged there.
    requests: BTreeMap<u64, String>,
    head: u64,
    floor: u64,
}

impl Witness {
    /// Of an empty store.
    fn new(dir: &Path) -> Witness {
        let witness = Witness::of(dir);
        let store = Store::builder(dir).settings(settings());
        witness.runtime.block_on(async { store.create().await.unwrap().close().await.unwrap() });
        witness
    }

    /// Of a store that it was told nothing about.
    fn of(dir: &Path) -> Witness {
        let (entries, requests) = (BTreeMap::new(), BTreeMap::new());
        Witness { dir: dir.to_owned(), runtime: Runtime::new().unwrap(), entries, requests, head: 0, floor: 0 }
    }

    fn acknowledged(&mut self, life: u64, number: u64, position: u64) {
        let (key, value) = content(life, number);
        // Answers of different transactions may overtake one another on the way here.
        if self.entries.get(&key).is_none_or(|(_, newest)| position > *newest) {
            self.entries.insert(key, (value, position));
        }
        let twice = self.requests.insert(position, format!("{life}-{number}"));
        assert_eq!(twice, None, "two were told position {position}");
    }

    /// Opens what was left and holds it against what was told.
    fn check(&mut self) {
        let when = format!("after position {}", self.head);
        let (left, right) = self.runtime.block_on(async {
            let store = Store::builder(&self.dir).settings(settings()).serve_readers(false).open().await.unwrap();
            let found = (entries(&store, b"left").await, entries(&store, b"right").await);
            store.close().await.unwrap();
            found
        });
        assert_eq!(left, right, "{when}: half a transaction is visible");
        for (key, (value, position)) in &self.entries {
            let (found, version) = left.get(key).unwrap_or_else(|| panic!("{when}: key {key} is gone"));
            // A later value may have been in flight, written but not acknowledged; an earlier one was lost.
            assert!(version >= position, "{when}: key {key} acknowledged at {position} is at {version}");
            assert!(version > position || found == value, "{when}: key {key} has another value");
        }
        self.check_log(&when);
    }

    fn check_log(&mut self, when: &str) {
        let files = LogFiles::open(&Env::os(), &self.dir.join("log")).unwrap();
        let floor = files.floor().position.0;
        assert!(floor >= self.floor, "{when}: the floor fell from {} to {floor}", self.floor);
        let (mut seen, mut at) = (BTreeSet::new(), floor);
        for frame in files.frames(Position(floor + 1), Check::Order).unwrap() {
            let frame = frame.unwrap();
            at += 1;
            assert_eq!(frame.position, Position(at), "{when}: positions are not dense");
            let request = Transaction::decode(frame.payload).unwrap().request.map(|request| request.id);
            if let Some(told) = self.requests.get(&at) {
                assert_eq!(request.as_ref(), Some(told), "{when}: another transaction is at {at}");
            }
            assert!(request.is_none_or(|id| seen.insert(id)), "{when}: a transaction was applied twice");
        }
        assert!(at >= self.head, "{when}: the log ends at {at}");
        let acknowledged = self.requests.last_key_value().map_or(0, |(position, _)| *position);
        assert!(at >= acknowledged, "{when}: the log ends at {at}, acknowledged was {acknowledged}");
        (self.head, self.floor) = (at, floor);
        self.requests.retain(|position, _| *position > floor);
    }
}

/// What a partition holds: key to value and version.
async fn entries(store: &Store, partition: &[u8]) -> BTreeMap<String, (String, u64)> {
    let mut found = BTreeMap::new();
    let mut scan = store.scan(ScanOptions::new(partition)).unwrap();
    while let Some(entry) = scan.next().await {
        let entry = entry.unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        found.insert(text(&entry.key()), (text(&entry.value), entry.version.0));
    }
    found
}

/// The complete lines of a process that is to be killed: one without its end was cut off, so nobody was told anything by it.
fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let mut output = BufReader::new(child.stdout.take().unwrap());
    std::iter::from_fn(move || {
        let mut line = String::new();
        let read = output.read_line(&mut line).unwrap();
        (read > 0 && line.ends_with('\n')).then_some(line)
    })
}

/// One line of `apply`.
fn line(life: u64, number: u64) -> String {
    let (key, value) = content(life, number);
    let value = BASE64_STANDARD.encode(value);
    let set = |partition| format!(r#"{{"op":"set","partition":"{partition}","key":"{key}","value":"{value}"}}"#);
    format!(r#"{{"id":"{life}-{number}","ops":[{},{}]}}"#, set("left"), set("right"))
}

/// Feeds `apply` until so many are acknowledged, kills it, and notes what it had said.
fn kill_apply(shell: &Shell, witness: &mut Witness, life: u64) {
    let mut child = shell.spawn(&["apply", "-", "--concurrency", &WRITERS.to_string()]);
    let mut input = child.stdin.take().unwrap();
    // Ends by itself: a killed process does not read.
    let feeder = thread::spawn(move || (1..).try_for_each(|number| writeln!(input, "{}", line(life, number))));
    let enough = rand::random_range(1..ACKNOWLEDGED_MAX);
    let mut count = 0;
    for answer in lines(&mut child) {
        let told: Value = serde_json::from_str(&answer).unwrap();
        let position = told["position"].as_u64().unwrap_or_else(|| panic!("refused: {answer}"));
        witness.acknowledged(life, told["line"].as_u64().unwrap(), position);
        count += 1;
        if count == enough {
            child.kill().unwrap();
        }
    }
    assert_eq!(child.wait().unwrap().signal(), Some(9), "the process ended by itself");
    let _ = feeder.join().unwrap();
}

/// Kills a verb at some moment of its short life; whether it was over by then.
fn kill_verb(shell: &Shell, args: &[&str]) -> bool {
    let mut child = shell.command(args).spawn().unwrap();
    thread::sleep(Duration::from_micros(rand::random_range(0..60_000)));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.success() || status.signal() == Some(9), "{args:?}: {status}");
    status.success()
}

/// How many lives a store has in a test: as many as usual, or `LAKELOG_LIVES`.
fn lives(usual: u64) -> u64 {
    std::env::var("LAKELOG_LIVES").map_or(usual, |lives| lives.parse().unwrap())
}

#[test]
fn fault_09_what_was_acknowledged_survives_a_kill() {
    let shell = Shell::within(child::directory_in_memory(512 << 20));
    let mut witness = Witness::new(&shell.path("store"));
    for life in 0..lives(36) {
        kill_apply(&shell, &mut witness, life);
        witness.check();
        if life % 4 == 1 {
            kill_verb(&shell, &["checkpoint"]);
            witness.check();
        }
        if life % 4 == 3 {
            let before = (witness.head - 20).max(witness.floor + 1);
            kill_verb(&shell, &["trim", "--before", &before.to_string()]);
            witness.check();
        }
    }
    assert_eq!(shell.json(&["verify"])[0]["ok"], true);
}

/// When to kill a store that is at work.
#[derive(Debug)]
enum Moment {
    /// So many are acknowledged.
    Acknowledged(u64),
    /// This has begun for the n-th time.
    Begun(&'static str, u64),
}

const AT_WORK: &str = "kill::fault_09_kills_during_checkpoints_and_trims";

#[test]
fn fault_09_kills_during_checkpoints_and_trims() {
    if let Some(role) = child::role() {
        return match role.split(' ').collect::<Vec<_>>()[..] {
            ["after", told, dir] => after_a_power_cut(Path::new(told), Path::new(dir)),
            [life, dir] => work(life.parse().unwrap(), Path::new(dir)),
            _ => panic!("no such role: {role}"),
        };
    }
    let scratch = child::directory_in_memory(256 << 20);
    let dir = scratch.path().join("store");
    let mut witness = Witness::new(&dir);
    let mut interrupted: BTreeMap<&str, u64> = BTreeMap::new();
    for life in 0..lives(150) {
        let moment = match life % 3 {
            0 => Moment::Acknowledged(rand::random_range(1..ACKNOWLEDGED_MAX)),
            1 => Moment::Begun("checkpoint", rand::random_range(1..6)),
            _ => Moment::Begun("trim", rand::random_range(1..4)),
        };
        for what in kill_at(&mut witness, life, &moment) {
            *interrupted.entry(what).or_default() += 1;
        }
        witness.check();
    }
    // Else the kills came at other moments than they were meant for.
    let enough = lives(150) / 10;
    assert!(interrupted["checkpoint"] >= enough && interrupted["trim"] >= enough, "{interrupted:?}");
    let shell = Shell::new();
    assert_eq!(shell.json(&["verify", "--store", dir.to_str().unwrap()])[0]["ok"], true);
}

/// Lets a store work until the moment, kills it, and says what that interrupted.
fn kill_at(witness: &mut Witness, life: u64, moment: &Moment) -> Vec<&'static str> {
    let mut child = child::again(AT_WORK, &format!("{life} {}", witness.dir.display())).spawn().unwrap();
    let (mut acknowledged, mut killed) = (0, false);
    // How often each has begun, and ended.
    let mut chores = BTreeMap::from([("checkpoint", (0, 0)), ("trim", (0, 0))]);
    for told in lines(&mut child) {
        let words: Vec<&str> = told.split_whitespace().collect();
        match words[..] {
            ["acknowledged", number, position] => {
                witness.acknowledged(life, number.parse().unwrap(), position.parse().unwrap());
                acknowledged += 1;
            }
            ["begins", what] => chores.get_mut(what).unwrap().0 += 1,
            ["ends", what] => chores.get_mut(what).unwrap().1 += 1,
            ["fails", ..] => panic!("life {life}: {told}"),
            // The test harness says something, too.
            _ => continue,
        }
        let reached = match moment {
            Moment::Acknowledged(enough) => acknowledged >= *enough,
            Moment::Begun(what, times) => chores[what].0 >= *times,
        };
        if reached && !killed {
            if let Moment::Begun(..) = moment {
                thread::sleep(Duration::from_micros(rand::random_range(0..3000)));
            }
            child.kill().unwrap();
            killed = true;
        }
    }
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "life {life}: the process ended by itself");
    chores.into_iter().filter(|(_, (begun, ended))| begun > ended).map(|(what, _)| what).collect()
}

/// Holds what a machine left that lost its power against what [`work`] had told by then: `scripts/powercuts` makes such machines.
fn after_a_power_cut(told: &Path, dir: &Path) {
    let mut witness = Witness::of(dir);
    // The last line may have been cut off.
    let told = fs::read_to_string(told).unwrap();
    for line in told.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["acknowledged", number, position] => {
                witness.acknowledged(0, number.parse().unwrap(), position.parse().unwrap());
            }
            ["fails", ..] => panic!("{line}"),
            _ => {}
        }
    }
    witness.check();
}

/// What the killed process does: it writes, and brings what it wrote into the base, and trims, all at once.
#[expect(clippy::print_stdout, reason = "the witness reads it")]
fn work(life: u64, dir: &Path) {
    Runtime::new().unwrap().block_on(async {
        // The test harness left its line open.
        println!();
        let store = Store::builder(dir).settings(settings()).serve_readers(false).open_or_create().await.unwrap();
        let (numbers, floor) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(store.head().0)));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..WRITERS {
            let (store, numbers, floor) = (store.clone(), numbers.clone(), floor.clone());
            tasks.spawn(async move {
                loop {
                    // Trims keep up, else a life is spent on merging what they leave behind.
                    if store.head().0 > floor.load(Ordering::Relaxed) + 200 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        continue;
                    }
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    let (key, value) = content(life, number);
                    let request = RequestId { id: format!("{life}-{number}"), digest: Digest([0; 32]) };
                    let batch = Batch::new().set(b"left", key.as_bytes(), value.as_bytes());
                    let batch = batch.set(b"right", key.as_bytes(), value.as_bytes());
                    match store.write(Context::new("writer").request(request), batch).await {
                        Ok(done) => println!("acknowledged {number} {}", done.position),
                        Err(error) => println!("fails {}", error.report()),
                    }
                }
            });
        }
        let checkpointing = store.clone();
        tasks.spawn(async move {
            let mut checkpoint = Position::ZERO;
            loop {
                if checkpointing.head().0 < checkpoint.0 + 60 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
                println!("begins checkpoint");
                match checkpointing.checkpoint().await {
                    Ok(done) => {
                        checkpoint = done;
                        println!("ends checkpoint");
                    }
                    Err(error) => println!("fails {}", error.report()),
                }
            }
        });
        tasks.spawn(async move {
            let mut trimmed = Position::ZERO;
            loop {
                let before = Position(store.head().0.saturating_sub(30));
                if before.0 < trimmed.0 + 20 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
                println!("begins trim");
                match store.trim(Context::new("trimmer"), TrimOptions::before(before)).await {
                    Ok(done) => {
                        trimmed = done.floor.next();
                        floor.store(done.floor.0, Ordering::Relaxed);
                        println!("ends trim");
                    }
                    Err(error) => println!("fails {}", error.report()),
                }
            }
        });
        while tasks.join_next().await.is_some() {}
    });
}
