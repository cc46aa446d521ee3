//! What an endpoint is told when it starts.

use std::path::PathBuf;

/// The settings of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the guards are remembered. Made with mode 0700 if it is not there.
    pub state_dir: PathBuf,
    /// What the engine does.
    pub engine: mixline_endpoint_engine::Config,
}

impl Config {
    /// The defaults.
    #[must_use]
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            state_dir,
            engine: mixline_endpoint_engine::Config::default(),
        }
    }
}
