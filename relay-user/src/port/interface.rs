//! Which interface XDP is for, and how many queues it has.

use std::net::{IpAddr, SocketAddr};

use mixline_relay_common::maps::MAX_QUEUES;
use nix::ifaddrs::getifaddrs;

use super::udp::ControlSockets;
use crate::config::Config;

/// The interface, and our addresses on it.
pub(super) fn interface(
    config: &Config,
    sockets: &ControlSockets,
) -> Result<(String, Vec<IpAddr>), String> {
    let all = addresses()?;
    let name = choose(config, &all)?;
    let addresses: Vec<IpAddr> = all
        .into_iter()
        .filter(|(of, address)| *of == name && sockets.reaches(&SocketAddr::new(*address, 0)))
        .map(|(_, address)| address)
        .collect();
    if addresses.is_empty() {
        return Err(format!(
            "interface {name} has no address that the relay listens on"
        ));
    }
    Ok((name, addresses))
}

/// The interface that XDP would attach to.
///
/// # Errors
/// If none has an address where others reach the relay, in words for the operator.
pub fn interface_of(config: &Config) -> Result<String, String> {
    choose(config, &addresses()?)
}

fn choose(config: &Config, all: &[(String, IpAddr)]) -> Result<String, String> {
    match &config.interface {
        Some(name) => Ok(name.clone()),
        None => all
            .iter()
            .find(|(_, address)| config.advertised().iter().any(|a| a.ip() == *address))
            .map(|(name, _)| name.clone())
            .ok_or_else(|| {
                "no interface has an address of `advertise`: name it with `interface`".into()
            }),
    }
}

/// All interfaces with their addresses.
fn addresses() -> Result<Vec<(String, IpAddr)>, String> {
    let entries = getifaddrs().map_err(|e| format!("cannot list interfaces: {e}"))?;
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
