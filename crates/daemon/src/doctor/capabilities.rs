//! What a process may do.

use std::fs;

/// Capabilities by their numbers in `linux/capability.h`.
pub const NET_BIND_SERVICE: u32 = 10;
/// To configure networks.
pub const NET_ADMIN: u32 = 12;
/// To enter namespaces, among much else.
pub const SYS_ADMIN: u32 = 21;

/// The effective capabilities of a process, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Those of this process; none if they cannot be read.
    #[must_use]
    pub fn own() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self::parse(&status).unwrap_or(Self(0))
    }

    /// Those in `/proc/PID/status` (proc(5)).
    #[must_use]
    pub fn parse(status: &str) -> Option<Self> {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok().map(Self)
    }

    /// Whether one is there.
    #[must_use]
    pub fn has(self, capability: u32) -> bool {
        1u64.checked_shl(capability)
            .is_some_and(|bit| self.0 & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read() {
        let status = "Name:\tx\nCapPrm:\t0000000000000001\nCapEff:\t0000000000001000\n";
        let capabilities = Capabilities::parse(status).unwrap();
        assert!(capabilities.has(NET_ADMIN) && !capabilities.has(SYS_ADMIN));
        assert!(!capabilities.has(64));
        assert_eq!(Capabilities::parse("Name:\tx\n"), None);
    }
}
