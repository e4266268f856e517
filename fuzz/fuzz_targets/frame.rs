//! Runs the target `frame` of `lakelog::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let target = lakelog::fuzzing::TARGETS.iter().find(|target| target.name == "frame").expect("a target of this name");
    (target.run)(input);
});
