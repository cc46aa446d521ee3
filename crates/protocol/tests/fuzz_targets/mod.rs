//! A fuzz target for each parser of bytes from outside.
//!
//! Shared by `tests/fuzz_smoke.rs`, which runs each for seconds on a stable toolchain, and by
//! `fuzz/`, where `cargo fuzz` runs them for as long as one likes. A target panics if the
//! parser does, or if what it accepted is not what it says: encoders give back the bytes that
//! were read, bounds hold. Where a layer authenticates, there are two targets: bytes from
//! anybody, and bytes that somebody malicious has sealed as they should be sealed.

mod directories;
mod forge;
mod link;
mod messages;
mod path;
mod records;
mod replay;
mod ring;
mod samples;
mod session;
mod text;

/// See the module's description.
pub struct Target {
    /// Also the name of the program in `fuzz/`.
    pub name: &'static str,
    /// Inputs that the parser accepts, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Parses; whether the parser accepted it.
    pub run: fn(&[u8]) -> bool,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    path::HEADER,
    path::SEALED_SLOT,
    path::TAIL,
    link::DATAGRAM,
    link::SEALED_INITIATION,
    link::CONTROL,
    session::INITIATION,
    session::SEALED_INITIATION,
    session::SEALED_RESPONSE,
    session::DATA,
    session::CONTROL,
    session::FRAMES,
    records::RECORDS,
    records::REGISTRATION,
    records::SNAPSHOT,
    records::SEALED_SNAPSHOT,
    directories::ROSTER_CHAIN,
    directories::VOTE,
    directories::ENDORSEMENT,
    directories::CONTRADICTION,
    messages::REQUEST,
    messages::RESPONSE,
    replay::MEMORY,
    ring::RECORD,
    ring::SEALED_RECORD,
    ring::REQUEST,
    ring::RESPONSE,
    text::NAMES,
];

/// The target of this name.
pub fn target(name: &str) -> &'static Target {
    TARGETS
        .iter()
        .find(|target| target.name == name)
        .unwrap_or_else(|| panic!("no fuzz target {name}"))
}

/// The front of `data` in a field of fixed length, zeros where there is none.
pub fn fit<const N: usize>(data: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(data) {
        *to = *from;
    }
    out
}
