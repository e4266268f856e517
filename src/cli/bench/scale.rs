//! [`Scale`]: how much is measured.

use std::time::Duration;

/// Sizes and times of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// Rounds that count.
    pub rounds: usize,
    /// How long one side writes or reads in a round.
    pub round: Duration,
    /// Entries of the views that are read.
    pub entries: u64,
    /// Transactions that are replayed from zero and subscribed to.
    pub replayed: u64,
    /// Transactions that are dumped and restored: enough that neither threads nor a segment's room decide.
    pub dumped: u64,
    /// Transactions of the history behind the open that is timed, four times as many as there are entries at least.
    pub history: u64,
    /// How many of them came after the last checkpoint.
    pub unsaved: u64,
    /// Whether that history is made by a process of its own, which is killed; `--quick` or not.
    pub kills: Option<bool>,
    /// Zero-filled bytes that the bare write loops go round in.
    pub file_bytes: u64,
    /// Log segments of the stores, in bytes.
    pub segment_bytes: u64,
    /// The most clients at once.
    pub clients_max: usize,
    /// Entries that the stores of the write figures hold before.
    pub filled: u64,
    /// Operations a second that the latencies are measured at.
    pub rates: &'static [u64],
    /// How long each rate is offered.
    pub offered: Duration,
}

impl Scale {
    /// The scale that was asked for.
    pub fn of(quick: bool) -> Scale {
        if quick { Scale::QUICK } else { Scale::FULL }
    }

    /// Figures to go by; some minutes.
    pub const FULL: Scale = Scale {
        rounds: 7,
        round: Duration::from_secs(1),
        entries: 1_000_000,
        replayed: 1_000_000,
        dumped: 1_000_000,
        history: 10_000_000,
        unsaved: 100_000,
        kills: Some(false),
        file_bytes: 256 << 20,
        segment_bytes: 64 << 20,
        clients_max: 1024,
        filled: 0,
        rates: &[1_000, 10_000, 50_000],
        offered: Duration::from_secs(5),
    };

    /// For a machine that has other work to do; a minute or two.
    pub const QUICK: Scale = Scale {
        rounds: 5,
        round: Duration::from_millis(200),
        entries: 100_000,
        replayed: 100_000,
        dumped: 500_000,
        history: 400_000,
        unsaved: 20_000,
        kills: Some(true),
        file_bytes: 64 << 20,
        segment_bytes: 64 << 20,
        clients_max: 1024,
        filled: 0,
        rates: &[1_000, 10_000],
        offered: Duration::from_secs(1),
    };

    /// Only whether it works.
    #[cfg(test)]
    pub const TINY: Scale = Scale {
        rounds: 1,
        round: Duration::from_millis(5),
        entries: 300,
        replayed: 200,
        dumped: 200,
        history: 1_200,
        unsaved: 100,
        kills: None,
        file_bytes: 1 << 20,
        segment_bytes: 1 << 20,
        clients_max: 8,
        filled: 0,
        rates: &[1_000],
        offered: Duration::from_millis(20),
    };

    /// This one, of stores with so many entries and histories as long.
    pub fn sized(self, entries: u64) -> Scale {
        Scale {
            entries,
            replayed: entries,
            dumped: entries,
            history: 4 * entries,
            unsaved: entries / 10,
            filled: entries,
            ..self
        }
    }
}
