//! Frames of the generator arrive, and what comes back of them is counted. Needs root and the XDP
//! programs; without, the test says so and passes, unless `MIXLINE_REQUIRE_ROOT=1`.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use mixline_bench::generator::{
    Feed, Garbage, Generator, Kind, Load, in_new_namespace, is_built, there_and_back,
};
use mixline_testnet::{Programs, skip};

const FRAMES: u32 = 4096;
/// Of which so many come back at least, whatever else the machine does: a veth has room for 256.
const MOST: u64 = FRAMES as u64 * 3 / 4;

/// One at a time: they share cores.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs a test in a namespace, if this machine can.
fn with_generator(test: impl FnOnce(&mut Generator) + Send) {
    if !skip::is_root_or_skip() {
        return;
    }
    if let Err(missing) = is_built() {
        skip::skip(&missing.to_string());
        return;
    }
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    in_new_namespace(|| {
        test(&mut Generator::load(FRAMES, 64).unwrap());
        Ok(())
    })
    .unwrap();
}

fn start(generator: &mut Generator, directory: &Path, kind: &Kind) -> Feed {
    start_as(3, generator, directory, kind)
}

fn start_as(number: u8, generator: &mut Generator, directory: &Path, kind: &Kind) -> Feed {
    let program = Path::new(env!("CARGO_BIN_EXE_mixline-bench"));
    Feed::start(generator, program, number, directory, kind, 0).unwrap()
}

/// Slow enough that nothing is lost because something is too slow.
fn gently(flood: u32) -> Load {
    Load {
        rate: 4000.0,
        count: FRAMES,
        flood,
    }
}

#[test]
fn frames_reach_an_echo_and_come_back() {
    let directory = tempfile::tempdir().unwrap();
    with_generator(|generator| {
        let mut echo = start(generator, directory.path(), &Kind::Echo);
        let before: u64 = generator.returned(3).unwrap().iter().sum();
        let fed = echo.run(generator, 64, gently(0)).unwrap();
        let after = generator.returned(3).unwrap();
        assert_eq!(fed.sent.honest, u64::from(FRAMES));
        let returned = after.iter().sum::<u64>() - before;
        assert!((MOST..=u64::from(FRAMES)).contains(&returned), "{returned}");
        assert!(after.iter().all(|count| *count > 0));
    });
}

#[test]
fn a_steady_load_is_counted_from_the_kernels_time_stamps() {
    let directory = tempfile::tempdir().unwrap();
    with_generator(|generator| {
        for (number, port) in (1..).zip(["xdp", "xdp-filter", "udp"]) {
            let kind = Kind::Relay {
                program: Programs::for_tests().unwrap().relay,
                more: format!("port: {port}\ninterface: relay0\ntime_inside: kernel"),
            };
            let mut feed = start_as(number, generator, directory.path(), &kind);
            let steady = feed.steadily(generator, 64, 4000.0, [512, 1024]).unwrap();
            // The warm-up is not among them.
            let left = steady.inside.count();
            assert!((768..=1024).contains(&left), "{port}: {left}");
            assert!((0.0..=0.25).contains(&steady.lost), "{port}");
            // The generator is held up at times, and is never ahead.
            assert!((1.0..4100.0).contains(&steady.offered), "{port}");
            let [half, most] = [0.5, 1.0].map(|share| steady.inside.quantile_us(share));
            assert!(0.0 < half && half <= most, "{port}: {half} {most}");
        }
    });
}

#[test]
fn single_datagrams_come_back_from_an_echo_and_from_relays() {
    let directory = tempfile::tempdir().unwrap();
    with_generator(|generator| {
        let relay = |port: &str| Kind::Relay {
            program: Programs::for_tests().unwrap().relay,
            more: format!("port: {port}\ninterface: relay0"),
        };
        let kinds = [Kind::Echo, relay("xdp"), relay("xdp-filter"), relay("udp")];
        // A wire goes some time after its process, so each has a number of its own.
        for (number, kind) in (1..).zip(kinds) {
            let mut feed = start_as(number, generator, directory.path(), &kind);
            let took = there_and_back(&mut feed, generator, 300).unwrap();
            assert!(took.len() >= 297, "{kind:?}: {}", took.len());
            assert!(took.iter().all(|nanos| *nanos > 1e3), "{kind:?}");
            // Counted again, and not let through.
            let before: u64 = generator.returned(number).unwrap().iter().sum();
            feed.run(generator, 1, gently(0)).unwrap();
            let after: u64 = generator.returned(number).unwrap().iter().sum();
            assert!(after - before >= MOST, "{kind:?}: {}", after - before);
        }
    });
}

#[test]
fn a_relay_forwards_what_is_sealed_and_drops_what_is_not() {
    let directory = tempfile::tempdir().unwrap();
    with_generator(|generator| {
        let kind = Kind::Relay {
            program: Programs::for_tests().unwrap().relay,
            more: "port: xdp\ninterface: relay0".into(),
        };
        let mut relay = start(generator, directory.path(), &kind);
        let fed = relay.run(generator, 64, gently(0)).unwrap();
        assert!(fed.verdicts["forwarded"] >= MOST, "{fed:?}");
        for at in 0..64 {
            let garbage = Garbage::ALL[at as usize % 2];
            let frame = garbage.frame(&mut relay, at as usize).unwrap();
            generator.set_flood(at, &frame).unwrap();
        }
        let fed = relay.run(generator, 64, gently(64)).unwrap();
        assert!(fed.verdicts["forwarded"] > 0, "{fed:?}");
        assert!(fed.verdicts["xdp unknown_type"] > 0, "{fed:?}");
        assert!(fed.verdicts["link_authentication"] > 0, "{fed:?}");
    });
}
