//! Every figure once on a very small scale; comparison and form of figures.

use super::bed::Bed;
use super::figure::{Figure, check, recorded};
use super::growth;
use super::latency::{self, Latency};
use super::run::measure;
use super::sample::{KEY_BYTES, pair, scattered};
use super::scale::Scale;
use crate::types::{ErrorKind, Result};

const NAMES: [&str; 33] = [
    "memory-per-entry",
    "get-1",
    "get-2",
    "scan",
    "set-1",
    "set-1-caller",
    "set-64",
    "set-64-kept",
    "set-if-64",
    "transact-64",
    "set-1024",
    "set-1024-kept",
    "replay",
    "open-after-kill",
    "open-history",
    "checkpoint-sled",
    "base-get",
    "base-scan",
    "asof-get-base",
    "asof-get-memory",
    "asof-scan",
    "diff",
    "checkpoint-writes",
    "checkpoint-pause",
    "import",
    "dump",
    "dump-zstd",
    "dump-read",
    "restore",
    "restore-zstd",
    "subscribe",
    "undo",
    "trim",
];

async fn measured(only: Option<&str>) -> (Vec<Figure>, usize) {
    let parent = tempfile::tempdir().unwrap();
    let mut reported = 0;
    let mut report = |_: &Figure| -> Result<()> {
        reported += 1;
        Ok(())
    };
    let bed = Bed::new(parent.path(), Scale::TINY, only.map(str::to_owned), &mut report).unwrap();
    let figures = measure(bed, None).await.unwrap();
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0, "what was made is removed");
    (figures, reported)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_figure_is_measured() {
    let (figures, reported) = measured(None).await;
    let names: Vec<&str> = figures.iter().map(|figure| &figure.name[..]).collect();
    assert_eq!(names, NAMES);
    assert_eq!(reported, figures.len());
    for figure in &figures {
        assert!(figure.reference.is_none() || figure.ratio.is_some_and(|ratio| ratio > 0.0), "{figure:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_asked_for() {
    let (figures, _) = measured(Some("set-1024")).await;
    let names: Vec<&str> = figures.iter().map(|figure| &figure.name[..]).collect();
    assert_eq!(names, ["set-1024", "set-1024-kept"]);
    assert_eq!(measured(Some("nothing")).await, (vec![], 0));
}

#[tokio::test]
async fn figures_of_a_server_need_one() {
    for only in ["postgres", "postgres-get", "checkpoint-postgres"] {
        let parent = tempfile::tempdir().unwrap();
        let mut report = |_: &Figure| -> Result<()> { Ok(()) };
        let bed = Bed::new(parent.path(), Scale::TINY, Some(only.to_owned()), &mut report).unwrap();
        let refused = measure(bed, None).await.unwrap_err();
        assert!(refused.kind() == ErrorKind::Invalid && refused.message().contains("--base"), "{only}: {refused}");
    }
}

#[test]
fn a_figure_has_the_members_of_the_contract() {
    let figure = Figure::rate("set-64", &[27_012_345.6], "writes/s", &[123_456.7], 0.75);
    let json = serde_json::to_string(&figure).unwrap();
    let expect =
        r#"{"name":"set-64","value":27000000.0,"unit":"writes/s","reference":123000.0,"ratio":219.0,"target":0.75}"#;
    assert_eq!(json, expect);
    assert_eq!(recorded(&format!("\n{json}\n")).unwrap(), [figure]);
    let cost = serde_json::to_string(&Figure::cost("open-after-kill", 0.12345, "s", 1.0)).unwrap();
    assert_eq!(
        cost,
        r#"{"name":"open-after-kill","value":0.123,"unit":"s","reference":null,"ratio":null,"target":1.0}"#
    );
    let goal = Figure::rate("dump", &[400.0], "MB/s", &[500.0], 0.5).with_goal(500.0);
    let json = serde_json::to_string(&goal).unwrap();
    assert!(json.ends_with(r#""target":0.5,"goal":500.0}"#), "{json}");
    assert_eq!(recorded(&json).unwrap(), [goal]);
    assert_eq!(recorded("{}").unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn what_is_recorded_in_the_tree_names_figures_that_there_are() {
    let recorded = recorded(include_str!("../../../benches/recorded.jsonl")).unwrap();
    // As `bench` prints them: those that stand beside no reference are recorded too, and nothing is held against them.
    let known = |figure: &Figure| NAMES.contains(&&figure.name[..]) && figure.ratio.is_none_or(|ratio| ratio > 0.0);
    let compared = recorded.iter().filter(|figure| figure.ratio.is_some()).count();
    assert!(compared > 20 && recorded.iter().all(known), "{recorded:?}");
}

#[test]
fn the_ratio_is_that_of_rounds_not_of_medians() {
    // The disk was slow for both in the first round, and for one of them in the last.
    let figure = Figure::rate("a", &[1.0, 90.0, 80.0], "x", &[2.0, 100.0, 1.0], 0.5);
    assert_eq!((figure.value, figure.reference, figure.ratio), (80.0, Some(2.0), Some(0.9)));
    assert_eq!(Figure::rate("a", &[1.0], "x", &[0.0], 0.5).ratio, None);
}

#[test]
fn a_target_is_reached_from_its_own_side() {
    assert!(Figure::rate("a", &[9.0], "x", &[10.0], 0.9).reached());
    assert!(!Figure::rate("a", &[8.9], "x", &[10.0], 0.9).reached());
    assert!(Figure::rate("a", &[9.0], "x", &[10.0], 0.9).with_goal(9.0).reached());
    let below = Figure::rate("a", &[9.0], "x", &[10.0], 0.9).with_goal(9.1);
    assert!(!below.reached() && below.to_string().ends_with("target >= 0.9 goal >= 9.1 x  short"), "{below}");
    assert!(!Figure::rate("a", &[9.0], "x", &[11.0], 0.9).with_goal(9.0).reached());
    assert!(Figure::cost("a", 9.0, "x", 9.0).reached());
    assert!(!Figure::cost("a", 9.1, "x", 9.0).reached());
    let short = Figure::cost("a", 9.1, "x", 9.0).to_string();
    assert!(short.ends_with("short"), "{short}");
}

#[test]
fn a_ratio_may_fall_by_thirty_per_cent() {
    let figure = |name: &str, value| Figure::rate(name, &[value], "x", &[100.0], 0.5);
    let before = [figure("a", 100.0), figure("b", 50.0), Figure::cost("c", 1.0, "s", 1.0)];
    assert!(check(&[figure("a", 70.0), figure("new", 1.0), Figure::cost("c", 9.0, "s", 1.0)], &before).is_ok());
    assert!(check(&[], &before).is_ok());
    let error = check(&[figure("a", 69.0), figure("b", 49.0)], &before).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains("a from 1 to 0.69") && !error.message().contains("b from"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latencies_are_measured_at_each_rate() {
    let parent = tempfile::tempdir().unwrap();
    let mut none = |_: &Figure| -> Result<()> { Ok(()) };
    let bed = Bed::new(parent.path(), Scale::TINY, None, &mut none).unwrap();
    let mut found = Vec::new();
    let mut report = |latency: &Latency| -> Result<()> {
        found.push(latency.clone());
        Ok(())
    };
    latency::measure(&bed, &mut report).await.unwrap();
    let names: Vec<&str> = found.iter().map(|latency| &latency.name[..]).collect();
    assert_eq!(names, ["latency-set", "latency-get"]);
    assert!(found.iter().all(|latency| latency.offered == 1000 && latency.max >= latency.p50));
    let failing = |_| async { Err(crate::types::Error::new(ErrorKind::Closed, "gone")) };
    let failed = latency::offer("a", 10_000, std::time::Duration::from_millis(1), failing).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Closed);
}

#[test]
fn percentiles_are_those_that_so_many_are_not_above() {
    let latencies = (1..=1000).rev().map(std::time::Duration::from_micros).collect();
    let Latency { p50, p99, p999, max, .. } = Latency::new("a", 1, 1.0, latencies);
    assert_eq!([p50, p99, p999, max], [500.0, 990.0, 999.0, 1000.0]);
    let one = Latency::new("a", 1, 1.0, vec![std::time::Duration::from_micros(7)]);
    assert_eq!([one.p50, one.max], [7.0, 7.0]);
}

/// A stall of the store is in the latencies of all that should have begun meanwhile: they wait for what does not end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_is_in_the_latency_of_all_that_should_have_begun_meanwhile() {
    let (held, open) =
        (std::sync::Arc::new(tokio::sync::Semaphore::new(0)), std::sync::Arc::new(tokio::sync::Notify::new()));
    let (gate, last) = (held.clone(), open.clone());
    let operation = move |i| {
        let (gate, last) = (gate.clone(), last.clone());
        async move {
            if i == 19 {
                last.notify_one();
            }
            drop(gate.acquire().await.unwrap());
            Ok(())
        }
    };
    let opening = async {
        open.notified().await;
        held.add_permits(1);
    };
    let time = std::time::Duration::from_millis(20);
    let (latency, ()) = tokio::join!(latency::offer("a", 1000, time, operation), opening);
    // The first had to wait until the last had begun, 19 ms later; half of them waited at least half as long.
    let latency = latency.unwrap();
    assert!(latency.max >= 19_000.0 && latency.p50 >= 9_000.0, "{latency}");
}

#[test]
fn figures_of_several_sizes_are_joined_by_name() {
    let rate = |name: &str, value: f64| Figure::rate(name, &[value], "gets/s", &[1.0], 1.0);
    let small = vec![rate("get", 100.0), Figure::cost("open", 2.0, "s", 1.0)];
    let large = vec![rate("get", 50.0), Figure::cost("open", 3.0, "s", 1.0), rate("late", 1.0)];
    let found = growth::joined(&[small, large]);
    let found: Vec<_> = found.iter().map(|line| (&line.name[..], line.values.clone(), line.growth)).collect();
    assert_eq!(
        found,
        [
            ("get", vec![Some(100.0), Some(50.0)], Some(2.0)),
            ("open", vec![Some(2.0), Some(3.0)], Some(1.5)),
            ("late", vec![None, Some(1.0)], None),
        ]
    );
}

#[test]
fn pairs_differ_and_are_spread() {
    let pairs: std::collections::BTreeSet<[u8; KEY_BYTES]> = (0..1000).map(pair).collect();
    assert_eq!(pairs.len(), 1000);
    assert!(pairs.iter().all(|pair| pair.starts_with(b"bench")));
    assert_eq!(scattered(0), 0xe220_a839_7b1d_cdaf);
}
