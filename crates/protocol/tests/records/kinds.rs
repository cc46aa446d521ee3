//! One sample of each kind of record, how it is checked, and how it is encoded again.

use std::sync::LazyLock;

use mixline_protocol::identity::{AnonymousId, IdentityKey};
use mixline_protocol::records::{
    Contradiction, Endorsement, Heartbeat, Lease, LeaseRequest, NameRecord, OnlineKey,
    Registration, RelayDescriptor, RelayRecord, Roster, ServiceDescriptor, Snapshot, Statement,
    Vote,
};
use mixline_protocol::wire::{Reader, Writer};
use mixline_protocol::{Error, Result};

use crate::records_common::directories::Directories;
use crate::records_common::*;

/// A kind of record.
pub struct Kind {
    pub name: &'static str,
    /// Kind and format, where it begins with them.
    pub head: Option<[u8; 2]>,
    /// One that holds.
    pub sample: fn() -> Vec<u8>,
    /// Reads, and checks all that there is to be checked.
    pub verify: fn(&[u8]) -> Result<()>,
    /// Reads the form alone, and encodes it again.
    pub recode: fn(&[u8]) -> Result<Vec<u8>>,
}

pub fn directory_id() -> AnonymousId {
    directory_key().anonymous_id()
}

/// The directory that is alone, as a roster.
pub fn alone() -> Roster {
    Roster::alone(directory_id())
}

/// Encodes an endorsement, which stands in messages only.
pub fn encode(endorsement: &Endorsement) -> Vec<u8> {
    let mut writer = Writer::new();
    endorsement.write(&mut writer);
    writer.into_bytes()
}

/// Reads an endorsement, and nothing after it.
pub fn decode(bytes: &[u8]) -> Result<Endorsement> {
    let mut reader = Reader::new(bytes, "endorsement");
    let read = Endorsement::read(&mut reader)?;
    reader.finish()?;
    Ok(read)
}

/// Whether everybody has signed whose signature is there.
pub fn verify_endorsement(endorsement: &Endorsement, directories: &Directories) -> Result<()> {
    let failed = Error::Authentication { what: "test" };
    let member = |index| directories.roster.member(index).ok_or(failed.clone());
    let voter = &member(endorsement.voter)?.key;
    for (index, signature) in endorsement.signatures.iter() {
        member(index)?;
        let key = directories.certificate(index).key;
        let vote = (voter, endorsement.round, &endorsement.vote);
        Endorsement::verify_signature(&directories.network(), vote, &key, signature)?;
    }
    if endorsement.signatures.count() == 0 {
        return Err(failed);
    }
    Ok(())
}

fn relay_key() -> IdentityKey {
    IdentityKey::from_seed([10; 32])
}

fn service_key() -> IdentityKey {
    IdentityKey::from_seed([2; 32])
}

/// Four directories.
pub fn four() -> &'static Directories {
    static FOUR: LazyLock<Directories> = LazyLock::new(|| Directories::new(4));
    &FOUR
}

/// The second roster of [`four`]: the same directories in another order.
pub fn second_roster() -> Roster {
    let four = four();
    let members = four.roster.members.iter().rev().cloned().collect();
    let mut next = four.roster.next(members, 300, 7200).unwrap();
    for key in &four.identities {
        next.sign(key, Some(&four.roster));
    }
    next
}

/// A vote has no signature: its digest has been endorsed.
fn verify_vote(bytes: &[u8]) -> Result<()> {
    let vote = Vote::decode(bytes)?;
    let endorsement = four().endorsement(&four().vote(1), [1]);
    if Vote::digest_of(bytes) != endorsement.vote || vote.digest() != endorsement.vote {
        return Err(Error::Authentication { what: "vote" });
    }
    Ok(())
}

fn verify_registration(bytes: &[u8]) -> Result<()> {
    let registration = Registration::decode(bytes)?;
    registration.record.verify(NOW)?;
    let link = registration.record.descriptor.link;
    registration.heartbeat.verify(&link, &session_secret())
}

/// `decode` and `encode` of a type.
macro_rules! recode {
    ($record:ty) => {
        |bytes| Ok(<$record>::decode(bytes)?.encode())
    };
}

