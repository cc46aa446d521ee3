//! All tests: built by the user who asks, run as that user, and as root where they say that they
//! need it.
//!
//! Cargo builds the test programs and says where they are; they are run from here, so that some can
//! run under sudo without cargo, which would leave files of root's in `target`.
//!
//! Most of the time of those on networks is waiting. The longest goes on for ten minutes: it is started as the
//! first, once what it needs is built, and runs while everything else is compiled. Of the others, about half
//! have a network of their own, [apart] from that of the rest, which runs at the same time. Nothing
//! that measures runs beside others.

use crate::beside::Beside;
use crate::slowest::Slowest;
use crate::summary::Summary;
use crate::workspaces::{self, Workspace};
use crate::{privileges, run};
use anyhow::{Context, Result, bail};
use mixline_testnet::{apart, network, programs, skip};
use mixline_wide_crypto::{CPU, Width};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the output of a test program that has ended is waited for: what it started may still
/// hold the other end.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// The test that runs while the others are built: the host to which anything happens.
const LONG: &str = "host::events_at_random";
/// How much it goes before compilers, so that its programs do what they do on an idle machine
/// (`nice`; allowed to root, and left out with a word where it is not).
const BEFORE_COMPILERS: [&str; 2] = ["nice", "--adjustment=-5"];
/// What the names of tests on networks have that run apart from the others: one of these. They take about half
/// of the time of all.
const APART: [&str; 2] = ["xdp", "living"];

/// A test program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TestProgram {
    /// What it is called here.
    name: String,
    executable: PathBuf,
    /// Where it runs: its package's directory, as by cargo.
    directory: PathBuf,
    /// More environment.
    environment: Vec<(String, String)>,
}

/// What runs under sudo.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    filter: Option<String>,
    programs: Vec<TestProgram>,
}

/// Builds the programs and the tests that run on networks of them, and starts the longest of these, if
/// this is root: what is done from then on, until [`Begun::run`] runs tests, is done beside it. With a
/// filter, nothing is started, and all tests take their turn.
///
/// # Errors
/// If something does not compile, or cannot be run.
pub fn begin(filter: Option<&str>) -> Result<Begun> {
    run::build(true)?;
    if filter.is_some() || !privileges::is_root() {
        return Ok(Begun { beside: None });
    }
    let tests = build(&workspaces::ALL[0], &["--test", "end_to_end"])?;
    let test = tests.iter().find(|test| is_of_networks(test));
    let test = test.context("the tests on networks of namespaces were not built")?;
    let mut command = command(test);
    command.arg(LONG);
    let mut first = Command::new(BEFORE_COMPILERS[0]);
    first.arg(BEFORE_COMPILERS[1]);
    run::behind(&mut first, &command);
    Ok(Begun {
        beside: Some(Beside::start(LONG, &first, || Ok(network::clean_up()?))?),
    })
}

/// Builds all tests.
///
/// # Errors
/// If something does not compile.
pub fn build_all() -> Result<Vec<TestProgram>> {
    let mut tests = Vec::new();
    for workspace in workspaces::ALL.iter().filter(|workspace| workspace.tests) {
        tests.extend(build(workspace, &[])?);
    }
    tests.extend(in_other_widths(&tests));
    // The long ones last.
    tests.sort_by_key(|test| (is_of_networks(test), test.name.clone()));
    Ok(tests)
}

/// What seals and opens datagrams and payloads, and takes layers off: test programs by package, kind and name.
const OF_DATAGRAMS: [&str; 7] = [
    "crates/protocol: test session",
    "crates/protocol: test session_vectors",
    "crates/protocol: test path",
    "crates/protocol: test path_vectors",
    "crates/protocol: test link_vectors",
    "crates/protocol: test link_transport",
    "crates/relay-engine: test pipeline",
];

