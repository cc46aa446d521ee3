//! Questions to the directory under way.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use mixline_protocol::directory::{Request, RequestBody, ResponseBody};
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::name::Label;
use mixline_protocol::records::{NameRecord, ServiceDescriptor};
use rand_core::CryptoRng;

use crate::command::RequestNumber;
use crate::directory::pseudonyms::Pseudonym;
use crate::error::QueryError;

/// Questions under way at once; more are refused.
pub const MAX_QUERIES: usize = 256;
/// How long a question is repeated before it counts as unanswered.
pub const QUERY_DEADLINE: Duration = Duration::from_secs(12);
/// The same for a question that packets wait for.
pub const LOOKUP_DEADLINE: Duration = Duration::from_millis(4500);
/// Time between two repetitions.
pub const REPEAT: Duration = Duration::from_secs(1);

/// Who waits for an answer.
#[derive(Debug, Clone)]
pub enum Asker {
    /// The own descriptor is being published; somebody may have asked for it.
    Publish(u64, Option<RequestNumber>),
    /// For a name.
    Name(Label, RequestNumber),
    /// For a name whose ID has been found, and where that is reached.
    Named(Box<NameRecord>, RequestNumber),
    /// For an ID.
    Id(AnonymousId, RequestNumber),
    /// For an address.
    Address(IpAddr, RequestNumber),
    /// For a lease.
    Lease(RequestNumber),
    /// For a name of our own.
    Claim(u64, RequestNumber),
    /// For an ID's name.
    NameOf(AnonymousId, RequestNumber),
    /// Packets to an address.
    Packets(IpAddr),
    /// For an ID whose paths are to be measured.
    Ping(AnonymousId, RequestNumber),
    /// A handshake whose descriptor may be out of date.
    Refresh(AnonymousId),
}

impl Asker {
    /// Under which ID it is asked.
    #[must_use]
    pub fn pseudonym(&self) -> Pseudonym {
        match self {
            Self::Publish(..) | Self::Lease(_) | Self::Claim(..) => Pseudonym::Publishing,
            _ => Pseudonym::Asking,
        }
    }

    /// The question of the outside that it stands for; none for what the engine asks by itself.
    #[must_use]
    pub fn number(&self) -> Option<RequestNumber> {
        match self {
            Self::Publish(_, number) => *number,
            // Measurements answer for themselves.
            Self::Packets(_) | Self::Refresh(_) | Self::Ping(..) => None,
            Self::Name(_, number)
            | Self::Named(_, number)
            | Self::Id(_, number)
            | Self::Address(_, number)
            | Self::Lease(number)
            | Self::Claim(_, number)
            | Self::NameOf(_, number) => Some(*number),
        }
    }
}

/// A question.
pub struct Query {
    /// Names it, in the request and in the answer.
    pub id: u64,
    /// Who waits.
    pub asker: Asker,
    /// Under which ID.
    pub pseudonym: Pseudonym,
    bytes: Vec<u8>,
    deadline: Instant,
    next: Instant,
}

/// All questions.
#[derive(Default)]
pub struct Queries {
    queries: Vec<Query>,
    /// Why the last one failed.
    pub last_error: Option<String>,
}

