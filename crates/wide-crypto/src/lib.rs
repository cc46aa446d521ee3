//! What a datagram costs most of its time: [HCTR2](hctr2) for the payload's layer of a path and
//! [AES-256-GCM](gcm) for the link, with the processor's instructions for wide vectors.
//!
//! Each is written once for three [widths](Width) of 128, 256 and 512 bits: `lanes.rs` gives their
//! instructions one set of names, `field.rs` has the multiplication that both hash with, `aes256.rs`
//! the key schedule. Where there are no such instructions, well-known crates do the same work.
//!
//! # Safety
//! Functions that are compiled for instructions must not be called where these are missing. Everything in here is
//! safe code but the calls from functions that are compiled for all processors into those that are not: one
//! for each width and operation, in `hctr2/mod.rs` and `gcm/mod.rs`. What they rely on is that a [`Width`]
//! exists only where the processor has its instructions, which `width.rs` alone sees to.
//!
//! Nothing depends on secrets in time: there are no branches on them and no tables.

#[cfg(target_arch = "x86_64")]
mod aes256;
#[cfg(target_arch = "x86_64")]
mod field;
pub mod gcm;
pub mod hctr2;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod stack;
mod width;

pub use stack::scrub_stack;
pub use width::{CPU, Unavailable, Width};

/// The block length of AES.
pub const BLOCK: usize = 16;
