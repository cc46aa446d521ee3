//! What this process may do: its capabilities, and how much memory it may lock.

use mixline_daemon::doctor::capabilities::Capabilities;
use mixline_xdp::SocketConfig;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::finding::Finding;
use super::plan::{Need, Plan};

/// Capabilities by their numbers in `linux/capability.h`.
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
const IPC_LOCK: u32 = 14;
const SYS_ADMIN: u32 = 21;
const BPF: u32 = 39;
/// What gives them to the relay's service.
const GIVE: &str = "run as root, or by the unit mixline-relay.service, which has them \
                    (`systemctl cat mixline-relay`)";
/// Bytes of a frame of an AF_XDP socket.
const FRAME: u64 = 2048;

/// What was seen of this process.
#[derive(Debug, Clone)]
pub struct Privileges {
    /// The effective capabilities, a bit each.
    pub effective: u64,
    /// Bytes that may be locked in memory; none if there is no limit.
    pub memlock: Option<u64>,
}

impl Privileges {
    /// Looks at the machine.
    #[must_use]
    pub fn read() -> Self {
        let memlock = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft);
        Self {
            effective: Capabilities::own().0,
            memlock: (memlock != RLIM_INFINITY).then_some(memlock),
        }
    }

    /// Whether a capability is there.
    fn has(&self, capability: u32) -> bool {
        Capabilities(self.effective).has(capability)
    }

    /// Whether socket buffers may be larger than the system's limits.
    #[must_use]
    pub fn may_force_buffers(&self) -> bool {
        self.has(NET_ADMIN)
    }

    /// What the relay needs of them, with this many queues.
    #[must_use]
    pub fn judge(&self, plan: &Plan, queues: u32) -> Vec<Finding> {
        vec![
            self.judge_capabilities(plan),
            self.judge_memlock(plan, queues),
        ]
    }

    fn judge_capabilities(&self, plan: &Plan) -> Finding {
        let check = "capabilities";
        let mut missing = Vec::new();
        if !self.has(NET_ADMIN) {
            missing.push("CAP_NET_ADMIN");
        }
        if !self.has(BPF) && !self.has(SYS_ADMIN) {
            missing.push("CAP_BPF");
        }
        if !self.has(NET_RAW) && plan.redirects() {
            missing.push("CAP_NET_RAW");
        }
        if missing.is_empty() {
            Finding::ok(check, "all that XDP takes")
        } else {
            plan.lacks(check, format!("without {}", missing.join(", ")), GIVE)
        }
    }

    /// Frames of AF_XDP sockets are counted against the limit of their user
    /// (`net/xdp/xdp_umem.c`, `xdp_umem_account_pages`).
    fn judge_memlock(&self, plan: &Plan, queues: u32) -> Finding {
        let check = "locked memory";
        let wanted = u64::from(queues.max(1)) * u64::from(SocketConfig::default().frames) * FRAME;
        match self.memlock {
            _ if plan.need() == Need::No || !plan.redirects() => {
                Finding::ok(check, "not needed with this port")
            }
            Some(limit) if limit < wanted && !self.has(IPC_LOCK) => plan.lacks(
                check,
                format!(
                    "at most {} KiB, and {} AF_XDP sockets take {} KiB",
                    limit >> 10,
                    queues.max(1),
                    wanted >> 10
                ),
                "`LimitMEMLOCK=infinity` in the unit (`ulimit -l unlimited` in a shell)",
            ),
            _ => Finding::ok(check, format!("{} KiB may be locked", wanted >> 10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PortKind;
    use crate::doctor::finding::Level;
    use crate::doctor::plan::tests::plan;

    fn with(capabilities: &[u32], memlock: Option<u64>) -> Privileges {
        Privileges {
            effective: capabilities.iter().fold(0, |all, bit| all | 1 << bit),
            memlock,
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let judge =
            |capabilities: &[u32], port| with(capabilities, None).judge(&plan(port), 1)[0].clone();
        let none = judge(&[], PortKind::Xdp);
        assert_eq!(none.level, Level::Problem);
        assert_eq!(none.found, "without CAP_NET_ADMIN, CAP_BPF, CAP_NET_RAW");
        assert_eq!(judge(&[], PortKind::Auto).level, Level::Warning);
        assert_eq!(judge(&[], PortKind::Udp).level, Level::Ok);
        let filter = judge(&[NET_ADMIN, SYS_ADMIN], PortKind::XdpFilter);
        assert_eq!(filter.level, Level::Ok, "a filter opens no AF_XDP socket");
        let redirect = judge(&[NET_ADMIN, BPF], PortKind::Xdp);
        assert_eq!(redirect.found, "without CAP_NET_RAW");
    }

    #[test]
    fn each_queue_takes_8_mib() {
        let judge = |capabilities: &[u32], memlock, queues, port| {
            with(capabilities, memlock).judge(&plan(port), queues)[1].level
        };
        let mib = |n: u64| Some(n << 20);
        assert_eq!(judge(&[], mib(8), 1, PortKind::Xdp), Level::Ok);
        assert_eq!(judge(&[], mib(8), 2, PortKind::Xdp), Level::Problem);
        assert_eq!(judge(&[], mib(8), 2, PortKind::Auto), Level::Warning);
        assert_eq!(judge(&[IPC_LOCK], mib(8), 2, PortKind::Xdp), Level::Ok);
        assert_eq!(judge(&[], None, 64, PortKind::Xdp), Level::Ok);
        assert_eq!(judge(&[], mib(0), 2, PortKind::XdpFilter), Level::Ok);
    }
}
