//! The fuzz targets for libFuzzer.

#[path = "../../crates/protocol/tests/fuzz_targets/mod.rs"]
mod fuzz_targets;

/// Runs an input through the target of this name.
pub fn run(name: &str, data: &[u8]) {
    (fuzz_targets::target(name).run)(data);
}

/// Inputs that the target of this name accepts.
#[must_use]
pub fn seeds(name: &str) -> Vec<Vec<u8>> {
    (fuzz_targets::target(name).seeds)()
}

/// All targets.
pub fn names() -> impl Iterator<Item = &'static str> {
    fuzz_targets::TARGETS.iter().map(|target| target.name)
}
