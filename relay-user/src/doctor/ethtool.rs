//! Questions to the kernel's generic netlink families `ethtool` and `netdev`
//! (Documentation/networking/ethtool-netlink.rst, Documentation/netlink/specs/netdev.yaml).

use std::collections::BTreeMap;
use std::io;

use netlink_packet_core::{
    DecodeError, NLA_F_NESTED, NLA_TYPE_MASK, NLM_F_ACK, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID`, `CTRL_ATTR_FAMILY_NAME` of
/// `linux/genetlink.h`.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `NETDEV_CMD_DEV_GET` and the attributes `IFINDEX`, `XDP_FEATURES` of `linux/netdev.h`.
const DEV_GET: u8 = 1;
const DEV_INDEX: u16 = 1;
const DEV_XDP_FEATURES: u16 = 3;
/// Messages of `linux/ethtool_netlink.h`, and the attributes of a request's header.
const FEATURES_GET: u8 = 11;
const RINGS_GET: u8 = 15;
const CHANNELS_GET: u8 = 17;
const HEADER: u16 = 1;
const HEADER_NAME: u16 = 2;
/// Sets of bits: those that the driver can change, those that are on; and what is in a set.
const FEATURES_HARDWARE: u16 = 2;
const FEATURES_ACTIVE: u16 = 4;
const BITSET_BITS: u16 = 3;
const BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;

/// A message of a family.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    family: u16,
    command: u8,
    attributes: Vec<u8>,
}

/// Bytes of `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        GENERIC_HEADER + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, rest) = buffer.split_at_mut(GENERIC_HEADER);
        header.copy_from_slice(&[self.command, 1, 0, 0]);
        rest[..self.attributes.len()].copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (generic, attributes) = payload
            .split_at_checked(GENERIC_HEADER)
            .ok_or_else(|| DecodeError::from("a generic netlink message without its header"))?;
        Ok(Self {
            family: header.message_type,
            command: generic[0],
            attributes: attributes.to_vec(),
        })
    }
}

/// Appends an attribute.
fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// The attributes in a message, or in an attribute: kinds and values. One that does not parse
/// ends the list.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (*bytes.first_chunk()?, bytes.get(2..4)?);
        let length = usize::from(u16::from_ne_bytes(length));
        let kind = u16::from_ne_bytes([kind[0], kind[1]]) & NLA_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of an attribute.
fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

fn number(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_ne_bytes(find(bytes, kind)?.try_into().ok()?))
}

/// A name that ends with a zero byte.
fn name(bytes: &[u8]) -> String {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether a feature of an interface is on, and whether its driver can change that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// It is on.
    pub on: bool,
    /// It can be changed.
    pub changeable: bool,
}

/// Entries of a ring: now, and at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingSize {
    /// Now.
    pub now: u32,
    /// At most.
    pub most: u32,
}

/// Queues that can be had at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Channels {
    /// Queues for both directions.
    pub combined: u32,
    /// Queues for receiving only.
    pub receive: u32,
}

/// A socket to ask with.
pub struct Generic(Socket);

impl Generic {
    /// # Errors
    /// Those of netlink sockets.
    pub fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// What the driver can do with XDP, as bits of `enum netdev_xdp_act`; none if the kernel has
    /// no such question (before Linux 6.3).
    pub fn xdp_features(&self, index: u32) -> Option<u64> {
        let mut question = Vec::new();
        put(&mut question, DEV_INDEX, &index.to_ne_bytes());
        let answer = self.ask("netdev", DEV_GET, question)?;
        Some(u64::from_ne_bytes(
            find(&answer, DEV_XDP_FEATURES)?.try_into().ok()?,
        ))
    }

    /// Features by their names, such as `rx-gro`.
    pub fn features(&self, interface: &str) -> BTreeMap<String, Feature> {
        self.ethtool(FEATURES_GET, interface)
            .map(|answer| features(&answer))
            .unwrap_or_default()
    }

    /// The receive ring; none if the driver has none to set.
    pub fn receive_ring(&self, interface: &str) -> Option<RingSize> {
        let answer = self.ethtool(RINGS_GET, interface)?;
        Some(RingSize {
            most: number(&answer, 2)?,
            now: number(&answer, 6)?,
        })
    }

    /// How many queues can be had; none if the driver does not say.
    pub fn channels(&self, interface: &str) -> Option<Channels> {
        let answer = self.ethtool(CHANNELS_GET, interface)?;
        Some(Channels {
            receive: number(&answer, 2).unwrap_or_default(),
            combined: number(&answer, 5).unwrap_or_default(),
        })
    }

    fn ethtool(&self, command: u8, interface: &str) -> Option<Vec<u8>> {
        let mut header = Vec::new();
        let mut name = interface.as_bytes().to_vec();
        name.push(0);
        put(&mut header, HEADER_NAME, &name);
        let mut question = Vec::new();
        put(&mut question, HEADER | NLA_F_NESTED, &header);
        self.ask("ethtool", command, question)
    }

