//! What a Mixline relay does with datagrams, without sockets, threads or a clock.
//!
//! - [`pipeline`]: what happens to a batch of datagrams, a stage to a file;
//! - [`batch`], [`headers`], [`outcome`]: datagrams in place, and what becomes of each;
//! - [`link_sessions`], [`next_hops`]: what a worker knows of its neighbours;
//! - [`quota`], [`buffer_pool`]: the bounds on what leaves a batch;
//! - [`queues`], [`messages`], [`wake`]: what is between workers, control plane and slow path;
//! - [`slow_path`]: how the headers of new paths are opened;
//! - [`port_kind`]: how datagrams get in and out.

pub mod batch;
pub mod buffer_pool;
pub mod headers;
pub mod link_sessions;
pub mod messages;
pub mod next_hops;
pub mod outcome;
pub mod pipeline;
pub mod port_kind;
pub mod queues;
pub mod quota;
pub mod slow_path;
pub mod wake;