/// The same once more with each of the processor's instructions that it has beside those which are used anyway. (The
/// tests of `wide-crypto` itself try all that there are.)
fn in_other_widths(tests: &[TestProgram]) -> Vec<TestProgram> {
    let used = Width::current();
    let others = Width::available().filter(|width| *width != used);
    let with = |width: Width| {
        let tests = tests
            .iter()
            .filter(|test| OF_DATAGRAMS.contains(&test.name.as_str()));
        tests.map(move |test| {
            let mut test = test.clone();
            test.name = format!("{} with {width}", test.name);
            test.environment
                .push((CPU.to_owned(), width.name().to_owned()));
            test
        })
    };
    others.flat_map(with).collect()
}

/// Tests that have been begun; dropped, what runs of them ends.
pub struct Begun {
    beside: Option<Beside>,
}

impl Begun {
    /// Runs all of `tests`, or those whose names contain `filter`, whether or not some fail.
    ///
    /// # Errors
    /// If something cannot be run; not if a test fails.
    pub fn run(self, tests: &[TestProgram], filter: Option<&str>) -> Result<Summary> {
        let mut summary = Summary::default();
        let began = self.beside.is_some();
        if let Some(beside) = self.beside {
            summary += beside.end()?;
        }
        summary += run_all(tests, filter, began.then_some(LONG))?;
        Ok(summary)
    }
}

/// Prints what ran and what did not; the last line is the closing line. Fails if a test did.
pub fn conclude(summary: &Summary) -> Result<()> {
    println!("{}\n{summary}", summary.explain());
    if summary.failed > 0 {
        bail!("{} tests failed", summary.failed);
    }
    Ok(())
}

/// The second half, as root: runs what it is told, and says how that went in its closing line.
pub fn run_task(task: &str) -> Result<ExitCode> {
    let task: Task = serde_json::from_str(task).context("not a task")?;
    let mut summary = Summary::default();
    for test in &task.programs {
        summary += run_program(test, task.filter.as_deref(), None)?;
    }
    // Under sudo, files that tests leave belong to the user who asked for them.
    privileges::give_to_user(&programs::testnet_directory());
    println!("{summary}");
    Ok(ExitCode::SUCCESS)
}

fn run_all(tests: &[TestProgram], filter: Option<&str>, without: Option<&str>) -> Result<Summary> {
    let mut summary = Summary::default();
    let mut again = Vec::new();
    for test in tests {
        let outcome = run_program(test, filter, without)?;
        if outcome.needs_root() && !privileges::is_root() {
            again.push((test, outcome));
        } else {
            summary += outcome;
        }
    }
    if again.is_empty() {
        return Ok(summary);
    }
    if !privileges::can_ask() {
        if skip::is_required() {
            bail!("MIXLINE_REQUIRE_ROOT=1, but tests need root, and sudo is not to be had");
        }
        again
            .into_iter()
            .for_each(|(_, outcome)| summary += outcome);
        return Ok(summary);
    }
    println!("== these need root, asking sudo:");
    for (test, _) in &again {
        println!("   {}", test.name);
    }
    let task = Task {
        filter: filter.map(str::to_owned),
        programs: again.iter().map(|(test, _)| (*test).clone()).collect(),
    };
    let mut command = privileges::sudo(["run-tests", &serde_json::to_string(&task)?])?;
    let (ended, output) = watch(&mut command)?;
    match output.closing {
        Some(mut as_root) if ended => {
            as_root.failures = output.summary.failures;
            summary += as_root;
        }
        _ if skip::is_required() => bail!("running tests as root failed"),
        // Nobody gave a password, or it ended early: what they did as the user counts.
        _ => {
            println!("running them as root failed");
            again
                .into_iter()
                .for_each(|(_, outcome)| summary += outcome);
        }
    }
    Ok(summary)
}

/// Whether it is the program of the tests on networks of namespaces.
fn is_of_networks(test: &TestProgram) -> bool {
    test.name.contains("testnet") && test.name.contains("end_to_end")
}

/// What runs a test program.
fn command(test: &TestProgram) -> Command {
    let mut command = Command::new(&test.executable);
    command
        .current_dir(&test.directory)
        .env("CARGO_MANIFEST_DIR", &test.directory)
        // They run what was built before them, and build nothing.
        .env(programs::BUILT, "1")
        .envs(test.environment.iter().map(|(name, value)| (name, value)));
    command
}