    /// One question; nothing if the kernel has no answer.
    fn ask(&self, family: &str, command: u8, attributes: Vec<u8>) -> Option<Vec<u8>> {
        let asked = self
            .family(family)
            .and_then(|family| self.question(family, command, attributes));
        match asked {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::debug!(family, command, "netlink: {error}");
                None
            }
        }
    }

    fn family(&self, name: &str) -> io::Result<u16> {
        let mut question = Vec::new();
        let mut name = name.as_bytes().to_vec();
        name.push(0);
        put(&mut question, FAMILY_NAME, &name);
        let answer = self.question(CONTROL, GET_FAMILY, question)?;
        find(&answer, FAMILY_ID)
            .and_then(|id| Some(u16::from_ne_bytes(id.try_into().ok()?)))
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Sends a question and takes the answer's attributes; the acknowledgement that follows ends
    /// it.
    fn question(&self, family: u16, command: u8, attributes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut packet = NetlinkMessage::from(Message {
            family,
            command,
            attributes,
        });
        packet.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        packet.finalize();
        let mut buffer = vec![0; packet.buffer_len()];
        packet.serialize(&mut buffer);
        self.0.send(&buffer, 0)?;
        let mut answer = Vec::new();
        loop {
            let (bytes, _) = self.0.recv_from_full()?;
            let message = NetlinkMessage::<Message>::deserialize(&bytes)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            match message.payload {
                NetlinkPayload::InnerMessage(message) => answer = message.attributes,
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                _ => return Ok(answer),
            }
        }
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

fn features(answer: &[u8]) -> BTreeMap<String, Feature> {
    let set = |kind| {
        let bits = find(answer, kind).and_then(|set| find(set, BITSET_BITS));
        attributes(bits.unwrap_or_default())
            .filter(|(kind, _)| *kind == BIT)
            .filter_map(|(_, bit)| {
                // In a set with a mask, a bit without a value is off; in a list, all are on.
                Some((name(find(bit, BIT_NAME)?), find(bit, BIT_VALUE).is_some()))
            })
            .collect::<BTreeMap<_, _>>()
    };
    let (changeable, on) = (set(FEATURES_HARDWARE), set(FEATURES_ACTIVE));
    let names = changeable.keys().chain(on.keys()).cloned();
    names
        .map(|name| {
            let feature = Feature {
                on: on.contains_key(&name),
                changeable: changeable.get(&name).copied().unwrap_or_default(),
            };
            (name, feature)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bit of a set with a mask, or of a list.
    fn bit(out: &mut Vec<u8>, name: &str, value: bool) {
        let mut bit = Vec::new();
        put(&mut bit, 1, &7u32.to_ne_bytes());
        put(&mut bit, BIT_NAME, format!("{name}\0").as_bytes());
        if value {
            put(&mut bit, BIT_VALUE, &[]);
        }
        put(out, BIT | NLA_F_NESTED, &bit);
    }

    fn set(out: &mut Vec<u8>, kind: u16, bits: &[u8]) {
        let mut set = Vec::new();
        put(&mut set, BITSET_BITS | NLA_F_NESTED, bits);
        put(out, kind | NLA_F_NESTED, &set);
    }

    #[test]
    fn features_are_on_or_can_be_changed() {
        let (mut hardware, mut active, mut answer) = (Vec::new(), Vec::new(), Vec::new());
        bit(&mut hardware, "rx-gro", true);
        bit(&mut hardware, "rx-lro", true);
        bit(&mut hardware, "fixed", false);
        bit(&mut active, "rx-gro", false);
        bit(&mut active, "fixed", false);
        set(&mut answer, FEATURES_HARDWARE, &hardware);
        set(&mut answer, FEATURES_ACTIVE, &active);
        let features = features(&answer);
        let feature = |on, changeable| Feature { on, changeable };
        assert_eq!(features["rx-gro"], feature(true, true));
        assert_eq!(features["rx-lro"], feature(false, true));
        assert_eq!(features["fixed"], feature(true, false));
    }

    #[test]
    fn attributes_are_found_behind_padding() {
        let mut bytes = Vec::new();
        put(&mut bytes, 1, &[1]);
        put(&mut bytes, 2, &9u32.to_ne_bytes());
        assert_eq!(number(&bytes, 2), Some(9));
        assert_eq!(number(&bytes, 1), None);
        assert_eq!(find(&bytes, 3), None);
        bytes.truncate(bytes.len() - 1);
        assert_eq!(number(&bytes, 2), None, "cut off");
    }

    #[test]
    fn the_kernel_answers() {
        let generic = Generic::new().unwrap();
        assert!(generic.features("lo").contains_key("rx-gro"));
        assert!(generic.features("nothere0").is_empty());
    }
}
