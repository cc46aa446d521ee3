//! A peer that says nothing any more, although own guards work.
//!
//! It may be gone. Or relays have failed on both sides at once, so that neither can tell the other where
//! it is reached now. So nobody is given up for silence alone. After [`TROUBLE`] the side that can do so
//! makes new keys, over tails that the peer has named to everybody and that the directory is asked for
//! again and again; the handshake carries fresh tails in both directions. It goes on until a probe is
//! answered: new keys alone show nothing. After [`PEER_DEAD`] the host is
//! told: connections that are being opened are refused, and so is everything new, while those that are
//! open are not answered. The session ends after [`GIVEN_UP`] without an answer. One with a stranger, whom
//! nobody looks for, ends when it has been silent for as long as it was there before.

use std::time::{Duration, Instant};

use super::Engine;
use super::liveness::{PEER_DEAD, TROUBLE};
use super::opening::RETRY;
use crate::clock::Now;
use crate::directory::pseudonyms::Pseudonym;
use crate::keys::SessionKey;
use crate::random::shuffle;
use crate::session::{Opening, Recovery, Session, Target};

/// A peer that has answered nothing for so long, no handshake either, is given up.
pub const GIVEN_UP: Duration = Duration::from_secs(30);
/// Handshakes with a silent peer are made over what the directory says, which is asked so often at first,
/// and ever less often.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The same for the directory. Between two questions nobody tries the paths to it, so what has failed meanwhile is
/// found out when there is one, and that one is urgent: a peer's tails, or where we are reached now.
const DIRECTORY_TROUBLE: Duration = Duration::from_millis(400);

/// With one of so many relays started anew, a third of all tails of three leads nowhere.
const OUTDATED_FROM: usize = 8;

/// Initiations to a silent peer that follow soon after one another ...
const QUICK: usize = 12;
/// ... and those until then that follow less soon.
const LESS_QUICK: usize = 36;

/// Time to the next initiation to a silent peer: the first ones soon, since relays on both sides have
/// failed and each way may be another's. Over a long way (`trip`) later, so that the peer has the keys of
/// the first one still when they are used.
pub(super) fn recovery_pause(made: usize, trip: Option<Duration>) -> Duration {
    let least = match made {
        0..QUICK => RETRY / 4,
        QUICK..LESS_QUICK => RETRY / 2,
        _ => RETRY * 2,
    };
    trip.map_or(least, |trip| least.max(trip * 2 / 3))
}

/// Where initiations go, in which order, while the public tails that are known are outdated: they
/// lead nowhere more often than those that the peer has named to us since. All private ones come first, and then the two by turns.
fn private_first(private: &[Target], public: &[Target]) -> Vec<Target> {
    let mut targets = private.to_vec();
    for at in 0..private.len().max(public.len()) {
        targets.extend(public.get(at));
        targets.extend(private.get(at));
    }
    targets
}

impl Session {
    /// How long probes are not answered before that is trouble.
    fn trouble_after(&self) -> Duration {
        let trip = self.paths.round_trip();
        let least = match self.pseudonym {
            Pseudonym::Own => TROUBLE,
            Pseudonym::Asking | Pseudonym::Publishing => DIRECTORY_TROUBLE,
        };
        trip.map_or(least, |trip| least.max(trip * 2))
    }
}

impl Engine {
    /// Does what is due about a peer that is silent, or not any more.
    pub(super) fn watch_silence(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let silent = |since: Option<Instant>| {
            since.map_or(Duration::ZERO, |at| {
                now.instant.saturating_duration_since(at)
            })
        };
        let (unheard, unanswered) = (silent(session.waiting), silent(session.unanswered));
        let trouble = unanswered >= session.trouble_after();
        if unheard < PEER_DEAD {
            session.unreachable = false;
        } else if !session.unreachable {
            self.refuse_what_is_new(key, now);
        }
        if trouble {
            self.recover(key, now);
        } else if let Some(session) = self.sessions.get_mut(key) {
            session.opening.take_if(|opening| opening.recovers);
        }
    }

    /// The host's packets to the peer lead nowhere at present.
    fn refuse_what_is_new(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.unreachable = true;
        let refused = session.flows.refuse_opening(now.instant);
        let mut held = std::mem::take(&mut session.held);
        for packet in refused {
            self.inbound.push(&packet);
        }
        self.reject_all(&mut held, now);
    }

