//! Tor beside Mixline: an onion service on a private network of Tor, all of it on this machine, in
//! a namespace of its own that leads nowhere.
//!
//! One directory authority, eight relays, an onion service (version 3) in front of the same web
//! server and files as Mixline's service, and a client with a SOCKS port: Debian's `tor`, with the
//! defaults of its source code but for what `TestingTorNetwork` sets. A circuit to an onion service
//! has six relays, three that each side chose, as a path of Mixline has. Nothing of it is
//! installed as a service, and all of it ends with this process.

mod config;
mod rounds;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mixline_testnet::fetch::{Fetched, fetch};
use mixline_testnet::namespaces::{self, BESIDE};
use mixline_testnet::netns;
use mixline_testnet::process::{Process, Program, tail, wait_for};
use mixline_testnet::web::Site;

use config::{Authority, CERTIFICATE_PORT, Role};

pub use rounds::{OverTor, Plan, Sizes};

/// How long it may take from the start until the client gets a page of the onion service.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long one page may take while the network comes up, in seconds.
const PAGE_SECONDS: &str = "5";

/// A private network of Tor that runs. Dropping it ends it.
pub struct TorNetwork {
    /// Its name and version.
    pub version: String,
    /// From the first process to the first page, in seconds.
    pub took_s: f64,
    /// The onion service's name.
    onion: String,
    directory: PathBuf,
    processes: Vec<Process>,
}

/// What of Debian's package is not there, if something is not.
#[must_use]
pub fn missing() -> Option<&'static str> {
    let there = |program: &&str| {
        std::env::split_paths(&netns::system_path()).any(|path| path.join(program).is_file())
    };
    ["tor", "tor-gencert"]
        .into_iter()
        .find(|program| !there(program))
}

impl TorNetwork {
    /// Starts it, with its files in a directory that is made anew, and waits until the client gets
    /// the site's page from the onion service.
    ///
    /// # Errors
    /// If a program does not run, or that takes more than [`PATIENCE`].
    pub fn up(site: &Site, directory: &Path) -> Result<Self> {
        let version = netns::said(netns::tool("tor").arg("--version"))?;
        let version = version.lines().next().unwrap_or_default();
        // What a killed run left behind.
        namespaces::remove_one(BESIDE)?;
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        namespaces::create_lonely(BESIDE)?;
        let mut network = Self {
            version: version
                .replace(" version ", " ")
                .trim_end_matches('.')
                .to_owned(),
            took_s: 0.0,
            onion: String::new(),
            directory: directory.to_owned(),
            processes: Vec::new(),
        };
        network.bring_up(site)?;
        Ok(network)
    }

    fn bring_up(&mut self, site: &Site) -> Result<()> {
        for role in Role::all() {
            // Tor refuses a directory that others can read.
            make_private(&role.directory(&self.directory))?;
        }
        for of_web_server in ["configs", "logs"] {
            fs::create_dir_all(self.directory.join(of_web_server))?;
        }
        fs::write(self.no_defaults(), "")?;
        let web = site.serve_in(BESIDE, &self.directory, &[config::HERE.into()])?;
        self.processes.push(web);
        let authority = self.make_authority()?;
        let began = Instant::now();
        for role in Role::all() {
            let torrc = self.directory.join(format!("{role}.torrc"));
            fs::write(&torrc, config::torrc(role, &authority, &self.directory))?;
            let tor = Program {
                namespace: BESIDE.into(),
                executable: "tor".into(),
                arguments: vec![
                    "--defaults-torrc".into(),
                    self.no_defaults().into(),
                    "-f".into(),
                    torrc.into(),
                ],
                environment: Vec::new(),
                log: self.log(role),
            };
            self.processes.push(tor.start()?);
        }
        self.wait_for_page()?;
        self.took_s = began.elapsed().as_secs_f64();
        Ok(())
    }

