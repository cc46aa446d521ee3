//! The host's state in the real kernel, in network namespaces of its own: needs root, skips without
//! it unless `MIXLINE_REQUIRE_ROOT=1`.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod announcements;
mod containers;
mod filter;
mod names;
mod routes;
mod wire;
