//! The `lakelog` command.

fn main() {}
