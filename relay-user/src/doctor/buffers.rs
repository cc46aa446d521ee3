//! Socket buffers: the relay asks for 8 MiB in each direction.

use std::fs;

use mixline_udp::BindOptions;

use super::finding::Finding;

/// What was seen of the system's limits.
#[derive(Debug, Clone)]
pub struct Buffers {
    /// `net.core.rmem_max` and `net.core.wmem_max`, in bytes; none where they are not shown.
    pub limits: [Option<u64>; 2],
    /// Whether this process may go beyond.
    pub may_force: bool,
}

const NAMES: [&str; 2] = ["net.core.rmem_max", "net.core.wmem_max"];

impl Buffers {
    /// Looks at the machine.
    #[must_use]
    pub fn read(may_force: bool) -> Self {
        Self {
            limits: NAMES.map(|name| {
                let path = format!("/proc/sys/{}", name.replace('.', "/"));
                fs::read_to_string(path).ok()?.trim().parse().ok()
            }),
            may_force,
        }
    }

    /// Compares it with what the relay needs.
    #[must_use]
    pub fn judge(&self) -> Vec<Finding> {
        let wanted = BindOptions::default().buffer_bytes as u64;
        let check = "socket buffers";
        if self.may_force {
            let found = format!("{} MiB, whatever the limits (CAP_NET_ADMIN)", wanted >> 20);
            return vec![Finding::ok(check, found)];
        }
        let low: Vec<_> = NAMES
            .into_iter()
            .zip(self.limits)
            .filter_map(|(name, limit)| Some((name, limit.filter(|limit| *limit < wanted)?)))
            .collect();
        if low.is_empty() {
            return vec![Finding::ok(check, format!("{} MiB", wanted >> 20))];
        }
        let found: Vec<_> = low
            .iter()
            .map(|(name, limit)| format!("{name} is {limit}"))
            .collect();
        let change: Vec<_> = low
            .iter()
            .map(|(name, _)| format!("{name}={wanted}"))
            .collect();
        vec![Finding::warning(
            check,
            format!("{}: bursts are lost", found.join(", ")),
            format!(
                "sysctl -w {} (and /etc/sysctl.d to keep it), or CAP_NET_ADMIN for the relay",
                change.join(" ")
            ),
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn limits_matter_to_those_who_may_not_go_beyond() {
        let judge = |limits, may_force| Buffers { limits, may_force }.judge()[0].clone();
        let small = [Some(212_992), Some(8 << 20)];
        assert_eq!(judge(small, true).level, Level::Ok);
        let finding = judge(small, false);
        assert_eq!(finding.level, Level::Warning);
        let change = finding.change.unwrap_or_default();
        assert!(
            change.starts_with("sysctl -w net.core.rmem_max=8388608 ("),
            "{change}"
        );
        assert_eq!(judge([Some(8 << 20); 2], false).level, Level::Ok);
        assert_eq!(judge([None; 2], false).level, Level::Ok);
    }
}
