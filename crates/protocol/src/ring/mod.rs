//! The ring: where relays keep how services are reached.
//!
//! A service signs a [`Record`] under a key that is its own for one period and that only those can compute
//! who know its ID ([`Credential`]), and gives it to the relays that come next to two places on a ring of all
//! relays ([`Ring`]). Whoever knows the ID computes the same key and places, asks these relays, and reads what
//! nobody else can. A relay ([`Store`]) sees random keys and sealed bytes of one length.
//!
//! Everybody has the list of relays, so a lookup takes one step, and no routing table that strangers could fill.

mod blinding;
mod credential;
mod lookup;
mod message;
mod period;
mod position;
mod record;
mod store;

pub use blinding::{BlindedId, BlindedKey, Terms};
pub use credential::Credential;
pub use lookup::{Lookup, Step};
pub use message::{MAX_MESSAGE, Refusal, Request, RequestBody, Response, ResponseBody};
pub use period::Periods;
pub use position::{COPIES, Member, POSITIONS, Ring, SharedRandom, TAKERS};
pub use record::{CONTENT, LIFE, RECORD, Record, STEP};
pub use store::{CAPACITY, MIN_EFFORT, REQUESTS, Session, Store, puzzle};
