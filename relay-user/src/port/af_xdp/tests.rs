//! The port on rings in plain memory, beside a UDP port on the loopback interface.

use std::net::UdpSocket;
use std::time::Duration;
use std::{array, iter};

use mixline_protocol::size::{DATAGRAM, Datagram};
use mixline_relay_common::frame::{Route, headers_length, write_headers};
use mixline_xdp::testing::{Answer, MemoryKernel, frame_of};
use mixline_xdp::{NextHop, Ring};
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use proptest::prelude::*;

use super::frames::address_of;
use super::*;
use crate::port::ControlSockets;
use crate::port::udp::open_udp;
use mixline_relay_engine::batch::State;
use mixline_relay_engine::headers::Flow;

const INTERFACE: u32 = 7;
const FRAMES: u32 = 256;
const PEER: &str = "198.51.100.1:7001";
const FAR_PEER: &str = "[2001:db8::1]:7001";

/// All next hops are on the interface of the queues.
struct OneNeighbour;

impl NextHops for OneNeighbour {
    fn hear(&mut self) {}

    fn next_hop(&mut self, to: std::net::IpAddr, _: std::time::Instant) -> Option<NextHop> {
        let source = if to.is_ipv4() {
            "198.51.100.2"
        } else {
            "2001:db8::2"
        };
        Some(NextHop {
            interface: INTERFACE,
            from: [2; 6],
            to: [4; 6],
            source: source.parse().unwrap(),
        })
    }
}

type TestPort = AfXdpPort<MemoryKernel, OneNeighbour>;

/// A port with so many queues, that sends through their rings.
fn port(queues: usize) -> (TestPort, ControlSockets) {
    port_with(queues, false)
}

/// The same, with or without time stamps.
fn port_with(queues: usize, stamps: bool) -> (TestPort, ControlSockets) {
    let (mut udp, control) = open_udp(&["127.0.0.1:0".parse().unwrap()], 1, stamps).unwrap();
    let sockets = iter::repeat_with(|| MemoryKernel::new(FRAMES).socket());
    let sender = RingSender::new(OneNeighbour, INTERFACE, 7000);
    let sending = Sending::Ring(Box::new(sender));
    let port = AfXdpPort::new(
        sockets.take(queues).enumerate().collect(),
        udp.remove(0),
        sending,
        Arc::new(Shared::new(queues)),
        stamps,
    );
    (port, control)
}

/// A frame with a datagram that begins with a number.
fn frame(number: u32) -> Vec<u8> {
    let route = Route {
        from_mac: [4; 6],
        to_mac: [2; 6],
        from: address_of("198.51.100.1".parse().unwrap()),
        to: address_of("198.51.100.2".parse().unwrap()),
        from_port: 7001,
        to_port: 7000,
    };
    let mut datagram: Datagram = [0; DATAGRAM];
    datagram[..4].copy_from_slice(&number.to_be_bytes());
    let mut frame = vec![0; headers_length(true)];
    assert!(write_headers(&mut frame, &route, &datagram));
    frame.extend(datagram);
    frame
}

fn number_of(datagram: &[u8]) -> u32 {
    u32::from_be_bytes(*datagram.first_chunk().unwrap())
}

/// Sends all of a batch to `to`.
fn send_all(batch: &mut Batch<'_>, to: &str) {
    for (at, slot) in (0..).zip(&mut batch.slots) {
        slot.state = State::Send(to.parse().unwrap(), Flow(0));
        batch.order.push(at);
    }
}

fn kernel(port: &mut TestPort, queue: usize) -> &mut MemoryKernel {
    port.queues[queue].socket.kernel_mut()
}

/// Frames arrive at a queue, numbered from `first`.
fn arrive(port: &mut TestPort, queue: usize, first: u32, frames: u32) {
    for number in first..first + frames {
        assert!(kernel(port, queue).arrive(&frame(number)));
    }
    port.queues[queue].ready = true;
}

/// The numbers of the datagrams that a queue has sent, over IPv4.
fn sent(port: &mut TestPort, queue: usize) -> Vec<u32> {
    let sent = kernel(port, queue).sent.iter();
    sent.map(|frame| number_of(&frame[headers_length(true)..]))
        .collect()
}

