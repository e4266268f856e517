//! `lakelog init`: creates a store.

use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::types::Result;

use super::command::Shell;
use super::output::Ended;

/// Creates an empty store
#[derive(Args, Debug)]
pub struct InitArgs {}

#[derive(Serialize)]
struct Answer {
    log_id: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "created a store, log id {}", self.log_id)
    }
}

/// Fails `Conflict` when a store is there already.
pub async fn run(_: InitArgs, shell: &mut Shell) -> Result<Ended> {
    let store = shell.builder().create().await?;
    let answer = Answer { log_id: store.log_id().to_string() };
    store.close().await?;
    shell.out.answer(&answer)?;
    Ok(Ended::Done)
}
