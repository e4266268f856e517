//! [`Figure`]: one line of the bench, and how it is held to a recorded one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::{Error, ErrorKind, Result};

/// A ratio may lie this much below the recorded one: machines are not that steady.
const KEPT: f64 = 0.7;

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Figure {
    /// What it is, for `--only`.
    pub name: String,
    /// The store's own figure.
    pub value: f64,
    /// Of `value` and `reference`.
    pub unit: String,
    /// The same of the bare loop beside it; none where only the value itself counts.
    pub reference: Option<f64>,
    /// The median of the rounds' ratios of the two: more is better. Not the ratio of the medians, because a disk
    /// that is slow for some rounds is slow for both.
    pub ratio: Option<f64>,
    /// What is wanted: of the ratio at least this; without a ratio, of the value at most this.
    pub target: f64,
    /// Of the value at least this, too, where the project has set itself a figure that no reference moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<f64>,
}

impl Figure {
    /// Rates beside those of the reference, round by round; the ratio is to be at least `target`.
    pub(super) fn rate(name: &str, values: &[f64], unit: &str, references: &[f64], target: f64) -> Figure {
        let ratios = values.iter().zip(references).filter(|(_, reference)| **reference > 0.0);
        let ratio = median(ratios.map(|(value, reference)| value / reference).collect()).map(rounded);
        let (name, unit) = (name.to_owned(), unit.to_owned());
        let [value, reference] = [values, references].map(|rates| median(rates.to_vec()).map(rounded));
        Figure { name, value: value.unwrap_or_default(), unit, reference, ratio, target, goal: None }
    }

    /// Also wants a value of at least this.
    pub(super) fn with_goal(self, goal: f64) -> Figure {
        Figure { goal: Some(goal), ..self }
    }

    /// A cost that is to be at most `target`.
    pub(super) fn cost(name: &str, value: f64, unit: &str, target: f64) -> Figure {
        let (name, unit) = (name.to_owned(), unit.to_owned());
        Figure { name, value: rounded(value), unit, reference: None, ratio: None, target, goal: None }
    }

    /// Whether target and goal are reached.
    pub(super) fn reached(&self) -> bool {
        let target = self.ratio.map_or(self.value <= self.target, |ratio| ratio >= self.target);
        target && self.goal.is_none_or(|goal| self.value >= goal)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figure { name, value, unit, reference, ratio, target, goal } = self;
        write!(f, "{name:<22} {value:>12} {unit:<14}")?;
        match (reference, ratio) {
            (Some(reference), Some(ratio)) => {
                write!(f, " reference {reference:>12}  ratio {ratio:<6} target >= {target}")?
            }
            _ => write!(f, " target <= {target}")?,
        }
        if let Some(goal) = goal {
            write!(f, " goal >= {goal} {unit}")?;
        }
        f.write_str(if self.reached() { "" } else { "  short" })
    }
}

/// The one in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Three significant places: more would only look exact.
pub(super) fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let places = value.abs().log10().floor() as i32 - 2;
    // Powers of ten are exact only where they are whole, so they multiply and divide, never the other way round.
    let whole = 10f64.powi(places.abs());
    if places > 0 { (value / whole).round() * whole } else { (value * whole).round() / whole }
}

/// Reads recorded figures: one JSON object a line, as the bench prints them.
pub(super) fn recorded(text: &str) -> Result<Vec<Figure>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| {
            let message = format!("a recorded figure does not parse, line=`{}`", number + 1);
            Error::new(ErrorKind::Invalid, message).with_source(error)
        })
    };
    lines.map(parse).collect()
}

/// Fails `conflict` when a ratio fell more than 30 % below the recorded one. Figures that were not measured or not
/// recorded are passed by.
pub(super) fn check(measured: &[Figure], recorded: &[Figure]) -> Result<()> {
    let mut fallen = Vec::new();
    for figure in measured {
        let before = recorded.iter().find(|before| before.name == figure.name);
        let (Some(before), Some(now)) = (before.and_then(|before| before.ratio), figure.ratio) else { continue };
        if now < before * KEPT {
            fallen.push(format!("{} from {before} to {now}", figure.name));
        }
    }
    if fallen.is_empty() {
        return Ok(());
    }
    let message = format!("ratios fell more than 30 % below the recorded ones, figures=`{}`", fallen.join(", "));
    Err(Error::new(ErrorKind::Conflict, message))
}
