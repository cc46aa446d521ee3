//! The processes in the namespaces, as the benchmark talks to them: a line in, a line out.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mixline_testnet::guests::{ATTACKERS, NEWCOMERS};
use mixline_testnet::netns;
use serde::de::DeserializeOwned;

use super::kinds::Targets;
use super::tools::{Counted, Done};
use crate::cli::Attack;

/// A process in a namespace. Dropping it kills it.
struct Talker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Talker {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let mut talker = Self {
            child,
            input,
            output,
        };
        let said = talker.line()?;
        ensure!(said == "ready", "it is not ready: `{said}`");
        Ok(talker)
    }

    fn say(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("its input is closed")?;
        writeln!(input, "{line}")?;
        Ok(input.flush()?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "it has ended");
        Ok(line.trim_end().to_owned())
    }

    fn read<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("reading `{line}`"))
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An attacker that is prepared.
pub struct Attacker(Talker);

impl Attacker {
    /// Prepares an attack. It runs when nothing honest wants to: what it takes from the machine by
    /// being on it is no part of the attack.
    pub fn prepare(
        attack: Attack,
        targets: &Targets,
        network: (&str, &Path),
        at_most: Duration,
    ) -> Result<Self> {
        let own = std::env::current_exe().context("finding this program")?;
        let mut command = netns::command(ATTACKERS.namespace, "nice");
        command.args(["-n", "19"]).arg(own);
        command.args(attack.arguments(targets));
        command.args(["--seconds", &at_most.as_secs().to_string()]);
        if attack.knows_network() {
            let (directory, snapshot) = network;
            command.args(["--directory", directory, "--snapshot"]);
            command.arg(snapshot);
        }
        let talker = Talker::start(&mut command);
        Ok(Self(talker.with_context(|| attack.label())?))
    }

    /// Lets it begin.
    pub fn begin(&mut self) -> Result<()> {
        self.0.say("go")
    }

    /// Ends it; what it has done.
    pub fn end(mut self) -> Result<Done> {
        drop(self.0.input.take());
        self.0.read()
    }
}

/// The honest newcomers.
pub struct Newcomers(Talker);

impl Newcomers {
    /// Starts them: whoever asks has been there before when this returns.
    pub fn start(arguments: &[String]) -> Result<Self> {
        let own = std::env::current_exe().context("finding this program")?;
        let mut command = netns::command(NEWCOMERS.namespace, own);
        command.arg("newcomers").args(arguments);
        Ok(Self(Talker::start(&mut command).context("newcomers")?))
    }

    /// Lets them try for so long.
    pub fn begin(&mut self, time: Duration) -> Result<()> {
        self.0.say(&time.as_secs_f64().to_string())
    }

    /// What came of it, when the last has succeeded or given up.
    pub fn counted(&mut self) -> Result<Counted> {
        self.0.read().context("newcomers")
    }
}
