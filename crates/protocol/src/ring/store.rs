//! What a relay keeps of the ring.
//!
//! Anybody may store records: whoever does so has no address, and IDs cost nothing. What it costs to fill a relay is
//! this: a record is taken only by the relays of its places, so that one has to try some hundred keys in a network of
//! ten thousand relays for each record that a given relay takes; and where there is no more room, those stay for
//! whom the most effort was spent ([`crate::effort`]):
//!
//! ```text
//! puzzle = "mixline/v2/ring effort" | shared random 32 | period 8 | blinded ID 32 | relay's ID 32
//! ```
//!
//! A solution is good for all records under its key in the period, and nobody has it before the shared random value
//! is known. Efforts count in doublings. Of those with the least, one that is drawn gives way, so who comes first has
//! nothing of it. As long as there is room, nobody has to spend anything.

use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher13;

use super::blinding::BlindedId;
use super::message::{Refusal, Request, RequestBody, Response, ResponseBody};
use super::position::{Ring, SharedRandom};
use super::record::{RECORD, Record};
use crate::Error;
use crate::effort::{Effort, Puzzle, Solution};
use crate::identity::RelayId;
use crate::rate_limit::{Rate, RateLimiter};
use crate::time::UnixTime;

/// Records that fit into 64 MiB, with what is needed to find them.
pub const CAPACITY: usize = (64 << 20) / (RECORD + 256);
/// The least effort that counts. Less is done before it is noticed.
pub const MIN_EFFORT: Effort = 1 << 12;
/// Requests of one session.
pub const REQUESTS: Rate = Rate {
    burst: 4,
    interval: Duration::from_millis(250),
};
/// Sessions whose requests are counted at a time.
const SESSIONS: usize = 4096;

/// What the caller calls a session. It does not use a name again while the session's bucket is not full, a second.
pub type Session = u64;

/// The puzzle of a key, for a relay that keeps its records.
#[must_use]
pub fn puzzle(random: &SharedRandom, period: u64, service: &BlindedId, relay: &RelayId) -> Puzzle {
    let period = period.to_be_bytes();
    let parts = [&random[..], &period, &service.0, &relay.0];
    Puzzle::new(b"mixline/v2/ring effort", &parts)
}

/// The records of one relay.
#[derive(Debug)]
pub struct Store {
    relay: RelayId,
    capacity: usize,
    /// Draws who gives way.
    secret: [u8; 16],
    /// The rings of the periods that are kept, and the relay's number in each.
    rings: Vec<(Arc<Ring>, usize)>,
    records: HashMap<BlindedId, Kept>,
    /// All of them, who gives way first.
    order: BTreeSet<(u32, u64, BlindedId)>,
    /// No record ends before this.
    earliest: UnixTime,
    requests: RateLimiter<Session>,
}

#[derive(Debug)]
struct Kept {
    record: Record,
    /// Doublings of effort.
    level: u32,
}

impl Store {
    /// An empty one, of at most so many records ([`CAPACITY`]). The secret is random.
    #[must_use]
    pub fn new(relay: RelayId, capacity: usize, secret: [u8; 16]) -> Self {
        Self {
            relay,
            capacity,
            secret,
            rings: Vec::new(),
            records: HashMap::new(),
            order: BTreeSet::new(),
            earliest: UnixTime(u64::MAX),
            requests: RateLimiter::new(REQUESTS, SESSIONS),
        }
    }

    /// Takes the rings of the periods that are kept now ([`super::Periods::kept`]), as the newest snapshot has them.
    /// Records of other periods are forgotten. Those whose places are others' by now stay until they end, since
    /// services and clients may have older lists.
    pub fn keep(&mut self, rings: impl IntoIterator<Item = Arc<Ring>>) {
        self.rings = rings
            .into_iter()
            .filter_map(|ring| ring.number_of(&self.relay).map(|number| (ring, number)))
            .collect();
        let periods: Vec<u64> = self.rings.iter().map(|(ring, _)| ring.period()).collect();
        self.retain(|record| periods.contains(&record.period()));
    }

