//! Debian's packages, by apt, with sources, lists and a state of their own: what a test machine needs
//! may be of another suite than the host, and the host's apt is not to know.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::run::{program, read, said, write};
use crate::{Error, Result};

/// Lists older than this are fetched anew.
const LISTS_LIFE: Duration = Duration::from_secs(12 * 3600);
/// What signs Debian's archives.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A view of the archive that the host has its packages from.
#[derive(Debug, Clone)]
pub struct Archive {
    directory: PathBuf,
    /// Where packages are.
    uri: String,
    /// Where security updates are.
    security: Option<String>,
    /// The host's own suite, by its code name.
    suite: String,
}

impl Archive {
    /// The archive of the host's apt sources, with lists in `directory`.
    ///
    /// # Errors
    /// [`Error::NoArchive`] on a system that is not Debian's; if the lists cannot be fetched.
    pub fn open(directory: &Path) -> Result<Self> {
        let targets = said(program("apt-get").args([
            "indextargets",
            "--format",
            "$(ORIGIN)|$(LABEL)|$(CODENAME)|$(REPO_URI)",
            "Created-By: Packages",
        ]))?;
        let targets = String::from_utf8_lossy(&targets).into_owned();
        let find = |label: &str| {
            targets.lines().find_map(|line| {
                let fields: Vec<&str> = line.split('|').collect();
                match *fields.as_slice() {
                    ["Debian", is, codename, uri] if is == label => {
                        Some((codename.to_owned(), uri.trim_end_matches('/').to_owned()))
                    }
                    _ => None,
                }
            })
        };
        let (codename, uri) = find("Debian").ok_or(Error::NoArchive)?;
        let suite = codename.split('-').next().unwrap_or_default().to_owned();
        let this = Self {
            directory: directory.to_path_buf(),
            uri,
            security: find("Debian-Security").map(|(_, uri)| uri),
            suite,
        };
        this.set_up()?;
        Ok(this)
    }

    /// The code name of the host's own suite, such as `bookworm`. A machine of the same suite runs
    /// what was compiled on the host.
    #[must_use]
    pub fn suite(&self) -> &str {
        &self.suite
    }

    /// Lines for a `sources.list` of one suite: its packages and their security updates.
    #[must_use]
    pub fn sources(&self, suite: &str) -> Vec<String> {
        let signed = format!("deb [signed-by={KEYRING}]");
        let mut lines = vec![format!("{signed} {} {suite} main", self.uri)];
        if let Some(security) = &self.security {
            lines.push(format!("{signed} {security} {suite}-security main"));
        }
        lines
    }

    fn set_up(&self) -> Result<()> {
        for part in ["state/lists/partial", "cache/archives/partial"] {
            let path = self.directory.join(part);
            fs::create_dir_all(&path).map_err(Error::file("making", path))?;
        }
        let mut sources = self.sources(&self.suite);
        for backports in [
            format!("{}-backports", self.suite),
            "trixie-backports".into(),
        ] {
            sources.push(format!(
                "deb [signed-by={KEYRING}] {} {backports} main",
                self.uri
            ));
        }
        sources.dedup();
        write(
            &self.directory.join("sources.list"),
            sources.join("\n") + "\n",
        )?;
        write(&self.directory.join("status"), "")?;
        for (file, status) in [
            ("apt.conf", self.directory.join("status")),
            ("host.conf", PathBuf::from("/var/lib/dpkg/status")),
        ] {
            let text = format!(
                "Dir::State \"{0}/state\";\nDir::State::status \"{1}\";\nDir::Cache \"{0}/cache\";\n\
                 Dir::Etc::sourcelist \"{0}/sources.list\";\nDir::Etc::sourceparts \"/dev/null\";\n\
                 APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n",
                self.directory.display(),
                status.display()
            );
            write(&self.directory.join(file), text)?;
        }
        let stamp = self.directory.join("fetched");
        let same = read(&stamp).is_ok_and(|of| of == sources.join("\n"));
        let fresh = same
            && fs::metadata(&stamp)
                .and_then(|metadata| metadata.modified())
                .ok()
                .and_then(|at| SystemTime::now().duration_since(at).ok())
                .is_some_and(|age| age < LISTS_LIFE);
        if !fresh {
            // A list that cannot be fetched is an error, not a warning.
            said(
                self.apt("apt-get")
                    .args(["-q", "-oAPT::Update::Error-Mode=any", "update"]),
            )?;
            write(&stamp, sources.join("\n"))?;
        }
        Ok(())
    }

    /// A program of apt's, on this archive and an empty system.
    pub(crate) fn apt(&self, name: &str) -> Command {
        let mut command = program(name);
        command.env("APT_CONFIG", self.directory.join("apt.conf"));
        command
    }

    /// The newest version of a package in a suite.
    ///
    /// # Errors
    /// [`Error::NoPackage`].
    pub fn newest(&self, package: &str, suite: &str) -> Result<String> {
        let table = said(self.apt("apt-cache").args(["madison", package]))?;
        let table = String::from_utf8_lossy(&table).into_owned();
        let wanted = format!(" {suite}/main ");
        table
            .lines()
            .filter(|line| line.contains(&wanted))
            .find_map(|line| Some(line.split('|').nth(1)?.trim().to_owned()))
            .ok_or_else(|| Error::NoPackage {
                package: package.into(),
                suite: suite.into(),
            })
    }

    /// Fetches packages (`name=version` or `name/suite`) into a directory.
    ///
    /// # Errors
    /// If one of them is not to be had.
    pub fn download(&self, packages: &[String], to: &Path) -> Result<()> {
        fs::create_dir_all(to).map_err(Error::file("making", to))?;
        said(
            self.apt("apt-get")
                .args(["-q", "download"])
                .args(packages)
                .current_dir(to),
        )
        .map(drop)
    }

    /// Installs packages on the host, from its own suite or, where that is newer, from the suite's
    /// backports.
    ///
    /// # Errors
    /// If apt refuses.
    pub fn install_on_host(&self, packages: &[&str], backports: bool) -> Result<()> {
        let mut command = program("apt-get");
        command
            .env("APT_CONFIG", self.directory.join("host.conf"))
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "--yes", "--quiet=2", "-oDpkg::Use-Pty=0"])
            .arg("--no-install-recommends");
        if backports {
            command.arg(format!("--target-release={}-backports", self.suite));
        }
        said(command.args(packages)).map(drop)
    }
}
