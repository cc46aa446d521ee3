//! Questions and their answers.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;

use netlink_packet_core::{
    NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::error::{Error, Result};

/// The kernel answers at once, or an answer was lost.
const PATIENCE: TimeVal = TimeVal::new(10, 0);

/// A connection to the kernel for messages `M`. One thread's own: a question waits for its
/// answers.
pub struct Client<M> {
    socket: Socket,
    sequence: Cell<u32>,
    messages: PhantomData<M>,
}

impl<M: NetlinkSerializable + NetlinkDeserializable> Client<M> {
    /// Opens a socket of a netlink protocol, such as `NETLINK_ROUTE`. It needs no privilege;
    /// questions may.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open(protocol: isize) -> Result<Self> {
        let mut socket = Socket::new(protocol).map_err(Error::Socket)?;
        socket.bind_auto().map_err(Error::Socket)?;
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(Error::Socket)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &PATIENCE)
            .map_err(|errno| Error::Socket(errno.into()))?;
        Ok(Self {
            socket,
            sequence: Cell::new(0),
            messages: PhantomData,
        })
    }

    /// Has the kernel look at all of a question about routes, addresses or rules: then it answers
    /// with what was asked for alone, such as the routes of one table, and refuses what it does not
    /// know (Linux 4.20, `NETLINK_GET_STRICT_CHK`).
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn strict(self) -> Result<Self> {
        self.socket
            .set_netlink_get_strict_chk(true)
            .map_err(Error::Socket)?;
        Ok(self)
    }

    /// Asks a question that has exactly one answer.
    ///
    /// # Errors
    /// [`Error::Refused`] if the kernel has none; [`Error::Socket`], [`Error::Malformed`].
    pub fn ask(&self, question: M) -> Result<M> {
        self.send(question, 0)?;
        let mut answer = None;
        let last = self.sequence.get();
        while answer.is_none() {
            self.receive(
                |sequence| sequence == last,
                |payload| {
                    match payload {
                        NetlinkPayload::InnerMessage(message) => answer = Some(message),
                        NetlinkPayload::Error(error) => return Err(Error::Refused(error.to_io())),
                        _ => {}
                    }
                    Ok(())
                },
            )?;
        }
        answer.ok_or(Error::Missing("message"))
    }

    /// Sends a request and collects the answers. `flags` have to make the kernel say where they
    /// end: `NLM_F_ACK`, or `NLM_F_DUMP` for all there are.
    ///
    /// # Errors
    /// [`Error::Refused`] if the kernel refuses; [`Error::Socket`], [`Error::Malformed`].
    pub fn request(&self, request: M, flags: u16) -> Result<Vec<M>> {
        self.send(request, flags)?;
        let mut answers = Vec::new();
        let mut ended = false;
        let last = self.sequence.get();
        while !ended {
            self.receive(
                |sequence| sequence == last,
                |payload| {
                    match payload {
                        NetlinkPayload::InnerMessage(message) => answers.push(message),
                        NetlinkPayload::Error(error) if error.code.is_some() => {
                            return Err(Error::Refused(error.to_io()));
                        }
                        // What ends a dump early stands in its last message.
                        NetlinkPayload::Done(done) if done.code < 0 => {
                            let error = io::Error::from_raw_os_error(-done.code);
                            return Err(Error::Refused(error));
                        }
                        NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => ended = true,
                        _ => {}
                    }
                    Ok(())
                },
            )?;
        }
        Ok(answers)
    }

    /// Sends requests that the kernel carries out together or not at all, each with its flags. One
    /// has to ask for an acknowledgement (`NLM_F_ACK`), which comes when all are done.
    ///
    /// # Errors
    /// [`Error::Refused`] with the first refusal; [`Error::Socket`], [`Error::Malformed`].
    pub fn batch(&self, requests: impl IntoIterator<Item = (M, u16)>) -> Result<()> {
        let first = self.sequence.get().wrapping_add(1);
        let mut bytes = Vec::new();
        for (request, flags) in requests {
            self.encode(request, flags, &mut bytes);
        }
        // It is one datagram, and may be longer than those that the kernel takes by itself; it doubles what
        // it is asked for (socket(7)). Who may not ask for more hears so from sending.
        let _ = setsockopt(&self.socket, sockopt::SndBufForce, &bytes.len());
        self.socket.send(&bytes, 0).map_err(Error::Socket)?;
        let count = self.sequence.get().wrapping_sub(first);
        let mut ended = false;
        while !ended {
            let belongs = |sequence: u32| sequence.wrapping_sub(first) <= count;
            self.receive(belongs, |payload| match payload {
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    Err(Error::Refused(error.to_io()))
                }
                NetlinkPayload::Error(_) => {
                    ended = true;
                    Ok(())
                }
                _ => Ok(()),
            })?;
        }
        Ok(())
    }

    fn send(&self, message: M, flags: u16) -> Result<()> {
        let mut bytes = Vec::new();
        self.encode(message, flags, &mut bytes);
        self.socket.send(&bytes, 0).map_err(Error::Socket)?;
        Ok(())
    }

    /// Appends a message with the next sequence number.
    fn encode(&self, message: M, flags: u16, bytes: &mut Vec<u8>) {
        self.sequence.set(self.sequence.get().wrapping_add(1));
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence.get();
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let begin = bytes.len();
        bytes.resize(begin + packet.buffer_len(), 0);
        if let Some(place) = bytes.get_mut(begin..) {
            packet.serialize(place);
        }
    }

    /// Waits for one datagram, and gives each of its messages whose sequence number `belongs` to
    /// `take`.
    fn receive(
        &self,
        belongs: impl Fn(u32) -> bool,
        mut take: impl FnMut(NetlinkPayload<M>) -> Result<()>,
    ) -> Result<()> {
        let (bytes, _) = self.socket.recv_from_full().map_err(Error::Socket)?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<M>::deserialize(rest).map_err(Error::Malformed)?;
            let length = message.header.length as usize;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            if belongs(message.header.sequence_number) {
                take(message.payload)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::link::{LinkAttribute, LinkMessage};
    use netlink_sys::protocols::NETLINK_ROUTE as ROUTE;

    use super::*;

    fn link(index: u32) -> RouteNetlinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        RouteNetlinkMessage::GetLink(message)
    }

    fn name(message: &RouteNetlinkMessage) -> Option<&str> {
        let RouteNetlinkMessage::NewLink(link) = message else {
            return None;
        };
        link.attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.as_str()),
                _ => None,
            })
    }

    #[test]
    fn one_question_has_one_answer() {
        let client = Client::open(ROUTE).unwrap();
        assert_eq!(name(&client.ask(link(1)).unwrap()), Some("lo"));
        assert!(matches!(
            client.ask(link(i32::MAX as u32)),
            Err(Error::Refused(_))
        ));
        assert_eq!(name(&client.ask(link(1)).unwrap()), Some("lo"), "goes on");
    }

    #[test]
    fn a_dump_has_all_and_an_acknowledged_question_ends() {
        let client = Client::open(ROUTE).unwrap();
        let all = client.request(link(0), NLM_F_DUMP).unwrap();
        assert!(all.iter().any(|link| name(link) == Some("lo")));
        let one = client.request(link(1), NLM_F_ACK).unwrap();
        assert_eq!(one.iter().map(name).collect::<Vec<_>>(), [Some("lo")]);
        assert!(matches!(
            client.request(link(i32::MAX as u32), NLM_F_ACK),
            Err(Error::Refused(_))
        ));
    }
}
