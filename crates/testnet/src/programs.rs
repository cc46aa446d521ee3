//! Where the working copy, its target directory and the built programs are.

use crate::error::{Error, Result};
use crate::netns::system_path;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The executables of a network.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `mixline-directory`.
    pub directory: PathBuf,
    /// `mixline-relay`.
    pub relay: PathBuf,
    /// `mixline-client`.
    pub client: PathBuf,
    /// `mixline-rogue-relay`, a relay that misbehaves; there only for the tests.
    pub rogue_relay: PathBuf,
}

impl Programs {
    /// The names of the programs that a network needs.
    pub const NAMES: [&str; 3] = ["mixline-directory", "mixline-relay", "mixline-client"];
    /// The name of the relay that misbehaves.
    const ROGUE_RELAY: &str = "mixline-rogue-relay";

    /// The release builds in the target directory; says how to make them if they are missing.
    pub fn release() -> Result<Self> {
        Self::in_directory(&target_directory().join("release"))
    }

    /// The same for tests, built first, with the rogue relay; once in a process, and not if
    /// [`BUILT`] is set.
    pub fn for_tests() -> Result<Self> {
        static COMPILE: OnceLock<bool> = OnceLock::new();
        let compile = COMPILE.get_or_init(|| {
            if env::var_os(BUILT).is_some() {
                return true;
            }
            let status = cargo().args(build_arguments(true)).status();
            status.is_ok_and(|status| status.success())
        });
        if !compile {
            return Err(Error::DoesNotCompile);
        }
        Self::release()
    }

    fn in_directory(directory: &Path) -> Result<Self> {
        let [server, relay, client] = Self::NAMES.map(|name| built(directory.join(name)));
        Ok(Self {
            directory: server?,
            relay: relay?,
            client: client?,
            rogue_relay: directory.join(Self::ROGUE_RELAY),
        })
    }
}

/// The release build of `mixline-relay`, for what needs no other program; says how to make it if it
/// is missing.
pub fn relay() -> Result<PathBuf> {
    built(target_directory().join("release/mixline-relay"))
}

fn built(program: PathBuf) -> Result<PathBuf> {
    if program.is_file() {
        Ok(program)
    } else {
        Err(Error::NotBuilt(program))
    }
}

/// Set for tests whose programs are built already, perhaps by another user: they build nothing.
pub const BUILT: &str = "MIXLINE_PROGRAMS_ARE_BUILT";

/// Cargo: the one that runs this, else the one on the path. What a cargo that runs this has put
/// into the environment about its own package is taken out again: build scripts look at it, and
/// would build everything anew at each change from one cargo to the other.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    let of_a_package = |name: &str| {
        [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
            "CARGO_PRIMARY_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
    };
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(of_a_package) {
            command.env_remove(name);
        }
    }
    command
}

/// Cargo's arguments that build the programs of a network, and the rogue relay if asked for. The programs
/// are the same with it and without: no package gets other features by it.
pub fn build_arguments(rogue: bool) -> Vec<&'static str> {
    let mut arguments = vec!["build", "--release", "--bins"];
    let rogue = rogue.then_some(Programs::ROGUE_RELAY);
    for name in Programs::NAMES.into_iter().chain(rogue) {
        arguments.extend(["--package", name]);
    }
    arguments
}

/// The path of a system program.
pub fn find_tool(name: &str) -> Result<PathBuf> {
    env::split_paths(&system_path())
        .map(|path| path.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::NotInstalled(name.to_owned()))
}

/// The root of the working copy.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Cargo's target directory: `CARGO_TARGET_DIR`, or `target` in the working copy.
pub fn target_directory() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(path) => root().join(path),
        None => root().join("target"),
    }
}

/// The relay's XDP program that the last build of `mixline-xdp` made; none if it was built without.
pub fn xdp_program() -> Option<PathBuf> {
    let target = target_directory();
    ["debug", "release"]
        .iter()
        .filter_map(|profile| fs::read_dir(target.join(profile).join("build")).ok())
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            name.to_string_lossy().starts_with("mixline-xdp-")
        })
        .filter_map(|entry| fs::read_dir(entry.path().join("out")).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| {
            file.file_name()
                .is_some_and(|name| name == "mixline-relay-xdp")
        })
        .filter_map(|file| Some((fs::metadata(&file).ok()?, file)))
        // An empty file means that there is none.
        .filter(|(metadata, _)| metadata.len() > 0)
        .max_by_key(|(metadata, _)| metadata.modified().ok())
        .map(|(_, file)| file)
}

/// Set where a network is not to keep its files in the working copy: in a machine that has none.
pub const DIRECTORY: &str = "MIXLINE_TESTNET_DIRECTORY";

/// Where a network keeps configurations, state, logs and `state.json`.
pub fn testnet_directory() -> PathBuf {
    env::var_os(DIRECTORY).map_or_else(|| root().join("target/testnet"), PathBuf::from)
}
