//! `up --detach`: the client in the background, and the process that waits for it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mixline_daemon::terminal::say;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::progress::{FAILED, READY};

/// The log of a client in the background, in its state directory.
pub const LOG: &str = "client.log";
/// A log longer than this is renamed when a client starts, bytes.
const LOG_LIMIT: u64 = 1 << 20;
/// How long a client that was not ready in time has for its clean stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Starts `mixline-client up` in the background and waits until it is ready. What it does
/// meanwhile goes to standard error.
///
/// # Errors
/// [`Error::BackgroundFailed`] with the client's last line if it failed,
/// [`Error::BackgroundLate`] with the step that delayed it if it was not ready in time. Nothing
/// is left running then.
pub fn start(config: &Path, state_dir: &Path, wait: Duration) -> Result<()> {
    let log = open_log(state_dir)?;
    let program = std::env::current_exe().map_err(Error::Background)?;
    let mut child = Command::new(program)
        .args(["up", "--detached", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(Error::Background)?;
    match follow(&mut child, Instant::now() + wait) {
        Outcome::Ready => Ok(()),
        Outcome::Failed(why) => {
            let _ = child.wait();
            Err(Error::BackgroundFailed(why))
        }
        Outcome::Late(step) => {
            stop(&mut child);
            Err(Error::BackgroundLate {
                seconds: wait.as_secs(),
                step,
            })
        }
    }
}

/// How the start of the client in the background went.
enum Outcome {
    Ready,
    Failed(String),
    Late(Option<String>),
}

/// Passes on what the child says, until it says how the start went.
fn follow(child: &mut Child, deadline: Instant) -> Outcome {
    let (lines, told) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        // Ends with the pipe, or with this process.
        std::thread::spawn(move || {
            for line in BufReader::new(output)
                .lines()
                .map_while(std::io::Result::ok)
            {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
    }
    let mut last = None;
    loop {
        match told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line == READY => return Outcome::Ready,
            Ok(line) => {
                if let Some(why) = line.strip_prefix(FAILED) {
                    return Outcome::Failed(why.to_owned());
                }
                say(&format!("mixline-client: {line}"));
                last = Some(line);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => return Outcome::Late(last),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Outcome::Failed("the client stopped before it was ready".to_owned());
            }
        }
    }
}

fn stop(child: &mut Child) {
    let pid = i32::try_from(child.id()).map(Pid::from_raw);
    let asked = pid.is_ok_and(|pid| kill(pid, Signal::SIGTERM).is_ok());
    let until = Instant::now() + STOP_TIMEOUT;
    while asked && Instant::now() < until {
        if child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn open_log(state_dir: &Path) -> Result<File> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir)
        .map_err(Error::file("create", state_dir))?;
    let path: PathBuf = state_dir.join(LOG);
    if std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_LIMIT) {
        let aside = state_dir.join(format!("{LOG}.1"));
        std::fs::rename(&path, aside).map_err(Error::file("put aside", &path))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(Error::file("open", &path))
}
