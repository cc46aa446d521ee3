//! The machine: its kernel, the TUN device, what this process may do, and whether the kernel takes
//! the packet filter.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use mixline_daemon::doctor::Finding;
use mixline_daemon::doctor::capabilities::{Capabilities, NET_ADMIN, NET_BIND_SERVICE};
use mixline_protocol::address::{self, VirtualNetwork};
use mixline_protocol::identity::AnonymousId;
use nix::sched::{CloneFlags, unshare};

use super::client::Client;
use super::diagnosis::ClientState;
use crate::host::desired::{Place, Wanted, desired};
use crate::host::kernel::Kernel;
use crate::host::observed::Observed;
use crate::host::plan::Action;

/// The packet filter looks behind the headers of TCP (Linux 5.16, `NFT_PAYLOAD_INNER_HEADER`).
const OLDEST: (u32, u32) = (5, 16);
/// What makes interfaces.
const TUN: &str = "/dev/net/tun";

/// The TUN device, as this process can open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tun {
    /// It opens.
    Opens,
    /// It is not there, or no driver is behind it.
    Missing,
    /// This user may not.
    Forbidden,
}

/// Whether the kernel takes the packet filter, tried where nothing depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// It does.
    Taken,
    /// It does not.
    Refused(String),
    /// No namespace can be made for it.
    NotTried,
}

/// What was seen of the machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// As `uname -r` prints it.
    pub release: String,
    /// The TUN device.
    pub tun: Tun,
    /// What this process may do.
    pub capabilities: Capabilities,
    /// Whether the kernel has IPv6.
    pub ipv6: bool,
    /// The packet filter.
    pub trial: Trial,
}

impl Machine {
    /// Looks at the machine. The packet filter is tried in a network namespace that ends with the
    /// trial.
    #[must_use]
    pub fn read() -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            release: release.trim().to_owned(),
            tun: tun(),
            capabilities: Capabilities::own(),
            ipv6: Path::new("/proc/sys/net/ipv6").exists(),
            trial: std::thread::spawn(trial).join().unwrap_or(Trial::NotTried),
        }
    }

    /// Compares it with what the client needs.
    #[must_use]
    pub fn judge(&self, client: &Client) -> Vec<Finding> {
        vec![
            self.judge_version(),
            self.judge_tun(),
            self.judge_capabilities(client),
            self.judge_ipv6(),
        ]
    }

    fn judge_version(&self) -> Finding {
        let (check, release) = ("kernel", &self.release);
        match version(release) {
            Some(have) if have < OLDEST => Finding::problem(
                check,
                format!("Linux {release} does not take the packet filter"),
                format!("a kernel from {}.{} on", OLDEST.0, OLDEST.1),
            ),
            Some(_) => Finding::ok(check, format!("Linux {release}")),
            None => Finding::ok(check, format!("`{release}`, which says nothing to us")),
        }
    }

    fn judge_tun(&self) -> Finding {
        let check = "TUN device";
        match self.tun {
            Tun::Opens => Finding::ok(check, format!("{TUN} opens")),
            Tun::Missing => Finding::problem(
                check,
                format!("{TUN} is missing, or no driver is behind it"),
                "sudo modprobe tun; in a container, pass the device",
            ),
            Tun::Forbidden => {
                Finding::ok(check, format!("{TUN} is there; this user may not open it"))
            }
        }
    }

    fn judge_capabilities(&self, client: &Client) -> Finding {
        let check = "capabilities";
        let missing: Vec<&str> = [
            (NET_ADMIN, "CAP_NET_ADMIN"),
            (NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE"),
        ]
        .into_iter()
        .filter(|(capability, _)| !self.capabilities.has(*capability))
        .map(|(_, name)| name)
        .collect();
        if missing.is_empty() {
            Finding::ok(check, "all that `up` takes")
        } else if client.state() == ClientState::NotRunning {
            Finding::warning(
                check,
                format!("this user lacks {}", missing.join(" and ")),
                "sudo mixline-client doctor says more; `up` needs root, or the unit mixline-client",
            )
        } else {
            Finding::ok(
                check,
                format!(
                    "this user lacks {}; a client runs already",
                    missing.join(" and ")
                ),
            )
        }
    }

    fn judge_ipv6(&self) -> Finding {
        let check = "IPv6";
        if self.ipv6 {
            Finding::ok(check, "in the kernel")
        } else {
            Finding::warning(
                check,
                "not in the kernel: .anon names have IPv4 addresses only",
                "boot without ipv6.disable=1",
            )
        }
    }

    /// Whether the kernel takes the packet filter.
    #[must_use]
    pub fn judge_trial(&self) -> Finding {
        let check = "nftables";
        match &self.trial {
            Trial::Taken => Finding::ok(check, "the kernel takes the packet filter"),
            Trial::Refused(why) => Finding::problem(
                check,
                format!("the kernel does not take the packet filter: {why}"),
                "a kernel with nf_tables (CONFIG_NF_TABLES, _INET, _ARP); sudo modprobe nf_tables",
            ),
            Trial::NotTried => Finding::ok(check, "not tried: it takes root"),
        }
    }
}

