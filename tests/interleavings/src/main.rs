//! Explores in which orders threads may meet in what the store synchronises by hand: the queue of the committer, the turns at it, and the
//! insertion beside it. Their files are compiled as they are; what lies around them is stood in for here.
//!
//! `cargo run` runs every model over orders that are drawn and orders with few preemptions, and over the first ones in turn. A failure ends
//! it with a schedule; `cargo run -- MODEL SCHEDULE` repeats that.

#![forbid(unsafe_code)]
#![allow(dead_code, reason = "the store uses more of these files than the models do")]

use std::process::ExitCode;

use shuttle::{check_dfs, check_pct, check_random, replay};

// What the explored files name so is what this file has under that name.
extern crate self as parking_lot;

#[path = "../../../src/store/insertion.rs"]
mod insertion;
mod locks;
mod models;
#[path = "../../../src/store/queue.rs"]
mod queue;
mod stand_ins;
#[path = "../../../src/store/turn.rs"]
mod turn;

use locks::{Condvar, Mutex, MutexGuard};
use stand_ins::{projection, settings, submission, types};

/// A model, by name.
struct Model {
    name: &'static str,
    run: fn(),
}

const MODELS: [Model; 8] = [
    Model { name: "every-write-is-answered", run: models::every_write_is_answered },
    Model { name: "a-full-queue-lets-in-whom-it-has-room-for", run: models::a_full_queue_lets_in_whom_it_has_room_for },
    Model { name: "a-close-leaves-nobody-waiting-for-room", run: models::a_close_leaves_nobody_waiting_for_room },
    Model { name: "a-close-leaves-nobody-waiting-for-a-place", run: models::a_close_leaves_nobody_waiting_for_a_place },
    Model { name: "every-tick-is-felt", run: models::every_tick_is_felt },
    Model { name: "callers-and-the-thread-take-turns", run: models::callers_and_the_thread_take_turns },
    Model { name: "a-batch-is-inserted-once-whoever-does", run: models::a_batch_is_inserted_once_whoever_does },
    Model { name: "an-end-in-the-middle-of-a-batch", run: models::an_end_in_the_middle_of_a_batch },
];

/// Orders of each kind that are tried of a model.
const DRAWN: usize = 20_000;
/// Preemptions at places that matter, in orders with few of them.
const PREEMPTIONS: usize = 4;
/// Orders that are tried one after the other, from the first; no more than there are.
const IN_TURN: usize = 20_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => MODELS.iter().for_each(explore),
        [name, schedule] => match MODELS.iter().find(|model| model.name == name) {
            Some(model) => replay(model.run, schedule),
            None => {
                eprintln!("no model has this name: {name}");
                return ExitCode::from(2);
            }
        },
        _ => {
            eprintln!("usage: lakelog-interleavings [MODEL SCHEDULE]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn explore(model: &Model) {
    println!("{}", model.name);
    check_random(model.run, DRAWN);
    check_pct(model.run, DRAWN, PREEMPTIONS);
    check_dfs(model.run, Some(IN_TURN));
    println!("  {DRAWN} orders drawn, {DRAWN} with few preemptions, up to {IN_TURN} in turn");
}
