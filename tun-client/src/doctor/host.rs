//! Where packets go: the client's rules, routes and filter, and what others have that stands beside
//! them.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};

use mixline_daemon::doctor::Finding;
use mixline_protocol::address::VirtualNetwork;

use super::client::Client;
use super::diagnosis::ClientState;
use crate::config::Config;
use crate::host::desired::{Place, Wanted, desired};
use crate::host::finding::Finding as Found;
use crate::host::kernel::Kernel;
use crate::host::observed::{LOCAL_TABLE, MAIN_TABLE, Observed, Rule, TABLE};
use crate::host::prefix::Prefix;
use crate::state::State;

/// The table of last resort that each host has (`linux/rtnetlink.h`).
const DEFAULT_TABLE: u32 = 253;
/// At most this many rules of others are told.
const MAX_RULES: usize = 8;

/// What was seen of the host.
#[derive(Debug)]
pub struct HostSeen {
    /// What the client wants.
    wanted: Wanted,
    /// Whether the virtual IPv4 network in it is known to be the client's.
    network_known: bool,
    /// What the kernel has, but for the filter.
    observed: Result<Observed, String>,
    /// Whether the filter is there; none if this user may not look.
    filter: Option<bool>,
    /// `rp_filter` of each interface that is strict (1).
    strict: Vec<String>,
}

impl HostSeen {
    /// Looks at the kernel. Nothing is changed.
    #[must_use]
    pub fn read(config: Option<&Config>, network: Option<VirtualNetwork>, client: &Client) -> Self {
        let status = client.status();
        let text = |key: &str| status.and_then(|status| status[key].as_str());
        let interface = text("interface")
            .map(str::to_owned)
            .or_else(|| config.map(|config| config.interface.clone()));
        let mode = status.and_then(|status| status["dns"]["mode"].as_str());
        let interface = interface.unwrap_or_else(|| "mixline0".to_owned());
        // A client that runs has closed the host for the network that it keeps.
        let kept = config.and_then(|config| State::network_of(&config.state_dir));
        let network = match status {
            Some(_) => kept.or(network),
            None => network.or(kept),
        };
        let former = config.map(|config| State::former_networks_of(&config.state_dir));
        let wanted = Wanted {
            ipv6: text("ipv6").and_then(|text| text.parse::<Ipv6Addr>().ok()),
            lease: text("ipv4").and_then(|text| text.parse::<Ipv4Addr>().ok()),
            resolver: mode.map(|mode| match mode {
                "resolved" => Place::Inside,
                _ => Place::Loopback,
            }),
            ..Wanted::closed(&interface, network.unwrap_or_default())
                .with_former(&former.unwrap_or_default())
        };
        let kernel = Kernel::open();
        let observed = kernel.as_ref().map_err(ToString::to_string);
        let observed =
            observed.and_then(|kernel| kernel.look(&wanted).map_err(|error| error.to_string()));
        let filter = kernel.ok().and_then(|kernel| kernel.observe(&wanted).ok());
        Self {
            wanted,
            network_known: network.is_some(),
            observed,
            filter: filter.map(|observed| observed.filter.is_some()),
            strict: strict(),
        }
    }

    /// Compares it with what the client needs.
    #[must_use]
    pub fn judge(&self, client: &Client, trial: Finding) -> Vec<Finding> {
        let mut findings = vec![trial];
        let observed = match &self.observed {
            Ok(observed) => observed,
            Err(why) => {
                findings.push(Finding::problem(
                    "routes",
                    format!("the kernel does not say which it has: {why}"),
                    "run as root, in the network namespace of the client",
                ));
                return findings;
            }
        };
        findings.push(self.judge_closed(client, observed));
        findings.extend(self.judge_others(observed));
        findings.extend(judge_rules(observed));
        findings.push(self.judge_rp_filter(observed));
        findings
    }

