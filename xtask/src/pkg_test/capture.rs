//! Nothing of ours leaves the container, while programs in it try all the time.
//!
//! What leaves is captured twice: at the other end of its wire, from before it boots, and on all its
//! interfaces, since the tests make more wires in it. A capture that ends, or loses packets, has
//! shown nothing, and fails.

use super::attempts;
use super::checks::Checks;
use super::leaks::{self, Leak};
use anyhow::{Context, Result, bail, ensure};
use mixline_machines::container::Container;
use mixline_testnet::pcap::has_all;
use mixline_testnet::programs::{find_tool, target_directory};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long tcpdump may take to begin and to end.
const TCPDUMP: Duration = Duration::from_secs(20);
/// What is looked into: all that may be a leak, less what relays and directory say to each other.
const FILTER: &str = "arp or icmp6 or net 10.0.0.0/8 or net fd00::/8 or \
    ((udp or tcp) and not port 7000 and not port 7001 and not (host 172.16.0.1 and port 8080))";
/// How many leaks are shown.
const SHOWN: usize = 12;

/// A capture that runs.
pub struct Capture {
    dumps: Vec<Dump>,
}

impl Capture {
    /// Captures on the wire and inside.
    pub fn start(container: &Container) -> Result<Self> {
        let outside = Dump::start(&container.outside()?, "outside", "in")?;
        let inside = Dump::start(&container.network(), "inside", "out")?;
        Ok(Self {
            dumps: vec![outside, inside],
        })
    }

    /// Captures on the wire alone: it goes on when the container boots again.
    pub fn on_the_wire(container: &Container) -> Result<Self> {
        let outside = Dump::start(&container.outside()?, "wire", "in")?;
        Ok(Self {
            dumps: vec![outside],
        })
    }

    /// Ends it; gives what left. Networks that others have inside the virtual one are named by their second
    /// octet.
    pub fn leaks(self, neighbourhoods: &[u8]) -> Result<Vec<Leak>> {
        // What has crossed the wires has yet to be written.
        thread::sleep(Duration::from_millis(500));
        let mut all = Vec::new();
        for dump in self.dumps {
            let place = dump.place;
            let found = leaks::find(&dump.end()?, neighbourhoods);
            all.extend(found.with_context(|| format!("what was captured {place}"))?);
        }
        Ok(all)
    }

    /// Ends it, and fails if something left.
    pub fn end(self, neighbourhoods: &[u8]) -> Result<()> {
        let leaks = self.leaks(neighbourhoods)?;
        if leaks.is_empty() {
            return Ok(());
        }
        let shown: Vec<String> = leaks.iter().take(SHOWN).map(Leak::to_string).collect();
        bail!("{} left; the first: {}", leaks.len(), shown.join("; "))
    }
}

/// Runs checks while programs try and nothing may leave; a last check says whether something did.
pub fn around(
    checks: &mut Checks,
    container: &mut Container,
    what: &str,
    neighbourhoods: &[u8],
    work: impl FnOnce(&mut Checks, &mut Container),
) {
    let started = Capture::start(container).and_then(|capture| {
        attempts::start(container)?;
        Ok(capture)
    });
    work(checks, container);
    checks.check(&format!("{what}: nothing of ours left the host"), || {
        let tried = attempts::end(container);
        started?.end(neighbourhoods)?;
        tried
    });
}

/// tcpdump in one network namespace.
struct Dump {
    place: &'static str,
    tcpdump: Child,
    file: PathBuf,
    log: PathBuf,
}

impl Dump {
    fn start(namespace: &Path, place: &'static str, way: &str) -> Result<Self> {
        let directory = target_directory().join("machines/packages");
        let file = directory.join(format!("{place}.pcap"));
        let log = directory.join(format!("{place}.tcpdump.log"));
        let _ = fs::remove_file(&file);
        let mut net = std::ffi::OsString::from("--net=");
        net.push(namespace);
        let tcpdump = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "nsenter"])
            .arg(net)
            .arg(find_tool("tcpdump")?)
            .args(["-i", "any", "-y", "LINUX_SLL2", "-Q", way])
            .args(["--immediate-mode", "-n", "-U", "-Zroot"])
            // Each frame has the place of a longest one: 8192 of them.
            .args(["-s8192", "-B65536"])
            .arg("-w")
            .arg(&file)
            .arg(FILTER)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).context("making a log of tcpdump")?)
            .spawn()
            .context("running tcpdump")?;
        let mut dump = Self {
            place,
            tcpdump,
            file,
            log,
        };
        let end = Instant::now() + TCPDUMP;
        // It writes the file's header once it listens.
        while fs::metadata(&dump.file).map_or(0, |file| file.len()) < 24 {
            dump.check_running()?;
            ensure!(Instant::now() < end, "tcpdump does not begin");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(dump)
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn check_running(&mut self) -> Result<()> {
        match self.tcpdump.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the capture {}: {status}: {}", self.place, self.said()),
        }
    }

    /// Ends it, and gives the bytes of its file.
    fn end(mut self) -> Result<Vec<u8>> {
        // One that ended before has missed what came later.
        self.check_running()?;
        kill(
            Pid::from_raw(self.tcpdump.id().cast_signed()),
            Signal::SIGINT,
        )?;
        let end = Instant::now() + TCPDUMP;
        let status = loop {
            if let Some(status) = self.tcpdump.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < end, "tcpdump does not end");
            thread::sleep(Duration::from_millis(20));
        };
        let said = self.said();
        ensure!(
            status.success() && has_all(&said),
            "the capture {}: {status}: {said}",
            self.place
        );
        fs::read(&self.file).context("reading a capture")
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}
