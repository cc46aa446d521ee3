//! Captures of what crosses interfaces, as tcpdump writes them here: the frames of a file (pcap), and the
//! header that each has where all interfaces of a namespace were captured at once (`LINUX_SLL2`).
//! What the packets in them mean is for others.
//!
//! <https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcap/>
//! <https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html>

use crate::error::{Error, Result};
use std::time::Duration;

/// Types of frames (<https://www.tcpdump.org/linktypes.html>): Ethernet.
pub const ETHERNET: u32 = 1;
/// IP without a header before it.
pub const RAW: u32 = 101;
/// `LINUX_SLL2`: what all interfaces at once have.
pub const ALL_INTERFACES: u32 = 276;

/// `ARPHRD_LOOPBACK` (Linux, `linux/if_arp.h`).
pub const LOOPBACK: u16 = 772;
/// `ARPHRD_NONE`: interfaces that carry packets without a header, as a TUN's does.
pub const TUN: u16 = 0xfffe;

/// How a file begins whose numbers are little-endian and whose times have microseconds.
const MAGIC: [u8; 4] = [0xd4, 0xc3, 0xb2, 0xa1];
/// The rest of a file's header, before the type of its frames.
const VERSION_TO_LENGTH: usize = 16;

/// What a capture file has.
#[derive(Debug)]
pub struct File<'a> {
    /// The type of its frames.
    pub link: u32,
    /// In the order in which they were captured.
    pub frames: Vec<Captured<'a>>,
}

/// A frame of a capture file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Captured<'a> {
    /// When, since the beginning of 1970.
    pub at: Duration,
    /// As much as was captured.
    pub bytes: &'a [u8],
    /// How many bytes it had.
    pub length: usize,
}

/// A frame of a capture of all interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnInterface<'a> {
    /// The interface's number.
    pub interface: u32,
    /// Its kind, `ARPHRD_*`.
    pub hardware: u16,
    /// What the packet is, an EtherType.
    pub protocol: u16,
    /// As much of it as was captured, from the network layer's header on.
    pub packet: &'a [u8],
}

impl<'a> File<'a> {
    /// Reads a capture file.
    ///
    /// # Errors
    /// [`Error::Capture`] if it is none, or ends inside a frame.
    pub fn read(file: &'a [u8]) -> Result<Self> {
        let mut rest = file;
        if take(&mut rest, MAGIC.len())? != MAGIC {
            return Err(Error::Capture("no little-endian pcap file"));
        }
        take(&mut rest, VERSION_TO_LENGTH)?;
        let link = little(&mut rest)?;
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (seconds, microseconds) = (little(&mut rest)?, little(&mut rest)?);
            let (captured, length) = (little(&mut rest)?, little(&mut rest)?);
            frames.push(Captured {
                at: Duration::from_secs(seconds.into())
                    + Duration::from_micros(microseconds.into()),
                bytes: take(&mut rest, captured as usize)?,
                length: length as usize,
            });
        }
        Ok(Self { link, frames })
    }

    /// Reads a capture file of all interfaces: each frame with the interface that it was seen on.
    ///
    /// # Errors
    /// [`Error::Capture`] if it is none, or ends inside a frame.
    pub fn read_all_interfaces(file: &'a [u8]) -> Result<Vec<(Captured<'a>, OnInterface<'a>)>> {
        let file = Self::read(file)?;
        if file.link != ALL_INTERFACES {
            return Err(Error::Capture("not of all interfaces (LINUX_SLL2)"));
        }
        let frames = file.frames.into_iter();
        frames
            .map(|frame| Ok((frame, OnInterface::read(frame.bytes)?)))
            .collect()
    }
}

impl<'a> Captured<'a> {
    /// All its bytes.
    ///
    /// # Errors
    /// [`Error::Capture`] if the capture has only its first ones.
    pub fn whole(&self) -> Result<&'a [u8]> {
        if self.bytes.len() != self.length {
            return Err(Error::Capture("a frame was cut by the capture"));
        }
        Ok(self.bytes)
    }
}

impl<'a> OnInterface<'a> {
    fn read(frame: &'a [u8]) -> Result<Self> {
        let mut packet = frame;
        let protocol = u16::from_be_bytes(array(&mut packet)?);
        take(&mut packet, 2)?; // reserved
        let interface = u32::from_be_bytes(array(&mut packet)?);
        let hardware = u16::from_be_bytes(array(&mut packet)?);
        take(&mut packet, 10)?; // which way, and the sender's link-layer address
        Ok(Self {
            interface,
            hardware,
            protocol,
            packet,
        })
    }

    /// Whether it has not left the host: the interface is the loopback, or a tunnel of a program's.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        [LOOPBACK, TUN].contains(&self.hardware)
    }
}

/// Whether tcpdump, with its last words, says that it has all that it was to capture.
#[must_use]
pub fn has_all(said: &str) -> bool {
    said.lines()
        .any(|line| line == "0 packets dropped by kernel")
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, left) = rest
        .split_at_checked(length)
        .ok_or(Error::Capture("too short"))?;
    *rest = left;
    Ok(taken)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let (taken, left) = rest
        .split_first_chunk()
        .ok_or(Error::Capture("too short"))?;
    *rest = left;
    Ok(*taken)
}

fn little(rest: &mut &[u8]) -> Result<u32> {
    Ok(u32::from_le_bytes(array(rest)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of one frame of all interfaces, of which 24 bytes are captured.
    fn file(length: u32) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        file.extend([0; VERSION_TO_LENGTH]);
        file.extend(ALL_INTERFACES.to_le_bytes());
        for number in [1_800_000_000, 250_000, 24, length] {
            file.extend(u32::to_le_bytes(number));
        }
        file.extend([0x86, 0xdd, 0, 0, 0, 0, 1, 5, 0x03, 0x04, 4, 6]);
        file.extend([0; 8]);
        file.extend(*b"IPv6");
        file
    }

    #[test]
    fn a_file_is_read() {
        let file = file(24);
        let frames = File::read_all_interfaces(&file).unwrap();
        let [(captured, seen)] = frames[..] else {
            panic!("{frames:?}");
        };
        assert_eq!(captured.at, Duration::from_millis(1_800_000_000_250));
        assert_eq!(captured.whole().unwrap().len(), 24);
        let packet = b"IPv6".as_slice();
        assert_eq!(
            seen,
            OnInterface {
                interface: 0x105,
                hardware: LOOPBACK,
                protocol: 0x86dd,
                packet
            }
        );
        assert!(seen.is_inside());
    }

    #[test]
    fn what_is_cut_is_an_error() {
        let whole = file(24);
        for length in 0..whole.len() {
            let read = File::read(&whole[..length]);
            // The header alone is a capture of nothing.
            assert_eq!(read.is_ok(), length == 24, "{length}");
        }
        let cut = file(25);
        assert!(File::read(&cut).unwrap().frames[0].whole().is_err());
        let mut ethernet = whole;
        ethernet[20..24].copy_from_slice(&ETHERNET.to_le_bytes());
        assert!(File::read_all_interfaces(&ethernet).is_err());
        assert!(OnInterface::read(&[0; 19]).is_err());
    }

    #[test]
    fn tcpdump_says_whether_it_has_all() {
        assert!(has_all(
            "3 packets captured\n9 packets received by filter\n0 packets dropped by kernel"
        ));
        assert!(!has_all("10 packets dropped by kernel"));
        assert!(!has_all(""));
    }
}
