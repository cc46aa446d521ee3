//! What is done with each of the kernel's answers.

use super::*;

const BUSY: [Errno; 4] = [Errno::EAGAIN, Errno::EBUSY, Errno::ENOBUFS, Errno::EINTR];

#[test]
fn half_of_the_frames_wait_to_be_received_into() {
    let mut socket = socket(256);
    assert_eq!(socket.rings(), [(false, 128), (true, 0)]);
    for round in 0..300_u32 {
        assert!(socket.kernel_mut().arrive(&round.to_be_bytes()));
        let mut packets = Vec::new();
        assert_eq!(socket.receive(&mut packets).unwrap(), 1);
        assert_eq!(&*packets[0], round.to_be_bytes());
        assert_eq!((socket.held(), socket.kernel_mut().census().fill), (1, 128));
        socket.free(packets.remove(0));
    }
}

#[test]
fn frames_are_received_in_order_and_64_at_a_time() {
    let mut socket = socket(256);
    for number in 0..100_u32 {
        assert!(socket.kernel_mut().arrive(&number.to_be_bytes()));
    }
    let mut packets = Vec::new();
    assert_eq!(socket.receive(&mut packets).unwrap(), 64);
    assert_eq!(socket.receive(&mut packets).unwrap(), 36);
    assert_eq!(socket.receive(&mut packets).unwrap(), 0);
    for (number, packet) in (0..100_u32).zip(packets) {
        assert_eq!(&*packet, number.to_be_bytes());
        socket.free(packet);
    }
}

/// A busy kernel has not taken what is in the ring: it is woken again, though nothing more is
/// sent.
#[test]
fn a_kernel_too_busy_to_send_is_woken_again() {
    for busy in BUSY {
        let mut socket = socket(256);
        let mut packets = numbered(&mut socket, 0..10);
        // Once for the call, and once more.
        socket.kernel_mut().answers = [refuses(busy), refuses(busy)].into();
        assert_eq!(socket.send(&mut packets).unwrap(), 10, "{busy}");
        assert_eq!(socket.kernel_mut().census().transmit, 10);
        assert!(socket.retry().unwrap(), "{busy}: it is to be called again");
        assert!(!socket.retry().unwrap(), "{busy}: the kernel has taken all");
        assert_eq!(socket.kernel_mut().census().driver, 10);
        socket.kernel_mut().complete(10);
        assert_eq!(socket.receive(&mut Vec::new()).unwrap(), 0);
        assert_eq!(socket.in_flight(), 0);
    }
}

/// The same for the fill ring: a driver that has not heard of it receives nothing, and so nobody
/// would call again.
#[test]
fn a_kernel_too_busy_to_receive_is_woken_again() {
    for busy in BUSY {
        let mut kernel = MemoryKernel::new(64);
        kernel.wants_wakeup[0] = true;
        kernel.fill_answers = [busy, busy].into();
        let mut socket = kernel.socket();
        assert!(!socket.kernel_mut().arrive(b"too early"), "{busy}");
        assert!(socket.retry().unwrap(), "{busy}: it is to be called again");
        assert!(!socket.retry().unwrap(), "{busy}: the driver has heard");
        assert!(socket.kernel_mut().arrive(b"in time"), "{busy}");
    }
}

/// Frames may be with the driver for long after it has taken them: that none has been completed
/// does not say that there is no more in the ring to take.
#[test]
fn copy_mode_is_woken_until_it_has_taken_all_though_nothing_is_completed() {
    let mut socket = socket(512);
    let mut packets = numbered(&mut socket, 0..200);
    assert_eq!(socket.send(&mut packets).unwrap(), 200);
    let census = socket.kernel_mut().census();
    assert_eq!((census.transmit, census.driver), (0, 200));
    // 32 a call, and 8 are left for the last one.
    assert_eq!(socket.kernel_mut().woken[1], 7);
    assert!(!socket.retry().unwrap());
}

/// Waking has an answer of its own: what went into a ring is counted before, whatever it is.
#[test]
fn a_wake_up_that_fails_loses_no_count_of_what_is_in_the_rings() {
    for error in [Errno::ENXIO, Errno::EBUSY, Errno::ENETDOWN] {
        let mut kernel = MemoryKernel::new(256);
        kernel.wants_wakeup[0] = true;
        let mut socket = kernel.socket();
        for number in 0..5_u32 {
            assert!(socket.kernel_mut().arrive(&number.to_be_bytes()));
        }
        socket.kernel_mut().fill_answers = [error].into();
        let mut received = Vec::new();
        let result = socket.receive(&mut received);
        assert_eq!(result.is_err(), error == Errno::ENXIO, "{error}");
        assert_eq!((received.len(), socket.held()), (5, 5));
        assert_eq!(socket.kernel_mut().census().fill, 128);
        assert!(socket.is_conserved(), "{error}: after receiving");
        socket.kernel_mut().answers = [refuses(error)].into();
        let mut packets: VecDeque<_> = received.into();
        let result = socket.send(&mut packets);
        assert_eq!(result.is_err(), error == Errno::ENXIO, "{error}");
        assert_eq!(
            (packets.len(), socket.held(), socket.in_flight()),
            (0, 0, 5)
        );
        assert!(socket.is_conserved(), "{error}: after sending");
    }
}

