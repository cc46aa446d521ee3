//! The host to which things happen.

use super::event::{ALL, Event, FORWARDING_IPV6_OFF, FORWARDING_OFF, RESTORE, RP_FILTER_OFF};
use super::random::Random;
use crate::leaks::comes_again;
use crate::tools::{eventually, output};
use anyhow::{Context, Result};
use mixline_testnet::topology::Node;
use mixline_testnet::{Network, namespaces, netns};
use nix::sys::signal::Signal;
use std::fs;
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::Duration;

/// Events of a round, at most.
const EVENTS: u64 = 12;

/// Runs `ip` on the client's host; gives whether it did what it was told.
fn ip(line: &str) -> bool {
    let namespace = Node::Client.namespace();
    netns::said(netns::command(&namespace, "ip").args(line.split(' '))).is_ok()
}

/// The client's host, on which events happen.
pub struct Host {
    pub random: Random,
    /// See [`Programs`](super::programs::Programs).
    pub asking: Arc<RwLock<()>>,
    pub published: bool,
}

fn is_running(network: &mut Network) -> bool {
    let process = network.process(Node::Client);
    process.is_some_and(|process| process.ended().is_none())
}

/// Whether both layers close the host.
fn is_closed() -> bool {
    let shown = |program: &str, arguments: &str| {
        let namespace = Node::Client.namespace();
        let command = &mut netns::command(&namespace, program);
        netns::said(command.args(arguments.split(' '))).unwrap_or_default()
    };
    let tables = shown("nft", "list tables");
    shown("ip", "rule show").contains("lookup 28009")
        && shown("ip", "-6 rule show").contains("lookup 28009")
        && shown("ip", "route show table 28009").contains("unreachable 10.0.0.0/8")
        && shown("ip", "-6 route show table 28009").contains("unreachable fd00::/8")
        && tables.contains("inet mixline")
        && tables.contains("arp mixline")
}

/// Whether the client's rules come first: where another one does, the filter alone closes the host.
fn rules_close() -> bool {
    let namespace = Node::Client.namespace();
    let rules = netns::said(netns::command(&namespace, "ip").args(["rule", "show"]));
    let rules = rules.unwrap_or_default();
    match (rules.find("lookup 28009"), rules.find("lookup 53")) {
        (Some(own), Some(other)) => own < other,
        (own, _) => own.is_some(),
    }
}

/// Waits until the client has closed the host again, or has ended.
fn heal(network: &mut Network) -> Result<()> {
    eventually("both layers close the host again", 30, || {
        Ok(is_closed() || !is_running(network))
    })
}

impl Host {
    /// Lets something happen; whether it did.
    pub fn happen(&mut self, network: &mut Network, event: Event) -> Result<bool> {
        let running = is_running(network);
        if !running {
            // One that ended by itself, as without its interface, counts as killed.
            let _ = network.kill(Node::Client);
        }
        let namespace = Node::Client.namespace();
        let done = match event {
            Event::Ip(lines) => lines.iter().filter(|line| ip(line)).count() > 0,
            Event::IpThenHeal(_) | Event::FilterGone if !running || !is_closed() => false,
            Event::FilterGone if !rules_close() => false,
            Event::IpThenHeal(lines) => {
                let done = lines.iter().filter(|line| ip(line)).count() > 0;
                heal(network)?;
                done
            }
            Event::FilterGone => {
                let _nobody = self.asking.write();
                for table in ["inet", "arp"] {
                    let delete = ["delete", "table", table, "mixline"];
                    netns::said(netns::command(&namespace, "nft").args(delete))?;
                }
                heal(network)?;
                true
            }
            Event::ResolvConf(text) => {
                fs::write(namespaces::resolv_conf(&namespace), text)?;
                true
            }
            Event::Kill => {
                if running {
                    network.kill(Node::Client)?;
                }
                running
            }
            Event::Start => {
                if !running {
                    network.start(Node::Client)?;
                }
                !running
            }
            Event::Freeze => {
                let time = Duration::from_millis(200 + self.random.below(1800));
                let Some(client) = network.process(Node::Client) else {
                    return Ok(false);
                };
                client.signal(Signal::SIGSTOP)?;
                thread::sleep(time);
                client.signal(Signal::SIGCONT)?;
                true
            }
            Event::Hangup => {
                if let Some(client) = network.process(Node::Client) {
                    client.signal(Signal::SIGHUP)?;
                }
                running
            }
            Event::Publish(name) => {
                let command = if self.published {
                    "unpublish"
                } else {
                    "publish"
                };
                let mut asked = network.client_command(Node::Client, command);
                let done = output(asked.arg(name))?.status.success();
                self.published ^= done;
                done
            }
            Event::Sysctl(key, value) => {
                let assignment = format!("{key}={value}");
                let set = ["-q", "-w", &assignment];
                netns::said(netns::command(&namespace, "sysctl").args(set))?;
                true
            }
        };
        Ok(done)
    }

    /// Some events; says which.
    pub fn round(&mut self, network: &mut Network, happened: &mut Vec<Event>) -> Result<()> {
        for _ in 0..=self.random.below(EVENTS) {
            let event = ALL[usize::try_from(self.random.below(ALL.len() as u64))?];
            let done = self.happen(network, event);
            if done.with_context(|| format!("{event:?}"))? {
                happened.push(event);
            }
            thread::sleep(Duration::from_millis(self.random.below(700)));
        }
        for line in RESTORE {
            ip(line);
        }
        for event in [
            RP_FILTER_OFF,
            FORWARDING_OFF,
            FORWARDING_IPV6_OFF,
            Event::Start,
        ] {
            self.happen(network, event)?;
        }
        comes_again(network, "after a round")
    }
}
