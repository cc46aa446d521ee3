//! Who may have how much at once: a user who takes all that it can get keeps nothing from another user,
//! nor from root.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mixline_endpoint::MAX_MEASUREMENTS;

use super::Request;

/// Connections of root and of the client's own user at once; one more waits in the kernel's queue.
pub const MAX_OWNERS: usize = 16;
/// Connections of members of the group at once, beside them.
pub const MAX_MEMBERS: usize = 12;
/// Connections of one member at once.
pub const MAX_OF_A_USER: usize = 4;

/// Connections.
const CONNECTIONS: Places = Places {
    of: "connections",
    owners: MAX_OWNERS,
    members: MAX_MEMBERS,
    of_a_user: MAX_OF_A_USER,
};
/// Pings, of which the endpoint takes so many.
const PINGS: Places = Places {
    of: "pings",
    owners: 4,
    members: 4,
    of_a_user: 2,
};
/// Measurements of the guards. A guard answers a host 100 questions at once and 50 a second, and one
/// measurement asks up to 90 in three seconds: with more of them at once, some would seem lost.
const MEASUREMENTS: Places = Places {
    of: "measurements of the guards",
    owners: 1,
    members: 2,
    of_a_user: 1,
};

const _: () = assert!(PINGS.owners + PINGS.members == MAX_MEASUREMENTS);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Root, or the user that the client runs as: may ask for everything.
    Owner,
    /// A member of the group, by its user number.
    Member(u32),
}

/// How many of something there are at once. Those of members are beside those of root.
#[derive(Debug, Clone, Copy)]
struct Places {
    /// What.
    of: &'static str,
    /// Of root and the client's own user together.
    owners: usize,
    /// Of all members together.
    members: usize,
    /// Of one member.
    of_a_user: usize,
}

/// Why somebody is not served now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// One user has too many.
    #[error(
        "user {user} has as many {of} at once as one may have, {most}: try again when one has ended"
    )]
    OneUser {
        /// The user's number.
        user: u32,
        /// Of what.
        of: &'static str,
        /// How many one may have.
        most: usize,
    },
    /// All members together have too many.
    #[error(
        "the client serves {most} {of} of the group's members at once, and not more: try again when \
         one has ended"
    )]
    Members {
        /// Of what.
        of: &'static str,
        /// How many they may have.
        most: usize,
    },
    /// Root and the client's own user have too many.
    #[error(
        "root has as many {of} at once as the client serves, {most}: try again when one has ended"
    )]
    Owners {
        /// Of what.
        of: &'static str,
        /// How many they may have.
        most: usize,
    },
}

/// Who has how many.
#[derive(Debug, Default)]
struct Counts {
    owners: usize,
    members: HashMap<u32, usize>,
}

/// The places of one kind, and who has them.
#[derive(Debug, Clone)]
struct Shares {
    places: Places,
    counts: Arc<Mutex<Counts>>,
}

/// A place that somebody has, as long as it lives.
#[derive(Debug)]
pub struct Ticket {
    shares: Shares,
    caller: Caller,
}

impl Shares {
    fn new(places: Places) -> Self {
        Self {
            places,
            counts: Arc::default(),
        }
    }

    fn admit(&self, caller: Caller) -> Result<Ticket, Refusal> {
        let Places {
            of,
            owners,
            members,
            of_a_user,
        } = self.places;
        let mut counts = self.counts();
        match caller {
            Caller::Owner if counts.owners >= owners => {
                return Err(Refusal::Owners { of, most: owners });
            }
            Caller::Owner => counts.owners += 1,
            Caller::Member(user) => {
                if counts.members.get(&user).is_some_and(|n| *n >= of_a_user) {
                    let most = of_a_user;
                    return Err(Refusal::OneUser { user, of, most });
                }
                if counts.members.values().sum::<usize>() >= members {
                    return Err(Refusal::Members { of, most: members });
                }
                *counts.members.entry(user).or_default() += 1;
            }
        }
        Ok(Ticket {
            shares: self.clone(),
            caller,
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.shares.counts();
        match self.caller {
            Caller::Owner => counts.owners -= 1,
            Caller::Member(user) => {
                if let Some(own) = counts.members.get_mut(&user) {
                    *own -= 1;
                    if *own == 0 {
                        counts.members.remove(&user);
                    }
                }
            }
        }
    }
}

/// All that is shared.
#[derive(Debug, Clone)]
pub struct Admission {
    connections: Shares,
    pings: Shares,
    measurements: Shares,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            connections: Shares::new(CONNECTIONS),
            pings: Shares::new(PINGS),
            measurements: Shares::new(MEASUREMENTS),
        }
    }
}

impl Admission {
    /// Lets somebody connect.
    ///
    /// # Errors
    /// [`Refusal`] if there are too many connections of this one, or of all like this one.
    pub fn connection(&self, caller: Caller) -> Result<Ticket, Refusal> {
        self.connections.admit(caller)
    }

    /// Lets somebody ask for something; none if it takes nothing beside the connection.
    ///
    /// # Errors
    /// [`Refusal`] if too many such requests are under way.
    pub fn request(&self, caller: Caller, request: &Request) -> Result<Option<Ticket>, Refusal> {
        let shares = match request {
            Request::Ping { .. } => &self.pings,
            Request::Probe { .. } => &self.measurements,
            Request::Status
            | Request::Down
            | Request::Publish { .. }
            | Request::Unpublish { .. }
            | Request::Clients
            | Request::Allow { .. }
            | Request::AllowEverybody
            | Request::Deny { .. }
            | Request::Key { .. }
            | Request::Forget { .. }
            | Request::Reload
            | Request::Resolve { .. } => return Ok(None),
        };
        shares.admit(caller).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_does_not_take_the_share_of_others() {
        for places in [CONNECTIONS, PINGS, MEASUREMENTS] {
            let shares = Shares::new(places);
            let member = |user| shares.admit(Caller::Member(user));
            let mut tickets: Vec<Ticket> = (0..places.of_a_user)
                .map(|_| member(1000).unwrap())
                .collect();
            let refusal = member(1000).unwrap_err();
            assert!(matches!(refusal, Refusal::OneUser { user: 1000, .. }));
            for user in (2000..).take(places.members - places.of_a_user) {
                tickets.push(member(user).unwrap());
            }
            assert!(matches!(member(3000).unwrap_err(), Refusal::Members { .. }));
            // Root's are its own.
            let owners: Vec<Ticket> = (0..places.owners)
                .map(|_| shares.admit(Caller::Owner).unwrap())
                .collect();
            let refusal = shares.admit(Caller::Owner).unwrap_err();
            assert!(matches!(refusal, Refusal::Owners { .. }));
            tickets.remove(0);
            drop(member(3000).unwrap());
            assert!(member(1000).is_ok());
            drop((tickets, owners));
            assert_eq!(shares.counts().owners, 0);
            assert!(shares.counts().members.is_empty());
        }
    }
}
