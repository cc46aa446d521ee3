//! `mixline-client doctor`: whether this host carries the client, what stands in the way, and the
//! command that mends it.
//!
//! Each part is a file with two halves: `read` looks and changes nothing; `judge` decides on what was
//! seen, and is tested on hosts that do not exist. It works beside a running client and without one,
//! and without root, as far as the kernel lets it look.

mod browsers;
mod client;
mod diagnosis;
mod directory;
mod host;
mod machine;
mod resolver;
mod wire;

use std::path::Path;

use mixline_daemon::doctor::{Section, clock};
use mixline_daemon::processor;

use crate::config::Config;

pub use diagnosis::{ClientState, Diagnosis};
pub use wire::silences;

/// Examines this host for a client of this configuration. It takes some ten seconds, or twenty behind a
/// NAT; two minutes if it is to be `long`, which see [`silences`].
pub async fn examine(file: &Path, long: bool) -> Diagnosis {
    let config = Config::load(file);
    let client = client::Client::read(config.as_ref().ok());
    let mut sections = Vec::new();
    let mut section = |part: &str, checks| {
        sections.push(Section {
            part: part.into(),
            checks,
        });
    };
    let (directories, snapshot) = match &config {
        Ok(config) => {
            let (directories, snapshot) = directory::Directories::read(config).await;
            (Some(directories), snapshot)
        }
        Err(_) => (None, None),
    };
    let network = snapshot.as_ref().map(|s| s.parameters.network);
    let machine = machine::Machine::read();
    let host = host::HostSeen::read(config.as_ref().ok(), network, &client);
    let packets = host.judge(&client, machine.judge_trial());
    // What is found here is not told in the client's words as well.
    let mut own = client.judge(&config);
    own.retain(|says| says.check != client::SAYS || !packets.iter().any(|f| f.found == says.found));
    section("client", own);
    let mut system = machine.judge(&client);
    system.push(processor::judge());
    section("system", system);
    section("packets", packets);
    let resolver = resolver::ResolverSeen::read(&client).await;
    let mut names = resolver.judge(&client);
    names.push(browsers::Browsers::read().judge());
    section("names", names);

    let mut checks = Vec::new();
    let ahead = directories.as_ref().and_then(|seen| seen.clock_ahead());
    checks.push(match ahead {
        Some(ahead) => directory::judge_clock(ahead),
        None => clock::Clock::read().judge(),
    });
    let reached = directories.as_ref().is_some_and(|seen| seen.any_answered());
    checks.extend(directories.into_iter().flat_map(|seen| seen.judge(&client)));
    section("directory", checks);

    let wire = wire::Wire::read(&client, config.as_ref().ok(), snapshot, long).await;
    section("guards", wire.judge(reached));
    Diagnosis::new(
        file.display().to_string(),
        client.state(),
        sections,
        wire.measured(),
    )
}
