//! The XDP programs of the benchmarks: one makes frames, one counts those that come back, one
//! gives all of our datagrams to an AF_XDP socket.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod abi;
/// The frame reader of the relay's program.
#[cfg(target_arch = "bpf")]
#[path = "../../../relay-ebpf/src/packet.rs"]
mod packet;
#[cfg(target_arch = "bpf")]
mod program;

/// On the host there is nothing to run.
#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("mixline-bench-xdp is loaded into the kernel by mixline-bench");
}
