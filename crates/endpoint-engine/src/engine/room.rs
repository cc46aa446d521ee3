//! Room for sessions, when there are as many as there may be.
//!
//! IDs cost nothing, and who has many can keep them all busy. So no session is safe because something goes
//! over it: one more gets in always, and one of a stranger goes for it that is drawn by chance. Who comes with
//! a thousand IDs makes room for others with each of them as soon as he has most of the places. Of two that
//! are drawn the one goes that was idle for longer, which is no more than a factor of two for those that keep
//! busy. Half of the places are for peers with a leased address, half for those without; neither takes the
//! other's half. Sessions with peers that this host itself has looked for give way when they are idle, and no
//! stranger is there.
//!
//! Of strangers those go first who have spent less effort than they were asked for when they came, and of these
//! those who have spent the least of it. Who has spent more than that is not better off: otherwise everybody who
//! came in quiet times, when nothing was asked for, could be driven out for nearly nothing.
//!
//! An initiation alone takes no place: it may be nobody's. See [`MAX_UNCONFIRMED`](crate::limits).

use std::time::Duration;

use super::Engine;
use crate::clock::Now;
use crate::keys::SessionKey;
use crate::random::below;
use crate::session::ending::Ending;
use crate::session::{Phase, Session};

/// A session with a peer that was looked for is not ended to make room for another, if it has been idle for
/// less.
const EVICT_AFTER: Duration = Duration::from_secs(10);

impl Engine {
    /// Whether there is room for one more session, after another has made some. `new`: it is there already.
    pub(super) fn make_room(&mut self, new: Option<SessionKey>, now: Now) -> bool {
        let counted = |session: &Session| session.phase != Phase::Unconfirmed;
        let count = self.sessions.values().filter(|it| counted(it)).count();
        if count + usize::from(new.is_none()) <= self.config.max_sessions {
            return true;
        }
        let Some(key) = self
            .stranger_to_go(new, now)
            .or_else(|| self.idlest(new, now))
        else {
            return false;
        };
        if let Some(session) = self.sessions.get(key)
            && now.instant.saturating_duration_since(session.used) < EVICT_AFTER
        {
            let suggestion = &mut self.strangers.suggestion;
            suggestion.evicted(session.effort, now.instant);
        }
        self.end(key, &Ending::Idle, now);
        true
    }

    /// A session of a stranger that makes room.
    fn stranger_to_go(&mut self, new: Option<SessionKey>, now: Now) -> Option<SessionKey> {
        let (leased, others): (Vec<SessionKey>, Vec<SessionKey>) = self
            .sessions
            .iter()
            .filter(|(_, it)| it.phase == Phase::Established && !self.looks_for(it))
            .map(|(key, _)| key)
            .partition(|key| {
                let session = self.sessions.get(*key);
                let until = session.and_then(|session| session.lease_until);
                until.is_some_and(|until| now.unix() < until)
            });
        let half = self.config.max_sessions / 2;
        let mut group = match leased.len() > half || others.is_empty() {
            true => leased,
            false => others,
        };
        group.retain(|key| Some(*key) != new);
        // Those who have spent the least of what they were asked for, by doublings.
        let shortfall = |key: &SessionKey| self.sessions.get(*key).map(|it| it.shortfall);
        let most = group.iter().map(shortfall).max();
        group.retain(|key| Some(shortfall(key)) == most);
        let idle = |key: &SessionKey| {
            let session = self.sessions.get(*key)?;
            Some(now.instant.saturating_duration_since(session.used))
        };
        let mut draw = || {
            let at = below(group.len() as u64, &mut self.rng);
            group.get(usize::try_from(at).ok()?).copied()
        };
        let two = [draw()?, draw()?];
        two.into_iter().max_by_key(idle)
    }

    /// The session with a peer that was looked for which has been idle for longest.
    fn idlest(&self, new: Option<SessionKey>, now: Now) -> Option<SessionKey> {
        let idle = |session: &Session| now.instant.saturating_duration_since(session.used);
        self.sessions
            .iter()
            .filter(|(key, session)| Some(*key) != new && idle(session) >= EVICT_AFTER)
            .max_by_key(|(_, session)| idle(session))
            .map(|(key, _)| key)
    }
}
