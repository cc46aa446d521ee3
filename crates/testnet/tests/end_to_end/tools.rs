//! What the tests share: programs run inside namespaces within bounds, and checks.

use anyhow::{Context, Result, bail, ensure};
use mixline_testnet::netns::{self, Namespace};
use mixline_testnet::process::POLL;
use mixline_testnet::topology::Node;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// `freespeech.anon`.
pub const HOST: &str = "freespeech.anon";

/// A command in the client's namespace that is killed after `seconds`: generous, since a test
/// machine may be busy; nothing that works takes nearly as long.
pub fn on_client(seconds: u32, program: impl AsRef<OsStr>) -> Command {
    on(Node::Client, seconds, program)
}

/// A command in a node's namespace that is killed after `seconds`.
pub fn on(node: Node, seconds: u32, program: impl AsRef<OsStr>) -> Command {
    let mut command = netns::command(&node.namespace(), "timeout");
    command
        .args(["--kill-after=2", &seconds.to_string()])
        .arg(program)
        .stdin(Stdio::null());
    command
}

/// Runs a command that has to succeed; gives its standard output.
pub fn succeed(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command
        .output()
        .with_context(|| format!("running {line}"))?;
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{line}: {}\n{out}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(out)
}

/// Runs a command that may fail.
pub fn output(command: &mut Command) -> Result<Output> {
    let line = line(command);
    command.output().with_context(|| format!("running {line}"))
}

/// Polls until `look` holds.
pub fn eventually(what: &str, seconds: u64, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !look()? {
        if Instant::now() >= deadline {
            bail!("{what}: not within {seconds} s");
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// The length of a file that may not be there yet.
pub fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Settings of the kernel on the client's host, which are as before once the value goes.
pub struct Settings(Vec<String>);

impl Settings {
    /// Sets them, each as `sysctl` takes it: a name, `=`, and a value.
    pub fn set(assignments: &[&str]) -> Result<Self> {
        let mut before = Self(Vec::new());
        for assignment in assignments {
            let (name, _) = assignment.split_once('=').context("no value")?;
            let is = succeed(on_client(10, "sysctl").args(["-n", name]))?;
            before.0.push(format!("{name}={}", is.trim()));
            succeed(on_client(10, "sysctl").args(["-qw", assignment]))?;
        }
        Ok(before)
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        for assignment in self.0.iter().rev() {
            let _ = output(on_client(10, "sysctl").args(["-qw", assignment]));
        }
    }
}

fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A web server with one sentence, inside a namespace that ends with it.
pub struct OnePage {
    stopped: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl OnePage {
    /// Serves at port 80 of an address of a namespace.
    pub fn serve(namespace: &str, address: &str, sentence: &'static str) -> Result<Self> {
        let listen = || -> std::io::Result<TcpListener> {
            let listener = TcpListener::bind((address, 80))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = Namespace::named(namespace)?.run(listen)??;
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let answer = move |mut asker: TcpStream| -> std::io::Result<()> {
            asker.set_nonblocking(false)?;
            asker.set_read_timeout(Some(Duration::from_secs(5)))?;
            // All of a short question is in the first segment.
            let _ = asker.read(&mut [0; 1024])?;
            let length = sentence.len();
            asker.write_all(
                format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{sentence}"
                )
                .as_bytes(),
            )
        };
        let server = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let Ok((asker, _)) = listener.accept() {
                    // One that goes away early is its own affair.
                    let _ = answer(asker);
                } else {
                    std::thread::sleep(POLL);
                }
            }
        });
        Ok(Self {
            stopped,
            server: Some(server),
        })
    }
}

impl Drop for OnePage {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}
