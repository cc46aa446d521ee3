//! The tools that build the XDP program: a compiler with `core` for BPF, and `bpf-linker`.
//!
//! A machine without them still builds a relay, one that works on UDP sockets.

use crate::tools::Tool;
use anyhow::{Context, Result};
use mixline_testnet::programs;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// Debian's compiler with `core` for the BPF target.
const COMPILER: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];
/// What `bpf-linker` is built with and links to.
const LLVM: [&str; 2] = ["llvm-22-dev", "libpolly-22-dev"];
/// Where these packages put LLVM.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// The linker; the program's BTF is checked against its version.
const LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.13.0",
    options: &["--no-default-features", "--features", "llvm-22"],
    environment: &[
        ("LLVM_PREFIX", LLVM_PREFIX),
        ("LLVM_SYS_221_PREFIX", LLVM_PREFIX),
    ],
};

/// Packages that are missing and that Debian may or may not have.
pub fn missing_packages() -> Vec<&'static str> {
    let mut packages = Vec::new();
    if !compiler_is_there() {
        packages.extend(COMPILER);
    }
    if !linker_is_there() && !Path::new(LLVM_PREFIX).join("bin/llvm-config").exists() {
        packages.extend(LLVM);
    }
    packages
}

/// Says what is there and what is not.
pub fn report() {
    let state = |there| if there { "there  " } else { "MISSING" };
    println!(
        "{}  {:16} compiles the XDP program (or: nightly Rust with rust-src)",
        state(compiler_is_there()),
        COMPILER[0]
    );
    println!("{}  {:16} links it", state(linker_is_there()), "bpf-linker");
}

/// Whether the XDP program can be built.
pub fn all_there() -> bool {
    compiler_is_there() && linker_is_there()
}

/// Builds the linker where it is missing and can be built; says so where it cannot.
pub fn install_linker() -> Result<()> {
    if !compiler_is_there() {
        println!(
            "no XDP program: neither {} nor nightly Rust with rust-src is to be had here; relays \
             work on UDP sockets",
            COMPILER.join(" and ")
        );
        return Ok(());
    }
    if linker_is_there() {
        return Ok(());
    }
    if !Path::new(LLVM_PREFIX).join("bin/llvm-config").exists() {
        println!(
            "no XDP program: install bpf-linker {} yourself, since {} are not to be had here; relays \
             work on UDP sockets",
            LINKER.version,
            LLVM.join(" and ")
        );
        return Ok(());
    }
    println!(
        "building bpf-linker {}, which links the XDP program",
        LINKER.version
    );
    LINKER.install()
}

/// Has cargo build the XDP programs although it has built the rest without. Their build scripts
/// cannot watch for tools that are not there yet, so they are made to look new.
pub fn build_anew() -> Result<()> {
    for script in ["crates/xdp/build.rs", "bench/build.rs"] {
        let script = programs::root().join(script);
        let touch = fs::File::options().append(true).open(&script);
        touch
            .and_then(|file| file.set_modified(SystemTime::now()))
            .with_context(|| format!("touching {}", script.display()))?;
    }
    Ok(())
}

fn linker_is_there() -> bool {
    LINKER.find().is_some()
}

fn compiler_is_there() -> bool {
    let debian = sysroot("/usr/bin/rustc", &[])
        .map(|root| root.join("lib/rustlib/bpfel-unknown-none/lib"))
        .is_some_and(|library| library.is_dir());
    let nightly = sysroot("rustc", &["+nightly"])
        .map(|root| root.join("lib/rustlib/src/rust/library/core"))
        .is_some_and(|source| source.is_dir());
    debian || nightly
}

fn sysroot(rustc: impl AsRef<OsStr>, arguments: &[&str]) -> Option<PathBuf> {
    let output = Command::new(rustc)
        .args(arguments)
        .args(["--print", "sysroot"])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let root = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(root.trim()))
}
