//! Queues of the card: how many, how deep, and whether datagrams are spread over them.

use mixline_relay_common::maps::MAX_QUEUES;

use super::command;
use super::ethtool::{Channels, Ethtool, RingSize};
use super::finding::Finding;
use super::plan::Plan;
use crate::port::receive_queues;

/// Entries of a receive ring that a burst of 40 neighbours fits into.
const RING: u32 = 1024;
/// How many entries are advised where the card has more.
const DEEP: u32 = 4096;

/// Whether the card spreads UDP datagrams over its queues by their ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// By addresses and ports.
    ByPorts,
    /// By addresses only.
    ByAddresses,
    /// The driver does not say.
    Unknown,
    /// `ethtool` is not installed, and nothing else says.
    NoTool,
}

/// What was seen of the queues.
#[derive(Debug, Clone)]
pub struct Queues {
    /// The interface's name.
    pub interface: String,
    /// Queues in use for receiving.
    pub receive: u32,
    /// How many there can be.
    pub most: Option<Channels>,
    /// The receive ring.
    pub ring: Option<RingSize>,
    /// How UDP is spread over them.
    pub spread: Spread,
}

impl Queues {
    /// Looks at the machine.
    #[must_use]
    pub fn read(ethtool: Option<&Ethtool>, interface: &str) -> Self {
        let receive = receive_queues(interface);
        let spread = if receive < 2 {
            Spread::Unknown
        } else if command::output("ethtool", &["--version"]).is_none() {
            Spread::NoTool
        } else {
            let said = command::output("ethtool", &["-n", interface, "rx-flow-hash", "udp4"]);
            said.map_or(Spread::Unknown, |text| spread(&text))
        };
        Self {
            interface: interface.into(),
            receive,
            most: ethtool.and_then(|ethtool| ethtool.channels(interface)),
            ring: ethtool.and_then(|ethtool| ethtool.receive_ring(interface)),
            spread,
        }
    }

    /// Compares it with what the relay needs.
    #[must_use]
    pub fn judge(&self, plan: &Plan) -> Vec<Finding> {
        vec![
            self.judge_count(plan),
            self.judge_ring(),
            self.judge_spread(),
        ]
    }

    fn judge_count(&self, plan: &Plan) -> Finding {
        let check = "receive queues";
        let Self {
            interface, receive, ..
        } = self;
        let workers = u32::try_from(plan.workers).unwrap_or(u32::MAX);
        let counts = format!("{receive}, for {workers} workers");
        let set = |count: u32| match self.most {
            Some(Channels { combined: 0, .. }) => format!("ethtool -L {interface} rx {count}"),
            _ => format!("ethtool -L {interface} combined {count}"),
        };
        if *receive > MAX_QUEUES && plan.redirects() {
            return plan.lacks(
                check,
                format!("{receive}, of which AF_XDP can use {MAX_QUEUES}"),
                &set(MAX_QUEUES),
            );
        }
        let most = self
            .most
            .map_or(*receive, |most| most.combined.max(most.receive));
        if *receive < workers && most > *receive {
            Finding::warning(
                check,
                format!("{counts}: some cores stay idle while others are busy"),
                set(workers.min(most).min(MAX_QUEUES)),
            )
        } else if *receive < workers {
            Finding::ok(check, format!("{counts}; the card has no more"))
        } else {
            Finding::ok(check, counts)
        }
    }

    fn judge_ring(&self) -> Finding {
        let check = "receive ring";
        match self.ring {
            Some(RingSize { now, most }) if now < RING && most > now => Finding::warning(
                check,
                format!("{now} entries: bursts are lost"),
                format!("ethtool -G {} rx {}", self.interface, most.min(DEEP)),
            ),
            Some(RingSize { now, .. }) => Finding::ok(check, format!("{now} entries")),
            None => Finding::ok(check, "the driver has none to set"),
        }
    }