pub const KINDS: [Kind; 16] = [
    Kind {
        name: "relay descriptor",
        head: Some([1, 2]),
        sample: || relay(&relay_key()).encode(),
        verify: |bytes| RelayDescriptor::decode_and_verify(bytes, NOW).map(drop),
        recode: recode!(RelayDescriptor),
    },
    Kind {
        name: "service descriptor",
        head: Some([2, 1]),
        sample: || service(&service_key(), 2, true).encode(),
        verify: |bytes| ServiceDescriptor::decode_and_verify(bytes, NOW).map(drop),
        recode: recode!(ServiceDescriptor),
    },
    Kind {
        name: "name record",
        head: Some([3, 1]),
        sample: || name(&service_key(), "freespeech").encode(),
        verify: |bytes| NameRecord::decode_and_verify(bytes, NOW).map(drop),
        recode: recode!(NameRecord),
    },
    Kind {
        name: "lease",
        head: Some([4, 1]),
        sample: || lease(&service_key()).encode(),
        verify: |bytes| Lease::decode_and_verify(bytes, &directory_id(), NOW).map(drop),
        recode: recode!(Lease),
    },
    Kind {
        name: "lease request",
        head: Some([5, 1]),
        sample: || LeaseRequest::new(NOW, Some([10, 1, 2, 3].into()), &service_key()).encode(),
        verify: |bytes| LeaseRequest::decode_and_verify(bytes, NOW).map(drop),
        recode: recode!(LeaseRequest),
    },
    Kind {
        name: "snapshot",
        head: Some([6, 2]),
        sample: || snapshot(2).encode(),
        verify: |bytes| Snapshot::decode_and_verify(bytes, &alone(), NOW).map(drop),
        recode: recode_snapshot,
    },
    Kind {
        name: "snapshot of four",
        head: Some([6, 2]),
        sample: || four().signed(2, [0, 1, 3]).encode(),
        verify: |bytes| Snapshot::decode_and_verify(bytes, &four().roster, NOW).map(drop),
        recode: recode_snapshot,
    },
    Kind {
        name: "first roster",
        head: Some([7, 1]),
        sample: || four().roster.encode(),
        verify: |bytes| Roster::decode(bytes)?.verify_first(four().network()),
        recode: recode!(Roster),
    },
    Kind {
        name: "second roster",
        head: Some([7, 1]),
        sample: || second_roster().encode(),
        verify: |bytes| Roster::decode(bytes)?.verify_after(&four().roster),
        recode: recode!(Roster),
    },
    Kind {
        name: "online key",
        head: Some([8, 1]),
        sample: || four().certificate(2).encode(),
        verify: |bytes| {
            OnlineKey::decode(bytes)?
                .verify(&four().roster, NOW)
                .map(drop)
        },
        recode: recode!(OnlineKey),
    },
    Kind {
        name: "vote",
        head: Some([9, 1]),
        sample: || four().vote(1).encode(),
        verify: verify_vote,
        recode: recode!(Vote),
    },
    Kind {
        name: "endorsement",
        head: None,
        sample: || encode(&four().endorsement(&four().vote(1), [0, 1, 3])),
        verify: |bytes| verify_endorsement(&decode(bytes)?, four()),
        recode: |bytes| decode(bytes).map(|endorsement| encode(&endorsement)),
    },
    Kind {
        name: "contradiction",
        head: Some([10, 1]),
        sample: || four().contradiction(3, Statement::Vote).encode(),
        verify: |bytes| {
            Contradiction::decode(bytes)?
                .verify(&four().roster)
                .map(drop)
        },
        recode: recode!(Contradiction),
    },
    Kind {
        name: "relay record",
        head: None,
        sample: || relay_record(&relay_key()).encode(),
        verify: |bytes| RelayRecord::decode(bytes)?.verify(NOW),
        recode: recode!(RelayRecord),
    },
    Kind {
        name: "heartbeat",
        head: None,
        sample: || heartbeat(&relay_record(&relay_key())).encode(),
        verify: |bytes| {
            let link = link_secret().public();
            Heartbeat::decode(bytes)?.verify(&link, &session_secret())
        },
        recode: recode!(Heartbeat),
    },
    Kind {
        name: "registration",
        head: None,
        sample: || registration(&relay_key()).encode(),
        verify: verify_registration,
        recode: recode!(Registration),
    },
];

/// The body alone can be read without a signature that holds.
fn recode_snapshot(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut reader = Reader::new(bytes, "snapshot");
    if reader.take(2)? != [6, 2] {
        return Err(reader.malformed());
    }
    let signatures = mixline_protocol::records::Signatures::read(&mut reader)?;
    let left = reader.left();
    let snapshot = Snapshot::decode_body(reader.take(left)?)?;
    Ok(Snapshot::with_signatures(
        &signatures,
        &snapshot.encode_body(),
    ))
}
