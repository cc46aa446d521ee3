//! Who may connect how often: a user who takes all connections that it can get keeps none from
//! another user, nor from root.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections of root and of the client's own user at once; one more waits in the kernel's queue.
pub const MAX_OWNERS: usize = 16;
/// Connections of members of the group at once, beside them.
pub const MAX_MEMBERS: usize = 12;
/// Connections of one member at once.
pub const MAX_OF_A_USER: usize = 4;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Root, or the user that the client runs as: may ask for everything.
    Owner,
    /// A member of the group, by its user number.
    Member(u32),
}

/// Why a member is not served now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// One user has too many connections.
    #[error(
        "user {user} has {MAX_OF_A_USER} connections to the client, and may not have more: try \
         again when one has ended"
    )]
    OfThisUser {
        /// The user's number.
        user: u32,
    },
    /// All members together have too many.
    #[error(
        "the client serves {MAX_MEMBERS} connections of the group's members, and not more: try \
         again when one has ended"
    )]
    OfAll,
}

/// The connections of members.
#[derive(Debug, Clone, Default)]
pub struct Members(Arc<Mutex<HashMap<u32, usize>>>);

/// One connection of a member, as long as it lives.
#[derive(Debug)]
pub struct Ticket {
    members: Members,
    user: u32,
}

impl Members {
    /// Lets a member in.
    ///
    /// # Errors
    /// [`Refusal`] if it, or all members, have too many connections.
    pub fn admit(&self, user: u32) -> Result<Ticket, Refusal> {
        let mut counts = self.counts();
        if counts.get(&user).is_some_and(|own| *own >= MAX_OF_A_USER) {
            return Err(Refusal::OfThisUser { user });
        }
        if counts.values().sum::<usize>() >= MAX_MEMBERS {
            return Err(Refusal::OfAll);
        }
        *counts.entry(user).or_default() += 1;
        Ok(Ticket {
            members: self.clone(),
            user,
        })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.members.counts();
        if let Some(own) = counts.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                counts.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_does_not_take_the_share_of_others() {
        let members = Members::default();
        let mut tickets: Vec<Ticket> = (0..MAX_OF_A_USER)
            .map(|_| members.admit(1000).unwrap())
            .collect();
        assert_eq!(
            members.admit(1000).unwrap_err(),
            Refusal::OfThisUser { user: 1000 }
        );
        let others = MAX_MEMBERS - MAX_OF_A_USER;
        for user in (2000..).take(others) {
            tickets.push(members.admit(user).unwrap());
        }
        assert_eq!(members.admit(3000).unwrap_err(), Refusal::OfAll);
        tickets.remove(0);
        drop(members.admit(3000).unwrap());
        assert!(members.admit(1000).is_ok());
        tickets.clear();
        assert!(members.counts().is_empty());
    }
}
