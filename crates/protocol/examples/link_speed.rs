//! What a link costs: nanoseconds for sealing and opening a datagram, beside those of
//! AES-256-GCM alone, for the window and for the replay filter; microseconds for a handshake.
//!
//! `cargo run --release -p mixline-protocol --example link_speed`
#![expect(clippy::unwrap_used, reason = "an example")]

use mixline_protocol::identity::X25519Secret;
use mixline_protocol::link::{
    Admission, CellKind, Initiator, Responder, Timestamp, Window, counter,
};
use mixline_protocol::random::OsRandom;
use mixline_protocol::replay::ReplayFilter;
use mixline_protocol::size::DATAGRAM;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::hint::black_box;
use std::time::Instant;

/// The least of ten runs: nanoseconds for one of `n` calls.
fn least(n: u64, mut call: impl FnMut(u64)) -> f64 {
    let mut best = f64::MAX;
    for run in 0..10 {
        let start = Instant::now();
        for i in 0..n {
            call(run * n + i);
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / n as f64);
    }
    best
}

fn main() {
    let mut rng = OsRandom::new();
    let (a, b) = (
        X25519Secret::generate(&mut rng),
        X25519Secret::generate(&mut rng),
    );
    let mut responder = Responder::new(&b, Instant::now(), &mut rng);
    let start = |n: u64, rng: &mut OsRandom| {
        let at = Timestamp {
            seconds: n + 1,
            nanos: 0,
        };
        Initiator::start(&a, &b.public(), 1, at, None, rng).unwrap()
    };
    let (mut initiator, initiation) = start(0, &mut rng);
    let (b_side, response) = responder.respond(&initiation, 2, &mut rng).unwrap();
    let a_side = initiator.finish(&response).unwrap();

    // Copying the datagram is part of each figure, and shown, so that opening can be repeated.
    let mut datagram = [7; DATAGRAM];
    let n = 100_000;
    let copy = least(n, |_| {
        let mut one = datagram;
        black_box(&mut one);
    });
    let aes = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[1; 32]).unwrap());
    let bare_seal = least(n, |i| {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&i.to_be_bytes());
        let (header, rest) = datagram.split_at_mut(16);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = aes
            .seal_in_place_separate_tag(nonce, Aad::from(&*header), &mut rest[..1376])
            .unwrap();
        rest[1376..].copy_from_slice(tag.as_ref());
    });
    let (nonce, mut sealed) = ([9; 12], datagram);
    let (header, rest) = sealed.split_at_mut(16);
    let tag = aes
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(&*header),
            &mut rest[..1376],
        )
        .unwrap();
    rest[1376..].copy_from_slice(tag.as_ref());
    let bare_open = least(n, |_| {
        let mut one = sealed;
        let (header, rest) = one.split_at_mut(16);
        let nonce = Nonce::assume_unique_for_key(nonce);
        black_box(aes.open_in_place(nonce, Aad::from(&*header), rest).unwrap());
    });
    let seal = least(n, |_| {
        a_side.seal.seal(&mut datagram, CellKind::Cell).unwrap()
    });
    let open = least(n, |_| {
        let mut one = datagram;
        black_box(b_side.open.open(&mut one).unwrap());
    });
    let mut window = Window::new();
    let mut last = datagram;
    let window = least(n, |i| {
        last[8..16].copy_from_slice(&i.to_be_bytes());
        let counter = counter(&last);
        assert!(window.check(counter));
        window.accept(counter).unwrap();
    });
    let filter = ReplayFilter::new(16 << 20, [3; 16], Instant::now()).unwrap();
    let replay = least(n, |i| {
        let mut tag = [0; 16];
        tag[..8].copy_from_slice(&i.to_be_bytes());
        black_box(filter.check_and_set(&tag));
    });

    println!("copy of a datagram       {copy:7.0} ns");
    println!("AES-256-GCM seal         {bare_seal:7.0} ns");
    println!("link seal                {seal:7.0} ns");
    println!("AES-256-GCM open, copy   {bare_open:7.0} ns");
    println!("link open, copy          {open:7.0} ns");
    println!("window                   {window:7.1} ns");
    println!("replay filter, 2 x 16 MiB{replay:7.1} ns");

    let source = "192.0.2.1:7000".parse().unwrap();
    let check = least(1000, |_| {
        let admission = responder.check_macs(&initiation, source, false).unwrap();
        assert!(matches!(admission, Admission::Process));
    });
    let cookie = least(1000, |_| {
        let admission = responder.check_macs(&initiation, source, true).unwrap();
        assert!(matches!(admission, Admission::SendCookie(_)));
    });
    let (mut made, mut answered) = (f64::MAX, f64::MAX);
    let mut finished = f64::MAX;
    for n in 1..200 {
        let begin = Instant::now();
        let (mut initiator, initiation) = start(n, &mut rng);
        let made_at = Instant::now();
        let (_, response) = responder.respond(&initiation, 2, &mut rng).unwrap();
        let answered_at = Instant::now();
        black_box(initiator.finish(&response).unwrap());
        made = made.min((made_at - begin).as_secs_f64() * 1e6);
        answered = answered.min((answered_at - made_at).as_secs_f64() * 1e6);
        finished = finished.min(answered_at.elapsed().as_secs_f64() * 1e6);
    }
    println!("mac1 of an initiation    {:7.1} us", check / 1e3);
    println!("cookie for an initiation {:7.1} us", cookie / 1e3);
    println!("initiation made          {made:7.0} us");
    println!("initiation answered      {answered:7.0} us");
    println!("response read            {finished:7.0} us");
}
