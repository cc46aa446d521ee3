//! The host around the client: what it should look like, and the one loop that sees to it.
//!
//! [`desired`] says from what the client wants and what the host has how the host should look;
//! [`plan`] leads there in steps between which nothing gets out; [`kernel`] looks and acts;
//! [`reconcile`] does all of it, and [`announcements`] says when to do it again. `desired` and `plan`
//! know no sockets and no clock.

pub mod announcements;
pub mod desired;
pub mod filter;
pub mod kernel;
pub mod nftables;
pub mod observed;
pub mod plan;
pub mod prefix;
pub mod reconcile;