/// Runs a test program; that of the networks without the test of this name.
fn run_program(test: &TestProgram, filter: Option<&str>, without: Option<&str>) -> Result<Summary> {
    if !is_of_networks(test) {
        run_one(test, filter, &[])
    } else if filter.is_none() && privileges::is_root() {
        run_networks(test, without)
    } else {
        run_one(test, filter, without.as_slice())
    }
}

/// Where the network of the tests that run apart from the others keeps its files.
pub fn files_apart() -> PathBuf {
    programs::testnet_directory().with_extension("apart")
}

/// Runs the tests on networks, on two at a time.
fn run_networks(test: &TestProgram, without: Option<&str>) -> Result<Summary> {
    let directory = files_apart();
    let mut command = command_apart(test);
    let _ground = apart::Ground::prepare(&mut command, &directory)?;
    let files = directory.clone();
    let clean_up = move || Ok(network::clean_up_apart(&files)?);
    let apart = Beside::start("networks apart", &command, clean_up)?;
    let summary = run_rest(test, without, apart)?;
    privileges::give_to_user(&directory);
    Ok(summary)
}

/// What runs those tests of a program that run apart.
fn command_apart(test: &TestProgram) -> Command {
    let mut command = command(test);
    apart::only(&mut command, &APART);
    command
}

/// Runs the rest of a program's tests, and waits for those that run `apart`.
fn run_rest(test: &TestProgram, without: Option<&str>, apart: Beside) -> Result<Summary> {
    let without: Vec<&str> = without.into_iter().chain(APART).collect();
    let mut summary = run_one(test, None, &without)?;
    summary += apart.end()?;
    Ok(summary)
}

/// Runs a test program, but for the tests whose names contain one of `without`.
fn run_one(test: &TestProgram, filter: Option<&str>, without: &[&str]) -> Result<Summary> {
    println!("== {}", test.name);
    let mut command = command(test);
    command.args(filter);
    for without in without {
        command.args(["--skip", without]);
    }
    if !privileges::is_root() {
        // What needs root is asked for it before it fails.
        command.env_remove("MIXLINE_REQUIRE_ROOT");
    }
    let (succeeded, output) = watch(&mut command).with_context(|| test.name.clone())?;
    // Others run several at a time.
    if is_of_networks(test) {
        print!("the slowest tests\n{}", output.slowest);
    }
    let mut summary = output.summary.finished();
    if !succeeded && summary.failed == 0 {
        println!("{} ended before its tests did", test.name);
        summary.failed += 1;
    }
    Ok(summary)
}

/// Tests in documentation: compiled and run by rustdoc, never as root.
///
/// # Errors
/// If rustdoc cannot be run; not if a test fails.
pub fn documentation(filter: Option<&str>) -> Result<Summary> {
    println!("== examples in the documentation");
    let mut command = programs::cargo();
    command
        .args(["test", "--doc", "--quiet", "--no-fail-fast"])
        .args(workspaces::ALL[0].features);
    if let Some(filter) = filter {
        command.args(["--", filter]);
    }
    let (succeeded, output) = watch(&mut command)?;
    let mut summary = output.summary.finished();
    if !succeeded && summary.failed == 0 {
        summary.failed += 1;
    }
    Ok(summary)
}

/// Builds the test programs of a workspace, or those that `which` tells cargo.
fn build(workspace: &Workspace, which: &[&str]) -> Result<Vec<TestProgram>> {
    let mut command = workspace.cargo(&["test", "--no-run", "--locked"]);
    command
        .args(workspace.features)
        .args(which)
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    let child = command.spawn().context("running cargo test")?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("the tests of {} do not compile", workspace.manifest);
    }
    let mut environment = Vec::new();
    // The tests of the XDP program run it in the kernel, as it was built for the relay.
    if workspace.manifest.starts_with("relay-ebpf") {
        match programs::xdp_program() {
            Some(program) => environment.push((
                "MIXLINE_XDP_OBJECT".to_owned(),
                program.to_string_lossy().into_owned(),
            )),
            None => println!("no XDP program was built: its tests in the kernel cannot run"),
        }
    }
    let mut tests = test_programs(&String::from_utf8_lossy(&output.stdout));
    for test in &mut tests {
        test.environment.clone_from(&environment);
    }
    Ok(tests)
}

