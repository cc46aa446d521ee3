//! The control plane's neighbours, without sockets: relays that find each other, clients
//! that come, move and go, and the bounds on all of them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod budgets;
mod clients;
mod floods;
mod node;
mod relays;
