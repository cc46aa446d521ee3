//! Questions to the kernel's generic netlink family `ethtool`
//! (Documentation/networking/ethtool-netlink.rst).

use std::collections::BTreeMap;

use mixline_netlink::generic::{Generic, attributes, find, number, put, put_text, text};
use netlink_packet_core::NLA_F_NESTED;

/// Messages of `linux/ethtool_netlink.h`, and the attributes of a request's header.
const FEATURES_GET: u8 = 11;
const RINGS_GET: u8 = 15;
const CHANNELS_GET: u8 = 17;
const HEADER: u16 = 1;
const HEADER_NAME: u16 = 2;
/// Sets of bits, which the driver can change or which are on, and what is in a set.
const FEATURES_HARDWARE: u16 = 2;
const FEATURES_ACTIVE: u16 = 4;
const BITSET_BITS: u16 = 3;
const BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;

/// Whether a feature of an interface is on, and whether its driver can change that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// It is on.
    pub on: bool,
    /// It can be changed.
    pub changeable: bool,
}

/// Entries of a ring, now and as many as it can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingSize {
    /// Now.
    pub now: u32,
    /// The most that can be set.
    pub most: u32,
}

/// How many queues there can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Channels {
    /// Queues for both directions.
    pub combined: u32,
    /// Queues for receiving only.
    pub receive: u32,
}

/// Asks the kernel what can be set on interfaces, and what is.
pub struct Ethtool(Generic);

impl Ethtool {
    /// None if there is no generic netlink.
    pub fn open() -> Option<Self> {
        let opened = Generic::open();
        let opened = opened.inspect_err(|error| tracing::debug!("generic netlink: {error}"));
        opened.ok().map(Self)
    }

    /// Features by their names, such as `rx-gro`.
    pub fn features(&self, interface: &str) -> BTreeMap<String, Feature> {
        self.ethtool(FEATURES_GET, interface)
            .map(|answer| features(&answer))
            .unwrap_or_default()
    }

    /// The receive ring; none if the driver has none to set.
    pub fn receive_ring(&self, interface: &str) -> Option<RingSize> {
        let answer = self.ethtool(RINGS_GET, interface)?;
        Some(RingSize {
            most: number(&answer, 2)?,
            now: number(&answer, 6)?,
        })
    }

    /// How many queues there can be; none if the driver does not say.
    pub fn channels(&self, interface: &str) -> Option<Channels> {
        let answer = self.ethtool(CHANNELS_GET, interface)?;
        Some(Channels {
            receive: number(&answer, 2).unwrap_or_default(),
            combined: number(&answer, 5).unwrap_or_default(),
        })
    }

    /// One question; none if the kernel has no answer.
    fn ethtool(&self, command: u8, interface: &str) -> Option<Vec<u8>> {
        let mut header = Vec::new();
        put_text(&mut header, HEADER_NAME, interface);
        let mut question = Vec::new();
        put(&mut question, HEADER | NLA_F_NESTED, &header);
        let asked = self.0.ask("ethtool", command, question);
        let asked = asked.inspect_err(|error| tracing::debug!(command, "ethtool: {error}"));
        asked.ok()
    }
}

fn features(answer: &[u8]) -> BTreeMap<String, Feature> {
    let set = |kind| {
        let bits = find(answer, kind).and_then(|set| find(set, BITSET_BITS));
        attributes(bits.unwrap_or_default())
            .filter(|(kind, _)| *kind == BIT)
            .filter_map(|(_, bit)| {
                // In a set with a mask, a bit without a value is off; in a list, all are on.
                Some((text(find(bit, BIT_NAME)?), find(bit, BIT_VALUE).is_some()))
            })
            .collect::<BTreeMap<_, _>>()
    };
    let (changeable, on) = (set(FEATURES_HARDWARE), set(FEATURES_ACTIVE));
    let names = changeable.keys().chain(on.keys()).cloned();
    names
        .map(|name| {
            let feature = Feature {
                on: on.contains_key(&name),
                changeable: changeable.get(&name).copied().unwrap_or_default(),
            };
            (name, feature)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bit of a set with a mask, or of a list.
    fn bit(out: &mut Vec<u8>, name: &str, value: bool) {
        let mut bit = Vec::new();
        put(&mut bit, 1, &7u32.to_ne_bytes());
        put(&mut bit, BIT_NAME, format!("{name}\0").as_bytes());
        if value {
            put(&mut bit, BIT_VALUE, &[]);
        }
        put(out, BIT | NLA_F_NESTED, &bit);
    }

    fn set(out: &mut Vec<u8>, kind: u16, bits: &[u8]) {
        let mut set = Vec::new();
        put(&mut set, BITSET_BITS | NLA_F_NESTED, bits);
        put(out, kind | NLA_F_NESTED, &set);
    }

    #[test]
    fn features_are_on_or_can_be_changed() {
        let (mut hardware, mut active, mut answer) = (Vec::new(), Vec::new(), Vec::new());
        bit(&mut hardware, "rx-gro", true);
        bit(&mut hardware, "rx-lro", true);
        bit(&mut hardware, "fixed", false);
        bit(&mut active, "rx-gro", false);
        bit(&mut active, "fixed", false);
        set(&mut answer, FEATURES_HARDWARE, &hardware);
        set(&mut answer, FEATURES_ACTIVE, &active);
        let features = features(&answer);
        let feature = |on, changeable| Feature { on, changeable };
        assert_eq!(features["rx-gro"], feature(true, true));
        assert_eq!(features["rx-lro"], feature(false, true));
        assert_eq!(features["fixed"], feature(true, false));
    }

    #[test]
    fn the_kernel_answers() {
        let ethtool = Ethtool::open().unwrap();
        assert!(ethtool.features("lo").contains_key("rx-gro"));
        assert!(ethtool.features("nothere0").is_empty());
    }
}
