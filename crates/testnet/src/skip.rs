//! Tests that this machine, or this user, cannot run: they say so and pass, unless
//! `MIXLINE_REQUIRE_ROOT=1` demands them.

use crate::netns::Namespace;
use std::io::Write as _;

/// What a skipped test says first, on a line of its own on standard error; `cargo xtask test`
/// counts these lines.
pub const SKIPPED: &str = "skipped: ";
/// The reason that root takes away; `cargo xtask test` runs what says so once more as root.
pub const NEEDS_ROOT: &str = "needs root";

/// Whether a test that cannot run fails.
#[must_use]
pub fn is_required() -> bool {
    std::env::var_os("MIXLINE_REQUIRE_ROOT").is_some_and(|value| value == "1")
}

/// Says that the test is skipped, and why.
///
/// # Panics
/// With the reason, if all tests are required.
pub fn skip(reason: &str) {
    assert!(
        !is_required(),
        "{reason}, and MIXLINE_REQUIRE_ROOT=1 says that this test must run"
    );
    // Not by `eprintln!`, which the test harness keeps to itself while the test passes.
    let _ = writeln!(std::io::stderr(), "{SKIPPED}{reason}");
}

/// Whether the caller is root; the test is skipped otherwise.
///
/// # Panics
/// If it is not, and all tests are required.
#[must_use]
pub fn is_root_or_skip() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip(NEEDS_ROOT);
    }
    root
}

/// A new namespace for a test, which is skipped where that cannot be had.
///
/// # Panics
/// If there is none, and all tests are required.
#[must_use]
pub fn namespace_or_skip() -> Option<Namespace> {
    if !is_root_or_skip() {
        return None;
    }
    match Namespace::new() {
        Ok(namespace) => Some(namespace),
        Err(error) => {
            skip(&format!("no network namespace can be made ({error})"));
            None
        }
    }
}