/// A driver that looks at its rings by itself saves us the call, and says so in their flags.
#[test]
fn the_kernel_is_woken_only_if_the_flag_of_the_ring_says_so() {
    let mut socket = socket(256);
    for wants in [[false, false], [true, false], [false, true], [true, true]] {
        let kernel = socket.kernel_mut();
        kernel.poll(64);
        kernel.complete(64);
        kernel.wants_wakeup = wants;
        kernel.woken = [0; 2];
        let mut packets = numbered(&mut socket, 0..3);
        assert_eq!(socket.send(&mut packets).unwrap(), 3);
        assert_eq!(socket.receive(&mut Vec::new()).unwrap(), 0);
        assert_eq!(socket.kernel_mut().woken, wants.map(usize::from));
    }
}

/// Some drivers set the flag of the fill ring without looking at the ring again: whoever waits
/// looks at it now and then, without anything received.
#[test]
fn a_flag_that_comes_late_is_seen_without_anything_received() {
    let mut socket = socket(64);
    socket.kernel_mut().forget_fill_ring();
    assert!(!socket.kernel_mut().arrive(b"too early"));
    assert!(!socket.retry().unwrap());
    assert!(socket.kernel_mut().arrive(b"in time"));
}

#[test]
fn frames_wait_for_an_interface_that_is_down() {
    let mut socket = socket(256);
    socket.kernel_mut().up = false;
    let mut packets = numbered(&mut socket, 0..10);
    assert_eq!(socket.send(&mut packets).unwrap(), 10);
    assert_eq!((socket.held(), socket.in_flight()), (0, 10));
    assert!(!socket.retry().unwrap(), "nothing to hurry for");
    assert_eq!(socket.kernel_mut().census().transmit, 10);
    socket.kernel_mut().up = true;
    assert!(!socket.retry().unwrap());
    socket.kernel_mut().complete(usize::MAX);
    assert_eq!(sent(&mut socket), (0..10).collect::<Vec<_>>());
}

/// What was queued while the interface was down leaves when it is up, though the ring has no room
/// for a frame more, and none is free.
#[test]
fn a_ring_that_is_full_because_the_interface_is_down_is_taken_from_when_it_is_up() {
    let mut socket = socket(128);
    socket.kernel_mut().up = false;
    let mut packets = numbered(&mut socket, 0..64);
    assert_eq!(socket.send(&mut packets).unwrap(), 64);
    assert_eq!(socket.kernel_mut().census().free, 0);
    socket.kernel_mut().up = true;
    assert_eq!(socket.send(&mut packets).unwrap(), 0);
    socket.kernel_mut().complete(usize::MAX);
    assert_eq!(socket.receive(&mut Vec::new()).unwrap(), 0);
    assert_eq!(socket.in_flight(), 0);
}

#[test]
fn what_the_transmit_ring_has_no_room_for_stays_with_the_caller_in_order() {
    let mut socket = socket(256);
    socket.kernel_mut().wants_wakeup[1] = false;
    let mut packets = numbered(&mut socket, 0..128);
    assert_eq!(socket.send(&mut packets).unwrap(), 128);
    let mut kept = Vec::new();
    for number in 128..132_u32 {
        assert!(socket.kernel_mut().arrive(&number.to_be_bytes()));
    }
    assert_eq!(socket.receive(&mut kept).unwrap(), 4);
    let mut packets: VecDeque<_> = kept.into();
    assert_eq!(socket.send(&mut packets).unwrap(), 0);
    assert_eq!((packets.len(), socket.held()), (4, 4));
    // A part has been taken, and then completed in odd portions.
    socket.kernel_mut().poll(50);
    assert_eq!(socket.send(&mut packets).unwrap(), 4);
    for portion in [1, 7, 40, 200] {
        socket.kernel_mut().poll(usize::MAX);
        socket.kernel_mut().complete(portion);
        assert_eq!(socket.receive(&mut Vec::new()).unwrap(), 0);
    }
    assert_eq!(socket.in_flight(), 0);
    assert_eq!(sent(&mut socket), (0..132).collect::<Vec<_>>());
}

/// With every frame on its way out, none is left to receive into, and so nothing arrives that would
/// have the ring filled again.
#[test]
fn a_fill_ring_that_ran_dry_is_filled_without_anything_received() {
    let mut socket = socket(128);
    let mut number = 0;
    // The driver takes as many as it can complete, and as many more fill the TX ring.
    while socket.kernel_mut().census().fill > 0 {
        for _ in 0..16 {
            assert!(socket.kernel_mut().arrive(&[0]));
        }
        let mut received = Vec::new();
        assert_eq!(socket.receive(&mut received).unwrap(), 16);
        for packet in &mut received {
            assert!(packet.fill(&u32::to_be_bytes(number)));
            number += 1;
        }
        assert_eq!(socket.send(&mut received.into()).unwrap(), 16);
    }
    assert!(!socket.kernel_mut().arrive(&[0]));
    assert_eq!((number, socket.in_flight()), (128, 128));
    for _ in 0..2 {
        socket.kernel_mut().complete(usize::MAX);
        socket.retry().unwrap();
    }
    assert_eq!(socket.kernel_mut().census().fill, 64);
    assert_eq!(sent(&mut socket), (0..128).collect::<Vec<_>>());
}

/// A packet that is dropped is missed, which whoever takes packets can assert.
#[test]
fn a_lost_frame_stays_counted_as_held() {
    let mut socket = socket(64);
    let lost = socket.take();
    assert!(lost.is_some());
    let _ = lost;
    assert_eq!(socket.held(), 1);
    assert!(socket.is_conserved());
}
