//! What a cell costs at the ends of a path, on one core: `cargo run --release -p
//! mixline-protocol --example session_speed`.
//!
//! Beside each figure stands AES-256-GCM alone over the same bytes, measured in the same run:
//! what nothing that seals can be faster than.

use std::hint::black_box;
use std::time::{Duration, Instant};

use mixline_protocol::Error;
use mixline_protocol::effort::Solution;
use mixline_protocol::frames::{CellSink, Delivered, FragmentIds, Packer, Reassembly, frames};
use mixline_protocol::identity::{AnonymousId, IdentityKey, ShortId, X25519Secret};
use mixline_protocol::path::PublishedTail;
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::TailOffer;
use mixline_protocol::session::{Certificate, Form, SessionInitiator, SessionKeys, accept, effort};
use mixline_protocol::size::{FRAMES, PAYLOAD, Payload};
use mixline_protocol::time::UnixTime;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

const NOW: u64 = 1_800_000_000;
/// Cells in a round: what the processor's cache holds, as in a batch.
const BATCH: usize = 256;
const ROUNDS: usize = 200;

fn main() -> Result<(), Error> {
    let (handshake, (mut client, mut service)) = timed(session);
    let mut cells = vec![[7; PAYLOAD]; BATCH];
    let (mut aead, mut seal, mut open) = (Vec::new(), Vec::new(), Vec::new());
    let bare = LessSafeKey::new(
        UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(|_| Error::Malformed { what: "key" })?,
    );
    for _ in 0..ROUNDS {
        aead.push(per_cell(&mut cells, |cell| {
            let nonce = Nonce::assume_unique_for_key([0; 12]);
            let tag = bare.seal_in_place_separate_tag(nonce, Aad::empty(), &mut cell[16..1056]);
            black_box(tag)
                .map(drop)
                .map_err(|_| Error::Malformed { what: "cell" })
        })?);
        seal.push(per_cell(&mut cells, |cell| {
            client.seal.seal(cell).map(drop)
        })?);
        open.push(per_cell(&mut cells, |cell| {
            service.open.open(cell).map(drop)
        })?);
    }
    println!(
        "handshake (both ends)        {:>9.0} ns",
        handshake.as_nanos()
    );
    effort_speed();
    println!("AES-256-GCM alone, 1040 B    {:>9.0} ns", median(&mut aead));
    println!("seal a cell                  {:>9.0} ns", median(&mut seal));
    println!("open a cell                  {:>9.0} ns", median(&mut open));
    for size in [64, 576, 1500, 9000] {
        let (pack, unpack) = packing(size)?;
        println!(
            "packets of {size:>4} B           {pack:>9.0} ns a cell packed, {unpack:.0} ns unpacked"
        );
    }
    Ok(())
}

/// Cells of a ring that is used again and again, as buffers of a socket are.
struct Ring {
    cells: Vec<[u8; FRAMES]>,
    next: usize,
}

impl CellSink for Ring {
    fn cell(&mut self) -> &mut [u8; FRAMES] {
        &mut self.cells[self.next]
    }

    fn complete(&mut self) {
        self.next += 1;
    }
}

/// Nanoseconds per cell for packing and for reading and reassembly.
fn packing(size: usize) -> Result<(f64, f64), Error> {
    let packet = vec![0x5A; size];
    let mut ring = Ring {
        cells: vec![[0; FRAMES]; BATCH + 16],
        next: 0,
    };
    let mut packer = Packer::new(FragmentIds::new());
    let mut reassembly = Reassembly::new();
    let (mut pack, mut unpack) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ring.next = 0;
        let start = Instant::now();
        while ring.next < BATCH {
            packer.packet(black_box(&packet), &mut ring)?;
        }
        packer.flush(&mut ring);
        pack.push(start.elapsed().as_nanos() as f64 / ring.next as f64);

        let mut bytes = 0;
        let now = Instant::now();
        for frame in ring.cells[..ring.next].iter().flat_map(frames) {
            if let Some(Delivered::Packet(packet)) = reassembly.accept(frame?, now)? {
                bytes += black_box(packet).len();
            }
        }
        unpack.push(now.elapsed().as_nanos() as f64 / ring.next as f64);
        assert_eq!(bytes % size, 0);
    }
    Ok((median(&mut pack), median(&mut unpack)))
}

fn per_cell(
    cells: &mut [Payload],
    mut work: impl FnMut(&mut Payload) -> Result<(), Error>,
) -> Result<f64, Error> {
    let start = Instant::now();
    for cell in cells.iter_mut() {
        work(cell)?;
    }
    Ok(start.elapsed().as_nanos() as f64 / cells.len() as f64)
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn timed<T>(work: impl Fn() -> Result<T, Error>) -> (Duration, T) {
    let start = Instant::now();
    let rounds = 20;
    for _ in 1..rounds {
        black_box(work()).ok();
    }
    match work() {
        Ok(value) => (start.elapsed() / rounds, value),
        Err(error) => panic!("{error}"),
    }
}

/// What the front of an initiation costs: to search for a solution, and to check one.
fn effort_speed() {
    const SEARCHED: u32 = 2_000_000;
    const CHECKED: u32 = 100_000;
    let (id, seed, mut payload) = (AnonymousId([1; 32]), [2; 16], [3; PAYLOAD]);
    let mut search = effort::puzzle(&id, &seed, &payload).search(u32::MAX, [0; 16]);
    let start = Instant::now();
    black_box(search.go_on(SEARCHED));
    let rate = f64::from(SEARCHED) / start.elapsed().as_secs_f64() / 1e6;
    println!("search for a solution        {rate:>9.2} million hashes a second");
    let claims = Solution {
        nonce: [4; 16],
        effort: u32::MAX,
    };
    for (what, solution) in [("none ", Solution::default()), ("a lie", claims)] {
        effort::write(&seed, &solution, &mut payload);
        let start = Instant::now();
        for _ in 0..CHECKED {
            black_box(effort::spent(&id, [&seed], black_box(&payload)));
        }
        let one = start.elapsed() / CHECKED;
        println!("check an effort: {what}       {:>9} ns", one.as_nanos());
    }
}

fn session() -> Result<(SessionKeys, SessionKeys), Error> {
    let rng = &mut OsRandom::new();
    let (client, service) = (IdentityKey::generate(rng), IdentityKey::generate(rng));
    let (ours, theirs) = (X25519Secret::generate(rng), X25519Secret::generate(rng));
    let (public, id) = (theirs.public(), service.anonymous_id());
    let tail = PublishedTail {
        first: ShortId([1; 8]),
        alpha: [2; 32],
        gamma: [3; 16],
        beta: [4; 100],
        seed: [5; 16],
    };
    let tails = [TailOffer {
        tail,
        expires: UnixTime(NOW + 600),
    }];
    let certificate = Certificate::sign(&client, &ours.public(), UnixTime(NOW + 600), None)?;
    let (mut initiator, first) = SessionInitiator::start(
        &ours,
        &public,
        &id,
        Form::Private,
        &certificate,
        &tails,
        None,
        NOW * 1000,
        rng,
    )?;
    let initiation = accept(&theirs, &id, &id, Form::Private, &first, NOW * 1000, rng)?;
    let (answering, second) = initiation.respond(&tails)?;
    Ok((initiator.finish(&second)?.0, answering))
}