/// Nothing is held but what waits, and no frame is lost.
fn check(port: &mut TestPort) {
    for queue in &mut port.queues {
        assert_eq!(queue.socket.held(), queue.waiting.len());
        assert!(queue.waiting.len() <= BATCH);
        assert!(queue.socket.is_conserved());
        let mut frames = queue.socket.kernel_mut().frames();
        frames.extend(queue.waiting.iter().map(|packet| frame_of(packet)));
        frames.sort_unstable();
        frames.dedup();
        assert_eq!(frames.len(), FRAMES as usize);
    }
    assert!(port.packets.is_empty());
}

fn refuses(errno: Errno) -> Answer {
    Answer {
        takes: 0,
        says: Err(errno),
    }
}

#[test]
fn a_batch_leaves_by_the_queue_that_it_came_from() {
    let (mut port, _control) = port(2);
    arrive(&mut port, 1, 0, 40);
    assert_eq!(port.poll(&mut |batch| send_all(batch, PEER)).unwrap(), 40);
    kernel(&mut port, 1).complete(40);
    assert_eq!(sent(&mut port, 1), (0..40).collect::<Vec<_>>());
    assert_eq!(
        &kernel(&mut port, 1).sent[0][..12],
        [[4; 6], [2; 6]].concat()
    );
    assert!(kernel(&mut port, 0).sent.is_empty());
    check(&mut port);
}

#[test]
fn a_frame_counts_from_its_stamp() {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
    for (gso, stamps) in [(false, true), (true, true), (true, false)] {
        let (mut port, _control) = port_with(1, stamps);
        if gso {
            port.sending = Sending::Gso;
        }
        let before = Instant::now();
        let stamped = now();
        let long_ago = stamped.checked_sub(Duration::from_secs(2)).unwrap();
        for (number, time) in (0..).zip([Some(long_ago), None, Some(stamped)]) {
            let time = time.map(|time| time.as_nanos() as u64);
            assert!(kernel(&mut port, 0).arrive_at(&frame(number), time));
        }
        port.queues[0].ready = true;
        let after = Instant::now();
        let mut since = Vec::new();
        port.poll(&mut |batch| {
            assert_eq!(batch.apart, stamps);
            since.extend(batch.slots.iter().map(|slot| slot.since));
        })
        .unwrap();
        if stamps {
            let ago = Duration::from_secs(2);
            // The two clocks of a conversion are not read at once: however long that takes, a time is not earlier.
            assert!(since[0].is_some_and(|at| at + ago >= before));
            assert!(since[2].is_some_and(|at| at >= before));
            assert!(since[0].is_some_and(|at| at + ago / 2 < after));
            assert_eq!(since[1], None);
        } else {
            assert_eq!(since, [None; 3]);
        }
        check(&mut port);
    }
}

#[test]
fn headers_of_another_length_take_another_frame() {
    let (mut port, _control) = port(1);
    arrive(&mut port, 0, 0, 3);
    port.poll(&mut |batch| send_all(batch, FAR_PEER)).unwrap();
    kernel(&mut port, 0).complete(3);
    let sent = &kernel(&mut port, 0).sent;
    assert_eq!(sent.len(), 3);
    for (number, frame) in (0..).zip(sent) {
        assert_eq!(frame.len(), headers_length(false) + DATAGRAM);
        assert_eq!(number_of(&frame[headers_length(false)..]), number);
    }
    check(&mut port);
}

