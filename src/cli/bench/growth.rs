//! How cost grows: every figure again at several sizes of store and history, side by side.

use std::fmt;

use serde::Serialize;

use super::figure::{Figure, rounded};

/// One figure at several sizes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Growth {
    /// The figure.
    pub name: String,
    /// Of the values.
    pub unit: String,
    /// The store's own figure at each size, in the order of the sizes; none where it was not measured.
    pub values: Vec<Option<f64>>,
    /// How many times the cost of one operation at the smallest size one at the largest takes. 1 is a cost that does not grow.
    pub growth: Option<f64>,
}

/// The figures of each size, the smallest first, joined by their names.
pub(super) fn joined(sizes: &[Vec<Figure>]) -> Vec<Growth> {
    let mut names: Vec<&Figure> = Vec::new();
    for figure in sizes.iter().flatten() {
        if !names.iter().any(|known| known.name == figure.name) {
            names.push(figure);
        }
    }
    let growth = |figure: &Figure| {
        let found: Vec<Option<&Figure>> =
            sizes.iter().map(|figures| figures.iter().find(|other| other.name == figure.name)).collect();
        let values = found.iter().map(|found| found.map(|figure| figure.value)).collect();
        let ends = found.first().copied().flatten().zip(found.last().copied().flatten());
        let growth = ends.filter(|(first, last)| first.value > 0.0 && last.value > 0.0).map(|(first, last)| {
            // A rate is the inverse of a cost.
            let rate = first.unit.ends_with("/s");
            rounded(if rate { first.value / last.value } else { last.value / first.value })
        });
        Growth { name: figure.name.clone(), unit: figure.unit.clone(), values, growth }
    };
    names.into_iter().map(growth).collect()
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<22}", self.name)?;
        for value in &self.values {
            match value {
                Some(value) => write!(f, " {value:>12}")?,
                None => write!(f, " {:>12}", "-")?,
            }
        }
        write!(f, " {:<14}", self.unit)?;
        match self.growth {
            Some(growth) => write!(f, " cost x {growth}"),
            None => Ok(()),
        }
    }
}
