//! Builds XDP programs from build scripts, if the machine has what that takes.
//!
//! Needs `bpf-linker` and one of: a nightly toolchain with `rust-src`, or Debian's
//! `rustc-web` with `libstd-rust-web-dev-bpf`. Without them an empty object is left: a
//! program that embeds it works without XDP and says, when asked for it, what to install.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt, fs, io};

/// Debian's compiler, whose package of `core` for BPF stands beside it.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const TARGET: &str = "bpfel-unknown-none";

/// Builds the binary `binary` of the package in `source` (relative to the package whose build
/// script this is) and leaves the object under its name in `OUT_DIR`: empty, with a warning,
/// if it cannot be built. It is built again when `watch` (also relative) or the package's own
/// sources change.
pub fn embed(source: &str, binary: &str, watch: &[&str]) {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let source = manifest.join(source);
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let own = ["src", "Cargo.toml", "Cargo.lock"].map(|path| source.join(path));
    for path in own
        .into_iter()
        .chain(watch.iter().map(|w| manifest.join(w)))
    {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    println!("cargo:rerun-if-env-changed=MIXLINE_TOOLS");
    println!("cargo:rerun-if-env-changed=PATH");
    let object = out.join(binary);
    match build(&source, binary, &out) {
        Ok(built) => {
            if let Err(e) = fs::copy(&built, &object) {
                println!("cargo:warning=cannot copy {}: {e}", built.display());
                empty(&object);
            }
        }
        Err(why) => {
            println!(
                "cargo:warning=built without the XDP program {binary}: {why}; \
                 `cargo xtask setup` helps"
            );
            empty(&object);
        }
    }
}

fn empty(object: &Path) {
    if let Err(e) = fs::write(object, []) {
        println!("cargo:warning=cannot write {}: {e}", object.display());
    }
}

/// Why there is no program.
#[derive(Debug)]
enum Error {
    NoLinker,
    NoCompiler,
    /// Cargo did not start.
    Cargo(io::Error),
    /// The compiler's first error.
    Compiler(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLinker => f.write_str("bpf-linker is not installed"),
            Self::NoCompiler => f.write_str(
                "neither nightly with rust-src nor rustc-web with libstd-rust-web-dev-bpf",
            ),
            Self::Cargo(error) => write!(f, "cargo: {error}"),
            Self::Compiler(line) => f.write_str(line),
        }
    }
}

impl std::error::Error for Error {}

/// Builds the program; the error says what is missing.
fn build(source: &Path, binary: &str, out: &Path) -> Result<PathBuf, Error> {
    let linker = find_linker().ok_or(Error::NoLinker)?;
    // One for all profiles and programs, as what they depend on is the same: `out` is
    // target/PROFILE/build/PACKAGE/out.
    let target_dir = out.ancestors().nth(4).unwrap_or(out).join("xdp-programs");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(source)
        .args(["build", "--release", "--bin", binary, "--target", TARGET]);
    cargo.arg("--target-dir").arg(&target_dir);
    // What cargo sets for this build script is about another package and another target.
    for (key, _) in env::vars_os() {
        let key = key.to_string_lossy().into_owned();
        if key.starts_with("CARGO_") && key != "CARGO_HOME"
            || key.starts_with("RUSTC_")
            || key == "RUSTC"
        {
            cargo.env_remove(key);
        }
    }
    cargo.env(
        "CARGO_ENCODED_RUSTFLAGS",
        [
            format!("-Clinker={}", linker.display()),
            "-Clink-arg=--btf".into(),
            "-Cdebuginfo=2".into(),
        ]
        .join("\u{1f}"),
    );
    if has_debian_core() {
        cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
    } else if has_nightly_source() {
        cargo
            .env("RUSTUP_TOOLCHAIN", "nightly")
            .args(["-Z", "build-std=core"]);
    } else {
        return Err(Error::NoCompiler);
    }
    let output = cargo.output().map_err(Error::Cargo)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text
            .lines()
            .find(|l| l.starts_with("error"))
            .unwrap_or("the compiler failed");
        return Err(Error::Compiler(line.into()));
    }
    Ok(target_dir.join(TARGET).join("release").join(binary))
}

/// `bpf-linker` in the folder that `MIXLINE_TOOLS` names, where `cargo xtask setup` installs
/// it, or on the path.
fn find_linker() -> Option<PathBuf> {
    let tools =
        env::var_os("MIXLINE_TOOLS").map_or_else(|| "/opt/mixline-tools".into(), PathBuf::from);
    let mut folders = vec![tools.join("bin")];
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    folders
        .into_iter()
        .map(|f| f.join("bpf-linker"))
        .find(|f| f.is_file())
}

/// Whether Debian's compiler has `core` for the target.
fn has_debian_core() -> bool {
    let Ok(output) = Command::new(DEBIAN_RUSTC)
        .args(["--print", "sysroot"])
        .output()
    else {
        return false;
    };
    let root = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let lib = root.join("lib/rustlib").join(TARGET).join("lib");
    fs::read_dir(lib).is_ok_and(|mut entries| {
        entries.any(|e| e.is_ok_and(|e| e.file_name().to_string_lossy().starts_with("libcore")))
    })
}

/// Whether rustup has a nightly with its library source.
fn has_nightly_source() -> bool {
    let rustc = Command::new("rustc")
        .args(["+nightly", "--print", "sysroot"])
        .output();
    let Ok(output) = rustc else { return false };
    let root = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    output.status.success() && root.join("lib/rustlib/src/rust/library/core").is_dir()
}
