//! `lakelog scan`: the entries of a partition, in key order.

use clap::Args;

use crate::store::ScanOptions;
use crate::types::Result;

use super::command::{AtArgs, Shell};
use super::get::Found;
use super::output::Ended;
use super::reading::ArchiveArgs;
use super::state::Needs;
use super::text;

/// Lists the entries of a partition in key order, all as of one position
#[derive(Args, Debug)]
pub struct ScanArgs {
    /// The partition
    #[arg(value_name = "P")]
    partition: String,
    /// Only keys with this prefix
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Only keys from this one on
    #[arg(long, value_name = "K")]
    from: Option<String>,
    /// At most this many entries
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    at: AtArgs,
    #[command(flatten)]
    archive: ArchiveArgs,
}

/// An unknown partition is an empty one.
pub async fn run(args: ScanArgs, shell: &mut Shell) -> Result<Ended> {
    let parse = |text: &Option<String>| text.as_ref().map_or(Ok(Vec::new()), |text| text::parse(text, shell.hex));
    let (partition, prefix, from) =
        (text::parse(&args.partition, shell.hex)?, parse(&args.prefix)?, parse(&args.from)?);
    let options = ScanOptions::new(&partition).prefix(&prefix).from(&from).limit(args.limit.unwrap_or(usize::MAX));
    shell
        .with_past(&args.at, &args.archive, Needs::State, async |state, shell| {
            let mut entries = state.scan(options).await?;
            while let Some(entry) = entries.next().await {
                shell.out.answer(&Found::from(&entry?))?;
            }
            Ok(Ended::Done)
        })
        .await
}
