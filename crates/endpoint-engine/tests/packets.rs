//! Reading IP headers, refusing packets, choosing policies.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use mixline_endpoint_engine::testing::internals::bounds::TokenBucket;
use mixline_endpoint_engine::testing::internals::packets::{Rejection, error_for, parse};
use mixline_endpoint_engine::testing::internals::session::policy;
use mixline_endpoint_engine::testing::{ip_packet, kind_of, tcp, udp};
use mixline_endpoint_engine::{
    BATCH_PACKETS, Config, MAX_PACKET, PacketBatch, PathPolicy, PolicyRule,
};
use mixline_protocol::identity::AnonymousId;
use mixline_relay_common::checksum::Sum;
use proptest::prelude::*;

const A4: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
const B4: Ipv4Addr = Ipv4Addr::new(10, 4, 5, 6);
const A6: Ipv6Addr = Ipv6Addr::new(0xfd11, 2, 3, 4, 5, 6, 7, 8);
const B6: Ipv6Addr = Ipv6Addr::new(0xfd99, 8, 7, 6, 5, 4, 3, 2);

/// Whether lengths and all checksums of an answer are right.
fn sound(packet: &[u8]) -> bool {
    let Some(parsed) = parse(packet) else {
        return false;
    };
    let pseudo = |next: u8| -> Vec<u8> {
        let length = u32::try_from(parsed.payload.len()).unwrap().to_be_bytes();
        match (parsed.flow.source, parsed.flow.destination) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                [&a.octets()[..], &b.octets(), &[0, next], &length[2..]].concat()
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                [&a.octets()[..], &b.octets(), &length, &[0, 0, 0, next]].concat()
            }
            _ => unreachable!(),
        }
    };
    // The sum over what contains its own checksum is all ones.
    let right = |sum: Sum| sum.fold() == [0xff, 0xff];
    let header = packet[0] >> 4 == 6 || right(Sum::new().with(&packet[..20]));
    let inner = match parsed.flow.protocol {
        1 => Sum::new(),
        number => Sum::new().with(&pseudo(number)),
    };
    header && right(inner.with(parsed.payload))
}

#[test]
fn ports_of_tcp_and_udp_but_not_of_fragments() {
    for (from, to) in [(IpAddr::from(A4), IpAddr::from(B4)), (A6.into(), B6.into())] {
        for packet in [
            udp(from, to, (1000, 2000), b"x"),
            tcp(from, to, (1000, 2000), 2, 0, 0),
        ] {
            let parsed = parse(&packet).unwrap();
            assert_eq!((parsed.flow.source, parsed.flow.destination), (from, to));
            assert_eq!(parsed.flow.ports, (1000, 2000));
        }
        assert_eq!(
            parse(&ip_packet(from, to, 47, &[1, 2, 3, 4]))
                .unwrap()
                .flow
                .ports,
            (0, 0)
        );
    }
    let mut fragment = udp(A4, B4, (1000, 2000), b"x");
    fragment[6] = 0x20;
    let first = parse(&fragment).unwrap();
    assert_eq!((first.flow.ports, first.later_fragment), ((0, 0), false));
    (fragment[6], fragment[7]) = (0, 5);
    let later = parse(&fragment).unwrap();
    assert_eq!((later.flow.ports, later.later_fragment), ((0, 0), true));
}

#[test]
fn wrong_lengths_are_no_packets() {
    for packet in [udp(A4, B4, (1, 2), b"four"), udp(A6, B6, (1, 2), b"six")] {
        assert!(parse(&packet).is_some());
        for end in 0..packet.len() {
            assert!(parse(&packet[..end]).is_none(), "{end} bytes");
        }
        assert!(parse(&[&packet[..], b"x"].concat()).is_none());
    }
    let mut options = udp(A4, B4, (1, 2), b"");
    options[0] = 0x44;
    assert!(parse(&options).is_none(), "a header that is too short");
}

#[test]
fn rejections_are_sound_and_say_what_they_should() {
    let cases = [
        (Rejection::Unreachable, (3, 1), (1, 3)),
        (Rejection::Prohibited, (3, 13), (1, 5)),
        (Rejection::TooBig(1400), (3, 4), (2, 0)),
    ];
    for (why, v4, v6) in cases {
        for length in [0, 1, 7, 1473, 3000] {
            let packet = udp(A4, B4, (1, 2), &vec![9; length]);
            let answer = error_for(&packet, why).unwrap();
            assert!(sound(&answer) && answer.len() <= 576);
            assert_eq!(kind_of(&answer), (1, Some(v4)));
            assert_eq!(answer[12..20], [B4.octets(), A4.octets()].concat());
            let quoted = packet.len().min(548);
            assert_eq!(answer[28..], packet[..quoted]);

            let packet = udp(A6, B6, (1, 2), &vec![9; length]);
            let answer = error_for(&packet, why).unwrap();
            assert!(sound(&answer) && answer.len() <= 1280);
            assert_eq!(kind_of(&answer), (58, Some(v6)));
            assert_eq!(answer[8..40], [B6.octets(), A6.octets()].concat());
        }
    }
}