/// Frames that wait for room are in the memory of their queue: another one cannot send them.
#[test]
fn frames_that_wait_stay_with_their_queue() {
    let (mut port, _control) = port(2);
    // Nobody takes what is in the first ring; it fills up.
    kernel(&mut port, 0).wants_wakeup = [false; 2];
    for round in 0..3 {
        arrive(&mut port, 0, 64 * round, 64);
        port.poll(&mut |batch| send_all(batch, PEER)).unwrap();
        check(&mut port);
    }
    assert_eq!(port.queues[0].waiting.len(), 64);
    assert_eq!(port.queues[1].waiting.len(), 0);
    arrive(&mut port, 1, 1000, 10);
    port.poll(&mut |batch| send_all(batch, PEER)).unwrap();
    check(&mut port);
    kernel(&mut port, 1).complete(10);
    assert_eq!(sent(&mut port, 1), (1000..1010).collect::<Vec<_>>());
    assert_eq!(port.queues[0].waiting.len(), 64);
    // It is taken at last, though nothing more is received.
    for _ in 0..2 {
        kernel(&mut port, 0).poll(usize::MAX);
        kernel(&mut port, 0).complete(usize::MAX);
        port.poll(&mut |_| panic!("nothing came")).unwrap();
    }
    kernel(&mut port, 0).poll(usize::MAX);
    kernel(&mut port, 0).complete(usize::MAX);
    assert_eq!(sent(&mut port, 0), (0..192).collect::<Vec<_>>());
    check(&mut port);
}

/// What has been received is worked off, what waits is counted, and then only UDP is left.
#[test]
fn a_port_that_is_given_up_closes_its_queues_and_goes_on_by_udp() {
    let (mut port, control) = port(2);
    // Nobody takes what is in the first ring: two batches in flight, and one that waits.
    kernel(&mut port, 0).wants_wakeup = [false; 2];
    for round in 0..3 {
        arrive(&mut port, 0, 64 * round, 64);
        port.poll(&mut |batch| send_all(batch, PEER)).unwrap();
    }
    assert_eq!(port.shared.taken(), [192, 0]);
    arrive(&mut port, 1, 1000, 70);
    port.shared.give_up();
    assert_eq!(port.poll(&mut |batch| send_all(batch, PEER)).unwrap(), 64);
    check(&mut port);
    assert_eq!(port.poll(&mut |batch| send_all(batch, PEER)).unwrap(), 6);
    assert_eq!(port.queues.len(), 2);
    assert_eq!(port.shared.taken(), [192, 70]);
    let before = port.dropped().unsent;
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = control.addresses().next().unwrap();
    peer.send_to(&[7; DATAGRAM], to).unwrap();
    let by_udp = port.poll(&mut |batch| assert_eq!(batch.slots[0].datagram[0], 7));
    assert_eq!(by_udp.unwrap(), 1);
    assert!(port.queues.is_empty());
    // Three batches of the first queue, and the second's own, whose sending nobody has seen.
    assert_eq!(port.dropped().unsent - before, 192 + 70);
}

#[test]
fn at_most_a_batch_waits_and_the_oldest_are_dropped_and_counted() {
    let (mut port, _control) = port(1);
    kernel(&mut port, 0).wants_wakeup = [false; 2];
    // The ring has room for two batches, and a third one waits.
    for round in 0..4 {
        arrive(&mut port, 0, 64 * round, 64);
        port.poll(&mut |batch| send_all(batch, PEER)).unwrap();
        check(&mut port);
        if round < 2 {
            continue;
        }
        assert_eq!(port.queues[0].waiting.len(), 64);
        assert_eq!(port.dropped().unsent, 64 * u64::from(round - 2));
    }
    let first = &port.queues[0].waiting[0];
    assert_eq!(number_of(&first[headers_length(true)..]), 192);
}

#[test]
fn at_most_a_batch_waits_also_if_sending_fails() {
    let (mut port, _control) = port(1);
    kernel(&mut port, 0).up = false;
    for round in 0..3 {
        arrive(&mut port, 0, 64 * round, 64);
        port.poll(&mut |batch| send_all(batch, PEER)).unwrap();
    }
    assert_eq!(port.queues[0].waiting.len(), 64);
    // It is woken twice before it receives, and once when it has received.
    let answers = [Errno::ENETDOWN, Errno::ENETDOWN, Errno::ENXIO];
    kernel(&mut port, 0).up = true;
    kernel(&mut port, 0).answers = answers.map(refuses).into();
    arrive(&mut port, 0, 192, 64);
    assert!(port.poll(&mut |batch| send_all(batch, PEER)).is_err());
    assert_eq!(port.dropped().unsent, 64);
    check(&mut port);
}

