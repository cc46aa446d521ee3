//! Settings that change while the engine runs.
//!
//! Nothing that works is cut off for it: sessions, flows and their keys stay. What is replaced
//! because it is not as it should be any more (paths, tails, guards) goes on until its successor
//! works.

use super::Engine;
use crate::access::Access;
use crate::clock::Now;
use crate::config::Config;
use crate::directory::pseudonyms::Pseudonym;
use crate::directory::unreachable::Unreachable;
use crate::keys::{SessionKey, TailKey};
use crate::session::ending::Ending;
use crate::tails::Owner;

impl Engine {
    /// Uses other settings from now on. They have been checked ([`Config::check`]).
    pub fn reconfigure(&mut self, config: Config, now: Now) {
        let old = std::mem::replace(&mut self.config, config);
        if old == self.config {
            return;
        }
        if old.guards != self.config.guards {
            self.guards.want(self.config.guards);
            self.last_slow = None;
        }
        if old.tail_length != self.config.tail_length {
            self.replace_tails();
        }
        if old.head_length != self.config.head_length {
            for (_, session) in self.sessions.iter_mut() {
                for path in session.paths.iter_mut() {
                    path.retiring.get_or_insert(now.instant);
                }
            }
        }
        if old.policies != self.config.policies {
            let rules = &self.config.policies;
            for (_, session) in self.sessions.iter_mut() {
                session.flows.judge_again(&session.peer, rules);
            }
        }
        self.let_tails_go(now);
        // Whether the network is too small is found out anew.
        self.shortage = None;
        match (old.accept_sessions, self.config.accept_sessions) {
            (true, false) => self.stop_accepting(now),
            (false, true) => self.publication.reopen(now.instant),
            _ => {}
        }
        self.needs_maintenance = true;
    }

    /// Lets in these clients only from now on, or everybody. Sessions of others end, which the peers are
    /// told; those that were begun here go on, and carry
    /// answers only.
    pub(super) fn set_access(&mut self, access: &Access, now: Now) {
        let own = &self.pseudonyms.get(Pseudonym::Own).key;
        self.authorisations = self.authorisations.changed_to(access, own);
        self.strangers.forget();
        let others: Vec<SessionKey> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.pseudonym == Pseudonym::Own && !session.begun_here)
            .filter(|(_, session)| !self.authorisations.lets_in(session.client.as_ref()))
            .map(|(key, _)| key)
            .collect();
        for key in others {
            self.end(key, &Ending::NotAuthorised, now);
        }
        let over = self
            .away
            .end_of_guests(|client| self.authorisations.lets_in(client));
        for packet in over {
            self.inbound.push(&packet);
        }
        for (_, session) in self.sessions.iter_mut() {
            // It is shown that we are its client.
            session.introduce |= session.pseudonym == Pseudonym::Own
                && self.authorisations.with(&session.peer).is_some();
        }
        // What was nobody's may be found now.
        self.unreachable = Unreachable::default();
        self.publication.make_stale(now.instant);
        self.needs_maintenance = true;
    }

    /// All tails have another length than they should: those that nobody has go, the others as
    /// soon as there are others.
    fn replace_tails(&mut self) {
        let tails: Vec<(TailKey, Owner)> = self
            .tails
            .iter()
            .filter(|(_, tail)| tail.relays.len() != self.config.tail_length)
            .map(|(key, tail)| (key, tail.owner))
            .collect();
        for (key, owner) in tails {
            match owner {
                Owner::Spare => self.tails.drop_now(key),
                Owner::Public | Owner::Session(_) => self.tails.make_due(key),
            }
        }
    }

    /// Tails beyond the wanted number are no longer offered.
    fn let_tails_go(&mut self, now: Now) {
        while self.publication.tails.len() > self.config.public_tails {
            if let Some(key) = self.publication.tails.pop() {
                self.drain_public(key, now);
                self.publication.make_stale(now.instant);
            }
        }
        for (_, session) in self.sessions.iter_mut() {
            while session.own_tails.len() > self.config.private_tails {
                if let Some(key) = session.own_tails.pop() {
                    self.tails.drain(key, now);
                    session.own_tails_changed();
                }
            }
        }
    }
}