#[test]
fn connections_are_told_to_go_on_and_openings_refused() {
    for (from, to) in [(IpAddr::from(A4), IpAddr::from(B4)), (A6.into(), B6.into())] {
        // Established, also when the opening is only confirmed: what TCP takes for passing. The codes are
        // those after which it repeats at a steady pace (RFC 6069).
        let passing = if from.is_ipv4() { (3, 1) } else { (1, 0) };
        for flags in [0x18, 0x10, 0x12] {
            let segment = tcp(from, to, (5000, 80), flags, 7, 0xdead_beef);
            let answer = error_for(&segment, Rejection::Unreachable).unwrap();
            assert!(sound(&answer));
            assert_eq!(kind_of(&answer).1, Some(passing));
        }
        // Opening: ICMP, too. A reset is not answered.
        let opening = if from.is_ipv4() { (3, 1) } else { (1, 3) };
        let syn = tcp(from, to, (5000, 80), 0x02, 7, 0);
        let answer = error_for(&syn, Rejection::Unreachable).unwrap();
        assert_eq!(kind_of(&answer).1, Some(opening));
        let data = tcp(from, to, (5000, 80), 0x10, 7, 8);
        assert!(
            kind_of(&error_for(&data, Rejection::TooBig(1300)).unwrap())
                .1
                .is_some()
        );
        let reset = tcp(from, to, (5000, 80), 0x14, 7, 8);
        assert!(error_for(&reset, Rejection::Unreachable).is_none());
    }
}

#[test]
fn what_must_not_be_answered_is_not() {
    let error4 = ip_packet(A4.into(), B4.into(), 1, &[3, 1, 0, 0, 0, 0, 0, 0]);
    let error6 = ip_packet(A6.into(), B6.into(), 58, &[1, 3, 0, 0, 0, 0, 0, 0]);
    let mut fragment = udp(A4, B4, (1, 2), b"x");
    fragment[7] = 9;
    let many = [
        error4,
        error6,
        fragment,
        udp(Ipv4Addr::UNSPECIFIED, B4, (1, 2), b"x"),
        udp(Ipv6Addr::UNSPECIFIED, B6, (1, 2), b"x"),
        udp(A4, Ipv4Addr::new(224, 0, 0, 1), (1, 2), b"x"),
        udp(A4, Ipv4Addr::BROADCAST, (1, 2), b"x"),
        udp(A6, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), (1, 2), b"x"),
        vec![],
        vec![0; 60],
    ];
    for packet in many {
        assert!(
            error_for(&packet, Rejection::Unreachable).is_none(),
            "{packet:?}"
        );
    }
    // Pings are.
    let ping4 = ip_packet(A4.into(), B4.into(), 1, &[8, 0, 0, 0, 0, 0, 0, 0]);
    let ping6 = ip_packet(A6.into(), B6.into(), 58, &[128, 0, 0, 0, 0, 0, 0, 0]);
    assert!(error_for(&ping4, Rejection::Unreachable).is_some());
    assert!(error_for(&ping6, Rejection::Unreachable).is_some());
}

#[test]
fn a_bucket_fills_with_time() {
    let start = Instant::now();
    let mut rare = TokenBucket::per_hour(20, 2, start);
    assert!(rare.take(start) && rare.take(start) && !rare.take(start));
    assert!(!rare.take(start + Duration::from_secs(179)));
    assert!(rare.take(start + Duration::from_secs(181)));
    let mut bucket = TokenBucket::new(10, 3, start);
    let took = |bucket: &mut TokenBucket, at| (0..10).filter(|_| bucket.take(at)).count();
    assert_eq!(took(&mut bucket, start), 3);
    assert_eq!(took(&mut bucket, start + Duration::from_millis(210)), 2);
    assert_eq!(took(&mut bucket, start + Duration::from_secs(60)), 3);
    // Time that goes backwards gives nothing.
    assert_eq!(took(&mut bucket, start), 0);
}