    /// How many records it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Answers a message; none if it is not even a request that could be refused.
    ///
    /// `now` is the wall clock, `at` the same moment of the monotonic one. After [`Refusal::BadSignature`] the caller
    /// should end the session: nobody sends that by mistake, and it has cost public-key work.
    #[must_use]
    pub fn answer(
        &mut self,
        session: Session,
        bytes: &[u8],
        now: UnixTime,
        at: Instant,
    ) -> Option<Response> {
        let id = Request::id_of(bytes)?;
        let body = if self.requests.admit(session, at) {
            match Request::decode(bytes) {
                Ok(request) => self.do_it(request.body, now),
                Err(Error::UnknownKind(_)) => ResponseBody::Refused(Refusal::UnknownKind),
                Err(_) => ResponseBody::Refused(Refusal::Malformed),
            }
        } else {
            ResponseBody::Refused(Refusal::TooFast)
        };
        Some(Response { id, body })
    }

    fn do_it(&mut self, request: RequestBody, now: UnixTime) -> ResponseBody {
        match request {
            RequestBody::Store(solution, record) => match self.store(&solution, record, now) {
                Ok(()) => ResponseBody::Done,
                Err(refusal) => ResponseBody::Refused(refusal),
            },
            RequestBody::Fetch(blinded) => self
                .fetch(&blinded, now)
                .map_or(ResponseBody::NotFound, |found| {
                    ResponseBody::Record(found.clone())
                }),
        }
    }

    /// What is kept under a key.
    #[must_use]
    pub fn fetch(&self, blinded: &BlindedId, now: UnixTime) -> Option<&Record> {
        let kept = self.records.get(blinded)?;
        (now < kept.record.expires()).then_some(&kept.record)
    }

    /// Keeps a record. The signature, which alone costs something, is looked at last, and only if the record would be
    /// kept.
    ///
    /// # Errors
    /// If it does not: why.
    pub fn store(
        &mut self,
        solution: &Solution,
        record: Record,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        self.expire(now);
        record.check_life(now).map_err(refusal)?;
        let blinded = record.blinded();
        let puzzle = self.puzzle_here(&record)?;
        if !puzzle.is_solved_by(solution) {
            return Err(Refusal::NotSolved);
        }
        let mut level = solution.effort.checked_ilog2().unwrap_or(0);
        let mut known = false;
        if let Some(kept) = self.records.get(&blinded) {
            known = kept.record == record;
            if !known && record.revision() <= kept.record.revision() {
                return Err(Refusal::Older);
            }
            if kept.record.period() == record.period() {
                level = level.max(kept.level);
            }
        } else {
            self.room_for(level)?;
        }
        if !known {
            record.verify(now).map_err(refusal)?;
        }
        self.insert(Kept { record, level });
        Ok(())
    }

    /// The puzzle of a record that this relay takes.
    fn puzzle_here(&self, record: &Record) -> Result<Puzzle, Refusal> {
        let (ring, number) = self
            .rings
            .iter()
            .find(|(ring, _)| ring.period() == record.period())
            .ok_or(Refusal::OtherPeriod)?;
        let blinded = record.blinded();
        if !ring.takers(&blinded).contains(number) {
            return Err(Refusal::NotHere);
        }
        let (random, period) = (ring.random(), ring.period());
        Ok(puzzle(random, period, &blinded, &self.relay))
    }

    /// Whether one more of this level has room, or somebody gives way to it.
    fn room_for(&self, level: u32) -> Result<(), Refusal> {
        if self.records.len() < self.capacity {
            return Ok(());
        }
        match self.order.first() {
            Some((least, ..)) if *least < level => Ok(()),
            Some((least, ..)) => Err(Refusal::Full(more_than(*least))),
            None => Err(Refusal::Full(MIN_EFFORT)),
        }
    }

    fn insert(&mut self, kept: Kept) {
        let blinded = kept.record.blinded();
        self.remove(&blinded);
        while self.records.len() >= self.capacity {
            let Some((_, _, least)) = self.order.first().copied() else {
                return;
            };
            self.remove(&least);
        }
        self.earliest = self.earliest.min(kept.record.expires());
        self.order.insert(self.rank(&blinded, kept.level));
        self.records.insert(blinded, kept);
    }

    fn remove(&mut self, blinded: &BlindedId) {
        if let Some(kept) = self.records.remove(blinded) {
            self.order.remove(&self.rank(blinded, kept.level));
        }
    }

    /// Where it stands among those who give way. Nobody outside knows the lot of a key.
    fn rank(&self, blinded: &BlindedId, level: u32) -> (u32, u64, BlindedId) {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        blinded.hash(&mut hasher);
        (level, hasher.finish(), *blinded)
    }

