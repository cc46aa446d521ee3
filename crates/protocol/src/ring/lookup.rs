//! A lookup: which relays are asked for a record, and when there is none.
//!
//! The holders are asked in random order, two at a time, so that none sees more of a service's clients than the
//! others. Two have to answer, and of the records that they give the one with the higher revision counts: a relay
//! that gives out an old one achieves nothing alone. A service is not found when all holders have been asked.

use arrayvec::ArrayVec;
use rand_core::CryptoRng;

use super::credential::Credential;
use super::position::{COPIES, Ring};
use super::record::Record;
use crate::Result;
use crate::records::ServiceDescriptor;
use crate::time::UnixTime;

use super::blinding::BlindedId;

/// How many relays are asked at a time, and have to answer.
const AT_A_TIME: usize = 2;

/// A lookup of one service.
#[derive(Debug)]
pub struct Lookup {
    credential: Credential,
    blinded: BlindedId,
    period: u64,
    /// Who has not been asked yet, the next one last.
    left: ArrayVec<usize, COPIES>,
    asked: ArrayVec<usize, AT_A_TIME>,
    answers: usize,
    best: Option<(u64, ServiceDescriptor)>,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask this member of the ring for the record of [`Lookup::blinded`].
    Ask(usize),
    /// Wait for those who were asked.
    Wait,
    /// This is how the service is reached.
    Found(Box<ServiceDescriptor>),
    /// Nobody has a record that holds.
    NotFound,
}