#[test]
fn the_first_rule_that_fits_decides() {
    let peer = AnonymousId([1; 32]);
    let yaml = format!(
        "
policies:
  - {{ id: {peer}, port: 22, policy: per-flow }}
  - {{ port: 5060, policy: duplicate 2 }}
  - {{ to: 10.4.0.0/16, policy: per-packet }}
  - {{ to: 'fd99::/16', policy: duplicate 3 }}
"
    );
    let config: Config = serde_yaml::from_str(&yaml).unwrap();
    let of = |packet: &[u8], peer: &AnonymousId| {
        policy(&config.policies, peer, &parse(packet).unwrap().flow)
    };
    let other = AnonymousId([2; 32]);
    assert_eq!(of(&udp(A4, B4, (1, 22), b""), &peer), PathPolicy::PerFlow);
    assert_eq!(
        of(&udp(A4, B4, (1, 22), b""), &other),
        PathPolicy::PerPacket
    );
    assert_eq!(
        of(&udp(A4, B4, (5060, 9), b""), &peer),
        PathPolicy::Duplicate(2)
    );
    assert_eq!(
        of(&tcp(A6, B6, (9, 5060), 2, 0, 0), &peer),
        PathPolicy::Duplicate(2)
    );
    assert_eq!(
        of(&udp(A6, B6, (9, 9), b""), &peer),
        PathPolicy::Duplicate(3)
    );
    // Ports are those of TCP and UDP only.
    let gre = ip_packet(B4.into(), A4.into(), 47, &5060u16.to_be_bytes().repeat(2));
    assert_eq!(of(&gre, &peer), PathPolicy::PerFlow);
    // What is written reads the same again.
    let text = serde_yaml::to_string(&config.policies).unwrap();
    assert_eq!(
        serde_yaml::from_str::<Vec<PolicyRule>>(&text).unwrap(),
        config.policies
    );
}

#[test]
fn wrong_configurations_are_refused_by_name() {
    for (yaml, word) in [
        ("guard: 3", "guard"),
        ("policies: [{policy: per-flow, prot: 3}]", "prot"),
        ("policies: [{policy: duplicate}]", "duplicate"),
        ("policies: [{policy: duplicate 9}]", "duplicate 9"),
        ("policies: [{policy: fast}]", "fast"),
        (
            "policies: [{policy: per-flow, to: 10.0.0.0/33}]",
            "10.0.0.0/33",
        ),
        ("policies: [{policy: per-flow, id: abc}]", "anonymous ID"),
    ] {
        let error = serde_yaml::from_str::<Config>(yaml)
            .unwrap_err()
            .to_string();
        assert!(error.contains(word), "{yaml}: {error}");
    }
    let config: Config = serde_yaml::from_str("{}").unwrap();
    assert_eq!(config, Config::default());
    config.check().unwrap();
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(answer) = error_for(&bytes, Rejection::Unreachable) {
            prop_assert!(sound(&answer));
        }
    }

    #[test]
    fn plausible_bytes_too(
        mut bytes in proptest::collection::vec(any::<u8>(), 40..300),
        v6: bool,
        protocol in prop_oneof![Just(1u8), Just(6), Just(17), Just(58), any::<u8>()],
    ) {
        let length = u16::try_from(bytes.len()).unwrap();
        if v6 {
            bytes[0] = 0x60;
            bytes[4..6].copy_from_slice(&(length - 40).to_be_bytes());
            bytes[6] = protocol;
        } else {
            bytes[0] = 0x45 + bytes[0] % 4;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            bytes[9] = protocol;
        }
        prop_assert!(parse(&bytes).is_some());
        for why in [Rejection::Unreachable, Rejection::Prohibited, Rejection::TooBig(1280)] {
            if let Some(answer) = error_for(&bytes, why) {
                prop_assert!(sound(&answer));
            }
        }
    }

    #[test]
    fn a_batch_gives_back_what_it_took(
        lengths in proptest::collection::vec(prop_oneof![0usize..2000, 0usize..=MAX_PACKET + 5], 0..400),
    ) {
        let mut batch = PacketBatch::new();
        let mut kept: Vec<Vec<u8>> = Vec::new();
        for (n, length) in lengths.iter().enumerate() {
            let packet = vec![n as u8; *length];
            let full = batch.is_full();
            let took = if n % 2 == 0 {
                batch.push(&packet)
            } else {
                // As a device reads: behind a header that is left out.
                let spare = batch.spare_mut();
                let fits = *length <= MAX_PACKET && length + 10 <= spare.len();
                if fits {
                    spare[10..10 + length].copy_from_slice(&packet);
                    batch.commit(10..10 + length);
                }
                fits && !full
            };
            prop_assert!(took || full || *length > MAX_PACKET - 10);
            if took {
                kept.push(packet);
            }
            prop_assert!(batch.len() <= BATCH_PACKETS);
        }
        prop_assert_eq!(batch.iter().map(<[u8]>::to_vec).collect::<Vec<_>>(), kept);
        batch.clear();
        prop_assert!(batch.is_empty() && !batch.is_full() && batch.push(&[1; MAX_PACKET]));
    }
}