    fn judge_closed(&self, client: &Client, observed: &Observed) -> Finding {
        let check = "closed";
        let missing = self.missing_rules(observed);
        let filter = match self.filter {
            Some(true) => "the filter and rules are there",
            Some(false) => "the filter is not there",
            None => "the rules are there (the filter is not for this user to see)",
        };
        let anything = observed.rules.iter().any(Rule::is_own) || self.filter == Some(true);
        match client.state() {
            ClientState::Running if missing.is_empty() && self.filter != Some(false) => {
                Finding::ok(
                    check,
                    format!(
                        "{filter}: virtual addresses pass by {} only",
                        self.wanted.interface
                    ),
                )
            }
            ClientState::Running => Finding::problem(
                check,
                if missing.is_empty() {
                    filter.to_owned()
                } else {
                    format!("there is no policy rule for {}", missing.join(", "))
                },
                "see which program removes them (`nft monitor`, `ip monitor rule`); the client puts \
                 them back within a second, or says why not",
            ),
            ClientState::NotAsked | ClientState::NotRunning if anything => Finding::warning(
                check,
                "an earlier client left the host closed: virtual addresses are refused",
                "sudo mixline-client up takes over, sudo mixline-client down opens it",
            ),
            ClientState::NotAsked | ClientState::NotRunning => {
                Finding::ok(check, "no: nothing of a client is there")
            }
        }
    }

    /// The virtual networks without the rule that leads to the client's table, of the families that the
    /// kernel has.
    fn missing_rules(&self, observed: &Observed) -> Vec<String> {
        let rules = desired(&self.wanted, observed).rules;
        let current = Prefix::from(self.wanted.network);
        let is_there = |rule: &Rule| {
            // Whatever the network is that this user may not look up: it has a rule.
            let another = !self.network_known && rule.to == current;
            observed.rules.contains(rule)
                || (another
                    && observed
                        .rules
                        .iter()
                        .any(|r| r.table == TABLE && !r.to.is_ipv6()))
        };
        rules
            .iter()
            .filter(|rule| rule.table == TABLE && (observed.ipv6 || !rule.to.is_ipv6()))
            .filter(|rule| !is_there(rule))
            .map(|rule| rule.to.to_string())
            .collect()
    }

    /// What others have inside the virtual networks.
    fn judge_others(&self, observed: &Observed) -> Vec<Finding> {
        let found = desired(&self.wanted, observed).findings;
        if found.is_empty() {
            return vec![Finding::ok(
                "neighbours",
                format!(
                    "no network of others lies inside {}",
                    Prefix::from(self.wanted.network)
                ),
            )];
        }
        found.iter().map(judge_other).collect()
    }

    fn judge_rp_filter(&self, observed: &Observed) -> Finding {
        let check = "rp_filter";
        let mut ways: Vec<u32> = observed
            .others
            .iter()
            .filter(|route| route.table == MAIN_TABLE)
            .filter(|route| route.to == Prefix::everything(false))
            .map(|route| route.interface)
            .collect();
        ways.sort_unstable();
        ways.dedup();
        if self.strict.is_empty() {
            Finding::ok(check, "not strict")
        } else if ways.len() < 2 {
            Finding::ok(
                check,
                format!(
                    "strict on {}, which does no harm here",
                    self.strict.join(", ")
                ),
            )
        } else {
            Finding::warning(
                check,
                format!(
                    "strict on {}, and more than one interface leads out: answers of guards that \
                     come by another one than the route's are dropped",
                    self.strict.join(", ")
                ),
                "sudo sysctl -w net.ipv4.conf.all.rp_filter=2",
            )
        }
    }
}

fn judge_other(found: &Found) -> Finding {
    let text = found.to_string();
    match found {
        Found::Yielded { .. } => Finding::warning(
            "neighbours",
            text,
            "nothing, unless names there need IPv4: then a directory with another `network`",
        ),
        Found::Overruled { network, interface } => Finding::warning(
            "routes",
            text,
            format!("sudo ip route del {network} dev {interface}"),
        ),
        Found::Earlier { priority, table } => Finding::problem(
            "policy rules",
            text,
            format!("sudo ip rule del priority {priority} table {table}"),
        ),
        Found::NoIpv6 { interface } => Finding::warning(
            "IPv6",
            text,
            format!("sudo sysctl -w net.ipv6.conf.{interface}.disable_ipv6=0"),
        ),
        Found::NoAnchor { .. } => Finding::warning("resolver", text, "sudo modprobe dummy"),
        Found::Kept { .. } | Found::Crowded { .. } => Finding::warning(
            "neighbours",
            text,
            "sudo mixline-client down, up, if the neighbour's address is the one that is meant",
        ),
        Found::TooMany | Found::TooManyOutside => {
            Finding::warning("neighbours", text, "a directory with another `network`")
        }
    }
}

