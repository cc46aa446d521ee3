//! What the relay logs, and in which form.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use mixline_protocol::records::Parameters;
use nix::sys::signal::Signal;

use crate::directory::Directory;
use crate::process::{PROGRAM, Relay};

/// The lines of a relay that started and stopped, with these variables. Standard error is a file,
/// which takes the journal's place.
fn lines(more: &str, variables: &[(&str, &str)], journal: bool) -> Vec<String> {
    let parent = tempfile::tempdir().unwrap();
    let directory = Directory::start(Parameters::default());
    let mut relay = Relay::new(parent.path(), "relay", &directory, more);
    let path = parent.path().join("log");
    let file = File::create(&path).unwrap();
    let metadata = file.metadata().unwrap();
    let inode = metadata.ino() + u64::from(!journal);
    relay.start_with(|command| {
        command
            .env_remove("MIXLINE_LOG")
            .env("JOURNAL_STREAM", format!("{}:{inode}", metadata.dev()))
            .envs(variables.iter().copied())
            .stderr(file);
    });
    relay.stop();
    read(&path)
}

fn read(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_journal_gets_no_second_time_and_a_file_gets_one() {
    let at_start = |line: &String| line.starts_with("20");
    let of_file = lines("", &[], false);
    assert!(of_file.iter().all(at_start), "{of_file:?}");
    let of_journal = lines("", &[], true);
    assert!(of_journal.len() >= 2, "{of_journal:?}");
    assert!(
        of_journal
            .iter()
            .all(|line| line.trim_start().starts_with("INFO")),
        "{of_journal:?}"
    );
}

#[test]
fn json_is_one_object_on_each_line() {
    let lines = lines("", &[("MIXLINE_LOG_FORMAT", "json")], false);
    let up = lines
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .find(|line| line["message"].as_str().unwrap().contains("is up"))
        .unwrap();
    assert_eq!(up["level"], "INFO");
    assert_eq!(up["workers"], 1);
    assert!(up["timestamp"].is_string());
}

#[test]
fn the_configuration_says_what_is_logged_unless_the_environment_does() {
    assert_eq!(lines("log: error\n", &[], false), Vec::<String>::new());
    assert!(lines("log: error\n", &[("MIXLINE_LOG", "info")], false).len() >= 2);
    // An empty variable, as a unit may leave it, says nothing.
    assert_eq!(
        lines("log: error\n", &[("MIXLINE_LOG", "")], false),
        Vec::<String>::new()
    );
}

#[test]
fn a_wrong_variable_is_an_error_of_every_command() {
    let parent = tempfile::tempdir().unwrap();
    let directory = Directory::start(Parameters::default());
    let mut relay = Relay::new(parent.path(), "relay", &directory, "");
    relay.start();
    for command in [&[][..], &["status"], &["doctor"]] {
        for (variable, value) in [
            ("MIXLINE_LOG", "loud"),
            ("MIXLINE_LOG_FORMAT", "xml"),
            ("MIXLINE_CPU", "avx9"),
        ] {
            let output = Command::new(PROGRAM)
                .args(command)
                .arg("--config")
                .arg(&relay.config)
                .env(variable, value)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let error = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success() && output.stdout.is_empty());
            assert_eq!(error.lines().count(), 1, "{error}");
            assert!(
                error.contains(&format!("{variable} is `{value}`")),
                "{error}"
            );
        }
    }
    assert!(relay.signal(Signal::SIGTERM).success());
}
