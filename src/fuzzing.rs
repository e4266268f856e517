//! Fuzz targets by name: what `fuzz/` hands inputs to, and what the tests replay the corpora through.
//!
//! Each room brings its own; a target returns whatever its input is, and panics where a promise is broken.

/// A target: its name, what takes an input, and inputs to begin with.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its binary and of its folder of inputs.
    pub name: &'static str,
    /// Takes an input.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 6] = [
    Target { name: "frame", run: crate::log::fuzzing::frames, seeds: crate::log::fuzzing::frame_seeds },
    Target { name: "manifest", run: crate::log::fuzzing::manifest, seeds: crate::log::fuzzing::manifest_seeds },
    Target { name: "dump", run: crate::dump::fuzzing::dumps, seeds: crate::dump::fuzzing::seeds },
    Target { name: "event", run: crate::event::fuzzing::transactions, seeds: crate::event::fuzzing::seeds },
    Target { name: "import", run: crate::migrate::fuzzing::imports, seeds: crate::migrate::fuzzing::seeds },
    Target { name: "apply", run: crate::cli::fuzzing::applied, seeds: crate::cli::fuzzing::seeds },
];
