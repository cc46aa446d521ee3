//! The way to the guards, as it was measured: whether UDP passes, what it lets through, loss, round
//! trip, and what translates addresses on it.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mixline_daemon::doctor::Finding;
use mixline_endpoint::status::GuardStatus;
use mixline_endpoint::{GuardTarget, ProbeOptions, probe_guards};
use mixline_protocol::address::VirtualNetwork;
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{RelayDescriptor, Snapshot};
use rand_core::Rng as _;
use serde::Deserialize;
use serde_json::Value;

use super::client::Client;
use crate::config::Config;
use crate::control::Request;
use crate::host::desired::Wanted;
use crate::host::kernel::Kernel;

/// The silences that mappings are tried for, seconds: the first is the one between two signs of life on
/// a link.
pub const MAPPINGS: [u64; 2] = [10, 20];
/// The same, for who has two minutes.
pub const LONG: [u64; 6] = [10, 20, 30, 60, 90, 120];
/// Mappings that live for less are a nuisance, seconds.
const SHORT_LIFE: u64 = 20;
/// Loss from which on it is felt, percent.
const LOSS: u32 = 10;
/// Where the guards are remembered (`mixline_endpoint`), and at most how long that is.
const GUARDS: &str = "guards.json";
const MAX_FILE: u64 = 64 * 1024;

/// What was measured.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Probed {
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

/// How the guards were measured, or why not.
#[derive(Debug)]
pub struct Wire {
    measured: Result<Value, String>,
    /// Whether these are the client's guards, or relays taken at random.
    at_random: bool,
    /// Interfaces by the addresses of this host, with their MTUs.
    interfaces: Vec<(IpAddr, String, u16)>,
}

impl Wire {
    /// Has the running client measure, or measures from here.
    pub async fn read(
        client: &Client,
        config: Option<&Config>,
        snapshot: Option<Arc<Snapshot>>,
        mappings: &[u64],
    ) -> Self {
        let interfaces = interfaces();
        if client.status().is_some() {
            let request = Request::Probe {
                mappings: mappings.to_vec(),
            };
            return Self {
                measured: client.ask(&request).map_err(|error| error.to_string()),
                at_random: false,
                interfaces,
            };
        }
        let Some((config, snapshot)) = config.zip(snapshot) else {
            return Self {
                measured: Err("not measured: which relays there are is not known".to_owned()),
                at_random: false,
                interfaces,
            };
        };
        let remembered = remembered(&config.state_dir);
        let at_random = remembered.is_empty();
        let relays: Vec<&RelayDescriptor> = if at_random {
            some_of(&snapshot.relays, config.guards)
        } else {
            let known = snapshot.relays.iter();
            known
                .filter(|relay| remembered.contains(&relay.id.to_string()))
                .collect()
        };
        let options = ProbeOptions {
            mappings: mappings.iter().copied().map(Duration::from_secs).collect(),
            ..ProbeOptions::default()
        };
        let targets = relays.into_iter().map(target).collect();
        let probed = probe_guards(targets, &options).await;
        Self {
            measured: serde_json::to_value(probed).map_err(|error| error.to_string()),
            at_random,
            interfaces,
        }
    }

    /// All that was measured.
    #[must_use]
    pub fn measured(self) -> Option<Value> {
        self.measured.ok()
    }

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
                "none are chosen yet: relays at random are measured",
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
        "none" => return Some(Finding::ok(check, format!("{family}: none"))),
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

fn target(relay: &RelayDescriptor) -> GuardTarget {
    GuardTarget {
        status: GuardStatus {
            name: relay.name.clone(),
            relay: relay.id.short().to_string(),
            state: "no client runs".into(),
            ..GuardStatus::default()
        },
        link: relay.link,
        addresses: relay.addresses.clone(),
    }
}

/// The IDs of the guards that were chosen, as far as this user may look. A client that never ran has
/// none.
fn remembered(state_dir: &Path) -> BTreeSet<String> {
    let path = state_dir.join(GUARDS);
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > MAX_FILE) {
        return BTreeSet::new();
    }
    let text = fs::read_to_string(path).unwrap_or_default();
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    let guards = value["guards"].as_array();
    let ids = guards.into_iter().flatten();
    ids.filter_map(|guard| guard["relay"].as_str().map(str::to_owned))
        .collect()
}

/// So many relays, at random: whoever measures tells more relays about this host than it has to.
fn some_of(relays: &[RelayDescriptor], count: usize) -> Vec<&RelayDescriptor> {
    let mut left: Vec<&RelayDescriptor> = relays.iter().collect();
    let mut random = OsRandom::new();
    let mut taken = Vec::new();
    while taken.len() < count && !left.is_empty() {
        let index = random.next_u32() as usize % left.len();
        taken.push(left.swap_remove(index));
    }
    taken
}

/// Interfaces by address. What cannot be read is not named.
fn interfaces() -> Vec<(IpAddr, String, u16)> {
    let wanted = Wanted::closed("", VirtualNetwork::default());
    let observed = Kernel::open().and_then(|kernel| kernel.look(&wanted));
    let Ok(observed) = observed else {
        return Vec::new();
    };
    observed
        .addresses
        .iter()
        .filter_map(|address| {
            let name = observed.name(address.interface);
            let mtu = fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok()?;
            Some((address.prefix.address, name, mtu.trim().parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use mixline_daemon::doctor::Level;
    use serde_json::json;

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

    #[test]
    fn guards_that_were_chosen_are_read() {
        let directory = tempfile::tempdir().unwrap();
        assert!(remembered(directory.path()).is_empty());
        let text = r#"{"version":1,"guards":[{"relay":"ab","until":1,"missing_since":null,"fallback":false}]}"#;
        fs::write(directory.path().join(GUARDS), text).unwrap();
        assert_eq!(
            remembered(directory.path()),
            BTreeSet::from(["ab".to_owned()])
        );
    }
}
