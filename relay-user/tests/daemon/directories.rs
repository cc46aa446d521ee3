//! A relay in a network of several directories.

use std::fs;

use mixline_protocol::records::Parameters;

use crate::directory::Directory;
use crate::process::{Relay, wait_for};

/// A relay that is told where some of the directories are.
fn relay(parent: &std::path::Path, directories: &[Directory], told: &[usize]) -> Relay {
    let relay = Relay::new(parent, "relay", &directories[0], "");
    let yaml = fs::read_to_string(&relay.config).unwrap();
    let id = directories[0].id;
    let alone = format!(
        "directory: {{url: \"{}\", id: {id}}}\n",
        directories[0].url()
    );
    assert!(yaml.contains(&alone), "{yaml}");
    let urls: Vec<_> = told
        .iter()
        .map(|n| format!("\"{}\"", directories[*n].url()))
        .collect();
    let several = format!("network: {id}\ndirectories: [{}]\n", urls.join(", "));
    fs::write(&relay.config, yaml.replace(&alone, &several)).unwrap();
    relay
}

fn status(relay: &Relay) -> String {
    String::from_utf8(relay.status(false).stdout).unwrap()
}

#[test]
fn a_relay_registers_with_every_directory_of_the_roster() {
    let parent = tempfile::tempdir().unwrap();
    let directories = Directory::start_several(4, Parameters::default());
    // One is away, one has another's signatures, one is behind; one address is all that is configured.
    directories[1].be_dead(true);
    directories[2].forge(true);
    directories[3].stop_at_this_round();
    let mut relay = relay(parent.path(), &directories, &[0]);
    relay.start_and_register();
    for number in [0, 2, 3] {
        wait_for("a registration", || {
            directories[number].has("relay").then_some(())
        });
    }
    let report = wait_for("each directory's state", || {
        let report = relay.report().directory;
        let registered = |of: &&mixline_relay::observe::OneDirectoryReport| {
            of.registered
                .as_ref()
                .is_some_and(|of| of.problem.is_none() && of.at.is_some())
        };
        let well = report.directories.iter().filter(registered).count();
        let failing = report.directories.iter().any(|of| of.problem.is_some());
        (well == 3 && failing).then_some(report)
    });
    assert_eq!((report.roster, report.directories.len()), (Some(1), 4));
    assert_eq!(report.last_error, None, "three of four are enough");
    let dead = report
        .directories
        .iter()
        .find(|of| of.name.as_deref() == Some("d1"))
        .unwrap();
    let problem = dead.registered.as_ref().unwrap().problem.as_ref().unwrap();
    assert!(problem.contains("unreachable"), "{problem}");
    let text = status(&relay);
    assert!(
        text.contains("d1, http://") && text.contains("not registered: directory"),
        "{text}"
    );

    // One that has forgotten it is given the record again, and the one that was away too.
    directories[1].be_dead(false);
    directories[0].forget();
    for number in [0, 1] {
        wait_for("a registration", || {
            directories[number].has("relay").then_some(())
        });
    }
    let (registrations, heartbeats) = directories[0].counts();
    assert_eq!(registrations, 2, "the record is sent when it is not there");
    assert!(heartbeats >= 1);
    // All of them hear that it goes.
    relay.stop();
}

#[test]
fn a_relay_that_leaves_tells_all_directories() {
    let parent = tempfile::tempdir().unwrap();
    let directories = Directory::start_several(4, Parameters::default());
    directories[3].be_dead(true);
    let mut relay = relay(parent.path(), &directories, &[2, 3]);
    relay.start_and_register();
    let mut drain = crate::drain::drain(&relay, "30");
    for directory in &directories[..3] {
        wait_for("the farewell", || (!directory.has("relay")).then_some(()));
    }
    relay.signal(nix::sys::signal::Signal::SIGTERM);
    drain.wait().unwrap();
}

#[test]
fn what_a_relay_knows_of_the_network_outlives_it_and_the_roster_may_change() {
    let parent = tempfile::tempdir().unwrap();
    let directories = Directory::start_several(4, Parameters::default());
    let mut relay = relay(parent.path(), &directories, &[0]);
    relay.start_and_register();
    relay.stop();
    assert!(relay.state.join("network").exists());
    // The one that is configured is gone; the others are known.
    directories[0].be_dead(true);
    relay.start_and_register();
    let report = relay.report().directory;
    assert_eq!(report.roster, Some(1));
    directories[1].rename_last("other");
    let names = |relay: &Relay| {
        let report = relay.report().directory;
        let names = report.directories.into_iter().filter_map(|of| of.name);
        names.collect::<Vec<_>>()
    };
    wait_for("the new roster", || {
        names(&relay).contains(&"other".into()).then_some(())
    });
    wait_for("a registration under the new roster", || {
        let report = relay.report().directory;
        let mut others = report.directories.into_iter();
        let other = others.find(|of| of.name.as_deref() == Some("other"))?;
        other.registered?.at
    });
    relay.stop();
}

#[test]
fn a_network_is_named_once() {
    let parent = tempfile::tempdir().unwrap();
    let directory = Directory::start(Parameters::default());
    let more = format!(
        "network: {}\ndirectories: [{}]\n",
        directory.id,
        directory.url()
    );
    let relay = Relay::new(parent.path(), "relay", &directory, &more);
    let output = relay.refused();
    assert!(output.contains("both given"), "{output}");
    assert_eq!(output.lines().count(), 1, "{output}");
}

/// The ID of one that is alone may stand at `network` as well.
#[test]
fn one_directory_by_the_new_keys() {
    let parent = tempfile::tempdir().unwrap();
    let directory = Directory::start(Parameters::default());
    let mut relay = relay(parent.path(), std::slice::from_ref(&directory), &[0]);
    relay.start_and_register();
    assert!(directory.has("relay"));
    assert_eq!(relay.report().directory.roster, None);
    assert!(!relay.state.join("network").exists());
    relay.stop();
}
