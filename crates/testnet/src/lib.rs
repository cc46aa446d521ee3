//! Networks of namespaces: one directory, eight relays, a service and a client, each in a network
//! namespace of its own, joined by a router. The demo, the end-to-end tests and the benchmarks run
//! the real programs on it.
//!
//! There is one network at a time on a machine ([`lock`]), or one more that is [`apart`]; a later start waits. Everything ends
//! with the process that started it, also when that is killed: each program dies with its parent,
//! and the next start removes the namespaces that stayed.

pub mod apart;
pub mod cards;
pub mod client_status;
pub mod configs;
pub mod error;
pub mod fetch;
pub mod guests;
pub mod link_client;
pub mod link_path;
pub mod lock;
pub mod metrics;
pub mod namespaces;
pub mod netns;
pub mod network;
pub mod pcap;
pub mod proc;
pub mod process;
pub mod programs;
mod signals;
pub mod skip;
pub mod ssh;
pub mod state;
pub mod topology;
pub mod web;

pub use cards::CardWire;
pub use error::{Error, Result};
pub use mixline_relay_engine::port_kind::PortKind as Port;
pub use network::{Network, Options};
pub use programs::Programs;
pub use signals::{end_on_signals, interrupt, interrupted};
