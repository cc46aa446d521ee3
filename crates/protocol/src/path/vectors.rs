//! Checking test vectors that another implementation made.
//!
//! The form is a JSON list of objects, all bytes in hexadecimal: the relays of a path
//! (`relays`: `short_id`, `onion_secret`), of which the first `head_length` are the head; the
//! builders' randomness (`head_secret`, `head_random_rest`, `tail_secret`, `tail_token`,
//! `tail_filling`, `tail_seed` as part of `tail_published`); the `message`; and what must come
//! of it: `tail_published`, for each relay of `hops` the cell `in`, `command`, `argument` and
//! `replay_tag`, and the payload `delivered` to the receiver.

use serde::Deserialize;

use super::head::{HeadSecrets, build_head};
use super::layout::{DELIVER, FORWARD, Hop, JUNCTION, MailboxToken};
use super::onion::OnionSecret;
use super::peel::{Next, open_header};
use super::tail::{PublishedTail, TailSecrets, build_tail};
use crate::Error;
use crate::identity::{ShortId, first_bytes};
use crate::size::{CELL, Cell, Header, PATH_HEADER, PAYLOAD};

#[derive(Deserialize)]
struct Vector {
    relays: Vec<Relay>,
    head_length: usize,
    head_secret: Hex<32>,
    head_random_rest: Hex<248>,
    tail_secret: Hex<32>,
    tail_token: Hex<8>,
    tail_filling: Hex<100>,
    tail_published: Published,
    message: Hex<PAYLOAD>,
    hops: Vec<Seen>,
    delivered: Hex<PAYLOAD>,
}

#[derive(Deserialize)]
struct Relay {
    short_id: Hex<8>,
    onion_secret: Hex<32>,
}

#[derive(Deserialize)]
struct Published {
    first: Hex<8>,
    alpha: Hex<32>,
    gamma: Hex<16>,
    beta: Hex<100>,
    seed: Hex<16>,
}

#[derive(Deserialize)]
struct Seen {
    #[serde(rename = "in")]
    input: Hex<CELL>,
    command: u8,
    argument: Hex<8>,
    replay_tag: Hex<16>,
}

/// Bytes in hexadecimal.
struct Hex<const N: usize>([u8; N]);

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = data_encoding::HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .map_err(serde::de::Error::custom)?;
        let got = bytes.len();
        let wrong = |_| serde::de::Error::custom(format!("{got} bytes where {N} belong"));
        bytes.try_into().map(Self).map_err(wrong)
    }
}

/// Why a list of vectors does not hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VectorError {
    /// The text is not a list of vectors.
    #[error("not a list of vectors: {0}")]
    Syntax(serde_json::Error),
    /// The list is empty.
    #[error("there are no vectors")]
    Empty,
    /// One vector does not hold.
    #[error("vector {number}: {difference}")]
    Vector {
        /// Which one, counted from 1.
        number: usize,
        /// What is different in it.
        difference: Difference,
    },
}

/// What of a vector does not hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Difference {
    /// The head has more relays than the path.
    #[error("head_length: more than there are relays")]
    HeadLength,
    /// Not as many hops as relays.
    #[error("hops: {hops} of them for {relays} relays")]
    Hops {
        /// How many hops the vector has.
        hops: usize,
        /// How many relays.
        relays: usize,
    },
    /// The tail cannot be built.
    #[error("tail: {0}")]
    Tail(Error),
    /// The tail is another one after encoding and decoding.
    #[error("tail_published: changed by encoding and decoding")]
    Encoding,
    /// The head cannot be built.
    #[error("head: {0}")]
    Head(Error),
    /// A relay does not open the header.
    #[error("{0}")]
    Open(Error),
    /// What a relay sees or does is different.
    #[error("hop {number}: {difference}")]
    Hop {
        /// Which one, counted from 1.
        number: usize,
        /// What is different there.
        difference: Box<Difference>,
    },
    /// The bytes of a field.
    #[error(
        "{field}: byte {at} differs; from there we have {}, the vector has {}",
        excerpt(ours),
        excerpt(theirs)
    )]
    Bytes {
        /// The field.
        field: &'static str,
        /// Where the first different byte stands.
        at: usize,
        /// Our bytes from there on.
        ours: Vec<u8>,
        /// The vector's bytes from there on.
        theirs: Vec<u8>,
    },
}

/// The first bytes in hexadecimal, and whether there are more.
fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 16;
    let shown = data_encoding::HEXLOWER.encode(&bytes[..bytes.len().min(SHOWN)]);
    if bytes.len() > SHOWN {
        format!("{shown}…")
    } else {
        shown
    }
}

