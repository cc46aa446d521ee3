//! What the two ends of a session tell one another besides packets.

use mixline_protocol::session::Control;

use super::Engine;
use crate::clock::Now;
use crate::keys::SessionKey;
use crate::session::ending::Ending;
use crate::session::transmit::{Load, Sender};

/// Control frames of a session that wait to be sent.
const MAX_CONTROLS: usize = 16;

impl Engine {
    /// A control frame has come. `old`: under keys that are no longer in use, so that tails in it
    /// may be older than those of the last handshake.
    pub(super) fn control(&mut self, key: SessionKey, control: Control, old: bool, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        match control {
            Control::Probe { id } => {
                if session.ack_bucket.take(now.instant) && session.acks.try_push(id).is_ok() {
                    self.wake(key);
                }
            }
            Control::ProbeAck { id } => {
                session.unanswered = None;
                session.recovery = None;
                if let Some(path) = session.paths.answer(id, now.instant) {
                    session.blame.relieve(&path.relays);
                    self.inner_blame.relieve(&path.relays);
                }
                self.peer_is_there(key, id, now);
                self.ping_answered(key, id, now);
            }
            Control::Tails { version, tails } => {
                if old {
                    return;
                }
                // Versions are compared as TCP compares sequence numbers.
                let newer = |have: u32| version.wrapping_sub(have).cast_signed() > 0;
                if session.peer_version.is_none_or(newer) {
                    session.peer_version = Some(version);
                    session.set_peer_tails(&tails, now.instant);
                    self.needs_maintenance = true;
                }
                self.queue_control(key, &Control::TailsAck { version });
            }
            Control::TailsAck { version } => {
                if version == session.own_version {
                    session.own_unacknowledged = None;
                }
            }
            Control::TailBroken { tail } => {
                // It is replaced when a spare is there. Which relays the new one has is not for
                // the peer to decide: the old ones are blamed only if nothing came through the tail,
                // and give way to relays of the second layer, and of the budget. And there is a limit.
                let partner = session.partner();
                if let Some(tail) = self.tails.find(&session.own_tails, tail)
                    && self
                        .budgets
                        .peer(partner, now.instant)
                        .broken
                        .take(now.instant)
                {
                    self.suspect_tail(key, tail, now);
                    self.tails.make_due(tail);
                    self.needs_maintenance = true;
                }
            }
            Control::Close { .. } => self.end(key, &Ending::ClosedByPeer, now),
        }
    }

    /// Sends a control frame with the next cells.
    pub(super) fn queue_control(&mut self, key: SessionKey, control: &Control) {
        if let Some(session) = self.sessions.get_mut(key)
            && session.controls.len() < MAX_CONTROLS
            && let Ok(body) = control.encode()
        {
            session.controls.push(body);
            self.wake(key);
        }
    }

    /// The session has something to flush.
    pub(super) fn wake(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key)
            && !std::mem::replace(&mut session.dirty, true)
        {
            self.dirty.push(key);
        }
    }

    /// Sends what sessions have packed, with the control frames that wait.
    pub(super) fn flush(&mut self, now: Now) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            session.dirty = false;
            let route = session.control_route(now.instant);
            let mut sender = Sender {
                links: &self.links,
                outbox: &mut self.outbox,
                counters: &mut self.counters,
                now: now.instant,
            };
            for id in std::mem::take(&mut session.acks) {
                if let Ok(body) = (Control::ProbeAck { id }).encode() {
                    session.pack(Load::Control(&body), route, &mut sender);
                }
            }
            for body in std::mem::take(&mut session.controls) {
                session.pack(Load::Control(&body), route, &mut sender);
            }
            session.flush(&mut sender);
        }
        // Keeps the room for the next batch.
        self.dirty = dirty;
    }
}
