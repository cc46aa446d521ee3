//! Which interface XDP is for, and how many queues it has.

use std::net::{IpAddr, SocketAddr};

use mixline_relay_common::maps::MAX_QUEUES;
use mixline_xdp::Card;
use nix::ifaddrs::getifaddrs;

use super::error::{Cards, InterfaceError};
use super::udp::ControlSockets;
use crate::config::Config;

/// The interface, and our addresses on it.
pub(super) fn interface(
    config: &Config,
    sockets: &ControlSockets,
) -> Result<(String, Vec<IpAddr>), InterfaceError> {
    let all = addresses()?;
    let name = choose(config, &all)?;
    let addresses: Vec<IpAddr> = all
        .into_iter()
        .filter(|(of, address)| *of == name && sockets.reaches(&SocketAddr::new(*address, 0)))
        .map(|(_, address)| address)
        .collect();
    if addresses.is_empty() {
        return Err(InterfaceError::NotListening(Card::of(&name)));
    }
    Ok((name, addresses))
}

/// The interface that XDP would attach to.
///
/// # Errors
/// [`InterfaceError`], if none has an address where others reach the relay.
pub fn interface_of(config: &Config) -> Result<String, InterfaceError> {
    choose(config, &addresses()?)
}

fn choose(config: &Config, all: &[(String, IpAddr)]) -> Result<String, InterfaceError> {
    match &config.interface {
        Some(name) => Ok(name.clone()),
        None => all
            .iter()
            .find(|(_, address)| config.advertised().iter().any(|a| a.ip() == *address))
            .map(|(name, _)| name.clone())
            .ok_or_else(|| InterfaceError::NotAdvertised(cards(all))),
    }
}

/// The cards behind interfaces that have addresses, each once.
fn cards(all: &[(String, IpAddr)]) -> Cards {
    let mut names: Vec<&String> = all.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    Cards(names.into_iter().map(|name| Card::of(name)).collect())
}

/// The addresses of an interface; none if there is no such interface.
#[must_use]
pub fn addresses_of(interface: &str) -> Vec<IpAddr> {
    addresses()
        .unwrap_or_default()
        .into_iter()
        .filter(|(of, _)| of == interface)
        .map(|(_, address)| address)
        .collect()
}

/// The cards behind all interfaces that have addresses.
#[must_use]
pub fn all_cards() -> Cards {
    cards(&addresses().unwrap_or_default())
}

/// All interfaces with their addresses.
fn addresses() -> Result<Vec<(String, IpAddr)>, InterfaceError> {
    let entries = getifaddrs().map_err(InterfaceError::List)?;
    Ok(entries
        .filter_map(|entry| {
            let address = entry.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            let v6 = address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()));
            Some((entry.interface_name, v4.or(v6)?))
        })
        .collect())
}

/// How many receive queues an interface has.
#[must_use]
pub fn receive_queues(interface: &str) -> u32 {
    let entries = std::fs::read_dir(format!("/sys/class/net/{interface}/queues"));
    let count = entries.map_or(1, |entries| {
        entries
            .filter(|e| {
                e.as_ref()
                    .is_ok_and(|e| e.file_name().to_string_lossy().starts_with("rx-"))
            })
            .count()
    });
    u32::try_from(count.max(1)).unwrap_or(MAX_QUEUES)
}