    fn judge_spread(&self) -> Finding {
        let check = "spread of UDP";
        match self.spread {
            _ if self.receive < 2 => Finding::ok(check, "one queue"),
            Spread::ByPorts => Finding::ok(check, "over the queues by addresses and ports"),
            Spread::ByAddresses => Finding::warning(
                check,
                "by addresses only: clients behind one address share one queue",
                format!("ethtool -N {} rx-flow-hash udp4 sdfn", self.interface),
            ),
            Spread::Unknown => Finding::ok(check, "the driver does not say"),
            Spread::NoTool => Finding::warning(
                check,
                "not looked at: `ethtool` is not installed",
                "apt-get install ethtool",
            ),
        }
    }
}

/// What `ethtool -n IF rx-flow-hash udp4` says.
fn spread(text: &str) -> Spread {
    if text.contains("src port") && text.contains("dst port") {
        Spread::ByPorts
    } else if text.contains("IP SA") || text.contains("IP DA") {
        Spread::ByAddresses
    } else {
        Spread::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PortKind;
    use crate::doctor::finding::Level;
    use crate::doctor::plan::tests::plan;

    fn good() -> Queues {
        Queues {
            interface: "eth0".into(),
            receive: 4,
            most: Some(Channels {
                combined: 16,
                receive: 0,
            }),
            ring: Some(RingSize {
                now: 2048,
                most: 8160,
            }),
            spread: Spread::ByPorts,
        }
    }

    #[test]
    fn one_queue_a_worker_is_good() {
        let findings = good().judge(&plan(PortKind::Xdp));
        assert!(findings.iter().all(|finding| finding.level == Level::Ok));
    }

    #[test]
    fn too_many_queues_and_too_few() {
        let judge = |receive, most, port| {
            let most = Some(most);
            let queues = Queues {
                receive,
                most,
                ..good()
            };
            queues.judge(&plan(port))[0].clone()
        };
        let combined = |combined| Channels {
            combined,
            receive: 0,
        };
        let many = judge(96, combined(96), PortKind::Xdp);
        assert_eq!(many.level, Level::Problem);
        assert_eq!(many.change.as_deref(), Some("ethtool -L eth0 combined 64"));
        assert_eq!(
            judge(96, combined(96), PortKind::Auto).level,
            Level::Warning
        );
        assert_eq!(
            judge(96, combined(96), PortKind::XdpFilter).level,
            Level::Ok
        );
        let few = judge(1, combined(2), PortKind::Xdp);
        assert_eq!(few.level, Level::Warning);
        assert_eq!(few.change.as_deref(), Some("ethtool -L eth0 combined 2"));
        let apart = Channels {
            combined: 0,
            receive: 8,
        };
        let apart = judge(1, apart, PortKind::Udp);
        assert_eq!(apart.change.as_deref(), Some("ethtool -L eth0 rx 4"));
        assert_eq!(judge(1, combined(1), PortKind::Xdp).level, Level::Ok);
    }

    #[test]
    fn shallow_rings() {
        let judge = |now, most| {
            let queues = Queues {
                ring: Some(RingSize { now, most }),
                ..good()
            };
            queues.judge(&plan(PortKind::Udp))[1].clone()
        };
        assert_eq!(
            judge(512, 8160).change.as_deref(),
            Some("ethtool -G eth0 rx 4096")
        );
        assert_eq!(judge(256, 256).level, Level::Ok, "there is no more");
    }

    #[test]
    fn spreading_is_read_from_ethtool() {
        let head = "UDP over IPV4 flows use these fields for computing Hash flow key:\n";
        let addresses = format!("{head}IP SA\nIP DA\n");
        let ports = format!(
            "{addresses}L4 bytes 0 & 1 [TCP/UDP src port]\nL4 bytes 2 & 3 [TCP/UDP dst port]\n"
        );
        assert_eq!(spread(&ports), Spread::ByPorts);
        assert_eq!(spread(&addresses), Spread::ByAddresses);
        assert_eq!(spread(""), Spread::Unknown);
        let judge = |receive, spread| {
            let queues = Queues {
                receive,
                spread,
                ..good()
            };
            queues.judge(&plan(PortKind::Udp))[2].level
        };
        assert_eq!(judge(4, Spread::ByAddresses), Level::Warning);
        assert_eq!(judge(1, Spread::ByAddresses), Level::Ok);
        assert_eq!(judge(4, Spread::NoTool), Level::Warning);
    }
}
