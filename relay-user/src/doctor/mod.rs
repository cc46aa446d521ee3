//! `mixline-relay doctor`: whether this machine carries the relay as configured, and what to
//! change.
//!
//! Each part is a file with two halves: `read` looks at the machine and changes nothing that
//! runs; `judge` decides on what was seen, and is tested on machines that do not exist.

mod buffers;
mod directory;
mod ethtool;
mod finding;
mod interface;
mod kernel;
mod mode;
mod offloads;
mod plan;
mod privileges;
mod queues;
mod reach;
mod state;

use std::thread::available_parallelism;

use mixline_daemon::doctor::{clock, command};
use mixline_daemon::processor;

pub use finding::{Diagnosis, Finding, Level, Section};

use crate::config::Config;
use crate::default_route;
use crate::observe;
use crate::port;
use plan::Plan;

/// Examines this machine for a relay of this configuration, or for one on `port: auto`;
/// `interface` counts before the configuration's.
pub async fn examine(config: Option<&Config>, interface: Option<&str>) -> Diagnosis {
    let cores = available_parallelism().map_or(1, usize::from);
    let running = config.and_then(|config| observe::ask(&config.state_dir).ok());
    let plan = match config {
        Some(config) => Plan::of(config, cores, running),
        None => Plan::bare(cores),
    };
    let ethtool = ethtool::Ethtool::open();
    let name = match (interface, config) {
        (Some(name), _) => Ok(name.to_string()),
        (None, Some(config)) => port::interface_of(config).map_err(|e| e.to_string()),
        (None, None) => default_route::interface()
            .ok_or_else(|| "there is no default route: name one with --interface".into()),
    };
    let seen = name.as_ref().map_err(String::clone).and_then(|name| {
        interface::Interface::read(name).map_err(|error| format!("interface {name}: {error}"))
    });

    let mut sections = Vec::new();
    let mut section = |part: &str, checks| {
        sections.push(Section {
            part: part.into(),
            checks,
        });
    };
    let privileges = privileges::Privileges::read();
    let mut system = kernel::Kernel::read().judge(&plan);
    system.push(processor::judge());
    section("kernel", system);
    match &seen {
        Err(why) => {
            section("privileges", privileges.judge(&plan, 1));
            let change = "`interface: NAME` in the configuration, or --interface NAME";
            let lacks = plan.lacks("interface", why, change);
            let checks = plan.judge_given_up().into_iter().chain([lacks]);
            section("interface", checks.collect());
        }
        Ok(interface) => {
            let name = &interface.card.interface;
            let queues = queues::Queues::read(ethtool.as_ref(), name);
            let modes = mode::Modes::read(interface, &plan);
            let offloads = offloads::Offloads::read(ethtool.as_ref(), name, &interface.vlans);
            section("privileges", privileges.judge(&plan, queues.receive));
            let mut checks = interface.judge(&plan);
            checks.extend(modes.judge(&plan));
            checks.extend(plan.judge_given_up());
            section("interface", checks);
            section("queues", queues.judge(&plan));
            section("offloads", offloads.judge(&plan));
        }
    }
    let mut system = buffers::Buffers::read(privileges.may_force_buffers()).judge();
    system.push(clock::Clock::read().judge());
    if let Some(config) = config {
        system.push(state::State::read(&config.state_dir).judge());
    }
    section("system", system);
    let mut network = reach::Reach::read(&plan).judge(&plan);
    if let Some(config) = config {
        let directories = directory::Directory::read_all(&config.network).await;
        network.extend(directories.iter().map(directory::Directory::judge));
    }
    section("network", network);
    Diagnosis::new(
        config.map(|config| config.name.clone()),
        plan.port,
        seen.ok().map(|interface| interface.card.interface),
        sections,
    )
}
