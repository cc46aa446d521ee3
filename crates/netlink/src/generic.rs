//! Questions to generic netlink families (Documentation/userspace-api/netlink/intro.rst), and the
//! attributes that questions and answers consist of.

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_HEADER_SIZE, NLM_F_ACK, NetlinkDeserializable,
    NetlinkHeader, NetlinkSerializable, NlasIterator,
};
use netlink_sys::protocols::NETLINK_GENERIC;

use crate::client::Client;
use crate::error::{Error, Result};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID`, `CTRL_ATTR_FAMILY_NAME` of
/// `linux/genetlink.h`.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

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

    fn deserialize(
        header: &NetlinkHeader,
        payload: &[u8],
    ) -> std::result::Result<Self, DecodeError> {
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

/// Asks families by their names.
pub struct Generic(Client<Message>);

impl Generic {
    /// Opens a socket; it needs no privilege.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Self> {
        Client::open(NETLINK_GENERIC).map(Self)
    }

    /// Sends a command with its attributes to a family, and returns the answer's attributes,
    /// none if the kernel answers with nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] if the kernel has no such family or no answer; [`Error::Socket`],
    /// [`Error::Malformed`], [`Error::Missing`].
    pub fn ask(&self, family: &str, command: u8, attributes: Vec<u8>) -> Result<Vec<u8>> {
        let family = self.family(family)?;
        self.question(family, command, attributes)
    }

    fn family(&self, name: &str) -> Result<u16> {
        let mut question = Vec::new();
        put_text(&mut question, FAMILY_NAME, name);
        let answer = self.question(CONTROL, GET_FAMILY, question)?;
        find(&answer, FAMILY_ID)
            .and_then(|id| Some(u16::from_ne_bytes(id.try_into().ok()?)))
            .ok_or(Error::Missing("family"))
    }

    fn question(&self, family: u16, command: u8, attributes: Vec<u8>) -> Result<Vec<u8>> {
        let message = Message {
            family,
            command,
            attributes,
        };
        let answers = self.0.request(message, NLM_F_ACK)?;
        Ok(answers
            .into_iter()
            .next_back()
            .map(|message| message.attributes)
            .unwrap_or_default())
    }
}

/// Appends an attribute; `kind` may carry `NLA_F_NESTED`.
pub fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let attribute = DefaultNla::new(kind, value.to_vec());
    let start = out.len();
    out.resize(start + attribute.buffer_len(), 0);
    attribute.emit(&mut out[start..]);
}

/// Appends a text, which the kernel wants to end with a zero byte.
pub fn put_text(out: &mut Vec<u8>, kind: u16, text: &str) {
    put(out, kind, &[text.as_bytes(), &[0]].concat());
}

/// The attributes in a message, or in an attribute: kinds and values. One that does not parse
/// ends the list.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes)
        .map_while(std::result::Result::ok)
        .map(|attribute| {
            let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
            (kind, &attribute.into_inner()[NLA_HEADER_SIZE..length])
        })
}

/// The value of an attribute, if it is there.
#[must_use]
pub fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// The value of an attribute of 32 bits.
#[must_use]
pub fn number(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_ne_bytes(find(bytes, kind)?.try_into().ok()?))
}

/// The text in a value that ends with a zero byte.
#[must_use]
pub fn text(value: &[u8]) -> String {
    let bytes = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_padding() {
        let mut bytes = Vec::new();
        put(&mut bytes, 1, &[1]);
        put(&mut bytes, 2, &9u32.to_ne_bytes());
        put_text(&mut bytes, 3, "text");
        assert_eq!(bytes.len(), 8 + 8 + 12);
        assert_eq!(number(&bytes, 2), Some(9));
        assert_eq!(number(&bytes, 1), None);
        assert_eq!(find(&bytes, 3).map(text), Some("text".into()));
        assert_eq!(find(&bytes, 4), None);
        bytes.truncate(15);
        assert_eq!(number(&bytes, 2), None, "cut off");
    }

    #[test]
    fn a_family_that_is_not_there_is_refused() {
        let generic = Generic::open().unwrap();
        let asked = generic.ask("no such family", 1, Vec::new());
        assert!(matches!(asked, Err(Error::Refused(_))), "{asked:?}");
    }
}
