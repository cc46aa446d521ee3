//! Offloads: work that the card or the kernel does on many packets at once. Some carry the
//! UDP port, and some keep a driver from native XDP.

use std::collections::BTreeMap;

use super::ethtool::{Ethtool, Feature};
use super::finding::Finding;
use super::plan::{Need, Plan};

/// Names of features (`net/ethtool/common.c`), and what ethtool calls them when it sets them.
const GRO: (&str, &str) = ("rx-gro", "gro");
const UDP_GSO: (&str, &str) = ("tx-udp-segmentation", "tx-udp-segmentation");
const VLAN: (&str, &str) = ("rx-vlan-hw-parse", "rxvlan");
/// Drivers refuse native XDP while the card merges packets.
const MERGING: [(&str, &str); 2] = [("rx-gro-hw", "rx-gro-hw"), ("rx-lro", "lro")];

/// What was seen of the offloads.
#[derive(Debug, Clone)]
pub struct Offloads {
    /// The interface's name.
    pub interface: String,
    /// Features by name; empty if the kernel does not say.
    pub features: BTreeMap<String, Feature>,
    /// VLANs on the interface.
    pub vlans: Vec<String>,
}

impl Offloads {
    /// Looks at the machine.
    #[must_use]
    pub fn read(ethtool: Option<&Ethtool>, interface: &str, vlans: &[String]) -> Self {
        Self {
            interface: interface.into(),
            features: ethtool
                .map(|ethtool| ethtool.features(interface))
                .unwrap_or_default(),
            vlans: vlans.to_vec(),
        }
    }

    /// Compares it with what the relay needs.
    #[must_use]
    pub fn judge(&self, plan: &Plan) -> Vec<Finding> {
        if self.features.is_empty() {
            let found = "this kernel does not say (before Linux 5.10)";
            let change = format!("look at `ethtool -k {}`", self.interface);
            return vec![Finding::warning("offloads", found, change)];
        }
        vec![
            self.judge_gro(plan),
            self.judge_gso(),
            self.judge_merging(plan),
            self.judge_vlan(plan),
        ]
    }

    fn is(&self, feature: (&str, &str), on: bool) -> bool {
        self.features
            .get(feature.0)
            .is_some_and(|feature| feature.on == on)
    }

    fn changeable(&self, feature: (&str, &str)) -> bool {
        self.features
            .get(feature.0)
            .is_some_and(|feature| feature.changeable)
    }

    fn set(&self, features: &[(&str, &str)], to: &str) -> String {
        let mut command = format!("ethtool -K {}", self.interface);
        for (_, word) in features {
            command += &format!(" {word} {to}");
        }
        command
    }

    fn judge_gro(&self, plan: &Plan) -> Finding {
        let check = "GRO";
        if self.is(GRO, true) {
            Finding::ok(check, "on")
        } else if plan.uses_udp() {
            Finding::warning(
                check,
                "off: each datagram passes the network stack by itself",
                self.set(&[GRO], "on"),
            )
        } else {
            Finding::ok(check, "off; not needed with this port")
        }
    }

    fn judge_gso(&self) -> Finding {
        let check = "UDP GSO";
        if self.is(UDP_GSO, true) {
            Finding::ok(check, "on: many datagrams leave in one message")
        } else if self.changeable(UDP_GSO) {
            Finding::warning(
                check,
                "off: the kernel takes messages of many datagrams apart by itself",
                self.set(&[UDP_GSO], "on"),
            )
        } else {
            Finding::ok(
                check,
                "not in the card: the kernel takes messages of many datagrams apart, late",
            )
        }
    }

    fn judge_merging(&self, plan: &Plan) -> Finding {
        let check = "LRO, hardware GRO";
        let on: Vec<_> = MERGING
            .into_iter()
            .filter(|feature| self.is(*feature, true))
            .collect();
        if on.is_empty() {
            Finding::ok(check, "off")
        } else if plan.need() == Need::No {
            Finding::ok(check, "on; of no consequence with `port: udp`")
        } else {
            Finding::warning(
                check,
                "on: drivers refuse native XDP with it, and generic XDP is slow",
                self.set(&on, "off"),
            )
        }
    }

    fn judge_vlan(&self, plan: &Plan) -> Finding {
        let check = "VLAN stripping";
        if self.vlans.is_empty() || plan.need() == Need::No {
            return Finding::ok(check, "of no consequence here");
        }
        let vlans = self.vlans.join(", ");
        if self.is(VLAN, true) {
            Finding::warning(
                check,
                format!("on, and {vlans}: the XDP program does not see which VLAN a frame is of"),
                self.set(&[VLAN], "off"),
            )
        } else {
            Finding::ok(check, format!("off: the XDP program sees {vlans}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PortKind;
    use crate::doctor::finding::Level;
    use crate::doctor::plan::tests::plan;

    fn offloads(on: &[&str], vlans: &[&str]) -> Offloads {
        let all = ["rx-gro", "tx-udp-segmentation", "rx-vlan-hw-parse"];
        let all = all.into_iter().chain(["rx-gro-hw", "rx-lro"]);
        Offloads {
            interface: "eth0".into(),
            features: all
                .map(|name| {
                    let feature = Feature {
                        on: on.contains(&name),
                        changeable: true,
                    };
                    (name.to_string(), feature)
                })
                .collect(),
            vlans: vlans.iter().map(ToString::to_string).collect(),
        }
    }

    fn changes(offloads: &Offloads, port: PortKind) -> Vec<Option<String>> {
        let findings = offloads.judge(&plan(port)).into_iter();
        findings.map(|finding| finding.change).collect()
    }

    #[test]
    fn all_as_it_should_be() {
        let good = offloads(&["rx-gro", "tx-udp-segmentation", "rx-vlan-hw-parse"], &[]);
        assert_eq!(changes(&good, PortKind::Xdp), [None, None, None, None]);
    }

    #[test]
    fn what_to_switch() {
        let bad = offloads(&["rx-gro-hw", "rx-lro", "rx-vlan-hw-parse"], &["eth0.5"]);
        let set = |what: &str| Some(format!("ethtool -K eth0 {what}"));
        assert_eq!(
            changes(&bad, PortKind::Auto),
            [
                set("gro on"),
                set("tx-udp-segmentation on"),
                set("rx-gro-hw off lro off"),
                set("rxvlan off")
            ]
        );
        assert_eq!(
            changes(&bad, PortKind::Udp),
            [set("gro on"), set("tx-udp-segmentation on"), None, None]
        );
        assert_eq!(changes(&bad, PortKind::Xdp)[0], None);
    }

    #[test]
    fn nothing_is_asked_of_a_card_that_cannot() {
        let mut fixed = offloads(&["rx-gro"], &[]);
        for feature in fixed.features.values_mut() {
            feature.changeable = false;
        }
        assert_eq!(changes(&fixed, PortKind::Udp), [None, None, None, None]);
        fixed.features.clear();
        let findings = fixed.judge(&plan(PortKind::Udp));
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].level, Level::Warning);
    }
}
