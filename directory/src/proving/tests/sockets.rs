//! Over real sockets, on loopback.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use mixline_protocol::identity::X25519Secret;
use mixline_protocol::link::{Admission, DatagramType, Responder, datagram_type};
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::{DATAGRAM, Datagram};
use tokio::sync::{mpsc, watch};

use super::world::TestRelay;
use crate::proving::{Prover, State};

/// A relay's answers, under load, in a thread that ends when the session was closed.
fn relay_at(socket: UdpSocket, secret: X25519Secret) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let rng = &mut OsRandom::new();
        let mut responder = Responder::new(&secret, Instant::now(), rng);
        let mut buffer = [0; DATAGRAM];
        let mut session = None;
        loop {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(length, DATAGRAM);
            let mut datagram: Datagram = buffer;
            if datagram_type(&datagram) == Ok(DatagramType::Data) {
                let open: Option<mixline_protocol::link::OpenKey> = session.take();
                open.unwrap().open(&mut datagram).unwrap();
                return;
            }
            let answer = match responder.check_macs(&datagram, from, true).unwrap() {
                Admission::SendCookie(cookie) => cookie,
                Admission::Process => {
                    let (established, response) = responder.respond(&datagram, 1, rng).unwrap();
                    session = Some(established.open);
                    response
                }
            };
            socket.send_to(&answer[..], from).unwrap();
        }
    })
}

#[tokio::test]
async fn a_relay_is_proven_over_loopback() {
    let sockets: Vec<_> = ["127.0.0.1:0", "[::1]:0"]
        .into_iter()
        .filter_map(|at| UdpSocket::bind(at).ok())
        .collect();
    let mut relay = TestRelay::new(&["127.0.0.1:1"]);
    relay.addresses = sockets.iter().map(|it| it.local_addr().unwrap()).collect();
    let threads: Vec<_> = sockets
        .into_iter()
        .map(|socket| relay_at(socket, relay.secret.clone()))
        .collect();
    let prover = Prover::bind((Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)).unwrap();
    let prover = Arc::new(prover);
    let (quit, stop) = watch::channel(false);
    let (tell, mut told) = mpsc::unbounded_channel();
    let running = {
        let prover = Arc::clone(&prover);
        tokio::spawn(async move {
            prover
                .run(|change| tell.send(change).unwrap_or_default(), stop)
                .await
        })
    };
    let first = prover.wanted(relay.id, relay.described(), relay.source);
    assert!(!first.is_proven());
    let change = told.recv().await.unwrap();
    assert!(change.state.is_proven());
    assert!(prover.state(&relay.id, relay.described()).is_proven());
    assert_eq!(prover.census().proven, 1);
    for thread in threads {
        tokio::task::spawn_blocking(|| thread.join().unwrap())
            .await
            .unwrap();
    }
    quit.send_replace(true);
    running.await.unwrap();
}

/// An address of a family that there is no socket for: nobody has to wait for answers that cannot come.
#[tokio::test]
async fn an_address_that_the_host_has_no_way_to_is_told_apart() {
    let nobodys: Ipv6Addr = "2001:db8::5".parse().unwrap();
    let prover = Arc::new(Prover::bind((Ipv4Addr::UNSPECIFIED, nobodys)).unwrap());
    let (_quit, stop) = watch::channel(false);
    let (tell, mut told) = mpsc::unbounded_channel();
    {
        let prover = Arc::clone(&prover);
        tokio::spawn(async move {
            prover
                .run(|change| tell.send(change).unwrap_or_default(), stop)
                .await
        });
    }
    let relay = TestRelay::new(&["[2001:db8::1]:7000"]);
    prover.wanted(relay.id, relay.described(), relay.source);
    let state = told.recv().await.unwrap().state;
    assert_eq!(state, State::CannotTell(relay.addresses[0]));
    assert!(state.to_string().contains("no way to [2001:db8::1]:7000"));
}