/// A message of cargo's (The Cargo Book, External Tools), as far as it is about a test program.
#[derive(Deserialize)]
struct Artifact {
    manifest_path: PathBuf,
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// The test programs among cargo's messages, one a line.
fn test_programs(messages: &str) -> Vec<TestProgram> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok())
        .filter(|artifact| artifact.profile.test)
        .filter_map(|artifact| {
            let directory = artifact.manifest_path.parent()?.to_path_buf();
            let package = directory
                .strip_prefix(programs::root())
                .unwrap_or(&directory);
            Some(TestProgram {
                name: format!(
                    "{}: {} {}",
                    package.display(),
                    artifact.target.kind.join(" "),
                    artifact.target.name
                ),
                executable: artifact.executable?,
                directory,
                environment: Vec::new(),
            })
        })
        .collect()
}

/// What was read off the output of a program.
#[derive(Debug, Default)]
struct Output {
    summary: Summary,
    /// The last closing line.
    closing: Option<Summary>,
    slowest: Slowest,
}

/// Runs a program, passes on what it prints as it comes, and reads it; also gives whether the
/// program succeeded.
fn watch(command: &mut Command) -> Result<(bool, Output)> {
    let mut child = command
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("running {}", command.get_program().to_string_lossy()))?;
    let output = Arc::new(Mutex::new(Output::default()));
    let readers = readers(&mut child, &output);
    let succeeded = child.wait()?.success();
    let until = Instant::now() + LAST_OUTPUT;
    while !readers.iter().all(JoinHandle::is_finished) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = std::mem::take(&mut *output.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((succeeded, output))
}

fn readers(child: &mut Child, output: &Arc<Mutex<Output>>) -> Vec<JoinHandle<()>> {
    let mut readers = Vec::new();
    if let Some(from) = child.stdout.take() {
        let output = Arc::clone(output);
        readers.push(std::thread::spawn(move || {
            pass_on(from, std::io::stdout(), &output);
        }));
    }
    if let Some(from) = child.stderr.take() {
        let output = Arc::clone(output);
        readers.push(std::thread::spawn(move || {
            pass_on(from, std::io::stderr(), &output);
        }));
    }
    readers
}