/// Rebuilds each vector's tail, cells and message from its secrets.
///
/// Returns how many vectors there are.
///
/// # Errors
/// What does not parse, or the first difference: which vector (counted from 1), which hop,
/// which field.
pub fn check(json: &str) -> Result<usize, VectorError> {
    let vectors: Vec<Vector> = serde_json::from_str(json).map_err(VectorError::Syntax)?;
    if vectors.is_empty() {
        return Err(VectorError::Empty);
    }
    for (i, vector) in vectors.iter().enumerate() {
        check_one(vector).map_err(|difference| VectorError::Vector {
            number: i + 1,
            difference,
        })?;
    }
    Ok(vectors.len())
}

fn check_one(vector: &Vector) -> Result<(), Difference> {
    let onions: Vec<OnionSecret> = vector
        .relays
        .iter()
        .map(|relay| OnionSecret::from_bytes(relay.onion_secret.0))
        .collect();
    let hops: Vec<Hop> = vector
        .relays
        .iter()
        .zip(&onions)
        .map(|(relay, onion)| Hop {
            relay: ShortId(relay.short_id.0),
            onion: onion.public(),
        })
        .collect();
    let (head_hops, tail_hops) = hops
        .split_at_checked(vector.head_length)
        .ok_or(Difference::HeadLength)?;
    if vector.hops.len() != hops.len() {
        return Err(Difference::Hops {
            hops: vector.hops.len(),
            relays: hops.len(),
        });
    }

    let secrets = TailSecrets {
        secret: vector.tail_secret.0,
        filling: vector.tail_filling.0,
        seed: vector.tail_published.seed.0,
    };
    let token = MailboxToken(vector.tail_token.0);
    let (tail, keys) = build_tail(&secrets, tail_hops, token).map_err(Difference::Tail)?;
    check_tail(&tail, &vector.tail_published)?;

    let secrets = HeadSecrets {
        secret: vector.head_secret.0,
        rest: vector.head_random_rest.0,
    };
    let head = build_head(&secrets, head_hops, &tail).map_err(Difference::Head)?;
    let mut payload = vector.message.0;
    head.wrap(&mut payload);
    let mut cell: Cell = [0; CELL];
    cell[..PATH_HEADER].copy_from_slice(head.header());
    cell[PATH_HEADER..].copy_from_slice(&payload);

    for (i, (seen, onion)) in vector.hops.iter().zip(&onions).enumerate() {
        check_hop(&mut cell, seen, onion).map_err(|difference| Difference::Hop {
            number: i + 1,
            difference: Box::new(difference),
        })?;
    }
    same("delivered", &cell[PATH_HEADER..], &vector.delivered.0)?;
    same(
        "header after the last hop",
        &cell[..PATH_HEADER],
        &[0; PATH_HEADER],
    )?;
    payload.copy_from_slice(&cell[PATH_HEADER..]);
    keys.unwrap(&mut payload);
    same("message", &payload, &vector.message.0)
}

fn check_tail(tail: &PublishedTail, published: &Published) -> Result<(), Difference> {
    same("tail_published.first", &tail.first.0, &published.first.0)?;
    same("tail_published.alpha", &tail.alpha, &published.alpha.0)?;
    same("tail_published.gamma", &tail.gamma, &published.gamma.0)?;
    same("tail_published.beta", &tail.beta, &published.beta.0)?;
    if PublishedTail::decode(&tail.encode()).as_ref() != Ok(tail) {
        return Err(Difference::Encoding);
    }
    Ok(())
}

/// Peels `cell`, which must be the one that this hop has seen.
fn check_hop(cell: &mut Cell, seen: &Seen, onion: &OnionSecret) -> Result<(), Difference> {
    let header: Header = first_bytes(cell);
    same("in, header", &header, &seen.input.0[..PATH_HEADER])?;
    let (payload, seen_payload) = (&cell[PATH_HEADER..], &seen.input.0[PATH_HEADER..]);
    same("in, payload", payload, seen_payload)?;
    let path = open_header(onion, &header).map_err(Difference::Open)?;
    let (command, argument) = match path.next() {
        Next::Forward(to) => (FORWARD, to.0),
        Next::Junction(to) => (JUNCTION, to.0),
        Next::Deliver(to) => (DELIVER, to.0),
    };
    same("command", &[command], &[seen.command])?;
    same("argument", &argument, &seen.argument.0)?;
    same("replay_tag", &path.peel(cell).0, &seen.replay_tag.0)
}

/// The first difference of a field, if there is one; both are equally long.
fn same(field: &'static str, ours: &[u8], theirs: &[u8]) -> Result<(), Difference> {
    let different = |(ours, theirs)| ours != theirs;
    match ours.iter().zip(theirs).position(different) {
        Some(at) => Err(Difference::Bytes {
            field,
            at,
            ours: ours[at..].to_vec(),
            theirs: theirs[at..].to_vec(),
        }),
        None => Ok(()),
    }
}
