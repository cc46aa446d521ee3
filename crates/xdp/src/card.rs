//! A network card: its driver, and what that says that it can do.

use std::ffi::CString;
use std::fmt;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::AsRawFd;
use xdp::nic::NicIndex;

/// An interface by its name, and the driver behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// The interface's name.
    pub interface: String,
    /// Its driver's name; none if the kernel does not say.
    pub driver: Option<String>,
}

/// What an interface is that is no card itself, and which interfaces carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stacked {
    /// What it is: `bond`, `bridge`, `VLAN` ...
    pub what: &'static str,
    /// The interfaces below, in the order of their names.
    pub below: Vec<String>,
}

/// What a driver says that it can do (`enum netdev_xdp_act` of `linux/netdev.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// It runs XDP programs.
    pub native: bool,
    /// It carries out what they redirect.
    pub redirect: bool,
    /// It reads and writes the memory of AF_XDP sockets.
    pub zero_copy: bool,
    /// It computes checksums of what it sends from there (`enum netdev_xsk_flags`).
    pub checksums: bool,
}

impl Card {
    /// Asks for the driver of an interface.
    #[must_use]
    pub fn of(interface: &str) -> Self {
        Self {
            interface: interface.into(),
            driver: driver(interface),
        }
    }

    /// What this is, if it stands on other interfaces. An AF_XDP socket belongs to one queue of one
    /// card, and a frame that arrives at a card below is not given to a socket above (`xsk_rcv_check` of
    /// the kernel): it is lost without a word.
    #[must_use]
    pub fn stacked(&self) -> Option<Stacked> {
        let what = match self.driver.as_deref()? {
            "bonding" => "bond",
            "team" => "team",
            "bridge" => "bridge",
            "802.1Q VLAN Support" => "VLAN",
            "macvlan" => "macvlan",
            "ipvlan" => "ipvlan",
            _ => return None,
        };
        let folder = format!("/sys/class/net/{}", self.interface);
        let mut below: Vec<String> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                name.strip_prefix("lower_").map(str::to_owned)
            })
            .collect();
        below.sort_unstable();
        Some(Stacked { what, below })
    }

    /// The largest IP packet that it carries, in bytes. None if the kernel does not say.
    #[must_use]
    pub fn mtu(&self) -> Option<u32> {
        let file = format!("/sys/class/net/{}/mtu", self.interface);
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// Asks the driver what it can do. None if the kernel does not say: it does from 6.3 on.
    #[must_use]
    pub fn abilities(&self) -> Option<Abilities> {
        let name = CString::new(self.interface.as_str()).ok()?;
        let nic = NicIndex::lookup_by_name(&name).ok()??;
        let capabilities = nic.query_capabilities().ok()?;
        let features = capabilities.xdp_features;
        Some(Abilities {
            native: features.basic(),
            redirect: features.redirect(),
            zero_copy: features.zero_copy(),
            checksums: capabilities.tx_metadata.checksum(),
        })
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.interface)?;
        match &self.driver {
            Some(driver) => write!(f, " (driver {driver})"),
            None => Ok(()),
        }
    }
}

/// `struct ethtool_drvinfo` of `linux/ethtool.h`, of which one field is read.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}
const _: () = assert!(size_of::<DriverInfo>() == 196);

/// `ETHTOOL_GDRVINFO` of `linux/ethtool.h`.
const GET_DRIVER_INFO: u32 = 3;

/// The name of an interface's driver, which for a virtual interface is its kind.
fn driver(interface: &str) -> Option<String> {
    let any = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .ok()?;
    let mut info = DriverInfo {
        command: GET_DRIVER_INFO,
        driver: [0; 32],
        rest: [0; 160],
    };
    let mut name = [0; libc::IFNAMSIZ];
    // The last byte stays zero.
    if interface.len() >= name.len() {
        return None;
    }
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: (&raw mut info).cast(),
        },
    };
    // SAFETY: the kernel reads a name that ends, and writes a `struct ethtool_drvinfo` to where
    // `ifru_data` points, which is one.
    let result = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result != 0 {
        return None;
    }
    let text = info.driver.split(|byte| *byte == 0).next()?;
    let text = String::from_utf8_lossy(text).into_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_named_with_its_driver_if_that_is_known() {
        let mut card = Card {
            interface: "eth0".into(),
            driver: Some("igb".into()),
        };
        assert_eq!(card.to_string(), "eth0 (driver igb)");
        card.driver = None;
        assert_eq!(card.to_string(), "eth0");
    }

    #[test]
    fn an_interface_that_is_not_there_has_no_driver_and_no_abilities() {
        for name in ["none-such", "longer-than-any-interface", "zero\0inside"] {
            let card = Card::of(name);
            assert_eq!((card.driver.as_deref(), card.abilities()), (None, None));
            assert_eq!(card.mtu(), None);
        }
    }
}