/// Passes bytes on at once, so that a test's name is seen while it runs, and reads the lines.
fn pass_on(mut from: impl Read, mut to: impl Write, output: &Mutex<Output>) {
    let mut block = [0; 8192];
    let mut line = Vec::new();
    while let Ok(count @ 1..) = from.read(&mut block) {
        let _ = to.write_all(&block[..count]).and_then(|()| to.flush());
        for byte in &block[..count] {
            if *byte != b'\n' {
                line.push(*byte);
                continue;
            }
            let text = String::from_utf8_lossy(&line);
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            output.summary.read(&text);
            output.slowest.read(&text, Instant::now());
            output.closing = Summary::parse(&text).or(output.closing.take());
            drop(output);
            line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives at most seven bytes at a time.
    struct Pieces<'a>(&'a [u8]);

    impl Read for Pieces<'_> {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let most = to.len().min(7);
            self.0.read(&mut to[..most])
        }
    }

    #[test]
    fn what_seals_datagrams_is_tested_with_each_of_the_processors_instructions() {
        let test = |name: &str| TestProgram {
            name: name.to_owned(),
            executable: PathBuf::new(),
            directory: PathBuf::new(),
            environment: Vec::new(),
        };
        let all: Vec<_> = OF_DATAGRAMS.iter().map(|name| test(name)).collect();
        let more = in_other_widths(&[all, vec![test("crates/udp: lib mixline_udp")]].concat());
        let widths = Width::available().count();
        assert_eq!(more.len(), (widths - 1) * OF_DATAGRAMS.len());
        if Width::current().name() != "scalar" {
            let scalar = more
                .iter()
                .filter(|test| test.name.ends_with(" with scalar"));
            assert_eq!(scalar.count(), OF_DATAGRAMS.len());
        }
    }

    #[test]
    fn test_programs_are_found_among_the_messages_of_cargo() {
        let root = programs::root();
        let manifest = root.join("crates/udp/Cargo.toml");
        let manifest = manifest.display();
        let artifact = |kind: &str, name: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"{manifest}","target":{{"name":"{name}","kind":["{kind}"]}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let messages = [
            r#"{"reason":"build-script-executed","package_id":"x"}"#.to_owned(),
            artifact("lib", "mixline_udp", false, "null"),
            artifact(
                "lib",
                "mixline_udp",
                true,
                "\"/t/debug/deps/mixline_udp-1\"",
            ),
            artifact("test", "loopback", true, "\"/t/debug/deps/loopback-2\""),
            artifact("bin", "program", false, "\"/t/debug/program\""),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ];
        let tests = test_programs(&messages.join("\n"));
        let names: Vec<_> = tests.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(
            names,
            ["crates/udp: lib mixline_udp", "crates/udp: test loopback"]
        );
        assert_eq!(tests[1].directory, root.join("crates/udp"));
        assert_eq!(
            tests[1].executable,
            PathBuf::from("/t/debug/deps/loopback-2")
        );
    }

    #[test]
    fn output_is_read_however_it_comes_and_passed_on_as_it_is() {
        let printed = "skipped: needs root\ntest result: ok. 3 passed; 0 failed; 0 ignored\n\
                       1 passed, 2 failed, 3 skipped\nnot a line";
        let output = Mutex::new(Output::default());
        let mut passed_on = Vec::new();
        // In pieces that are no lines.
        pass_on(Pieces(printed.as_bytes()), &mut passed_on, &output);
        let output = output.into_inner().unwrap();
        let summary = output.summary.finished();
        assert_eq!(summary.to_string(), "2 passed, 0 failed, 1 skipped");
        let closing = output.closing.unwrap();
        assert_eq!(closing.to_string(), "1 passed, 2 failed, 3 skipped");
        assert_eq!(passed_on, printed.as_bytes());
    }

    #[test]
    fn what_fails_apart_fails_with_the_rest() {
        // The rest prints nothing: what this test prints is counted by the program that runs it.
        let directory = tempfile::tempdir().unwrap();
        let [text, executable] = ["text", "program"].map(|name| directory.path().join(name));
        let fails = "test result: FAILED. 2 passed; 1 failed; 0 ignored";
        let apart = format!("[ \"$MIXLINE_TESTNET_ONLY\" ] && echo '{fails}' && exit 101");
        std::fs::write(&text, format!("#!/bin/sh\n{apart}\nexit 0\n")).unwrap();
        // The kernel runs no file that somebody still writes, as another test's child may what this one writes.
        let mut install = Command::new("install");
        install.arg("--mode=755").arg(text).arg(&executable);
        run::finish(&mut install).unwrap();
        let test = TestProgram {
            name: "script".into(),
            executable,
            directory: "/".into(),
            environment: Vec::new(),
        };
        let apart = Beside::start("a test of lanes", &command_apart(&test), || Ok(())).unwrap();
        let summary = run_rest(&test, None, apart).unwrap();
        assert_eq!(summary.to_string(), "2 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn a_program_that_dies_has_failed_and_one_that_leaves_something_behind_is_not_waited_for() {
        // Nothing is printed: what this test prints is counted by the program that runs it.
        let directory = tempfile::tempdir().unwrap();
        let run = |text: &str| {
            let script = directory.path().join("script");
            std::fs::write(&script, text).unwrap();
            let test = TestProgram {
                name: "script".into(),
                executable: "/bin/sh".into(),
                directory: "/".into(),
                environment: Vec::new(),
            };
            run_one(&test, script.to_str(), &[]).unwrap().to_string()
        };
        assert_eq!(run("exit 0"), "0 passed, 0 failed, 0 skipped");
        assert_eq!(run("exit 101"), "0 passed, 1 failed, 0 skipped");
        assert_eq!(run("kill -9 $$"), "0 passed, 1 failed, 0 skipped");
        let began = Instant::now();
        assert_eq!(run("sleep 20 &"), "0 passed, 0 failed, 0 skipped");
        assert!(began.elapsed() < Duration::from_secs(15));
    }
}
