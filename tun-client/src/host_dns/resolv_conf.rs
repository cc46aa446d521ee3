//! `/etc/resolv.conf` while the client is up, and back.
//!
//! The file is written in place, so that it may be a symbolic link, or bind-mounted into
//! a network namespace, where a rename would hit the wrong file or none. What stood
//! there before is kept inside it (`Ours`). A copy is left in the state directory for a person,
//! should the disk have been full.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::ours::Ours;
use super::resolved::is_stub;
use super::settings::{servers, settings};
use super::{Earlier, failed};
use crate::error::Result;
use crate::state::State;

/// The copy in the state directory.
const COPY: &str = "resolv.conf.before";
/// The longest file that is taken: glibc reads 3 servers and 6 domains.
const MAX_FILE: usize = 64 * 1024;
/// The permissions of a file that was not there.
const MODE: u32 = 0o644;
/// The file that leads to systemd-resolved's stub; the one beside it names other servers.
const STUB_FILE: &str = "stub-resolv.conf";

/// One resolv.conf, seen from the client with one state directory.
#[derive(Debug)]
pub struct ResolvConf {
    path: PathBuf,
    state_dir: PathBuf,
}

impl ResolvConf {
    /// The file at `path`; nothing is touched.
    #[must_use]
    pub fn new(path: &Path, state_dir: &Path) -> Self {
        Self {
            path: path.to_owned(),
            state_dir: state_dir.to_owned(),
        }
    }

    /// Makes `resolver` the only name server. Search domains and options stay.
    ///
    /// # Errors
    /// [`crate::Error::HostDns`] if the file cannot be written, or is another client's.
    pub fn apply(&self, resolver: Ipv4Addr) -> Result<()> {
        let now = self.read()?;
        let before = match self.left(now.as_deref())? {
            Some(ours) => ours.before,
            None => now.clone(),
        };
        if let Some(before) = &before {
            // Only for a person to look at: its absence is no reason to stop.
            let copy = self.state_dir.join(COPY);
            if let Err(error) = std::fs::write(&copy, before) {
                tracing::debug!(%error, copy = %copy.display(), "no copy of resolv.conf");
            }
        }
        let wanted = Ours::written(before.as_deref(), &self.state_dir, resolver);
        if now.as_deref() == Some(&wanted) {
            return Ok(());
        }
        self.write(&wanted)
    }

    /// Puts the earlier file back if what is there is this client's; says whether it was.
    ///
    /// # Errors
    /// [`crate::Error::HostDns`] if it cannot be written.
    pub fn restore(&self) -> Result<bool> {
        match self.read()?.as_deref().and_then(Ours::parse) {
            Some(ours) if ours.state_dir == self.state_dir => self.put_back(ours.before),
            _ => Ok(false),
        }
    }

    /// Puts the earlier file back if whoever wrote it has stopped; says whether it was.
    ///
    /// # Errors
    /// [`crate::Error::HostDns`] if a running client of another state directory has it.
    pub fn recover(&self) -> Result<bool> {
        match self.left(self.read()?.as_deref())? {
            Some(ours) => self.put_back(ours.before),
            None => Ok(false),
        }
    }

    /// What this client, or one that has stopped, wrote.
    fn left(&self, now: Option<&[u8]>) -> Result<Option<Ours>> {
        match now.and_then(Ours::parse) {
            Some(ours) if ours.state_dir != self.state_dir && State::is_held(&ours.state_dir) => {
                Err(failed(format!(
                    "{} belongs to the running client with the state {}",
                    self.path.display(),
                    ours.state_dir.display()
                )))
            }
            left => Ok(left),
        }
    }

