//! From datagrams to packets: opening, unwrapping, putting together, and refusing what is not
//! the peer's to send.

use std::net::IpAddr;
use std::time::Duration;

use arrayvec::ArrayVec;
use mixline_protocol::frames::{Delivered, frames};
use mixline_protocol::path::MailboxToken;
use mixline_protocol::session::Control;
use mixline_protocol::size::{COUNTER, Datagram, FRAMES, PATH_HEADER, Payload};

use super::Engine;
use crate::clock::Now;
use crate::directory::pseudonyms::Pseudonym;
use crate::guard_links::cell_mut;
use crate::keys::SessionKey;
use crate::messages::{MAX_REQUESTS, ServiceRequest};
use crate::packets::batch::BATCH_PACKETS;
use crate::packets::headers::parse;
use crate::session::keys::Opened;
use crate::tails::Owner;

/// Answers to initiations come until so long after keys were made.
const LATE_ANSWERS: Duration = Duration::from_secs(4);
/// Control frames of one cell that are looked at.
const CONTROLS: usize = 32;
/// One cell holds at most so many packets: 20 bytes of IPv4 header and 3 of frame each.
const PACKETS_PER_CELL: usize = FRAMES / 23 + 1;

impl Engine {
    /// Whether one more datagram can be taken: there is room for all that may be in it.
    #[must_use]
    pub fn can_receive(&self) -> bool {
        self.inbound.len() + PACKETS_PER_CELL <= BATCH_PACKETS && !self.inbound.is_full()
    }

    /// Takes one datagram from the sockets, and works on it in place. The packets in it are
    /// appended to [`Self::inbound`]. [`Self::finish_batch`] comes after the last one.
    ///
    /// A guard delivers a cell with the mailbox's token in front, where the path header was.
    pub fn handle_datagram(&mut self, datagram: &mut Datagram, now: Now) {
        self.counters.datagrams_in += 1;
        if !self
            .links
            .receive(datagram, now, &mut self.outbox, &mut self.counters)
        {
            self.needs_maintenance = true;
            return;
        }
        let Some((header, payload)) =
            cell_mut(datagram).and_then(|cell| cell.split_first_chunk_mut::<PATH_HEADER>())
        else {
            return;
        };
        let (Some(token), Ok(payload)) =
            (header.first_chunk::<8>(), <&mut Payload>::try_from(payload))
        else {
            return;
        };
        let Some((tail, owner)) = self.tails.unwrap(MailboxToken(*token), payload) else {
            self.counters.unknown_mailbox += 1;
            return;
        };
        let is_heard = match owner {
            Owner::Session(key) => self.private(key, payload, now),
            Owner::Public => {
                self.initiation(payload, now);
                // Anybody can send there, also what authenticates.
                true
            }
            Owner::Spare => {
                self.counters.unknown_mailbox += 1;
                false
            }
        };
        if is_heard && let Some(relays) = self.tails.heard(tail, now.instant) {
            self.inner_blame.relieve(relays);
        }
    }

    /// Something came through a tail that only this session's peer knows. Whether it authenticates: what relays
    /// have made up, or changed, does not speak for them.
    fn private(&mut self, key: SessionKey, payload: &mut Payload, now: Now) -> bool {
        let Some(session) = self.sessions.get_mut(key) else {
            self.counters.unknown_mailbox += 1;
            return false;
        };
        let keep = session.keeps_own_keys(&self.pseudonyms.get(session.pseudonym).id, now.instant);
        match session.keys.open(payload, keep, now.instant) {
            Opened::Data { old } => self.data(key, payload, old, now),
            Opened::Promoted(said) => {
                self.promoted(key, &said, now);
                self.data(key, payload, false, now);
            }
            Opened::Duplicate => self.counters.duplicates += 1,
            Opened::Changed => {
                self.counters.bad_cells += 1;
                return false;
            }
            Opened::Unknown => {
                // So do answers to an attempt that another one was faster than, but who has read those
                // cannot tell them from garbage any more.
                let may_be_late = session.opening.is_some()
                    || now.instant.saturating_duration_since(session.keyed) < LATE_ANSWERS;
                return self.private_handshake(key, payload, now) || may_be_late;
            }
        }
        true
    }

    /// The frames of an opened payload. `old`: under keys that are no longer in use.
    fn data(&mut self, key: SessionKey, payload: &Payload, old: bool, now: Now) {
        let own_ipv4 = self
            .pseudonyms
            .lease(now.unix())
            .map(|lease| IpAddr::from(lease.ipv4));
        let own_ipv6 = IpAddr::from(self.ipv6);
        let authorisations = &self.authorisations;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(bytes) = payload[COUNTER..].first_chunk::<FRAMES>() else {
            return;
        };
        session.heard = now.instant;
        session.waiting = None;
        self.counters.cells_in += 1;
        // Whom this host has gone to by itself may answer, if it is none of the clients.
        let only_answers = !authorisations.lets_in(session.client.as_ref());
        let mut controls: ArrayVec<Control, CONTROLS> = ArrayVec::new();
        let mut messages: ArrayVec<Vec<u8>, CONTROLS> = ArrayVec::new();
        for frame in frames(bytes) {
            let Ok(frame) = frame else {
                self.counters.bad_cells += 1;
                break;
            };
            match session.reassembly.accept(frame, now.instant) {
                Ok(Some(Delivered::Packet(packet))) => {
                    let parsed = parse(packet);
                    let ours = parsed.as_ref().is_some_and(|parsed| {
                        let from = match parsed.flow.source {
                            IpAddr::V4(ip) => session
                                .ipv4
                                .is_some_and(|(leased, until)| leased == ip && now.unix() < until),
                            IpAddr::V6(ip) => session.ipv6 == ip,
                        };
                        let to = parsed.flow.destination;
                        from && (to == own_ipv6 || Some(to) == own_ipv4)
                    });
                    if !ours || session.pseudonym != Pseudonym::Own {
                        self.counters.spoofed += 1;
                    } else if only_answers
                        && !parsed
                            .as_ref()
                            .is_some_and(|it| session.flows.is_answer(it))
                    {
                        self.counters.unauthorised_packets += 1;
                    } else if self.inbound.push(packet) {
                        session.used = now.instant;
                        session.carries_packets = true;
                        if let Some(parsed) = &parsed {
                            session.flows.arrived(parsed);
                        }
                        session.traffic.packets_in += 1;
                        session.traffic.bytes_in += packet.len() as u64;
                        self.counters.packets_in += 1;
                    } else {
                        self.counters.overflow += 1;
                    }
                }
                Ok(Some(Delivered::Message(message))) => {
                    session.used = now.instant;
                    session.traffic.packets_in += 1;
                    session.traffic.bytes_in += message.len() as u64;
                    // What does not fit is asked again: messages are repeated until answered.
                    let _ = messages.try_push(message.to_vec());
                }
                Ok(Some(Delivered::Control(body))) => {
                    if let Ok(control) = Control::decode(body) {
                        let _ = controls.try_push(control);
                    }
                }
                Ok(None) => {}
                Err(_) => self.counters.bad_cells += 1,
            }
        }
        let (pseudonym, peer) = (session.pseudonym, session.peer);
        for message in messages {
            if pseudonym != Pseudonym::Own {
                self.answer(pseudonym, &message, now);
            } else if !self.answers {
                self.counters.unroutable += 1;
            } else if self.requests.len() < MAX_REQUESTS {
                self.requests.push_back(ServiceRequest {
                    session: key,
                    from: peer,
                    message,
                });
            } else {
                self.counters.overflow += 1;
            }
        }
        for control in controls {
            self.control(key, control, old, now);
        }
    }
}
