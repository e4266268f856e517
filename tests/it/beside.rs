//! Reading a store that another process has open: through its socket, at one position, and never its base.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin};

use lakelog::{At, Batch, BesideReader, Context, DiffOptions, ErrorKind, Position, ScanOptions, Store};
use serde_json::{Value, json};

use crate::cli::Shell;

/// A process that has the store open and writes line by line.
struct Writer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<std::process::ChildStdout>,
}

impl Writer {
    fn start(shell: &Shell) -> Writer {
        let mut child = shell.spawn(&["apply", "-"]);
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Writer { child, input, output }
    }

    fn set(&mut self, key: &str, value: &str) -> u64 {
        let line = json!({"ops": [{"op": "set", "partition": "p", "key": key, "value": value}]});
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()["position"].as_u64().unwrap()
    }

    fn end(mut self) {
        drop(self.input.take());
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn every_reading_verb_works_beside_a_writer() {
    // A path that no socket could have.
    let mut shell = Shell::with_store();
    shell.rename(&"x".repeat(100));
    let value = |shell: &Shell, args: &[&str]| String::from_utf8(shell.ok(args)).unwrap();
    // In JSON a value of `apply` is base64.
    let base64 = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let mut writer = Writer::start(&shell);
    writer.set("a", &base64("one"));
    writer.set("b", &base64("two"));
    let third = writer.set("a", &base64("three"));
    assert_eq!(third, 3);
    assert_eq!(value(&shell, &["get", "p", "a"]), "three");
    assert_eq!(value(&shell, &["get", "p", "a", "--at", "1"]), "one");
    assert_eq!(shell.json(&["scan", "p"]).len(), 2);
    assert_eq!(shell.json(&["scan", "p", "--at", "1", "--limit", "5"]).len(), 1);
    assert_eq!(shell.json(&["history", "p", "a"]).len(), 2);
    assert_eq!(shell.json(&["diff", "1", "3"]).len(), 2);
    assert_eq!(shell.json(&["export"]).len(), 3, "a header and two entries");
    let stats = &shell.json(&["stats"])[0];
    assert_eq!((stats["head"].clone(), stats["entries"].clone()), (json!(3), json!(2)));
    // A state of the past, and that of now, as stores of their own.
    for (at, entries) in [("1", 1), ("2", 2), ("3", 2)] {
        let path = |name: &str| shell.path(&format!("{name}-{at}")).display().to_string();
        shell.ok(&["dump", "-o", &path("state"), "--state-only", "--at", at]);
        shell.ok(&["--store", &path("restored"), "restore", &path("state")]);
        let restored = shell.json(&["--store", &path("restored"), "scan", "p"]);
        assert_eq!(restored, shell.json(&["scan", "p", "--at", at]));
        assert_eq!(restored.len(), entries);
    }
    shell.fails(&["get", "p", "nothing"], 3, "not_found");
    shell.fails(&["get", "p", "a", "--at", "99"], 2, "invalid");
    shell.fails(&["get", "p", "a", "--at", "nosuchmark"], 3, "not_found");
    // Changing it is for the one who has it open.
    shell.fails(&["set", "p", "a", "v"], 6, "unavailable");
    assert_eq!(writer.set("c", &base64("four")), 4);
    writer.end();
    assert_eq!(value(&shell, &["get", "p", "c"]), "four");
    assert!(!shell.path(&"x".repeat(100)).join("read.sock").exists(), "a closed store listens to nobody");
}

#[test]
fn a_socket_that_a_kill_left_is_in_nobodys_way() {
    let shell = Shell::with_store();
    let mut writer = Writer::start(&shell);
    writer.set("a", "b25l");
    writer.child.kill().unwrap();
    writer.child.wait().unwrap();
    assert!(shell.path("store").join("read.sock").exists());
    assert_eq!(shell.ok(&["get", "p", "a"]), b"one");
    let mut writer = Writer::start(&shell);
    writer.set("b", "dHdv");
    assert_eq!(shell.ok(&["get", "p", "b"]), b"two");
    writer.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_reads_at_one_position() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::builder(dir.path().join("s")).create().await.unwrap();
    let dir = dir.path().join("s");
    let key = |number: u32| format!("{number:05}").into_bytes();
    let write = async |value: &[u8]| {
        let batch = (0..2_000).fold(Batch::new(), |batch, number| batch.set(b"p", &key(number), value));
        store.write(Context::new("t"), batch).await.unwrap().position
    };
    write(b"old").await;
    store.mark(Context::new("t"), "then", None).await.unwrap();
    let reader = BesideReader::connect(&dir, None).await.unwrap();
    assert_eq!((reader.log_id(), reader.position()), (store.log_id(), store.head()));
    let mut entries = reader.scan(ScanOptions::new(b"p")).await.unwrap();
    let mut seen = 0;
    while let Some(entry) = entries.next().await {
        assert_eq!((entry.unwrap().key().to_vec(), ()), (key(seen), ()));
        if seen == 10 {
            write(b"new").await;
            store.checkpoint().await.unwrap();
        }
        if seen.is_multiple_of(500) {
            assert_eq!(&reader.get(b"p", &key(seen)).await.unwrap().unwrap().value[..], b"old");
        }
        seen += 1;
    }
    assert_eq!(seen, 2_000);
    let then = BesideReader::connect(&dir, Some(&At::Mark("then".into()))).await.unwrap();
    assert_eq!(&then.get(b"p", b"00000").await.unwrap().unwrap().value[..], b"old");
    let now = BesideReader::connect(&dir, None).await.unwrap();
    assert_eq!(&now.get(b"p", b"00000").await.unwrap().unwrap().value[..], b"new");
    let options = DiffOptions::new().prefix(b"p", b"000");
    let mut differences = now.diff(&At::Mark("then".into()), &At::Position(now.position()), options).await.unwrap();
    let difference = differences.next().await.unwrap().unwrap();
    assert_eq!(difference.old.unwrap().value[..], b"old"[..]);
    for (at, kind) in [(At::Position(Position(99)), ErrorKind::Invalid), (At::Mark("no".into()), ErrorKind::NotFound)] {
        assert_eq!(BesideReader::connect(&dir, Some(&at)).await.unwrap_err().kind(), kind);
    }
    // With the store every connection ends.
    store.close().await.unwrap();
    assert_eq!(now.get(b"p", b"00000").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(BesideReader::connect(&dir, None).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

/// Bad input from a local process ends with an answer, and serving goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_on_the_socket_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::builder(dir.path().join("s")).create().await.unwrap();
    let socket = dir.path().join("s/read.sock");
    let ask = move |lines: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        // Whoever refuses to listen further may have closed its side.
        let _ = stream.write_all(lines);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let hello = r#"{"protocol":1,"at":null}"#;
    let scan = r#"{"scan":{"from":"","to":"","limit":null}}"#;
    let asked = tokio::task::spawn_blocking(move || {
        let refused =
            |answer: String, kind: &str| assert!(answer.contains(&format!("\"kind\":\"{kind}\"")), "{answer}");
        assert_eq!(ask(b""), "");
        assert_eq!(ask(b"\0\xff\n"), "");
        refused(ask(b"{\"protocol\":2,\"at\":null}\n"), "unavailable");
        refused(ask(b"{\"protocol\":1,\"at\":\"\"}\n"), "invalid");
        refused(ask(format!("{hello}\nnonsense\n").as_bytes()), "invalid");
        refused(ask(format!("{hello}\n{{\"get\":{{\"partition\":\"\",\"key\":\"\"}}}}\n").as_bytes()), "invalid");
        refused(ask(format!("{hello}\n{}\n", "x".repeat(100_000)).as_bytes()), "invalid");
        refused(ask(format!("{hello}\n{scan}").as_bytes()), "invalid");
        assert!(ask(format!("{hello}\nnonsense\n{scan}\n").as_bytes()).ends_with("\"end\"\n"));
    });
    asked.await.unwrap();
    store.close().await.unwrap();
}

/// A read that was given up leaves its answer on the connection: nobody else gets it.
#[tokio::test]
async fn a_cancelled_read_gives_its_answer_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::builder(dir.path()).open_or_create().await.unwrap();
    store.write(Context::new("t"), Batch::new().set(b"p", b"a", b"1").set(b"p", b"b", b"2")).await.unwrap();
    let reader = BesideReader::connect(dir.path(), None).await.unwrap();
    let mut cancelled = Box::pin(reader.get(b"p", b"a"));
    std::future::poll_fn(|context| {
        assert!(cancelled.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    drop(cancelled);
    assert_eq!(reader.get(b"p", b"b").await.unwrap_err().kind(), ErrorKind::Closed);
    let reader = BesideReader::connect(dir.path(), None).await.unwrap();
    assert_eq!(&reader.get(b"p", b"b").await.unwrap().unwrap().value[..], b"2");
    store.close().await.unwrap();
}

/// A runtime without I/O serves no readers; everything else works there.
#[test]
fn a_runtime_without_io_opens_a_store_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let store = Store::builder(dir.path()).open_or_create().await.unwrap();
        store.write(Context::new("t"), Batch::new().set(b"p", b"a", b"1")).await.unwrap();
        store.close().await.unwrap();
    });
}
