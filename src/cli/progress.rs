//! A progress bar on standard error, for people only: after a second, and only on a terminal.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work shorter than this shows no bar.
const QUIET: Duration = Duration::from_secs(1);

/// Progress of one long piece of work, with rate and estimated time to the end.
pub struct Progress {
    bar: ProgressBar,
    begun: Instant,
    shown: bool,
    wanted: bool,
}

impl Progress {
    /// Work of `total` units (`None` when not known), for example `Progress::new("importing", "bytes", None)`.
    pub fn new(what: &str, unit: &str, total: Option<u64>) -> Progress {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let counts = if unit == "bytes" { "{bytes} {bytes_per_sec}" } else { "{human_pos} {per_sec}" };
        let template = match total {
            Some(_) => format!("{what} [{{bar:30}}] {{percent}}% {counts} eta {{eta}}"),
            None => format!("{what} {{spinner}} {counts} {{elapsed}}"),
        };
        // A template that did not parse would leave indicatif's own style: never worth failing for.
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Progress { bar, begun: Instant::now(), shown: false, wanted: stderr().is_terminal() }
    }

    /// Notes that `units` are done in all.
    pub fn reach(&mut self, units: u64) {
        self.bar.set_position(units);
        if self.wanted && !self.shown && self.begun.elapsed() >= QUIET {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.shown = true;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_parse_and_short_work_is_quiet() {
        for total in [None, Some(10)] {
            let mut progress = Progress::new("testing", "bytes", total);
            progress.wanted = true;
            progress.reach(5);
            assert!(!progress.shown);
            assert_eq!(progress.bar.position(), 5);
            progress.begun -= QUIET;
            progress.bar.set_draw_target(ProgressDrawTarget::hidden());
            progress.reach(6);
            assert!(progress.shown);
        }
    }
}
