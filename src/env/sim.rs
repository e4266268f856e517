//! The simulated world of the crash tests.