fn tun() -> Tun {
    match OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(_) => Tun::Opens,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Tun::Forbidden,
        Err(_) => Tun::Missing,
    }
}

/// To be run in a thread of its own, whose namespace ends with it.
fn trial() -> Trial {
    if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        return Trial::NotTried;
    }
    let id = AnonymousId([1; 32]);
    let network = VirtualNetwork::default();
    let wanted = Wanted {
        ipv6: Some(address::ipv6(&id)),
        lease: Some(Ipv4Addr::from_bits(network.prefix.to_bits() | 0x0101)),
        resolver: Some(Place::Loopback),
        ..Wanted::closed("mixline0", network)
    };
    let filter = desired(&wanted, &Observed::default()).filter;
    let tried = Kernel::open().and_then(|kernel| kernel.apply(&Action::SetFilter(filter.chains())));
    match tried {
        Ok(()) => Trial::Taken,
        Err(error) => Trial::Refused(error.to_string()),
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use mixline_daemon::doctor::Level;

    use super::*;

    fn machine() -> Machine {
        Machine {
            release: "6.1.0-18-amd64".into(),
            tun: Tun::Opens,
            capabilities: Capabilities(u64::MAX),
            ipv6: true,
            trial: Trial::Taken,
        }
    }

    #[test]
    fn a_machine_that_carries_a_client() {
        let machine = machine();
        let mut findings = machine.judge(&Client::missing());
        findings.push(machine.judge_trial());
        assert!(
            findings.iter().all(|f| f.level == Level::Ok),
            "{findings:?}"
        );
    }

    #[test]
    fn what_is_missing_is_named_with_what_mends_it() {
        let old = Machine {
            release: "4.9.0".into(),
            tun: Tun::Missing,
            capabilities: Capabilities(0),
            ipv6: false,
            trial: Trial::Refused("no".into()),
        };
        let findings = old.judge(&Client::missing());
        let levels: Vec<Level> = findings.iter().map(|finding| finding.level).collect();
        use Level::{Problem, Warning};
        assert_eq!(levels, [Problem, Problem, Warning, Warning]);
        assert!(
            findings[1]
                .change
                .as_ref()
                .unwrap()
                .contains("modprobe tun")
        );
        assert!(
            findings[2]
                .found
                .contains("CAP_NET_ADMIN and CAP_NET_BIND_SERVICE")
        );
        assert_eq!(old.judge_trial().level, Problem);
        // A member of the group asks about a client that runs.
        let running = Client::saying(serde_json::json!({"state": "up"}));
        assert_eq!(old.judge(&running)[2].level, Level::Ok);
        assert_eq!(version("4.19.0"), Some((4, 19)));
        assert_eq!(version("x"), None);
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let machine = Machine::read();
        assert!(version(&machine.release).is_some());
        assert!(!matches!(&machine.trial, Trial::Refused(why) if why.is_empty()));
    }
}