    /// Whether the file is as this client wrote it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        let bytes = self.read().ok().flatten();
        bytes
            .as_deref()
            .and_then(Ours::parse)
            .is_some_and(|ours| ours.state_dir == self.state_dir)
    }

    /// The servers and search domains that the file names.
    ///
    /// # Errors
    /// [`crate::Error::HostDns`] if it cannot be read.
    pub fn earlier(&self) -> Result<Earlier> {
        Ok(settings(self.read()?.as_deref().unwrap_or_default()))
    }

    /// Whether the file leads to systemd-resolved's stub, and to nobody else.
    #[must_use]
    pub fn names_resolved(&self) -> bool {
        match self.read() {
            Ok(Some(bytes)) => {
                let servers = servers(&bytes);
                !servers.is_empty() && servers.iter().all(|server| is_stub(server.address))
            }
            // It will be there once systemd-resolved is.
            Ok(None) => std::fs::read_link(&self.path)
                .is_ok_and(|target| target.file_name() == Some(STUB_FILE.as_ref())),
            Err(_) => false,
        }
    }

    fn put_back(&self, before: Option<Vec<u8>>) -> Result<bool> {
        match before {
            Some(before) => self.write(&before)?,
            None => {
                std::fs::remove_file(&self.path).map_err(|error| self.failed("remove", &error))?
            }
        }
        Ok(true)
    }

    fn read(&self) -> Result<Option<Vec<u8>>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("read", &error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.failed("read", &error))?;
        if bytes.len() > MAX_FILE {
            return Err(failed(format!(
                "{} is too long to be one",
                self.path.display()
            )));
        }
        Ok(Some(bytes))
    }

    /// Writes in place, then cuts off what is left of a longer file.
    fn write(&self, bytes: &[u8]) -> Result<()> {
        let write = || {
            let mut file = self.open()?;
            file.write_all(bytes)?;
            file.set_len(bytes.len() as u64)?;
            file.sync_all()
        };
        write().map_err(|error| self.failed("write", &error))
    }

    /// The file, to be written. One that was not there is made so that every program can read it, whatever
    /// the client's umask is; one that was keeps its permissions.
    fn open(&self) -> std::io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true);
        match options.open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // Not only if it is new: the path may be a link to a file that is not there.
                let file = options.create(true).truncate(false).open(&self.path)?;
                file.set_permissions(Permissions::from_mode(MODE))?;
                Ok(file)
            }
            opened => opened,
        }
    }

    fn failed(&self, action: &str, error: &std::io::Error) -> crate::Error {
        let hint = match error.kind() {
            // Who may do everything else, as root, is kept from it by an attribute of the file.
            std::io::ErrorKind::PermissionDenied if nix::unistd::geteuid().is_root() => {
                " (it may be immutable: `lsattr` says so, `chattr -i` ends it)"
            }
            std::io::ErrorKind::ReadOnlyFilesystem => " (it is mounted read-only)",
            _ => "",
        };
        failed(format!(
            "cannot {action} {}: {error}{hint}",
            self.path.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::super::settings::LOCALHOST;
    use super::super::upstream::Upstream;
    use super::*;

    const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 53);
    const BEFORE: &[u8] =
        b"# by hand\nsearch corp.example lan\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n\
          options edns0\n";

    struct Fixture {
        directory: tempfile::TempDir,
        state: tempfile::TempDir,
    }

    impl Fixture {
        fn new(before: Option<&[u8]>) -> Self {
            let fixture = Self {
                directory: tempfile::tempdir().unwrap(),
                state: tempfile::tempdir().unwrap(),
            };
            if let Some(before) = before {
                std::fs::write(fixture.path(), before).unwrap();
            }
            fixture
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("resolv.conf")
        }

        fn file(&self) -> ResolvConf {
            ResolvConf::new(&self.path(), self.state.path())
        }

        fn content(&self) -> Vec<u8> {
            std::fs::read(self.path()).unwrap()
        }
    }

    #[test]
    fn there_and_back() {
        for before in [
            BEFORE,
            b"",
            b"nameserver 192.0.2.1",
            b"\n\n",
            b"a\r\nb\xff\n",
            b"#mixline-was:x\n",
        ] {
            let fixture = Fixture::new(Some(before));
            let inode = std::fs::metadata(fixture.path()).unwrap().ino();
            fixture.file().apply(RESOLVER).unwrap();
            assert!(fixture.file().is_ours());
            let now = settings(&fixture.content());
            assert_eq!(now.servers, [Upstream::parse("10.0.0.53").unwrap()]);
            assert!(fixture.file().restore().unwrap());
            assert_eq!(fixture.content(), before);
            // In place: the same file, as a bind mount needs it.
            assert_eq!(std::fs::metadata(fixture.path()).unwrap().ino(), inode);
            assert!(!fixture.file().restore().unwrap());
        }
    }

    #[test]
    fn search_domains_and_options_stay() {
        let fixture = Fixture::new(Some(BEFORE));
        fixture.file().apply(RESOLVER).unwrap();
        let text = String::from_utf8(fixture.content()).unwrap();
        assert!(text.lines().any(|line| line == "search corp.example lan"));
        assert!(text.lines().any(|line| line == "options edns0"));
        assert!(!text.lines().any(|line| line.starts_with("nameserver 192")));
    }

    #[test]
    fn the_earlier_settings_are_read() {
        let fixture = Fixture::new(Some(BEFORE));
        let earlier = fixture.file().earlier().unwrap();
        let expected = ["192.0.2.1", "2001:db8::1"].map(|text| Upstream::parse(text).unwrap());
        assert_eq!(earlier.servers, expected);
        assert_eq!(earlier.search, ["corp.example", "lan"]);
        // Whoever names no server is asked at this host.
        for nobody in [None, Some(&b"search lan\n"[..])] {
            let earlier = Fixture::new(nobody).file().earlier().unwrap();
            assert_eq!(earlier.servers, [LOCALHOST]);
        }
        let link_local = Fixture::new(Some(b"nameserver fe80::1%eth0\n"));
        let servers = link_local.file().earlier().unwrap().servers;
        assert_eq!(servers, [Upstream::parse("fe80::1%eth0").unwrap()]);
    }

    #[test]
    fn who_leads_to_systemd_resolved() {
        for (text, leads) in [
            (&b"nameserver 127.0.0.53\noptions edns0\n"[..], true),
            (b"nameserver 127.0.0.53\nnameserver 192.0.2.1\n", false),
            (b"nameserver 192.0.2.1\n", false),
            (b"search lan\n", false),
        ] {
            assert_eq!(Fixture::new(Some(text)).file().names_resolved(), leads);
        }
        // What it writes for programs that ask its own servers leads around it.
        let fixture = Fixture::new(None);
        let directory = fixture.directory.path().join("run/systemd/resolve");
        symlink(directory.join("stub-resolv.conf"), fixture.path()).unwrap();
        assert!(fixture.file().names_resolved(), "it has not started yet");
        std::fs::remove_file(fixture.path()).unwrap();
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("resolv.conf"), b"nameserver 192.0.2.1\n").unwrap();
        symlink(directory.join("resolv.conf"), fixture.path()).unwrap();
        assert!(!fixture.file().names_resolved());
    }

    #[test]
    fn an_immutable_file_is_said_to_be_so() {
        let fixture = Fixture::new(Some(BEFORE));
        let chattr = |option: &str| {
            std::process::Command::new("chattr")
                .arg(option)
                .arg(fixture.path())
                .output()
                .is_ok_and(|output| output.status.success())
        };
        if !chattr("+i") {
            // Only root can, and only on some file systems.
            return;
        }
        let refused = fixture.file().apply(RESOLVER).unwrap_err().to_string();
        chattr("-i");
        assert!(refused.contains("chattr -i"), "{refused}");
        fixture.file().apply(RESOLVER).unwrap();
    }

    #[test]
    fn an_unclean_stop_is_undone_at_the_next_start() {
        let fixture = Fixture::new(Some(BEFORE));
        fixture.file().apply(RESOLVER).unwrap();
        // The process is gone without restore; another one starts.
        assert!(fixture.file().recover().unwrap());
        assert_eq!(fixture.content(), BEFORE);
        // Applying twice does not take the own file for the earlier one.
        fixture.file().apply(RESOLVER).unwrap();
        fixture.file().apply(RESOLVER).unwrap();
        fixture.file().restore().unwrap();
        assert_eq!(fixture.content(), BEFORE);
    }

    #[test]
    fn a_file_that_was_not_there_goes_again() {
        let fixture = Fixture::new(None);
        fixture.file().apply(RESOLVER).unwrap();
        assert!(fixture.file().restore().unwrap());
        assert!(!fixture.path().exists());
    }

    #[test]
    fn a_file_that_was_not_there_can_be_read_by_all_and_others_stay_as_they_are() {
        // The service's umask, which a process of its own has.
        const ALONE: &str = "MIXLINE_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let name = std::thread::current().name().unwrap().to_owned();
            let ran = std::process::Command::new("sh")
                .args(["-c", "umask 077; exec \"$0\" \"$@\""])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", &name])
                .env(ALONE, "1")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&ran.stdout);
            assert!(ran.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        let fixture = Fixture::new(None);
        fixture.file().apply(RESOLVER).unwrap();
        assert_eq!(mode(&fixture.path()), 0o644);
        let linked = Fixture::new(None);
        let target = linked.directory.path().join("target");
        symlink(&target, linked.path()).unwrap();
        linked.file().apply(RESOLVER).unwrap();
        assert_eq!(mode(&target), 0o644);
        let before = Fixture::new(Some(BEFORE));
        std::fs::set_permissions(before.path(), Permissions::from_mode(0o640)).unwrap();
        before.file().apply(RESOLVER).unwrap();
        assert_eq!(mode(&before.path()), 0o640);
    }

    #[test]
    fn a_link_stays_a_link() {
        let fixture = Fixture::new(None);
        let target = fixture.directory.path().join("target");
        std::fs::write(&target, BEFORE).unwrap();
        symlink(&target, fixture.path()).unwrap();
        fixture.file().apply(RESOLVER).unwrap();
        assert!(
            std::fs::symlink_metadata(fixture.path())
                .unwrap()
                .is_symlink()
        );
        assert!(fixture.file().is_ours());
        fixture.file().restore().unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), BEFORE);
    }

    #[test]
    fn what_another_program_wrote_meanwhile_is_not_touched() {
        let fixture = Fixture::new(Some(BEFORE));
        fixture.file().apply(RESOLVER).unwrap();
        std::fs::write(fixture.path(), b"nameserver 192.0.2.99\n").unwrap();
        assert!(!fixture.file().is_ours());
        assert!(!fixture.file().restore().unwrap());
        assert_eq!(fixture.content(), b"nameserver 192.0.2.99\n");
    }

    #[test]
    fn a_running_clients_file_is_refused_and_a_dead_ones_undone() {
        let fixture = Fixture::new(Some(BEFORE));
        fixture.file().apply(RESOLVER).unwrap();
        let other_state = tempfile::tempdir().unwrap();
        let other = ResolvConf::new(&fixture.path(), other_state.path());
        let held = State::open(fixture.state.path()).unwrap();
        let error = other.apply(RESOLVER).unwrap_err().to_string();
        assert!(error.contains("belongs to the running client"), "{error}");
        assert!(!other.restore().unwrap());
        drop(held);
        other.apply(RESOLVER).unwrap();
        assert!(other.restore().unwrap());
        assert_eq!(fixture.content(), BEFORE);
    }
}
