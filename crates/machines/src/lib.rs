//! Debian in virtual machines and in containers, for what no network namespace can show: real drivers
//! of network cards, other kernels, systemd as the first process.
//!
//! - [`archive`]: Debian's packages, with lists of their own beside the host's;
//! - [`tree`]: a small Debian in a directory, which both machines and containers start from;
//! - [`kernel`], [`disk`]: what turns the tree into something that QEMU starts;
//! - [`machine`]: a virtual machine and the root shell in it ([`shell`]);
//! - [`container`]: a container of the same tree;
//! - [`image`]: a disk image of a relay for bare metal; [`appliance`]: a machine that boots it by UEFI.
//!
//! The host is left as it is: no loop device, no tap, no address, no unit, and no mount but in
//! namespaces that end with what made them. What is made is
//! kept in one directory ([`cache_directory`]) and used again until the recipe changes.

pub mod appliance;
pub mod archive;
pub mod container;
pub mod disk;
mod error;
pub mod image;
mod inside;
pub mod kernel;
pub mod lock;
pub mod machine;
mod run;
pub mod shell;
pub mod tree;

use std::path::{Path, PathBuf};

pub use error::{Error, Result};

/// Where trees, kernels and disks are kept between runs: `MIXLINE_MACHINES`, or a directory of
/// root's in `/var/cache`.
#[must_use]
pub fn cache_directory() -> PathBuf {
    std::env::var_os("MIXLINE_MACHINES").map_or_else(
        || Path::new("/var/cache/mixline-machines").to_path_buf(),
        PathBuf::from,
    )
}