impl Queries {
    /// Adds a question; it is sent at the next chance.
    ///
    /// # Errors
    /// [`QueryError::Busy`] if [`MAX_QUERIES`] are under way.
    pub fn ask(
        &mut self,
        body: RequestBody,
        asker: Asker,
        now: Instant,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(), QueryError> {
        if self.queries.len() >= MAX_QUERIES {
            return Err(QueryError::Busy);
        }
        let wait = match asker {
            Asker::Packets(_) | Asker::Refresh(_) => LOOKUP_DEADLINE,
            _ => QUERY_DEADLINE,
        };
        let id = rng.next_u64();
        let pseudonym = asker.pseudonym();
        let bytes = Request { id, body }.encode();
        let deadline = now + wait;
        self.queries.push(Query {
            id,
            asker,
            pseudonym,
            bytes,
            deadline,
            next: now,
        });
        Ok(())
    }

    /// How many are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// Whether any is under way as this ID.
    #[must_use]
    pub fn any_as(&self, pseudonym: Pseudonym) -> bool {
        self.queries
            .iter()
            .any(|query| query.pseudonym == pseudonym)
    }

    /// Whether a refresh for this ID is under way.
    #[must_use]
    pub fn is_refreshing(&self, id: &AnonymousId) -> bool {
        self.queries
            .iter()
            .any(|query| matches!(&query.asker, Asker::Refresh(of) if of == id))
    }

    /// Whether the peer of this measurement is being asked for.
    #[must_use]
    pub fn is_finding(&self, measurement: RequestNumber) -> bool {
        self.queries
            .iter()
            .any(|query| matches!(&query.asker, Asker::Ping(_, of) if *of == measurement))
    }

    /// Whether a publication is under way.
    #[must_use]
    pub fn is_publishing(&self) -> bool {
        self.queries
            .iter()
            .any(|query| matches!(&query.asker, Asker::Publish(..)))
    }

    /// The requests that are due for sending as an ID; they are due again after [`REPEAT`].
    pub fn due(&mut self, pseudonym: Pseudonym, now: Instant) -> Vec<Vec<u8>> {
        self.queries
            .iter_mut()
            .filter(|query| query.pseudonym == pseudonym && now >= query.next)
            .map(|query| {
                query.next = now + REPEAT;
                query.bytes.clone()
            })
            .collect()
    }

    /// All that is asked as an ID is due at once.
    pub fn repeat(&mut self, pseudonym: Pseudonym, now: Instant) {
        let asked = self.queries.iter_mut();
        for query in asked.filter(|query| query.pseudonym == pseudonym) {
            query.next = now;
        }
    }

    /// Takes out the question that an answer names, if it was asked as this ID.
    pub fn answered(&mut self, pseudonym: Pseudonym, id: u64) -> Option<Query> {
        let at = self
            .queries
            .iter()
            .position(|q| q.id == id && q.pseudonym == pseudonym)?;
        Some(self.queries.swap_remove(at))
    }

    /// Publications under way of earlier versions of a descriptor become publications of this one, which are
    /// to be done by the same time.
    pub fn supersede(
        &mut self,
        descriptor: &ServiceDescriptor,
        now: Instant,
        rng: &mut (impl CryptoRng + ?Sized),
    ) {
        for query in &mut self.queries {
            if let Asker::Publish(version, _) = &mut query.asker
                && *version < descriptor.version
            {
                *version = descriptor.version;
                // An answer to the earlier one says nothing about this one.
                query.id = rng.next_u64();
                let (id, body) = (query.id, RequestBody::Publish(descriptor.clone()));
                query.bytes = Request { id, body }.encode();
                query.next = now;
            }
        }
    }

    /// Takes out the publications.
    pub fn publications(&mut self) -> Vec<Query> {
        self.queries
            .extract_if(.., |query| matches!(&query.asker, Asker::Publish(..)))
            .collect()
    }

    /// Takes out the questions whose time is over.
    pub fn overdue(&mut self, now: Instant) -> Vec<Query> {
        self.queries
            .extract_if(.., |query| now >= query.deadline)
            .collect()
    }

    /// Takes out everything.
    pub fn drain(&mut self) -> Vec<Query> {
        std::mem::take(&mut self.queries)
    }
}

/// Why an answer does not fit its question.
#[must_use]
pub fn misfit(body: &ResponseBody) -> QueryError {
    match body {
        ResponseBody::Refused { code, text } => QueryError::Refused(if text.is_empty() {
            format!("{code:?}")
        } else {
            text.clone()
        }),
        _ => QueryError::Invalid("it answers another question".into()),
    }
}