/// A kernel that is busy makes no event when it is not any more: the worker must not sleep.
#[test]
fn a_busy_kernel_keeps_the_worker_awake() {
    let (mut port, _control) = port(1);
    kernel(&mut port, 0).answers = iter::repeat_n(refuses(Errno::EBUSY), 3).collect();
    arrive(&mut port, 0, 0, 5);
    let mut polls = 0;
    while port.poll(&mut |batch| send_all(batch, PEER)).unwrap() > 0 {
        polls += 1;
        assert!(polls < 10);
    }
    assert!(polls >= 2, "it went to sleep after {polls}");
    kernel(&mut port, 0).complete(5);
    assert_eq!(sent(&mut port, 0), (0..5).collect::<Vec<_>>());
    check(&mut port);
}

/// A ring that is full, of an interface that is gone, does not keep the UDP port from being polled.
#[test]
fn an_interface_that_is_gone_is_refused_once_and_not_again_at_each_poll() {
    let (mut port, _control) = port(1);
    kernel(&mut port, 0).answers = iter::repeat_n(refuses(Errno::ENXIO), 100).collect();
    for round in 0..4 {
        arrive(&mut port, 0, 64 * round, 64);
        // While there is room, what is queued is refused.
        let result = port.poll(&mut |batch| send_all(batch, PEER));
        assert_eq!(result.is_err(), round < 2);
        check(&mut port);
    }
    assert_eq!(port.queues[0].waiting.len(), 64);
    assert!(port.poll(&mut |_| panic!("nothing came")).is_ok());
}

/// The batch is dropped with the error, and its frames are free again.
#[test]
fn an_error_loses_no_frame() {
    let (mut port, _control) = port(1);
    // It is woken once before it receives, and once when it has received.
    kernel(&mut port, 0).wants_wakeup[0] = true;
    kernel(&mut port, 0).fill_answers = [Errno::EBUSY, Errno::ENXIO].into();
    arrive(&mut port, 0, 0, 5);
    let error = port.poll(&mut |_| panic!("not worked on")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ENXIO as i32));
    check(&mut port);
    kernel(&mut port, 0).answers = [refuses(Errno::ENXIO)].into();
    arrive(&mut port, 0, 5, 5);
    let error = port.poll(&mut |batch| {
        send_all(batch, PEER);
        batch.order.pop();
    });
    let error = error.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ENXIO as i32));
    assert_eq!(port.queues[0].socket.in_flight(), 4);
    check(&mut port);
    arrive(&mut port, 0, 10, 5);
    assert_eq!(port.poll(&mut |batch| send_all(batch, PEER)).unwrap(), 5);
    kernel(&mut port, 0).complete(usize::MAX);
    assert_eq!(sent(&mut port, 0), [5, 6, 7, 8, 10, 11, 12, 13, 14]);
    check(&mut port);
}

/// However busy the queues are, handshakes come through the kernel's socket.
#[test]
fn busy_queues_do_not_keep_the_udp_port_waiting() {
    let (mut port, control) = port(1);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut handshake: Datagram = [0; DATAGRAM];
    handshake[..4].copy_from_slice(&u32::MAX.to_be_bytes());
    peer.send_to(&handshake, control.addresses().next().unwrap())
        .unwrap();
    let mut seen = false;
    for round in 0..UDP_EVERY {
        arrive(&mut port, 0, round, 1);
        port.poll(&mut |batch| {
            let mut numbers = batch.slots.iter().map(|slot| number_of(slot.datagram));
            seen |= numbers.any(|number| number == u32::MAX);
        })
        .unwrap();
        check(&mut port);
    }
    assert!(seen);
}

#[test]
fn in_copy_mode_what_was_received_leaves_through_udp_and_its_frames_are_free() {
    let (mut port, _control) = port(1);
    port.sending = Sending::Gso;
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let to = peer.local_addr().unwrap().to_string();
    arrive(&mut port, 0, 0, 20);
    assert_eq!(port.poll(&mut |batch| send_all(batch, &to)).unwrap(), 20);
    check(&mut port);
    assert_eq!(port.queues[0].socket.in_flight(), 0);
    for number in 0..20 {
        let mut bytes = [0; 2048];
        let length = peer.recv(&mut bytes).unwrap();
        assert_eq!((length, number_of(&bytes)), (DATAGRAM, number));
    }
}

