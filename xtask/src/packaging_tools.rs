//! `cargo deb`, which makes packages.

use crate::tools::Tool;
use anyhow::Result;

/// Makes packages. Unoptimised it builds in a fraction of the time; `xz` compresses all the same.
pub const CARGO_DEB: Tool = Tool {
    name: "cargo-deb",
    version: "3.8.0",
    options: &["--debug", "--no-default-features"],
    environment: &[("CARGO_PROFILE_DEV_DEBUG", "0")],
};

/// Installs `cargo deb` where it is missing.
pub fn install_cargo_deb() -> Result<()> {
    if CARGO_DEB.find().is_some() {
        return Ok(());
    }
    println!(
        "building cargo-deb {}, which makes packages",
        CARGO_DEB.version
    );
    CARGO_DEB.install()
}
