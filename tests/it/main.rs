//! The integration tests: one binary, linked once, one module a topic.

// What tests call is a test too; Clippy only knows functions marked `#[test]`.
#![allow(clippy::unwrap_used, clippy::panic)]

mod beside;
mod child;
mod cli;
mod disk;
mod dump;
mod forks;
mod fuzz;
mod golden;
mod histories;
mod kill;
mod limits;
mod migrate;
mod moving;
mod operations;
mod overload;
mod past;
mod postgres;
mod postgres_damage;
mod postgres_server;
mod postgres_tls;
mod proto;
mod rescue;
mod sizing;
mod tidy;
mod trouble;
