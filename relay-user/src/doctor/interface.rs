//! The interface: its driver, whether it is up, what datagrams fit, and who else has an XDP
//! program on it.

use std::fs;
use std::io;
use std::path::Path;

use mixline_netlink::{Client, ROUTE};
use mixline_protocol::size::DATAGRAM;
use mixline_xdp::{Card, FrameBytes, Stacked};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, LinkXdp, XdpAttached};
use nix::net::if_::if_nametoindex;

use super::finding::Finding;
use super::plan::{Need, Plan};
use crate::config::PortKind;
use crate::port::stacked;

/// Bytes of an IP packet with a datagram: headers of IPv4 and of IPv6, and of UDP.
const PACKET_V4: u32 = 20 + 8 + DATAGRAM as u32;
const PACKET_V6: u32 = 40 + 8 + DATAGRAM as u32;
/// The largest MTU that every native XDP driver takes, many of which receive into 2 KiB: the kernel
/// keeps 256 bytes of that, an Ethernet header 14, and a VLAN tag 4.
const LARGEST: u32 = 2048 - 256 - 14 - 4;
/// Drivers whose receive buffers under AF_XDP come in steps of 1024 bytes: `igb` and `igc`, and `ixgbe`
/// for its older cards (`SRRCTL.BSIZEPKT` in their sources).
const IN_STEPS: [&str; 3] = ["igb", "igc", "ixgbe"];
/// What is advised.
const USUAL: u32 = 1500;

/// An XDP program on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Where it runs.
    pub mode: &'static str,
    /// Its number, as `bpftool prog` shows it.
    pub id: Option<u32>,
}

/// What was seen of the interface.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Its name, and its driver, which for a virtual interface is its kind.
    pub card: Card,
    /// Whether it is up and has a carrier.
    pub up: bool,
    /// The largest IP packet, in bytes.
    pub mtu: u32,
    /// VLANs on it.
    pub vlans: Vec<String>,
    /// The XDP program on it.
    pub attached: Option<Attachment>,
    /// What it is, if it stands on other interfaces.
    pub stacked: Option<Stacked>,
}

impl Interface {
    /// Looks at the machine.
    ///
    /// # Errors
    /// If there is no such interface, or netlink does not say.
    pub fn read(name: &str) -> io::Result<Self> {
        let index = if_nametoindex(name)?;
        let link = link(index)?;
        let card = Card::of(name);
        let mut this = Self {
            stacked: card.stacked(),
            card,
            up: link
                .header
                .flags
                .contains(LinkFlags::Up | LinkFlags::Running),
            mtu: 0,
            vlans: vlans(Path::new("/sys/class/net"), name),
            attached: None,
        };
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => this.mtu = mtu,
                LinkAttribute::Xdp(xdp) => this.attached = attachment(&xdp),
                _ => {}
            }
        }
        Ok(this)
    }

    /// Compares it with what the relay needs.
    #[must_use]
    pub fn judge(&self, plan: &Plan) -> Vec<Finding> {
        vec![
            self.judge_state(),
            self.judge_mtu(plan),
            self.judge_program(plan),
        ]
        .into_iter()
        .chain(self.judge_stack(plan))
        .chain(self.judge_frames(plan))
        .collect()
    }

    /// What stands on other interfaces gets no frames by AF_XDP.
    fn judge_stack(&self, plan: &Plan) -> Option<Finding> {
        let check = "stack";
        let on = self.stacked.as_ref()?;
        let why = stacked(&self.card, on);
        let (found, remedy) = why.split_once(": ").unwrap_or((why.as_str(), ""));
        Some(match plan.port {
            PortKind::Xdp => Finding::problem(check, found, remedy),
            PortKind::Auto => Finding::ok(check, format!("{found}: `auto` takes UDP")),
            PortKind::XdpFilter if matches!(on.what, "bond" | "team") => {
                Finding::ok(check, format!("a {}: the filter works on it", on.what))
            }
            PortKind::XdpFilter => Finding::warning(
                check,
                format!(
                    "a {}: XDP runs in the generic path, slower than without",
                    on.what
                ),
                remedy,
            ),
            PortKind::Udp => Finding::ok(check, format!("a {}; fine with `port: udp`", on.what)),
        })
    }

    /// Some drivers cut what does not fit into frames of 2048 bytes.
    fn judge_frames(&self, plan: &Plan) -> Option<Finding> {
        let driver = self.card.driver.as_deref()?;
        if !IN_STEPS.contains(&driver) || !plan.redirects() {
            return None;
        }
        let check = "frames";
        Some(if plan.frames == FrameBytes::TwoKiB {
            Finding::problem(
                check,
                format!(
                    "{driver} receives in steps of 1024 bytes: into frames of 2048, less 256 of the \
                     kernel's, only 1024, and cuts every datagram"
                ),
                "`xdp_frame_bytes: 4096`, or leave it out",
            )
        } else {
            Finding::ok(check, format!("4096 bytes, as {driver} needs"))
        })
    }

    fn judge_state(&self) -> Finding {
        let name = &self.card.interface;
        let driver = self.card.driver.as_deref().unwrap_or("not said");
        if self.up {
            Finding::ok("driver", driver)
        } else {
            Finding::warning(
                "driver",
                format!("{driver}; {name} is down, or has no carrier"),
                format!("ip link set dev {name} up"),
            )
        }
    }

    fn judge_mtu(&self, plan: &Plan) -> Finding {
        let (name, mtu) = (&self.card.interface, self.mtu);
        let wanted = if plan.listens(false) {
            PACKET_V6
        } else {
            PACKET_V4
        };
        let change = format!("ip link set dev {name} mtu {USUAL}");
        if mtu < wanted {
            Finding::problem(
                "MTU",
                format!("{mtu}: a datagram takes {wanted} bytes, and is never fragmented"),
                change,
            )
        } else if mtu > LARGEST && plan.need() != Need::No {
            Finding::warning(
                "MTU",
                format!(
                    "{mtu}: many drivers have no native XDP or zero-copy with more than {LARGEST}"
                ),
                change,
            )
        } else {
            Finding::ok("MTU", format!("{mtu}; a datagram takes {wanted} bytes"))
        }
    }

    fn judge_program(&self, plan: &Plan) -> Finding {
        let check = "attached";
        let name = &self.card.interface;
        match &self.attached {
            None => Finding::ok(check, "no XDP program"),
            Some(Attachment { mode, id }) => {
                let id = id.map(|id| format!(" (number {id})")).unwrap_or_default();
                if plan.runs_with_xdp() {
                    return Finding::ok(check, format!("this relay's XDP program, {mode}{id}"));
                }
                plan.lacks(
                    check,
                    format!("another XDP program, {mode}{id}: an interface has one at a time"),
                    &format!(
                        "stop the program that it belongs to, or `ip link set dev {name} xdp off`"
                    ),
                )
            }
        }
    }
}