    /// Forgets what has ended. Ends are multiples of a quarter of an hour, so it looks through all seldom.
    pub fn expire(&mut self, now: UnixTime) {
        if now >= self.earliest {
            self.retain(|record| now < record.expires());
        }
    }

    fn retain(&mut self, stays: impl Fn(&Record) -> bool) {
        let gone: Vec<BlindedId> = self
            .records
            .iter()
            .filter(|(_, kept)| !stays(&kept.record))
            .map(|(blinded, _)| *blinded)
            .collect();
        for blinded in &gone {
            self.remove(blinded);
        }
        let ends = self.records.values().map(|kept| kept.record.expires());
        self.earliest = ends.min().unwrap_or(UnixTime(u64::MAX));
    }
}

fn refusal(error: Error) -> Refusal {
    match error {
        Error::Expired { .. } => Refusal::Expired,
        Error::Limit { .. } => Refusal::TooLong,
        Error::Authentication { .. } => Refusal::BadSignature,
        _ => Refusal::Malformed,
    }
}

/// The least effort that is of a higher level; of the highest, the same.
fn more_than(level: u32) -> Effort {
    1_u32
        .checked_shl(level + 1)
        .unwrap_or(1 << 31)
        .max(MIN_EFFORT)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::super::blinding::{BlindedKey, Terms};
    use super::super::credential::Credential;
    use super::super::position::Member;
    use super::super::record::{LIFE, STEP};
    use super::*;
    use crate::identity::IdentityKey;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const PERIOD: u64 = 20_833;

    fn relay(n: u16) -> RelayId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        RelayId(id)
    }

    /// So many relays, each in a /16 of its own.
    fn ring(relays: u16, period: u64) -> Arc<Ring> {
        let addresses: Vec<_> = (0..relays)
            .map(|n| [IpAddr::from([n.to_be_bytes()[0], n.to_be_bytes()[1], 0, 1])])
            .collect();
        let members: Vec<_> = (0..relays)
            .zip(&addresses)
            .map(|(n, addresses)| Member {
                id: relay(n),
                addresses,
                family: None,
            })
            .collect();
        Arc::new(Ring::new(&members, [7; 32], period))
    }

    /// Of relay 0 of so many.
    fn store(relays: u16, capacity: usize) -> Store {
        let mut store = Store::new(relay(0), capacity, [9; 16]);
        store.keep([ring(relays, PERIOD)]);
        store
    }

    fn key(service: u32, period: u64) -> BlindedKey {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&service.to_be_bytes());
        let key = IdentityKey::from_seed(seed);
        let credential = Credential::of(key.anonymous_id());
        credential.blinded_key(&key, period).unwrap()
    }

    fn record_until(key: &BlindedKey, revision: u64, expires: UnixTime) -> Record {
        let terms = Terms { revision, expires };
        Record::seal_content(key, terms, [1; 16], b"text").unwrap()
    }

    fn record(key: &BlindedKey, revision: u64) -> Record {
        record_until(key, revision, NOW.plus(STEP))
    }

    /// Searches as a service does.
    fn spend(key: &BlindedKey, effort: Effort) -> Solution {
        puzzle(&[7; 32], key.period(), &key.id(), &relay(0))
            .search(effort, [3; 16])
            .go_on(u32::MAX)
            .unwrap()
    }

    const NONE: Solution = Solution {
        nonce: [0; 16],
        effort: 0,
    };

    /// Keys that relay 0 takes, and how many were tried.
    fn ground(store: &Store, count: usize) -> (Vec<BlindedKey>, u32) {
        let ring = &store.rings[0].0;
        let taken = |n: &u32| {
            ring.takers(&key(*n, PERIOD).id())
                .contains(&store.rings[0].1)
        };
        let found: Vec<u32> = (1000..).filter(taken).take(count).collect();
        let tried = found.last().map_or(0, |last| last - 1000 + 1);
        (found.into_iter().map(|n| key(n, PERIOD)).collect(), tried)
    }

    #[test]
    fn records_are_kept_replaced_and_forgotten() {
        let mut store = store(8, 10);
        let key = key(1, PERIOD);
        assert_eq!(store.fetch(&key.id(), NOW), None);
        assert_eq!(store.store(&NONE, record(&key, 5), NOW), Ok(()));
        // Again, as who has not heard the answer does.
        assert_eq!(store.store(&NONE, record(&key, 5), NOW), Ok(()));
        assert_eq!(store.fetch(&key.id(), NOW), Some(&record(&key, 5)));
        let longer = |revision| record_until(&key, revision, NOW.plus(2 * STEP));
        for older in [longer(5), longer(4), longer(0)] {
            assert_eq!(store.store(&NONE, older, NOW), Err(Refusal::Older));
        }
        assert_eq!(store.store(&NONE, longer(6), NOW), Ok(()));
        assert_eq!((store.len(), store.order.len()), (1, 1));
        let later = NOW.plus(2 * STEP - 1);
        assert_eq!(store.fetch(&key.id(), later), Some(&longer(6)));
        assert_eq!(store.fetch(&key.id(), later.plus(1)), None);
        store.expire(later);
        assert_eq!(store.len(), 1);
        store.expire(later.plus(1));
        assert!(store.is_empty() && store.order.is_empty());
        // What has ended keeps no later one out, whatever its revision was.
        let last = record_until(&key, 1, NOW.plus(3 * STEP));
        assert_eq!(store.store(&NONE, last, later.plus(1)), Ok(()));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let mut store = store(8, 10);
        let key = key(1, PERIOD);
        let mut bytes = *record(&key, 5).as_bytes();
        bytes[100] ^= 1;
        let changed = Record::parse(&bytes).unwrap();
        assert_eq!(store.store(&NONE, changed, NOW), Err(Refusal::BadSignature));
        let ended = record_until(&key, 5, UnixTime(NOW.0 / STEP * STEP));
        assert_eq!(store.store(&NONE, ended, NOW), Err(Refusal::Expired));
        let long = record_until(&key, 5, NOW.plus(LIFE + STEP));
        assert_eq!(store.store(&NONE, long, NOW), Err(Refusal::TooLong));
        let other = record(&super::tests::key(1, PERIOD + 1), 5);
        assert_eq!(store.store(&NONE, other, NOW), Err(Refusal::OtherPeriod));
        let claimed = Solution {
            effort: 1 << 30,
            ..NONE
        };
        let refused = store.store(&claimed, record(&key, 5), NOW);
        assert_eq!(refused, Err(Refusal::NotSolved));
        assert!(store.is_empty());
    }

    #[test]
    fn only_what_belongs_here_is_taken() {
        let mut store = store(200, 1000);
        let me = store.rings[0].1;
        let ring = store.rings[0].0.clone();
        let (mut held, mut taken) = (0, 0);
        for n in 0..400 {
            let key = key(n, PERIOD);
            held += usize::from(ring.holders(&key.id()).contains(&me));
            match store.store(&NONE, record(&key, 1), NOW) {
                Ok(()) => taken += 1,
                Err(refusal) => assert_eq!(refusal, Refusal::NotHere),
            }
        }
        assert!(
            (1..60).contains(&held) && held < taken && taken < 80,
            "{held} {taken}"
        );
        // A relay that is no member keeps nothing.
        store.relay = relay(999);
        store.keep([ring]);
        assert!(store.is_empty());
        let refused = store.store(&NONE, record(&key(1, PERIOD), 1), NOW);
        assert_eq!(refused, Err(Refusal::OtherPeriod));
    }

    #[test]
    fn two_periods_are_kept_and_others_forgotten() {
        let mut store = store(8, 10);
        let [first, second] = [PERIOD, PERIOD + 1].map(|period| key(1, period));
        store.keep([ring(8, PERIOD), ring(8, PERIOD + 1)]);
        for key in [&first, &second] {
            assert_eq!(store.store(&NONE, record(key, 1), NOW), Ok(()));
        }
        // The same period, of a newer snapshot.
        store.keep([ring(9, PERIOD), ring(9, PERIOD + 1)]);
        assert_eq!(store.len(), 2);
        store.keep([ring(9, PERIOD + 1)]);
        assert_eq!(store.fetch(&first.id(), NOW), None);
        assert!(store.fetch(&second.id(), NOW).is_some());
        assert_eq!(store.order.len(), 1);
    }

    /// Somebody makes keys for one relay until it is full. As long as it costs nothing he cannot be told from others;
    /// then whoever spends more has a place, and he would have to spend as much for each that he keeps.
    #[test]
    fn who_grinds_keys_for_a_relay_keeps_nobody_out() {
        let mut store = store(200, 32);
        let (mut keys, tried) = ground(&store, 64);
        let honest = keys.split_off(60);
        // 12 of 200 take a record.
        assert!((500..2200).contains(&tried), "{tried} for 64");
        let taken = |store: &mut Store, key: &BlindedKey| store.store(&NONE, record(key, 1), NOW);
        for (number, key) in keys.iter().enumerate() {
            let expected = if number < 32 {
                Ok(())
            } else {
                Err(Refusal::Full(MIN_EFFORT))
            };
            assert_eq!(taken(&mut store, key), expected);
        }
        assert_eq!(
            taken(&mut store, &honest[0]),
            Err(Refusal::Full(MIN_EFFORT))
        );
        for key in &honest {
            let solution = spend(key, MIN_EFFORT);
            assert_eq!(store.store(&solution, record(key, 1), NOW), Ok(()));
        }
        assert_eq!(store.len(), 32);
        // He makes others, for nothing, and more of those that he has.
        for key in &keys {
            let _ = store.store(&NONE, record(key, 2), NOW);
        }
        assert!(
            honest
                .iter()
                .all(|key| store.fetch(&key.id(), NOW).is_some())
        );
        // He spends as much: that takes nothing from who has spent it before.
        for key in &keys {
            let _ = store.store(&spend(key, MIN_EFFORT), record(key, 3), NOW);
        }
        assert!(
            honest
                .iter()
                .all(|key| store.fetch(&key.id(), NOW).is_some())
        );
        let new = super::tests::ground(&store, 65).0.pop().unwrap();
        let refused = store.store(&spend(&new, MIN_EFFORT), record(&new, 1), NOW);
        assert_eq!(refused, Err(Refusal::Full(2 * MIN_EFFORT)));
        let solution = spend(&new, 2 * MIN_EFFORT);
        assert_eq!(store.store(&solution, record(&new, 1), NOW), Ok(()));
        // Another record under a key that has a place needs nothing more.
        assert_eq!(store.store(&NONE, record(&honest[0], 2), NOW).is_ok(), {
            store.fetch(&honest[0].id(), NOW).is_some()
        });
        assert_eq!((store.len(), store.order.len()), (32, 32));
    }

    #[test]
    fn a_solution_is_of_one_key_one_period_one_relay_and_one_random_value() {
        let key = key(1, PERIOD);
        let solution = spend(&key, MIN_EFFORT);
        let solved = |random, period, blinded: &BlindedId, of: u16| {
            puzzle(&[random; 32], period, blinded, &relay(of)).is_solved_by(&solution)
        };
        assert!(solved(7, PERIOD, &key.id(), 0));
        assert!(!solved(8, PERIOD, &key.id(), 0));
        assert!(!solved(7, PERIOD + 1, &key.id(), 0));
        assert!(!solved(7, PERIOD, &BlindedId([1; 32]), 0));
        assert!(!solved(7, PERIOD, &key.id(), 1));
    }

    #[test]
    fn no_signature_is_looked_at_for_who_would_have_no_place() {
        let mut store = store(8, 1);
        assert_eq!(store.store(&NONE, record(&key(1, PERIOD), 1), NOW), Ok(()));
        let mut bytes = *record(&key(2, PERIOD), 1).as_bytes();
        bytes[RECORD - 1] ^= 1;
        let forged = Record::parse(&bytes).unwrap();
        let refused = store.store(&NONE, forged.clone(), NOW);
        assert_eq!(refused, Err(Refusal::Full(MIN_EFFORT)));
        // Nor does a forged one take the place of another.
        let solution = spend(&key(2, PERIOD), MIN_EFFORT);
        let refused = store.store(&solution, forged, NOW);
        assert_eq!(refused, Err(Refusal::BadSignature));
        assert!(store.fetch(&key(1, PERIOD).id(), NOW).is_some());
    }

    #[test]
    fn messages_are_answered_within_a_rate() {
        let mut store = store(8, 10);
        let (key, at) = (key(1, PERIOD), Instant::now());
        let put = RequestBody::Store(NONE, record(&key, 1));
        let get = RequestBody::Fetch(key.id());
        let mut ask = |session, id, body: &RequestBody, ms| {
            let body = body.clone();
            let bytes = Request { id, body }.encode();
            let at = at + Duration::from_millis(ms);
            let answer = store.answer(session, &bytes, NOW, at).unwrap();
            assert_eq!(Response::decode(&answer.encode()), Ok(answer.clone()));
            assert_eq!(answer.id, id);
            answer.body
        };
        assert_eq!(ask(1, 1, &get, 0), ResponseBody::NotFound);
        assert_eq!(ask(1, 2, &put, 0), ResponseBody::Done);
        let found = ResponseBody::Record(record(&key, 1));
        assert_eq!(ask(1, 3, &get, 0), found);
        assert_eq!(ask(1, 4, &get, 0), found);
        let too_fast = ResponseBody::Refused(Refusal::TooFast);
        assert_eq!(ask(1, 5, &get, 0), too_fast);
        assert_eq!(ask(2, 6, &get, 0), found);
        assert_eq!(ask(1, 7, &get, 250), found);
        assert_eq!(ask(1, 8, &get, 250), too_fast);
        let mut answer = |bytes: &[u8]| store.answer(3, bytes, NOW, at).map(|a| a.body);
        assert_eq!(answer(b""), None);
        assert_eq!(answer(&[2; 9]), None);
        let refused = |refusal| Some(ResponseBody::Refused(refusal));
        assert_eq!(answer(&[1; 9]), refused(Refusal::Malformed));
        assert_eq!(answer(&[1; 10]), refused(Refusal::Malformed));
        assert_eq!(
            answer(&[[1; 9], [16; 9]].concat()),
            refused(Refusal::UnknownKind)
        );
    }

    #[test]
    fn efforts_end_at_the_highest() {
        assert_eq!(more_than(0), MIN_EFFORT);
        assert_eq!(more_than(12), 1 << 13);
        assert_eq!([30, 31, 32, u32::MAX - 1].map(more_than), [1 << 31; 4]);
    }

    #[test]
    fn the_bound_is_that_of_the_text() {
        const { assert!(CAPACITY * RECORD < 64 << 20 && CAPACITY > 20_000) };
    }

    /// What the store should hold, with every rule written out.
    #[derive(Default)]
    struct Model(Vec<(u32, u64, u32, UnixTime)>);

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Keys, revisions, efforts and times in any order: no more than there is room for, revisions grow, nobody
        /// with more gives way to somebody with less, nothing that has ended is given out.
        #[test]
        fn the_store_does_what_a_list_would_do(
            steps in proptest::collection::vec((0_u32..12, 0_u64..4, 0_usize..3, 1_u64..4, 0_u64..3), 1..60),
        ) {
            let mut store = store(8, 5);
            let mut model = Model::default();
            let mut now = NOW;
            for (service, revision, effort, life, passes) in steps {
                now = now.plus(passes * STEP / 2);
                model.0.retain(|(.., expires)| now < *expires);
                let key = key(service, PERIOD);
                let solution = match effort {
                    0 => NONE,
                    more => spend(&key, MIN_EFFORT << (more - 1)),
                };
                let mut level = solution.effort.checked_ilog2().unwrap_or(0);
                let expires = UnixTime(now.0 / STEP * STEP).plus(life * STEP);
                let record = record_until(&key, revision, expires);
                let had = model.0.iter().position(|(of, ..)| *of == service);
                let least = model.0.iter().map(|(_, _, level, _)| *level).min().unwrap_or(0);
                let fits = match had.and_then(|at| model.0.get(at)) {
                    Some((_, last, before, ends)) => {
                        level = level.max(*before);
                        revision > *last || (revision == *last && expires == *ends)
                    }
                    None => model.0.len() < 5 || least < level,
                };
                prop_assert_eq!(store.store(&solution, record.clone(), now).is_ok(), fits);
                if fits {
                    if let Some(had) = had {
                        model.0.remove(had);
                    }
                    if model.0.len() == 5 {
                        // The lot is the store's.
                        let gone = model.0.iter().position(|(of, _, level, _)| {
                            let id = super::tests::key(*of, PERIOD).id();
                            *level == least && store.fetch(&id, now).is_none()
                        });
                        prop_assert!(gone.is_some());
                        model.0.remove(gone.unwrap_or(0));
                    }
                    model.0.push((service, revision, level, expires));
                    prop_assert_eq!(store.fetch(&key.id(), now), Some(&record));
                }
                for (of, revision, _, expires) in &model.0 {
                    let id = super::tests::key(*of, PERIOD).id();
                    let kept = store.fetch(&id, now).map(|r| (r.revision(), r.expires()));
                    prop_assert_eq!(kept, Some((*revision, *expires)));
                }
                store.expire(now);
                prop_assert_eq!(store.len(), model.0.len());
                prop_assert_eq!(store.order.len(), model.0.len());
            }
        }
    }
}
