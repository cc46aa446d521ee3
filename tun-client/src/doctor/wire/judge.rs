//! What is wrong with the way to the guards, by what was measured.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use mixline_daemon::doctor::Finding;
use serde::Deserialize;

use super::Wire;

/// Mappings that live for less are a nuisance, seconds.
const SHORT_LIFE: u64 = 20;
/// Loss from which on it is felt, percent.
const LOSS: u32 = 10;

/// What was measured.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Probed {
    guards: Vec<Guard>,
    nat_v4: Nat,
    nat_v6: Nat,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Guard {
    guard: Named,
    addresses: Vec<Way>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

/// The way to one address of a guard.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Way {
    address: String,
    sent: u32,
    answered: u32,
    rtt_ms: Option<Trips>,
    mtu_needed: u16,
    mtu_out: Option<u16>,
    mtu_in: Option<u16>,
    mtu_known: Option<u16>,
    local: Option<String>,
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Trips {
    min_ms: f64,
    average_ms: f64,
    max_ms: f64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Nat {
    kind: String,
    mapping_lives_s: Option<u64>,
    mapping_gone_s: Option<u64>,
}

impl Wire {
    /// Says what is wrong. `directory` says whether the directory was reached.
    #[must_use]
    pub fn judge(&self, directory: bool) -> Vec<Finding> {
        let probed: Probed = match &self.measured {
            Err(why) => return vec![Finding::warning("guards", why, "what the lines above name")],
            Ok(value) => match serde_json::from_value(value.clone()) {
                Ok(probed) => probed,
                Err(error) => {
                    let why = format!("the client of another version runs: {error}");
                    return vec![Finding::warning("guards", why, "restart the client")];
                }
            },
        };
        let mut findings = Vec::new();
        if self.at_random {
            findings.push(Finding::ok(
                "guards",
                "none are chosen, or none of them is in the network: relays at random are measured",
            ));
        }
        let ways: Vec<&Way> = probed.guards.iter().flat_map(|g| &g.addresses).collect();
        let asked = ways.iter().any(|way| way.sent > 0);
        let reached = ways.iter().any(|way| way.answered > 0);
        findings.push(match (asked, reached) {
            (false, _) => Finding::warning(
                "guards",
                "there is none to be measured",
                "wait until the client has chosen some, or see the directory's line",
            ),
            (true, true) => Finding::ok("UDP", "passes"),
            (true, false) if directory => Finding::problem(
                "UDP",
                format!(
                    "no guard answers, and the directory does: UDP to {} is blocked on the way, or \
                     here",
                    places(&ways)
                ),
                "allow UDP outwards (here: `nft list ruleset`), or use another network",
            ),
            (true, false) => Finding::problem(
                "network",
                "neither a guard nor the directory answers: this host is offline",
                "see `ip route` and `ip addr`; connect it",
            ),
        });
        let wide = probed.guards.iter().any(Guard::is_wide);
        for guard in &probed.guards {
            findings.extend(self.judge_guard(guard, reached, wide));
        }
        for (family, nat) in [("IPv4", &probed.nat_v4), ("IPv6", &probed.nat_v6)] {
            findings.extend(judge_nat(family, nat));
        }
        findings
    }

    fn judge_guard(&self, guard: &Guard, reached: bool, wide: bool) -> Vec<Finding> {
        let check = guard.guard.name.as_str();
        let mut findings = Vec::new();
        let answers = guard.addresses.iter().any(|way| way.answered > 0);
        for way in guard.addresses.iter().filter(|way| way.sent > 0) {
            match (way.answered, &way.error) {
                (0, Some(error)) => findings.push(Finding::warning(
                    check,
                    format!("{}: {error}", way.address),
                    format!("see `ip route get {}`", host_of(&way.address)),
                )),
                // One line about UDP says it for all.
                (0, None) if !reached => {}
                (0, None) if answers => findings.push(Finding::ok(
                    check,
                    format!("{}: no answer; another address answers", way.address),
                )),
                (0, None) => findings.push(Finding::warning(
                    check,
                    format!("{}: no answer to {} questions", way.address, way.sent),
                    "nothing: it may be down, and others help out",
                )),
                (answered, _) => {
                    findings.push(judge_trips(check, way, answered));
                    // Another guard, or another address, does.
                    let harmless = wide && guard.is_wide();
                    findings.extend(self.judge_mtu(check, way, wide, harmless));
                }
            }
        }
        findings
    }

    /// What the way lets through, if that is too little.
    fn judge_mtu(&self, check: &str, way: &Way, wide: bool, harmless: bool) -> Option<Finding> {
        let needed = way.mtu_needed;
        let out = way.mtu_out.filter(|mtu| *mtu < needed);
        // An answer is never longer than its question.
        let back = way
            .mtu_in
            .filter(|mtu| *mtu < way.mtu_out.unwrap_or(needed).min(needed));
        let (mtu, which) = match (out, back) {
            (None, None) => return None,
            (Some(mtu), None) => (mtu, "there"),
            (None, Some(mtu)) => (mtu, "back"),
            (Some(out), Some(back)) => (out.min(back), "there and back"),
        };
        let found = format!(
            "{}: the way {which} lets through packets of {mtu} bytes, and datagrams need {needed}",
            way.address
        );
        let change = self.widen(way, mtu, needed, out.is_some());
        Some(if harmless {
            Finding::ok(check, format!("{found}; another address is used"))
        } else if wide {
            Finding::warning(check, found, change)
        } else {
            Finding::problem(check, found, change)
        })
    }

    /// What makes the way wider: this host's interface, if that is what is narrow.
    fn widen(&self, way: &Way, mtu: u16, needed: u16, out: bool) -> String {
        let local = way.local.as_deref().and_then(|local| local.parse().ok());
        let interface = local.and_then(|local: SocketAddr| {
            let mut known = self.interfaces.iter();
            known.find(|(address, ..)| *address == local.ip())
        });
        match interface {
            Some((_, name, own)) if out && *own < needed => {
                format!("sudo ip link set dev {name} mtu 1500")
            }
            _ if out && way.mtu_known == Some(mtu) => format!(
                "a router on the way said so: raise its MTU (`tracepath {}` shows which), or leave \
                 the tunnel",
                host_of(&way.address)
            ),
            _ => format!(
                "raise the MTU of the router, tunnel or provider on the way to at least {needed} \
                 (`tracepath {}` may show which)",
                host_of(&way.address)
            ),
        }
    }
}

impl Guard {
    /// Whether datagrams pass to one of its addresses and back, as far as was measured.
    fn is_wide(&self) -> bool {
        self.addresses.iter().any(|way| {
            let enough = |mtu: Option<u16>| mtu.is_none_or(|mtu| mtu >= way.mtu_needed);
            way.answered > 0 && enough(way.mtu_out) && enough(way.mtu_in)
        })
    }
}

fn judge_trips(check: &str, way: &Way, answered: u32) -> Finding {
    let lost = way.sent.saturating_sub(answered);
    let percent = lost * 100 / way.sent.max(1);
    let mut found = format!("{}: {answered} of {} answered", way.address, way.sent);
    if let Some(trips) = way.rtt_ms {
        found += &format!(
            ", round trip {:.1} ms ({:.1} to {:.1})",
            trips.average_ms, trips.min_ms, trips.max_ms
        );
    }
    if let (Some(out), Some(back)) = (way.mtu_out, way.mtu_in) {
        found += &format!(", MTU {out} there, {back} back");
    }
    if percent >= LOSS {
        Finding::warning(
            check,
            format!("{found}: {percent}% loss"),
            "see whether the wire, the wireless link or the provider loses packets (`mtr`)",
        )
    } else {
        Finding::ok(check, found)
    }
}

fn judge_nat(family: &str, nat: &Nat) -> Option<Finding> {
    let check = "NAT";
    let kind = match nat.kind.as_str() {
        "none" => return Some(judge_firewall(family, nat)),
        "endpoint-independent" => "all guards see one address and port",
        "address-dependent" => "each guard sees another address or port, which does no harm",
        "some" => "there is one",
        _ => return None,
    };
    let mut found = format!("{family}: {kind}");
    if let Some(lives) = nat.mapping_lives_s {
        found += &format!(", a mapping lives for {lives} s at least");
    }
    if let Some(gone) = nat.mapping_gone_s {
        found += &format!(", and is gone after {gone} s of silence");
    }
    Some(match nat.mapping_gone_s {
        Some(gone) if gone <= SHORT_LIFE => Finding::warning(
            check,
            found,
            "on the router, a longer life of UDP mappings (Linux: sudo sysctl -w \
             net.netfilter.nf_conntrack_udp_timeout=60)",
        ),
        _ => Finding::ok(check, found),
    })
}

/// Where nobody translates, somebody may forget all the same.
fn judge_firewall(family: &str, nat: &Nat) -> Finding {
    let check = "NAT";
    match (nat.mapping_lives_s, nat.mapping_gone_s) {
        (lives, Some(gone)) if gone <= SHORT_LIFE => {
            let lives = lives.map_or(String::new(), |s| format!(" still comes after {s} s, and"));
            Finding::warning(
                check,
                format!(
                    "{family}: none, but an answer{lives} does not come in after {gone} s of \
                     silence: a firewall forgets who was asked"
                ),
                "in the firewall, a longer life of UDP flows (Linux: sudo sysctl -w \
                 net.netfilter.nf_conntrack_udp_timeout=60)",
            )
        }
        (lives, gone) => {
            let mut found = format!("{family}: none");
            if let Some(lives) = lives {
                found += &format!(", an answer still comes in after {lives} s of silence");
            }
            if let Some(gone) = gone {
                found += &format!(", and after {gone} s none does");
            }
            Finding::ok(check, found)
        }
    }
}

/// Ports that guards listen at, for the one who opens them.
fn places(ways: &[&Way]) -> String {
    let ports: BTreeSet<u16> = ways
        .iter()
        .filter_map(|way| way.address.parse::<SocketAddr>().ok())
        .map(|address| address.port())
        .collect();
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    match ports.as_slice() {
        [one] => format!("port {one}"),
        several => format!("ports {}", several.join(", ")),
    }
}

fn host_of(address: &str) -> String {
    address
        .parse::<SocketAddr>()
        .map_or_else(|_| address.to_owned(), |address| address.ip().to_string())
}

#[cfg(test)]
mod tests {
    use mixline_daemon::doctor::Level;
    use serde_json::{Value, json};

    use super::*;

    fn way(answered: u32, out: u16, back: u16) -> Value {
        json!({
            "address": "192.0.2.7:7000", "sent": 10, "answered": answered,
            "rtt_ms": {"min_ms": 1.0, "average_ms": 2.0, "max_ms": 3.0},
            "mtu_needed": 1436, "mtu_out": out, "mtu_in": back, "mtu_known": 1500,
            "local": "198.51.100.1:5000", "seen_as": null, "error": null
        })
    }

    fn wire(ways: Vec<Value>) -> Wire {
        let guards: Vec<Value> = ways
            .into_iter()
            .enumerate()
            .map(|(n, way)| json!({"guard": {"name": format!("guard{n}")}, "addresses": [way]}))
            .collect();
        Wire {
            measured: Ok(json!({
                "guards": guards,
                "nat_v4": {"kind": "endpoint-independent", "mapping_lives_s": 20, "mapping_gone_s": null},
                "nat_v6": {"kind": "unknown"}
            })),
            at_random: false,
            interfaces: vec![("198.51.100.1".parse().unwrap(), "wan0".into(), 1500)],
        }
    }

    fn told(wire: &Wire, directory: bool) -> Vec<(Level, String)> {
        let findings = wire.judge(directory).into_iter();
        let both = findings.map(|finding| {
            let change = finding.change.unwrap_or_default();
            (
                finding.level,
                format!("{}: {} {change}", finding.check, finding.found),
            )
        });
        both.collect()
    }

    #[test]
    fn a_good_way() {
        let told = told(&wire(vec![way(10, 1436, 1436), way(10, 1436, 1436)]), true);
        assert!(
            told.iter().all(|(level, _)| *level == Level::Ok),
            "{told:?}"
        );
        assert!(
            told[1]
                .1
                .contains("10 of 10 answered, round trip 2.0 ms (1.0 to 3.0), MTU 1436")
        );
        assert!(told.last().unwrap().1.contains("lives for 20 s"));
    }

    #[test]
    fn a_narrow_way_is_named_with_its_value() {
        let narrow = told(&wire(vec![way(10, 1400, 1400)]), true);
        let (level, text) = &narrow[2];
        assert_eq!(*level, Level::Problem);
        assert!(
            text.contains(
                "the way there lets through packets of 1400 bytes, and datagrams need 1436"
            ),
            "{text}"
        );
        let back = told(&wire(vec![way(10, 1436, 1400)]), true);
        assert!(
            back[2]
                .1
                .contains("the way back lets through packets of 1400"),
            "{back:?}"
        );
        // This host's own interface.
        let mut own = wire(vec![way(10, 1400, 1400)]);
        own.interfaces[0].2 = 1400;
        assert!(
            told(&own, true)[2]
                .1
                .contains("ip link set dev wan0 mtu 1500")
        );
        // Other guards are reached.
        let one = told(&wire(vec![way(10, 1400, 1400), way(10, 1436, 1436)]), true);
        assert_eq!(one[2].0, Level::Warning);
    }

    #[test]
    fn blocked_udp_and_a_host_that_is_offline_are_told_apart() {
        let wire = wire(vec![way(0, 0, 0), way(0, 0, 0)]);
        let blocked = told(&wire, true);
        assert_eq!(blocked[0].0, Level::Problem);
        assert!(
            blocked[0].1.contains("UDP to port 7000 is blocked"),
            "{blocked:?}"
        );
        let offline = told(&wire, false);
        assert!(offline[0].1.contains("offline"), "{offline:?}");
    }

    #[test]
    fn loss_silence_and_short_mappings_are_warned_of() {
        let lossy = told(&wire(vec![way(8, 1436, 1436), way(0, 0, 0)]), true);
        assert!(
            lossy
                .iter()
                .any(|(level, text)| *level == Level::Warning && text.contains("20% loss"))
        );
        assert!(
            lossy
                .iter()
                .any(|(level, text)| *level == Level::Warning && text.contains("no answer to 10"))
        );
        let nat = Nat {
            kind: "address-dependent".into(),
            mapping_lives_s: Some(10),
            mapping_gone_s: Some(20),
        };
        assert_eq!(judge_nat("IPv4", &nat).unwrap().level, Level::Warning);
        assert!(judge_nat("IPv6", &Nat::default()).is_none());
    }

    #[test]
    fn a_firewall_that_forgets_is_warned_of_where_nobody_translates() {
        let judged = |lives, gone| {
            let nat = Nat {
                kind: "none".into(),
                mapping_lives_s: lives,
                mapping_gone_s: gone,
            };
            let finding = judge_nat("IPv6", &nat).unwrap();
            (finding.level, finding.found)
        };
        let (level, text) = judged(None, Some(10));
        assert_eq!(level, Level::Warning);
        assert!(text.contains("does not come in after 10 s"), "{text}");
        let (level, text) = judged(Some(10), Some(20));
        assert_eq!(level, Level::Warning);
        assert!(
            text.contains("after 10 s, and does not come in after 20 s"),
            "{text}"
        );
        let (level, text) = judged(Some(60), Some(90));
        assert_eq!(level, Level::Ok);
        assert!(
            text.contains("after 60 s of silence, and after 90 s none"),
            "{text}"
        );
        let (level, text) = judged(Some(10), None);
        assert_eq!(level, Level::Ok, "{text}");
        // A client that did not look.
        assert_eq!(judged(None, None), (Level::Ok, "IPv6: none".to_owned()));
    }

    #[test]
    fn what_the_endpoint_measures_is_what_is_read() {
        let probed = mixline_endpoint::GuardsProbed {
            guards: vec![mixline_endpoint::GuardProbe {
                addresses: vec![mixline_endpoint::AddressProbe {
                    address: "192.0.2.1:7000".into(),
                    sent: 3,
                    answered: 3,
                    mtu_needed: 1436,
                    mtu_out: Some(1300),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let wire = Wire {
            measured: Ok(serde_json::to_value(probed).unwrap()),
            at_random: false,
            interfaces: Vec::new(),
        };
        assert!(
            told(&wire, true)
                .iter()
                .any(|(_, text)| text.contains("1300 bytes"))
        );
    }
}
