//! Which adjacent generations to merge next. Pure.

use std::ops::Range;

/// Generations of one tier before they are merged; each tier holds this many times more bytes.
const FANOUT: usize = 4;
/// Everything below is one tier, in raw bytes.
const SMALLEST_TIER_BYTES: u64 = 1 << 20;
/// Above, neighbours are merged whatever their sizes: the bound on what a get looks into.
const GENERATIONS_MAX: usize = 24;

/// The generations to merge, given their raw bytes, oldest first; `None` when all is well.
///
/// From the smallest tier on: neighbours of at most that tier with [`FANOUT`] of exactly that tier
/// among them are merged as a whole. So a row is rewritten once a tier, and fewer than `FANOUT`
/// generations of one tier lie beside each other.
pub(super) fn pick(bytes: &[u64]) -> Option<Range<usize>> {
    let tiers: Vec<u32> = bytes.iter().map(|&bytes| tier(bytes)).collect();
    let top = tiers.iter().copied().max()?;
    for tier in 0..=top {
        let mut start = 0;
        for run in tiers.split(|&own| own > tier) {
            if run.iter().filter(|&&own| own == tier).count() >= FANOUT {
                return Some(start..start + run.len());
            }
            start += run.len() + 1;
        }
    }
    if bytes.len() <= GENERATIONS_MAX {
        return None;
    }
    let cheapest = bytes.windows(FANOUT).enumerate().min_by_key(|(_, run)| run.iter().sum::<u64>());
    cheapest.map(|(start, run)| start..start + run.len())
}

fn tier(bytes: u64) -> u32 {
    (bytes / SMALLEST_TIER_BYTES).checked_ilog(FANOUT as u64).map_or(0, |log| log + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn picks_the_smallest_tier_first() {
        let check = |sizes: &[u64], expect: Option<Range<usize>>| {
            let bytes: Vec<u64> = sizes.iter().map(|size| size * MIB).collect();
            assert_eq!(pick(&bytes), expect, "{sizes:?}");
        };
        check(&[], None);
        check(&[1, 1, 1], None);
        check(&[1, 1, 1, 1], Some(0..4));
        check(&[0, 0, 100, 0, 0], None);
        check(&[100, 5, 0, 5, 5, 0, 5, 0], Some(1..8));
        check(&[100, 5, 5, 5, 5, 0, 0, 0, 0], Some(5..9));
        check(&[100, 100, 100, 5, 5, 5, 0, 0, 0], None);
    }

    #[test]
    fn generations_stay_few_and_rewriting_stays_logarithmic() {
        // Checkpoints of one size, of mixed sizes, and the worst order: small ones kept apart by large.
        let feeds: [fn(u64) -> u64; 4] =
            [|_| MIB / 2, |n| (n * 7919 % 13) * MIB, |n| (n % 2) * 40 * MIB, |n| MIB << (n % 7)];
        for feed in feeds {
            let (mut generations, mut fed, mut rewritten) = (Vec::new(), 0, 0);
            for n in 0..3000 {
                generations.push(feed(n));
                fed += feed(n);
                while let Some(run) = pick(&generations) {
                    let merged: u64 = generations[run.clone()].iter().sum();
                    rewritten += merged;
                    generations.splice(run, [merged]);
                }
                assert!(generations.len() <= GENERATIONS_MAX);
            }
            assert!(rewritten < fed * 8, "{rewritten} of {fed}");
        }
    }
}
