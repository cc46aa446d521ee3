//! Where cells can go next, as one worker knows it: neighbours with a link, which relay is
//! which neighbour, which mailbox is which.
//!
//! Each worker has its own copy, kept current by the control plane's commands, so that
//! nothing is locked or shared for a datagram. Only the key that seals is shared; its
//! counter is atomic.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mixline_protocol::identity::ShortId;
use mixline_protocol::link::SealKey;
use mixline_protocol::path::{MailboxToken, Next};

/// A neighbour that can be sent to.
#[derive(Clone)]
pub struct Link {
    /// The key in use.
    pub seal: Arc<SealKey>,
    /// Where the neighbour is.
    pub to: SocketAddr,
}

/// Where a cell goes.
pub(crate) enum Route<'a> {
    /// Out over this link.
    Link(&'a Link),
    /// To a relay that there is, but no link to it.
    RelayDown(ShortId),
    /// To a client whose link is down.
    ClientDown,
    /// To a relay that is not in the snapshot.
    UnknownRelay,
    /// To a mailbox that nobody has registered.
    UnknownMailbox,
}

/// A worker's table of neighbours, relays and mailboxes.
#[derive(Default)]
pub(crate) struct NextHops {
    /// By the control plane's number of the neighbour.
    links: Vec<Option<Link>>,
    /// The relays of the snapshot, and the neighbour that each is, if it is one.
    relays: HashMap<ShortId, Option<u32>>,
    mailboxes: HashMap<MailboxToken, u32>,
}

impl NextHops {
    /// Where a cell with this next hop goes.
    #[must_use]
    #[inline]
    pub fn route(&self, next: &Next) -> Route<'_> {
        match next {
            Next::Forward(relay) | Next::Junction(relay) => match self.relays.get(relay) {
                None => Route::UnknownRelay,
                Some(neighbour) => match neighbour.and_then(|n| self.link(n)) {
                    Some(link) => Route::Link(link),
                    None => Route::RelayDown(*relay),
                },
            },
            Next::Deliver(token) => match self.mailboxes.get(token) {
                None => Route::UnknownMailbox,
                Some(neighbour) => self.link(*neighbour).map_or(Route::ClientDown, Route::Link),
            },
        }
    }

    /// Whether a relay can be sent to.
    #[must_use]
    pub fn is_up(&self, relay: &ShortId) -> bool {
        matches!(self.route(&Next::Forward(*relay)), Route::Link(_))
    }

    /// Sets or takes away the link to a neighbour.
    pub fn set_link(&mut self, neighbour: u32, link: Option<Link>) {
        let at = neighbour as usize;
        if at >= self.links.len() {
            if link.is_none() {
                return;
            }
            self.links.resize_with(at + 1, || None);
        }
        self.links[at] = link;
    }

    /// Says which relays there are, and which neighbours they are.
    pub fn set_relays(&mut self, relays: &[(ShortId, Option<u32>)]) {
        self.relays = relays.iter().copied().collect();
    }

    /// Says which neighbour a relay is.
    pub fn set_relay(&mut self, relay: ShortId, neighbour: Option<u32>) {
        if let Some(known) = self.relays.get_mut(&relay) {
            *known = neighbour;
        }
    }

    /// Says which neighbour a mailbox is delivered to, if any.
    pub fn set_mailbox(&mut self, token: MailboxToken, neighbour: Option<u32>) {
        match neighbour {
            Some(neighbour) => self.mailboxes.insert(token, neighbour),
            None => self.mailboxes.remove(&token),
        };
    }

    #[inline]
    fn link(&self, neighbour: u32) -> Option<&Link> {
        self.links.get(neighbour as usize)?.as_ref()
    }
}