#[test]
fn in_copy_mode_batches_of_all_queues_leave_together_and_in_their_order() {
    let (mut port, _control) = port(2);
    port.sending = Sending::Gso;
    let peers = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let to = peers.each_ref().map(|peer| peer.local_addr().unwrap());
    let whole = 2 * BATCH as u32;
    arrive(&mut port, 0, 0, whole);
    arrive(&mut port, 1, whole, whole);
    let mut batches = 0;
    let mut forward = |batch: &mut Batch<'_>| {
        batches += 1;
        for (at, slot) in (0..).zip(&mut batch.slots) {
            let number = number_of(&slot.datagram[..]);
            // The fourth of four is dropped.
            if let Some(to) = to.get(number as usize % 4) {
                slot.state = State::Send(*to, Flow(0));
                batch.order.push(at);
            }
        }
    };
    assert_eq!(port.poll(&mut forward).unwrap(), 4 * BATCH);
    // Fewer than a batch do not wait for others.
    arrive(&mut port, 0, 2 * whole, 8);
    arrive(&mut port, 1, 2 * whole + 8, 8);
    assert_eq!(port.poll(&mut forward).unwrap(), 8);
    check(&mut port);
    assert_eq!(port.poll(&mut forward).unwrap(), 8);
    check(&mut port);
    assert_eq!(batches, 6);
    assert_eq!(port.dropped(), Dropped::default());
    for (rest, peer) in (0..).zip(&peers) {
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut last = [None; 2];
        for _ in 0..(2 * whole + 16) / 4 {
            let mut bytes = [0; 2048];
            assert_eq!(peer.recv(&mut bytes).unwrap(), DATAGRAM);
            let number = number_of(&bytes);
            assert_eq!(number % 4, rest);
            let queue = if number < 2 * whole {
                number / whole
            } else {
                (number - 2 * whole) / 8
            };
            let last = &mut last[queue as usize];
            assert!(last.is_none_or(|last| last < number));
            *last = Some(number);
        }
    }
}

#[test]
fn frames_that_wait_for_others_leave_also_if_receiving_fails() {
    let (mut port, _control) = port(1);
    port.sending = Sending::Gso;
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = peer.local_addr().unwrap();
    arrive(&mut port, 0, 0, 2 * BATCH as u32);
    kernel(&mut port, 0).wants_wakeup[0] = true;
    // Busy when the port looks and when it receives the first batch, and gone with the second.
    kernel(&mut port, 0).fill_answers = [Errno::EBUSY, Errno::EBUSY, Errno::ENXIO].into();
    let result = port.poll(&mut |batch| {
        for (at, slot) in (0..).zip(&mut batch.slots) {
            slot.state = State::Send(to, Flow(0));
            batch.order.push(at);
        }
    });
    assert!(result.is_err());
    check(&mut port);
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for number in 0..BATCH as u32 {
        let mut bytes = [0; 2048];
        assert_eq!(peer.recv(&mut bytes).unwrap(), DATAGRAM);
        assert_eq!(number_of(&bytes), number);
    }
}

