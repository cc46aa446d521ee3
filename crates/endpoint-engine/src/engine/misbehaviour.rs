//! What an endpoint does that does not keep to the protocol; for tests of its peers.

use super::Engine;
use crate::clock::Now;
use crate::session::lanes::Route;
use crate::session::transmit::{Load, Sender};

impl Engine {
    /// Sends control frames to all peers as they are: a test plays a malicious peer.
    pub fn inject_controls(&mut self, bodies: &[Vec<u8>], now: Now) {
        for key in self.sessions.keys().collect::<Vec<_>>() {
            if let Some(session) = self.sessions.get_mut(key) {
                let mut sender = Sender {
                    links: &self.links,
                    outbox: &mut self.outbox,
                    counters: &mut self.counters,
                    now: now.instant,
                };
                for body in bodies {
                    session.pack(Load::Control(body), Route::NextPath, &mut sender);
                }
            }
            self.wake(key);
        }
    }
}
