//! The XDP program of the relay: turns what it finds in a frame into a verdict.
//!
//! Everything that is not a datagram to one of our addresses and our port passes
//! untouched. What is ours and wrong is dropped, handshakes pass within their limits to
//! the kernel's socket, and data of live sessions that has not been seen before goes to
//! the queue's AF_XDP socket, or, as a filter before the UDP port, to the kernel's. Every
//! verdict is counted per CPU. Nothing is logged per packet; only what says that the
//! interface is not set up as it should be, and that once.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod program;

/// On the host there is nothing to run. How a datagram is found in a frame, the replay filter and
/// the limits stand in `mixline-relay-common` and are tested there.
#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("mixline-relay-xdp is loaded into the kernel by mixline-relay");
}