/// What happens to one of two queues.
#[derive(Debug, Clone)]
enum Step {
    /// The worker polls; every so many datagrams are sent, to a peer over IPv6 if so.
    Poll(usize, bool),
    Arrive(usize, usize),
    Complete(usize, usize),
    Take(usize, usize),
    Flags(usize, [bool; 2]),
    Answer(usize, Answer),
    AnswerFill(usize, Errno),
    Up(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let queue = 0..2_usize;
    let some = 1..100_usize;
    let errno = prop_oneof![
        6 => Just(Errno::EAGAIN),
        6 => Just(Errno::EBUSY),
        6 => Just(Errno::ENOBUFS),
        6 => Just(Errno::ENETDOWN),
        1 => Just(Errno::ENXIO),
    ];
    let says = prop_oneof![Just(Ok(())), errno.clone().prop_map(Err)];
    let answer = (0..80_usize, says).prop_map(|(takes, says)| Answer { takes, says });
    prop_oneof![
        6 => (1..4_usize, any::<bool>()).prop_map(|(every, far)| Step::Poll(every, far)),
        4 => (queue.clone(), some.clone()).prop_map(|(at, count)| Step::Arrive(at, count)),
        3 => (queue.clone(), some.clone()).prop_map(|(at, count)| Step::Complete(at, count)),
        1 => (queue.clone(), some).prop_map(|(at, count)| Step::Take(at, count)),
        1 => (queue.clone(), any::<[bool; 2]>()).prop_map(|(at, wants)| Step::Flags(at, wants)),
        3 => (queue.clone(), answer).prop_map(|(at, answer)| Step::Answer(at, answer)),
        2 => (queue.clone(), errno).prop_map(|(at, errno)| Step::AnswerFill(at, errno)),
        1 => (queue, any::<bool>()).prop_map(|(at, up)| Step::Up(at, up)),
    ]
}

/// Polls once; returns how many datagrams were to be sent, and whether there was no error.
fn poll_once(port: &mut TestPort, every: usize, far: bool) -> (u64, bool) {
    let mut decided = 0;
    let result = port.poll(&mut |batch| {
        send_all(batch, if far { FAR_PEER } else { PEER });
        batch
            .order
            .retain(|at| usize::from(*at).is_multiple_of(every));
        decided += batch.order.len() as u64;
    });
    (decided, result.is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// No frame is lost or sent by the wrong queue, and what was to be sent is sent when the kernel
    /// answers well again, or counted as dropped.
    #[test]
    fn what_is_to_be_sent_is_sent_or_counted(steps in proptest::collection::vec(step(), 1..80)) {
        let (mut port, _control) = port(2);
        let bytes = frame(0);
        let (mut decided, mut gone) = (0, false);
        for step in steps {
            match step {
                Step::Poll(every, far) => {
                    let (more, well) = poll_once(&mut port, every, far);
                    decided += more;
                    gone |= !well;
                }
                Step::Arrive(at, count) => {
                    for _ in 0..count {
                        kernel(&mut port, at).arrive(&bytes);
                    }
                    port.queues[at].ready = true;
                }
                Step::Complete(at, count) => kernel(&mut port, at).complete(count),
                Step::Take(at, count) => kernel(&mut port, at).poll(count),
                Step::Flags(at, wants) => kernel(&mut port, at).set_wants_wakeup(wants),
                Step::Answer(at, answer) => kernel(&mut port, at).answers.push_back(answer),
                Step::AnswerFill(at, errno) => kernel(&mut port, at).fill_answers.push_back(errno),
                Step::Up(at, up) => kernel(&mut port, at).up = up,
            }
            check(&mut port);
        }
        // An interface that is gone sends nothing more.
        if gone {
            return Ok(());
        }
        for at in 0..2 {
            let kernel = kernel(&mut port, at);
            kernel.up = true;
            kernel.answers.clear();
            kernel.fill_answers.clear();
        }
        for _ in 0..12 {
            for at in 0..2 {
                let kernel = kernel(&mut port, at);
                if !kernel.wants_wakeup[Ring::Transmit as usize] {
                    kernel.poll(usize::MAX);
                }
                kernel.complete(usize::MAX);
            }
            let (more, well) = poll_once(&mut port, 1, false);
            assert!(well);
            decided += more;
            check(&mut port);
        }
        let sent: [usize; 2] = array::from_fn(|at| kernel(&mut port, at).sent.len());
        let sent: usize = sent.iter().sum();
        assert_eq!(sent as u64 + port.dropped().unsent, decided);
        for at in 0..2 {
            let census = kernel(&mut port, at).census();
            assert_eq!(census.fill, FRAMES as usize / 2, "{census:?}");
            // What has been sent since is freed before anything else is sent or received.
            let free = census.free + census.completion;
            assert_eq!(free, FRAMES as usize / 2, "{census:?}");
        }
    }
}