/// Asks for one interface.
fn link(index: u32) -> io::Result<LinkMessage> {
    let mut question = LinkMessage::default();
    question.header.index = index;
    let client = Client::open(ROUTE)?;
    match client.ask(RouteNetlinkMessage::GetLink(question))? {
        RouteNetlinkMessage::NewLink(link) => Ok(link),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn attachment(xdp: &[LinkXdp]) -> Option<Attachment> {
    let mode = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::None) => None,
        LinkXdp::Attached(XdpAttached::Driver) => Some("native"),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some("generic"),
        LinkXdp::Attached(XdpAttached::Hardware) => Some("in hardware"),
        LinkXdp::Attached(_) => Some("in several modes"),
        _ => None,
    })?;
    let id = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    });
    Some(Attachment { mode, id })
}

/// VLAN interfaces on top of one: `upper_NAME` links to each, whose `uevent` says what it is.
fn vlans(folder: &Path, name: &str) -> Vec<String> {
    let entries = fs::read_dir(folder.join(name)).into_iter().flatten();
    entries
        .flatten()
        .filter_map(|entry| {
            let upper = entry.file_name().into_string().ok()?;
            let upper = upper.strip_prefix("upper_")?;
            let event = fs::read_to_string(folder.join(upper).join("uevent")).ok()?;
            event
                .lines()
                .any(|line| line == "DEVTYPE=vlan")
                .then(|| upper.to_string())
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::PortKind;
    use crate::doctor::finding::Level;
    use crate::doctor::plan::tests::plan;

    /// An interface as it should be.
    pub fn good() -> Interface {
        Interface {
            card: Card {
                interface: "eth0".into(),
                driver: Some("ice".into()),
            },
            up: true,
            mtu: 1500,
            vlans: vec![],
            attached: None,
            stacked: None,
        }
    }

    #[test]
    fn a_good_interface() {
        let findings = good().judge(&plan(PortKind::Xdp));
        assert!(findings.iter().all(|finding| finding.level == Level::Ok));
        let down = Interface {
            up: false,
            ..good()
        };
        assert_eq!(
            down.judge(&plan(PortKind::Udp))[0].change.as_deref(),
            Some("ip link set dev eth0 up")
        );
    }

    #[test]
    fn datagrams_must_fit() {
        let of = |mtu, listen: &[&str], port| {
            let plan = Plan {
                listen: listen.iter().map(|text| text.parse().unwrap()).collect(),
                ..plan(port)
            };
            Interface { mtu, ..good() }.judge(&plan)[1].level
        };
        let (v4, v6) = ("192.0.2.1:7000", "[2001:db8::1]:7000");
        assert_eq!(of(1436, &[v4], PortKind::Udp), Level::Ok);
        assert_eq!(of(1435, &[v4], PortKind::Udp), Level::Problem);
        assert_eq!(of(1436, &[v4, v6], PortKind::Udp), Level::Problem);
        assert_eq!(of(1456, &[v6], PortKind::Udp), Level::Ok);
        assert_eq!(of(1455, &[], PortKind::Auto), Level::Problem);
        assert_eq!(of(9000, &[v4], PortKind::Udp), Level::Ok);
        assert_eq!(of(9000, &[v4], PortKind::Xdp), Level::Warning);
        assert_eq!(of(1774, &[v4], PortKind::Xdp), Level::Ok);
    }

    #[test]
    fn what_stands_on_other_interfaces_gets_no_frames() {
        let on = |driver: &str, what| Interface {
            card: Card {
                interface: "up0".into(),
                driver: Some(driver.into()),
            },
            stacked: Some(Stacked {
                what,
                below: vec!["eth0".into()],
            }),
            ..good()
        };
        let judge = |interface: Interface, port| interface.judge(&plan(port))[3].clone();
        let bond = judge(on("bonding", "bond"), PortKind::Xdp);
        assert_eq!(bond.level, Level::Problem);
        assert!(bond.found.contains("a bond on eth0"), "{}", bond.found);
        assert_eq!(
            judge(on("bonding", "bond"), PortKind::Auto).level,
            Level::Ok
        );
        assert_eq!(
            judge(on("bonding", "bond"), PortKind::XdpFilter).level,
            Level::Ok
        );
        assert_eq!(
            judge(on("bridge", "bridge"), PortKind::XdpFilter).level,
            Level::Warning
        );
        assert_eq!(
            judge(on("bridge", "bridge"), PortKind::Udp).level,
            Level::Ok
        );
    }

    #[test]
    fn drivers_in_steps_need_large_frames() {
        let igb = Interface {
            card: Card {
                interface: "eth0".into(),
                driver: Some("igb".into()),
            },
            ..good()
        };
        let of = |frames, port| {
            let plan = Plan {
                frames,
                ..plan(port)
            };
            let findings = igb.judge(&plan);
            let frames = findings.iter().find(|finding| finding.check == "frames");
            frames.map(|finding| finding.level)
        };
        assert_eq!(of(FrameBytes::TwoKiB, PortKind::Xdp), Some(Level::Problem));
        assert_eq!(of(FrameBytes::FourKiB, PortKind::Xdp), Some(Level::Ok));
        assert_eq!(of(FrameBytes::TwoKiB, PortKind::Udp), None);
        let findings = good().judge(&plan(PortKind::Xdp));
        assert!(findings.iter().all(|finding| finding.check != "frames"));
    }

    #[test]
    fn there_is_room_for_one_program() {
        let taken = Interface {
            attached: attachment(&[LinkXdp::Attached(XdpAttached::Driver), LinkXdp::ProgId(77)]),
            ..good()
        };
        let judge = |port| taken.judge(&plan(port))[2].clone();
        assert_eq!(judge(PortKind::Xdp).level, Level::Problem);
        assert!(judge(PortKind::Xdp).found.contains("native (number 77)"));
        assert_eq!(judge(PortKind::Udp).level, Level::Ok);
        assert_eq!(attachment(&[LinkXdp::Attached(XdpAttached::None)]), None);
    }

    #[test]
    fn vlans_are_told_from_other_uppers() {
        let folder = tempfile::tempdir().unwrap();
        for (upper, event) in [("eth0.5", "DEVTYPE=vlan\n"), ("br0", "DEVTYPE=bridge\n")] {
            fs::create_dir_all(folder.path().join(upper)).unwrap();
            fs::write(folder.path().join(upper).join("uevent"), event).unwrap();
            fs::create_dir_all(folder.path().join("eth0").join(format!("upper_{upper}"))).unwrap();
        }
        assert_eq!(vlans(folder.path(), "eth0"), ["eth0.5"]);
    }
}
