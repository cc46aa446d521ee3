//! Builds the XDP programs of the benchmarks, if this machine has what that takes.

fn main() {
    mixline_ebpf_build::embed(
        "ebpf",
        "mixline-bench-xdp",
        &["../crates/relay-common/src", "../relay-ebpf/src/packet.rs"],
    );
}
