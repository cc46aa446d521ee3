//! Builds the XDP program, if this machine has what that takes.

fn main() {
    mixline_ebpf_build::embed(
        "../../relay-ebpf",
        "mixline-relay-xdp",
        &["../relay-common/src"],
    );
}
