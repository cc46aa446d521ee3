//! The way to the guards: whether UDP passes, what it lets through, loss, round trip, and what
//! translates addresses on it. Here it is measured, in `judge` it is said what of that is wrong.

mod judge;

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mixline_endpoint::status::GuardStatus;
use mixline_endpoint::{GuardTarget, ProbeOptions, probe_guards};
use mixline_protocol::address::VirtualNetwork;
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{ListedRelay, RelayDescriptor, Snapshot};
use rand_core::Rng as _;
use serde_json::Value;

use super::client::Client;
use crate::config::Config;
use crate::control::Request;
use crate::host::desired::Wanted;
use crate::host::kernel::Kernel;

/// The silences that mappings are tried for, seconds: the first is the one between two signs of life on
/// a link. Where nobody translates, only that one is: a firewall may forget as well.
const MAPPINGS: [u64; 2] = [10, 20];
/// The same, for who has two minutes.
const LONG: [u64; 6] = [10, 20, 30, 60, 90, 120];
/// Where the guards are remembered (`mixline_endpoint`), and at most how long that is.
const GUARDS: &str = "guards.json";
const MAX_FILE: u64 = 64 * 1024;

/// The silences after which an answer is waited for, seconds, ascending.
#[must_use]
pub fn silences(long: bool) -> &'static [u64] {
    if long { &LONG } else { &MAPPINGS }
}

/// How the guards were measured, or why not.
#[derive(Debug)]
pub struct Wire {
    measured: Result<Value, String>,
    /// Whether these are relays taken at random, and not the client's guards.
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
        long: bool,
    ) -> Self {
        let mappings = silences(long);
        let interfaces = interfaces();
        if client.status().is_some() {
            let request = Request::Probe {
                mappings: mappings.to_vec(),
                all_without_nat: long,
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
        let id = |relay: &ListedRelay| relay.descriptor.id.to_string();
        let (relays, at_random) = to_measure(&snapshot.relays, id, &remembered, config.guards);
        let options = ProbeOptions {
            mappings: mappings.iter().copied().map(Duration::from_secs).collect(),
            all_without_nat: long,
            ..ProbeOptions::default()
        };
        let targets = relays
            .into_iter()
            .map(|it| target(&it.descriptor))
            .collect();
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

/// The relays that were chosen, as far as the network has them still; so many at random if it has none
/// of them, and whether that is so.
fn to_measure<'a, R>(
    relays: &'a [R],
    id: impl Fn(&R) -> String,
    remembered: &BTreeSet<String>,
    count: usize,
) -> (Vec<&'a R>, bool) {
    let chosen = relays.iter();
    let chosen: Vec<&R> = chosen
        .filter(|relay| remembered.contains(&id(relay)))
        .collect();
    if chosen.is_empty() {
        (some_of(relays, count), true)
    } else {
        (chosen, false)
    }
}

/// So many relays, at random: whoever measures tells more relays about this host than it has to.
fn some_of<R>(relays: &[R], count: usize) -> Vec<&R> {
    let mut left: Vec<&R> = relays.iter().collect();
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
    use super::*;

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

    #[test]
    fn relays_at_random_stand_in_for_guards_that_have_all_left() {
        let relays = ["a", "b", "c"].map(str::to_owned);
        let measured = |remembered: &[&str]| {
            let remembered = remembered.iter().map(|id| (*id).to_owned()).collect();
            let (relays, at_random) = to_measure(&relays, String::clone, &remembered, 2);
            let relays: BTreeSet<String> = relays.into_iter().cloned().collect();
            (relays, at_random)
        };
        let (one, at_random) = measured(&["b", "gone"]);
        assert_eq!((one, at_random), (BTreeSet::from(["b".to_owned()]), false));
        for remembered in [&[][..], &["gone", "left"]] {
            let (some, at_random) = measured(remembered);
            assert_eq!((some.len(), at_random), (2, true), "{remembered:?}");
        }
    }
}
