//! What a relay may send.

use crate::process::{Relay, free_address, wait_for};
use crate::relaying::metrics;
use crate::setting::{Setting, Traffic};

/// Cells that are sent at once: as many as a socket has room for.
const AT_ONCE: usize = 50;

/// Has the relay know the path, and show that: a worker shows what it has counted when the cell may
/// have arrived already, and what is counted from here on is to be that of the test.
fn begin(relay: &Relay, traffic: &Traffic) {
    traffic.goes_round(0);
    relay.expect("delivered", 1);
}

/// Sends cells with these numbers over a path that the relay knows, and waits until each has an
/// outcome: those delivered, those over the bandwidth.
fn send(relay: &Relay, traffic: &Traffic, numbers: std::ops::Range<u64>) -> (u64, u64) {
    let counts = || {
        let verdicts = relay.report().verdicts;
        (verdicts["delivered"], verdicts["bandwidth_limit"])
    };
    let before = counts();
    let cells: Vec<u64> = numbers.collect();
    let (mut delivered, mut over) = (0, 0);
    for some in cells.chunks(AT_ONCE) {
        for number in some {
            traffic.send(*number);
        }
        let sent = delivered + over + some.len() as u64;
        let now = wait_for("an outcome of each cell", || {
            let counts = counts();
            let since = (counts.0 - before.0, counts.1 - before.1);
            (since.0 + since.1 == sent).then_some(since)
        });
        // Room for the next.
        for _ in delivered..now.0 {
            traffic.received();
        }
        (delivered, over) = now;
    }
    (delivered, over)
}

#[test]
fn a_relay_sends_no_more_than_its_bandwidth() {
    // 100 datagrams a second, and 64 at once.
    let mut setting = Setting::new("bandwidth: 145600\ncontact: ops@example.org\n").registered();
    assert_eq!(setting.descriptor().descriptor.capacity, 100);
    let traffic = setting.traffic();
    let relay = &mut setting.relay;
    let text = String::from_utf8(relay.status(false).stdout).unwrap();
    assert!(
        text.contains("bandwidth    at most 145.6 kB/s are sent"),
        "{text}"
    );
    assert!(text.contains("contact      ops@example.org"), "{text}");

    begin(relay, &traffic);
    // How many pass depends on the time that this takes; the unit tests of the allowance count them.
    // In no time that a machine takes do all of so many.
    let (mut delivered, mut over) = (0, 0);
    for first in (1..4001).step_by(AT_ONCE) {
        let some = send(relay, &traffic, first..first + AT_ONCE as u64);
        (delivered, over) = (delivered + some.0, over + some.1);
        if over > 0 {
            break;
        }
    }
    assert!(over > 0, "{delivered} were delivered, and none was over");

    // Without the key there is no limit, and no restart is needed.
    relay.change("bandwidth: 145600\n", "");
    assert_eq!(relay.reload().0, "changed: bandwidth\n");
    // It is told that the key has changed, and does so a moment later.
    let mut next = 5000;
    wait_for("500 cells of which none is over", || {
        next += 500;
        (send(relay, &traffic, next..next + 500) == (500, 0)).then_some(())
    });
    relay.stop();
}

#[test]
fn a_relay_that_has_used_up_its_month_hibernates_also_after_a_restart_until_it_may_send_more() {
    let shown = free_address();
    // 100 cells.
    let more = format!("monthly: 145600\nmetrics: \"{shown}\"\n");
    let mut setting = Setting::new(&more).registered();
    let descriptor = setting.descriptor();
    let mut traffic = setting.traffic();
    begin(&setting.relay, &traffic);
    let Setting {
        relay, directory, ..
    } = &mut setting;
    assert_eq!(send(relay, &traffic, 1..100), (99, 0));
    wait_for("hibernation", || relay.report().hibernating.then_some(()));
    let text = metrics(shown);
    for wanted in [
        "mixline_relay_hibernating 1",
        "mixline_relay_monthly_sent_bytes 145600",
        "mixline_relay_monthly_limit_bytes 145600",
    ] {
        assert!(text.lines().any(|line| line == wanted), "{wanted}: {text}");
    }
    assert!(!text.contains("mixline_relay_bandwidth_limit"), "{text}");
    wait_for("the farewell", || {
        directory.relay("relay").is_none().then_some(())
    });
    // What a worker had taken before, and no more.
    let (delivered, over) = send(relay, &traffic, 100..200);
    assert!(delivered < 16 && over > 84, "{delivered} {over}");
    let text = String::from_utf8(relay.status(false).stdout).unwrap();
    assert!(text.contains("hibernating  `monthly` is used up"), "{text}");

    // A restart remembers.
    relay.stop();
    relay.start();
    let report = relay.report();
    assert!(report.hibernating);
    assert_eq!(report.volume.unwrap().sent, (100 + delivered) * 1456);
    // More room wakes it, and the directory has it again.
    relay.change("145600", "1 GB");
    assert_eq!(relay.reload().0, "changed: monthly\n");
    wait_for("the relay's return", || {
        (!relay.report().hibernating).then_some(())
    });
    let back = wait_for("a registration", || directory.relay("relay"));
    assert!(back.descriptor.version > descriptor.descriptor.version);
    traffic.connect_again(relay, &back);
    assert_eq!(send(relay, &traffic, 200..250), (50, 0));
    relay.stop();
}