    /// Makes the authority's keys.
    fn make_authority(&self) -> Result<Authority> {
        let directory = Role::Authority.directory(&self.directory);
        let keys = directory.join("keys");
        make_private(&keys)?;
        let mut made = netns::tool("tor-gencert")
            .args(["--create-identity-key", "--passphrase-fd", "0", "-m", "1"])
            .args(["-a", &format!("{}:{CERTIFICATE_PORT}", config::HERE)])
            .current_dir(&keys)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("running tor-gencert")?;
        // The key is worth nothing, so the word that it is encrypted with is no secret.
        let mut input = made.stdin.take().context("no input")?;
        input.write_all(b"passphrase\n")?;
        drop(input);
        let status = made.wait()?;
        ensure!(status.success(), "tor-gencert: {status}");
        let certificate = fs::read_to_string(keys.join("authority_certificate"))?;
        netns::said(
            netns::tool("tor")
                .arg("--defaults-torrc")
                .arg(self.no_defaults())
                .arg("-f")
                .arg(self.no_defaults())
                .args(["--list-fingerprint", "--quiet", "--orport", "1"])
                // It does not start as an authority without one being named.
                .args(["--dirauthority", &config::nobody()])
                .args(["--nickname", &Role::Authority.to_string()])
                .arg("--datadirectory")
                .arg(&directory),
        )?;
        let identity = fs::read_to_string(directory.join("fingerprint"))?;
        Authority::read(&certificate, &identity).context("the authority's keys")
    }

    fn wait_for_page(&mut self) -> Result<()> {
        let hostname = config::onion_service(&self.directory).join("hostname");
        let page = self.directory.join("page");
        let came = wait_for("a page of the onion service", PATIENCE, || {
            for process in &mut self.processes {
                process.check_running()?;
            }
            let Ok(onion) = fs::read_to_string(&hostname) else {
                return Ok(None);
            };
            self.onion = onion.trim().to_owned();
            let fetched = self.fetch("", &page, &["--max-time", PAGE_SECONDS]);
            anyhow::Ok(fetched.ok().map(drop))
        });
        came.with_context(|| {
            let log = tail(&self.log(Role::Client), 1);
            format!("Tor's client has come as far as this: {log}")
        })
    }

    /// Fetches a file of the site from the onion service, with further options for curl.
    ///
    /// # Errors
    /// If it does not arrive.
    pub fn fetch(&self, name: &str, to: &Path, options: &[&str]) -> Result<Fetched> {
        let socks = format!("{}:{}", config::HERE, config::SOCKS_PORT);
        let mut all = vec!["--socks5-hostname", &socks];
        all.extend(options);
        let url = format!("http://{}/{name}", self.onion);
        Ok(fetch(BESIDE, &url, to, &all)?)
    }

    /// An empty configuration, in place of that of the host.
    fn no_defaults(&self) -> PathBuf {
        self.directory.join("empty.torrc")
    }

    fn log(&self, role: Role) -> PathBuf {
        self.directory.join(format!("logs/{role}.log"))
    }
}

impl Drop for TorNetwork {
    fn drop(&mut self) {
        self.processes.clear();
        let _ = namespaces::remove_one(BESIDE);
    }
}

/// Makes a directory that only its owner can read.
fn make_private(directory: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.with_context(|| format!("making {}", directory.display()))
}

/// Brings Tor up and compares, if it is there; otherwise gives the reason why not.
///
/// # Errors
/// Of Mixline, and when interrupted. What goes wrong with Tor is a reason.
pub fn compare(
    mixline: &mixline_testnet::Network,
    plan: &Plan,
) -> Result<std::result::Result<OverTor, String>> {
    if let Some(program) = missing() {
        return Ok(Err(format!(
            "there is no `{program}` here; `cargo xtask setup --benchmarks` brings it"
        )));
    }
    eprintln!("path: Tor's network comes up, which takes some 20 to 60 s");
    let site = mixline.site()?;
    let tor = match TorNetwork::up(site, &mixline.directory().join("tor")) {
        Ok(tor) => tor,
        Err(_) if mixline_testnet::interrupted() => bail!("interrupted"),
        Err(error) => return Ok(Err(format!("{error:#}"))),
    };
    eprintln!("path: {} is up after {:.0} s", tor.version, tor.took_s);
    rounds::run(mixline, &tor, plan)
}