impl Lookup {
    /// A lookup of what the credential is for, in the ring's period.
    ///
    /// # Errors
    /// Those of [`Credential::blinded_id`].
    pub fn new(
        credential: Credential,
        ring: &Ring,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self> {
        let blinded = credential.blinded_id(ring.period())?;
        let mut drawn: ArrayVec<(u64, usize), COPIES> = ring
            .holders(&blinded)
            .into_iter()
            .map(|holder| (rng.next_u64(), holder))
            .collect();
        drawn.sort_unstable();
        Ok(Self {
            credential,
            blinded,
            period: ring.period(),
            left: drawn.into_iter().map(|(_, holder)| holder).collect(),
            asked: ArrayVec::new(),
            answers: 0,
            best: None,
        })
    }

    /// What relays are asked for.
    #[must_use]
    pub fn blinded(&self) -> BlindedId {
        self.blinded
    }

    /// What is to be done. An [`Step::Ask`] counts as done when it was given.
    #[must_use]
    pub fn step(&mut self) -> Step {
        let enough = self.answers >= AT_A_TIME || (self.left.is_empty() && self.asked.is_empty());
        if enough && let Some((_, found)) = self.best.take() {
            self.left.clear();
            return Step::Found(Box::new(found));
        }
        if !self.asked.is_full()
            && let Some(holder) = self.left.pop()
        {
            self.asked.push(holder);
            return Step::Ask(holder);
        }
        if self.asked.is_empty() {
            Step::NotFound
        } else {
            Step::Wait
        }
    }

    /// A relay that was asked has answered with a record, or that it has none. One whose record does not hold has not
    /// answered.
    ///
    /// # Errors
    /// Those of [`Record::open`]: the relay gives out what it should not have taken.
    pub fn answered(
        &mut self,
        holder: usize,
        record: Option<&Record>,
        now: UnixTime,
    ) -> Result<()> {
        if !self.done(holder) {
            return Ok(());
        }
        if let Some(record) = record {
            let descriptor = record.open(&self.credential, self.period, now)?;
            let best = self.best.as_ref().map(|(revision, _)| *revision);
            if best.is_none_or(|best| best < record.revision()) {
                self.best = Some((record.revision(), descriptor));
            }
        }
        self.answers += 1;
        Ok(())
    }

    /// A relay that was asked has refused, or does not answer.
    pub fn failed(&mut self, holder: usize) {
        let _ = self.done(holder);
    }

    /// False if it was not asked, or has been done with.
    fn done(&mut self, holder: usize) -> bool {
        let at = self.asked.iter().position(|asked| *asked == holder);
        at.map(|at| self.asked.remove(at)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::blinding::Terms;
    use super::super::position::Member;
    use super::super::record::STEP;
    use super::*;
    use crate::effort::EffortTerms;
    use crate::identity::{IdentityKey, RelayId, X25519Public};
    use crate::random::OsRandom;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn lookup(relays: u8) -> Lookup {
        let addresses: Vec<_> = (0..relays).map(|n| [IpAddr::from([n, 0, 0, 1])]).collect();
        let members: Vec<_> = (0..relays)
            .zip(&addresses)
            .map(|(n, addresses)| Member {
                id: RelayId([n; 32]),
                addresses,
                family: None,
            })
            .collect();
        let ring = Ring::new(&members, [7; 32], 3);
        let credential = Credential::of(key().anonymous_id());
        Lookup::new(credential, &ring, &mut OsRandom::new()).unwrap()
    }

    fn key() -> IdentityKey {
        IdentityKey::from_seed([1; 32])
    }

    fn descriptor(version: u64) -> ServiceDescriptor {
        ServiceDescriptor {
            id: key().anonymous_id(),
            version,
            issued: NOW,
            expires: NOW.plus(600),
            session: X25519Public([12; 32]),
            effort: EffortTerms::default(),
            lease: None,
            tails: Vec::new(),
            clients: None,
            signature: [0; 64],
        }
        .sign(&key())
        .unwrap()
    }

    /// Revision and version are one number.
    fn record(revision: u64) -> Record {
        let credential = Credential::of(key().anonymous_id());
        let blinded = credential.blinded_key(&key(), 3).unwrap();
        let expires = NOW.plus(STEP);
        let terms = Terms { revision, expires };
        let descriptor = descriptor(revision);
        Record::seal(&blinded, terms, &descriptor, &mut OsRandom::new()).unwrap()
    }

    fn asks(lookup: &mut Lookup) -> usize {
        match lookup.step() {
            Step::Ask(holder) => holder,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn two_are_asked_and_the_newer_record_counts() {
        for turned in [false, true] {
            let mut lookup = lookup(20);
            let mut asked = [asks(&mut lookup), asks(&mut lookup)];
            assert_ne!(asked[0], asked[1]);
            assert_eq!(lookup.step(), Step::Wait);
            if turned {
                asked.reverse();
            }
            let answer = |lookup: &mut Lookup, n: usize, revision| {
                lookup.answered(asked[n], Some(&record(revision)), NOW)
            };
            assert_eq!(answer(&mut lookup, 0, 6), Ok(()));
            // One that is asked in place of who has answered.
            let third = asks(&mut lookup);
            assert_eq!(answer(&mut lookup, 1, 5), Ok(()));
            let found = Step::Found(Box::new(descriptor(6)));
            assert_eq!(lookup.step(), found);
            lookup.failed(third);
        }
    }

    #[test]
    fn one_that_has_it_is_enough_if_the_others_do_not_answer() {
        let mut lookup = lookup(20);
        let holder = asks(&mut lookup);
        assert_eq!(lookup.answered(holder, Some(&record(5)), NOW), Ok(()));
        let mut failed = 0;
        loop {
            match lookup.step() {
                Step::Ask(holder) => {
                    lookup.failed(holder);
                    failed += 1;
                }
                Step::Found(found) => {
                    assert_eq!((found.version, failed), (5, COPIES - 1));
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn it_is_not_found_when_all_have_been_asked() {
        for relays in [0, 1, 3, 8, 20] {
            let mut lookup = lookup(relays);
            let mut asked = Vec::new();
            while let Step::Ask(holder) = lookup.step() {
                assert!(!asked.contains(&holder));
                assert_eq!(lookup.answered(holder, None, NOW), Ok(()));
                // A second answer of one relay is none.
                assert_eq!(lookup.answered(holder, Some(&record(1)), NOW), Ok(()));
                asked.push(holder);
            }
            assert_eq!(lookup.step(), Step::NotFound);
            assert_eq!(asked.len(), COPIES.min(relays.into()));
        }
    }

    #[test]
    fn a_record_that_does_not_hold_is_no_answer() {
        let mut lookup = lookup(20);
        let [first, second] = [asks(&mut lookup), asks(&mut lookup)];
        let mut bytes = *record(9).as_bytes();
        bytes[200] ^= 1;
        let changed = Record::parse(&bytes).unwrap();
        assert!(lookup.answered(first, Some(&changed), NOW).is_err());
        assert_eq!(lookup.answered(second, Some(&record(5)), NOW), Ok(()));
        let third = asks(&mut lookup);
        assert_eq!(lookup.answered(third, None, NOW), Ok(()));
        assert_eq!(lookup.step(), Step::Found(Box::new(descriptor(5))));
    }
}
