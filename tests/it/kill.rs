//! The real process, killed at random moments, against a witness outside that holds what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::thread;

use serde_json::Value;

use crate::cli::Shell;

const ROUNDS: u64 = 8;
const ACKNOWLEDGED_MAX: u64 = 400;

/// One transaction: two keys in two partitions, so that half of it would show.
fn line(round: u64, number: u64) -> String {
    let value = format!("{round:08}{number:08}");
    format!(
        r#"{{"id":"{round}-{number}","ops":[{{"op":"set","partition":"left","key":"{number}","value":"{value}"}},{{"op":"set","partition":"right","key":"{number}","value":"{value}"}}]}}"#
    )
}

/// What a partition holds: key to value and version.
fn entries(shell: &Shell, partition: &str) -> BTreeMap<String, (String, u64)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let scanned = shell.json(&["scan", partition]);
    scanned.iter().map(|e| (text(&e["key"]), (text(&e["value"]), e["version"].as_u64().unwrap()))).collect()
}

#[test]
fn fault_09_what_was_acknowledged_survives_a_kill() {
    let shell = Shell::with_store();
    // Key to the value and position that were acknowledged last, over all rounds.
    let mut witness: BTreeMap<String, (String, u64)> = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut child = shell.spawn(&["apply", "-", "--concurrency", "16"]);
        let mut input = child.stdin.take().unwrap();
        // Ends by itself: a killed process does not read.
        let feeder = thread::spawn(move || (1..).try_for_each(|number| writeln!(input, "{}", line(round, number))));
        let enough = rand::random_range(1..ACKNOWLEDGED_MAX);
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut acknowledged = BTreeMap::new();
        let mut answer = String::new();
        let mut killed = false;
        // A last line without its end was cut off by the kill, so nobody was told anything by it.
        while answers.read_line(&mut answer).unwrap() > 0 && answer.ends_with('\n') {
            let told: Value = serde_json::from_str(&answer).unwrap();
            let number = told["line"].as_u64().unwrap();
            let position = told["position"].as_u64().unwrap_or_else(|| panic!("refused: {answer}"));
            acknowledged.insert(number.to_string(), (format!("{round:08}{number:08}"), position));
            if !killed && acknowledged.len() as u64 >= enough {
                child.kill().unwrap();
                killed = true;
            }
            answer.clear();
        }
        child.wait().unwrap();
        let _ = feeder.join().unwrap();
        assert!(killed, "the process ended by itself");
        witness.extend(acknowledged);

        let left = entries(&shell, "left");
        assert_eq!(left, entries(&shell, "right"), "round {round}: half a transaction is visible");
        for (key, (value, position)) in &witness {
            let (found, version) = &left[key];
            // A later value may have been in flight, written but not acknowledged; an earlier one was lost.
            assert!(version >= position, "round {round}: key {key} acknowledged at {position} is at {version}");
            assert!(version > position || found == value, "round {round}: key {key} has another value");
        }
        let log = shell.json(&["log", "--all"]);
        let positions = log.iter().map(|transaction| transaction["position"].as_u64().unwrap());
        assert!(positions.eq(1..=log.len() as u64), "round {round}: positions are not dense");
        let requests: BTreeSet<&str> = log.iter().filter_map(|told| told["request_id"].as_str()).collect();
        assert_eq!(requests.len(), log.len(), "round {round}: a transaction was applied twice");
    }
}
