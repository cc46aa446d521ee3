//! The host around the client: what it should look like, and the one loop that sees to it.
//!
//! [`desired`] says from what the client wants and what the host has how the host should look;
//! [`plan`] leads there in steps between which nothing gets out; [`kernel`] looks and acts;
//! [`reconcile`] does all of it, and [`announcements`] says when to do it again. `desired` and `plan`
//! know no sockets and no clock. [`routing`] has the rules and routes of the own tables, [`others`]
//! decides which networks inside the virtual ones stay somebody else's, [`outside`] whom the client
//! reaches there itself, `questions` which questions of DNS nobody else is asked, [`finding`] is what a
//! person should know.

pub mod announcements;
pub mod desired;
pub mod filter;
pub mod finding;
pub mod kernel;
pub mod nftables;
pub mod observed;
pub mod others;
pub mod outside;
pub mod plan;
pub mod prefix;
mod questions;
pub mod reconcile;
pub mod routing;
