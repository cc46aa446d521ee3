//! Wires that are network cards, where the machine has some: in a virtual machine, two cards on one
//! cable.

use crate::error::{Error, Result};
use crate::topology::Node;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// Two cards on one cable, in place of a veth pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardWire {
    /// Who has the first card, as its `eth0`.
    pub node: Node,
    /// The hardware address of the first card.
    pub near: String,
    /// The hardware address of the second, which the router has.
    pub far: String,
}

/// How long a namespace that was removed may take to give its cards back.
const RETURN: Duration = Duration::from_secs(60);

/// As [`name_of`], for a card that may still be on its way back from a namespace that was removed.
pub fn name_when_back(mac: &str) -> Result<String> {
    let until = Instant::now() + RETURN;
    loop {
        match name_of(mac) {
            Err(_) if Instant::now() < until => thread::sleep(Duration::from_millis(200)),
            found => return found,
        }
    }
}

/// The name that the card with this hardware address has at the moment, in the namespace of the
/// calling thread.
pub fn name_of(mac: &str) -> Result<String> {
    let absent = || Error::NotFound {
        what: "network card",
        text: format!("this namespace with the address {mac}"),
    };
    let interfaces = fs::read_dir("/sys/class/net").map_err(|_| absent())?;
    interfaces
        .flatten()
        .find(|interface| {
            fs::read_to_string(interface.path().join("address"))
                .is_ok_and(|address| address.trim() == mac)
        })
        .map(|interface| interface.file_name().to_string_lossy().into_owned())
        .ok_or_else(absent)
}