    /// Begins a handshake with a peer that does not answer. It may be heard: then it does not know that its
    /// own tails, or the keys that were made last, lead nowhere. Who has come to us by itself comes again: nobody makes this
    /// endpoint look for strangers.
    fn recover(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        // Paths to the directory that were not tried for long count as alive until they have been.
        if (session.pseudonym == Pseudonym::Own && session.paths.any_alive(now.instant))
            || session.doubt.is_some()
            || session.opening.as_ref().is_some_and(|it| it.recovers)
            || !self.looks_for(session)
        {
            return;
        }
        let mut public = self.public_tails(session.pseudonym, key, now);
        let mut private: Vec<Target> = session.private_tails(now).map(Target::private).collect();
        let outdated = self.are_outdated(session);
        shuffle(&mut public, &mut self.rng);
        shuffle(&mut private, &mut self.rng);
        let targets = if outdated {
            private_first(&private, &public)
        } else {
            let mut all = [public, private].concat();
            shuffle(&mut all, &mut self.rng);
            all
        };
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let since = session.unanswered.unwrap_or(now.instant);
        let recovery = *session.recovery.get_or_insert(Recovery {
            since,
            refreshed: None,
        });
        let mut opening = Opening::new(targets, GIVEN_UP, false, now.instant);
        opening.recovers = true;
        opening.refreshed = recovery.refreshed;
        session.opening = Some(opening);
    }

    /// Whether what is known of a peer's public tails is older than what it has said of its private ones, and so many
    /// relays have started anew since that they may well lead nowhere.
    fn are_outdated(&self, session: &Session) -> bool {
        // The directory's are from the newest snapshot.
        if session.pseudonym != Pseudonym::Own {
            return false;
        }
        let Some(learnt) = self.descriptors.learnt(&session.peer) else {
            return false;
        };
        let listed = self.network.as_ref().map_or(0, |it| it.relays().len());
        let anew = self.key_changes.since(learnt);
        session.tails_came.is_some_and(|at| at > learnt)
            && anew > 0
            && anew * OUTDATED_FROM >= listed
    }

    /// Whether this endpoint would look for the peer of a session that is silent: it has begun the session,
    /// or has asked for the peer.
    pub(super) fn looks_for(&self, session: &Session) -> bool {
        session.initiated || self.descriptors.last_known(&session.peer).is_some()
    }

    /// How long the peer of a session for packets may be silent before it is given up.
    pub(super) fn patience(&self, session: &Session) -> Duration {
        if self.looks_for(session) {
            return GIVEN_UP;
        }
        let silent = session.waiting.unwrap_or(session.since);
        let there = silent.saturating_duration_since(session.since);
        there.clamp(PEER_DEAD, GIVEN_UP)
    }

    /// Whether the directory may be asked where the peer of a handshake is reached now.
    pub(super) fn asks_again(&self, key: SessionKey, now: Now) -> bool {
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        let Some(opening) = &session.opening else {
            return false;
        };
        let since = |at| now.instant.saturating_duration_since(at);
        let began = session.recovery.map_or(opening.since, |it| it.since);
        let pause = ASK_AGAIN + since(began) / 4;
        session.pseudonym == Pseudonym::Own
            && match opening.refreshed {
                None => opening.recovers || opening.made >= 2 || !opening.has_way(now.unix()),
                Some(at) => opening.recovers && since(at) >= pause,
            }
            && self
                .descriptors
                .learnt(&session.peer)
                .is_some_and(|at| since(at) >= ASK_AGAIN)
            && !self.queries.is_refreshing(&session.peer)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use mixline_protocol::effort::EffortTerms;
    use mixline_protocol::identity::ShortId;
    use mixline_protocol::path::PublishedTail;
    use mixline_protocol::records::TailOffer;
    use mixline_protocol::time::UnixTime;

    use super::*;

    fn offer(n: u8) -> TailOffer {
        let tail = PublishedTail {
            first: ShortId([n; 8]),
            alpha: [n; 32],
            gamma: [n; 16],
            beta: [n; 100],
            seed: [n; 16],
        };
        TailOffer {
            tail,
            expires: UnixTime(1),
        }
    }

    #[test]
    fn private_tails_come_first_while_public_ones_are_outdated_and_all_come() {
        let private: Vec<Target> = (0..4).map(|n| Target::private(offer(n))).collect();
        let public: Vec<Target> = (4..8)
            .map(|n| Target {
                offer: offer(n),
                terms: Some(EffortTerms::default()),
            })
            .collect();
        let names = |targets: &[Target]| -> Vec<u8> {
            targets.iter().map(|it| it.offer.tail.seed[0]).collect()
        };
        let all = names(&private_first(&private, &public));
        assert_eq!(all, [0, 1, 2, 3, 4, 0, 5, 1, 6, 2, 7, 3]);
        assert_eq!(names(&private_first(&[], &public)), [4, 5, 6, 7]);
        let two = names(&private_first(&private[..1], &public));
        assert_eq!(two, [0, 4, 0, 5, 6, 7]);
    }
}