/// Rules of others that lead elsewhere: those of VPNs, most of all.
fn judge_rules(observed: &Observed) -> Vec<Finding> {
    let mut others: Vec<(u32, u32)> = observed
        .rules
        .iter()
        .filter(|rule| {
            !rule.is_own() && ![0, LOCAL_TABLE, MAIN_TABLE, DEFAULT_TABLE].contains(&rule.table)
        })
        .map(|rule| (rule.priority, rule.table))
        .collect();
    others.sort_unstable();
    others.dedup();
    let more = others.len().saturating_sub(MAX_RULES);
    let mut named: Vec<String> = others
        .iter()
        .take(MAX_RULES)
        .map(|(priority, table)| format!("{priority} to table {table}"))
        .collect();
    if named.is_empty() {
        return Vec::new();
    }
    if more > 0 {
        named.push(format!("{more} more"));
    }
    vec![Finding::ok(
        "policy rules",
        format!(
            "of others: {}; what is virtual does not come to them while a client is up",
            named.join(", ")
        ),
    )]
}

/// Interfaces on which the reverse path is checked strictly; the larger one of `all` and the
/// interface's own value counts (Linux, ip-sysctl.rst).
fn strict() -> Vec<String> {
    let directory = "/proc/sys/net/ipv4/conf";
    let value = |name: &str| {
        let text = fs::read_to_string(format!("{directory}/{name}/rp_filter"));
        text.ok().and_then(|text| text.trim().parse::<u8>().ok())
    };
    let all = value("all").unwrap_or(0);
    let mut names: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !["all", "default", "lo"].contains(&name.as_str()))
        .filter(|name| value(name).unwrap_or(0).max(all) == 1)
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::observed::{INSIDE_TABLE, Link, OtherRoute};
    use mixline_daemon::doctor::Level;
    use serde_json::json;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix::new(
            address.parse::<std::net::IpAddr>().unwrap(),
            length.parse::<u8>().unwrap(),
        )
    }

    fn link(index: u32, name: &str, hardware: bool) -> Link {
        Link {
            index,
            name: name.into(),
            up: true,
            elsewhere: false,
            hardware,
            point_to_point: false,
            contained: false,
        }
    }

    fn rule(priority: u32, to: &str, table: u32) -> Rule {
        let to = prefix(to);
        Rule {
            priority,
            to,
            from: Prefix::everything(to.is_ipv6()),
            narrowed: false,
            table,
        }
    }

    fn seen(observed: Observed, filter: Option<bool>) -> HostSeen {
        let client = Client::saying(json!({"interface": "mixline0", "ipv4": "10.1.2.3"}));
        HostSeen {
            observed: Ok(observed),
            filter,
            strict: Vec::new(),
            ..HostSeen::read(None, None, &client)
        }
    }

    fn judged(seen: &HostSeen, client: &Client) -> Vec<(Level, String)> {
        let findings = seen.judge(client, Finding::ok("nftables", "x"));
        let both = findings.into_iter().map(|finding| {
            let change = finding.change.unwrap_or_default();
            (
                finding.level,
                format!("{}: {} {change}", finding.check, finding.found),
            )
        });
        both.collect()
    }

    #[test]
    fn what_closes_the_host_is_there_with_a_client_and_not_without() {
        let running = Client::saying(json!({"state": "up"}));
        let closed = || Observed {
            rules: vec![rule(0, "10.0.0.0/8", TABLE), rule(0, "fd00::/8", TABLE)],
            ipv6: true,
            ..Observed::default()
        };
        let level = |seen: &HostSeen, client: &Client| judged(seen, client)[1].0;
        assert_eq!(level(&seen(closed(), Some(true)), &running), Level::Ok);
        assert_eq!(level(&seen(closed(), None), &running), Level::Ok);
        assert_eq!(
            level(&seen(closed(), Some(false)), &running),
            Level::Problem
        );
        let open = seen(Observed::default(), Some(true));
        assert_eq!(level(&open, &running), Level::Problem);
        let left = judged(&seen(closed(), Some(true)), &Client::missing());
        assert_eq!(left[1].0, Level::Warning);
        assert!(left[1].1.contains("mixline-client down"), "{left:?}");
        let nothing = seen(Observed::default(), Some(false));
        assert_eq!(level(&nothing, &Client::missing()), Level::Ok);
    }

    #[test]
    fn each_network_needs_its_rule() {
        let running = Client::saying(json!({"state": "up"}));
        let judge = |rules: Vec<Rule>, ipv6: bool, known: bool| {
            let observed = Observed {
                rules,
                ipv6,
                ..Observed::default()
            };
            let mut seen = seen(observed, Some(true));
            seen.network_known = known;
            seen.wanted.former = vec!["100.64.0.0/10".parse().unwrap()];
            judged(&seen, &running)[1].clone()
        };
        let v4 = rule(0, "10.0.0.0/8", TABLE);
        let v6 = rule(0, "fd00::/8", TABLE);
        let former = rule(0, "100.64.0.0/10", TABLE);
        let inside = Rule {
            from: prefix("10.1.2.3/32"),
            ..rule(0, "0.0.0.0/0", INSIDE_TABLE)
        };
        for (rules, ipv6, missing) in [
            (vec![inside, v4, v6, former], true, None),
            (vec![inside, v4, former], false, None),
            (vec![inside, v4, former], true, Some("fd00::/8")),
            (vec![inside, v4, v6], true, Some("100.64.0.0/10")),
            (vec![inside, v6, former], true, Some("10.0.0.0/8")),
            (vec![inside], false, Some("10.0.0.0/8, 100.64.0.0/10")),
        ] {
            let (level, text) = judge(rules, ipv6, true);
            match missing {
                None => assert_eq!(level, Level::Ok, "{text}"),
                Some(missing) => {
                    assert_eq!(level, Level::Problem, "{text}");
                    assert!(
                        text.contains(&format!("no policy rule for {missing} ")),
                        "{text}"
                    );
                }
            }
        }
        // Who may not look up which network it is, sees that there is one.
        let another = rule(0, "10.64.0.0/10", TABLE);
        let rules = || vec![another, former];
        assert_eq!(judge(rules(), false, false).0, Level::Ok);
        assert_eq!(judge(rules(), false, true).0, Level::Problem);
    }

    #[test]
    fn what_others_have_is_told_with_what_mends_it() {
        let observed = Observed {
            links: vec![link(2, "eth0", true), link(3, "docker0", false)],
            others: vec![
                OtherRoute {
                    table: MAIN_TABLE,
                    via: None,
                    to: prefix("10.0.0.0/24"),
                    interface: 3,
                    gateway: false,
                },
                OtherRoute {
                    table: MAIN_TABLE,
                    via: None,
                    to: prefix("10.0.0.0/8"),
                    interface: 2,
                    gateway: true,
                },
            ],
            rules: vec![
                rule(0, "10.0.0.0/8", 52),
                rule(0, "10.0.0.0/8", TABLE),
                rule(5270, "0.0.0.0/0", 52),
                rule(32766, "0.0.0.0/0", MAIN_TABLE),
            ],
            ..Observed::default()
        };
        let told = judged(&seen(observed, Some(true)), &Client::missing());
        let all: Vec<&str> = told.iter().map(|(_, text)| text.as_str()).collect();
        let all = all.join("\n");
        for expected in [
            "neighbours: 10.0.0.0/24 is behind docker0",
            "ip route del 10.0.0.0/8 dev eth0",
            "ip rule del priority 0 table 52",
            "5270 to table 52",
        ] {
            assert!(all.contains(expected), "{expected}: {all}");
        }
        assert!(told.iter().any(|(level, _)| *level == Level::Problem));
    }

    #[test]
    fn a_strict_check_matters_where_two_ways_lead_out() {
        let out = |interface| OtherRoute {
            table: MAIN_TABLE,
            via: None,
            to: prefix("0.0.0.0/0"),
            interface,
            gateway: true,
        };
        let level = |ways: &[u32]| {
            let observed = Observed {
                others: ways.iter().copied().map(out).collect(),
                ..Observed::default()
            };
            let seen = HostSeen {
                strict: vec!["eth0".into()],
                ..seen(observed.clone(), None)
            };
            seen.judge_rp_filter(&observed).level
        };
        assert_eq!(level(&[2]), Level::Ok);
        assert_eq!(level(&[2, 3]), Level::Warning);
    }
}
