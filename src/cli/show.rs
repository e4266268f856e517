//! `lakelog show`: one transaction of the log.

use clap::Args;

use crate::types::{Error, ErrorKind, Position, Result};

use super::command::Shell;
use super::output::Ended;
use super::reading::{self, ArchiveArgs};
use super::transactions::Filter;

/// Shows one transaction. Works beside a process that has the store open
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Its position
    position: u64,
    #[command(flatten)]
    archive: ArchiveArgs,
}

/// Reads the files only. Fails `Invalid` above the head, `NotFound` below the floor.
pub async fn run(args: ShowArgs, shell: &mut Shell) -> Result<Ended> {
    let files = reading::open(shell, &args.archive)?;
    let position = Position(args.position);
    if position == Position::ZERO || position > files.synced() {
        let message = format!("no such position, position=`{position}` head=`{}`", files.synced());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    reading::forwards(&files, &Filter::at(position), |listed| {
        shell.out.answer(&listed)?;
        Ok(false)
    })?;
    Ok(Ended::Done)
}
