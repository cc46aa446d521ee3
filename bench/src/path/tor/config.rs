//! What each process of Tor is told: the keys are those of tor(1).

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The address of all of them.
pub const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Where the client takes connections.
pub const SOCKS_PORT: u16 = 9050;
/// Where the authority gives its certificate out.
pub const CERTIFICATE_PORT: u16 = 7000;
/// The authority's port for cells; that of relay N is N higher.
const CELLS_PORT: u16 = 5000;
/// How many relays there are beside the authority: as many as Mixline's network has.
const RELAYS: u16 = 8;

/// What a process of Tor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The directory authority.
    Authority,
    /// A relay, counted from 1.
    Relay(u16),
    /// The onion service.
    Service,
    /// The client.
    Client,
}

impl Role {
    /// All, in the order in which they are started.
    pub fn all() -> impl Iterator<Item = Self> {
        let relays = (1..=RELAYS).map(Self::Relay);
        let rest = [Self::Service, Self::Client];
        std::iter::once(Self::Authority).chain(relays).chain(rest)
    }

    /// Its files.
    #[must_use]
    pub fn directory(self, all: &Path) -> PathBuf {
        all.join(self.to_string())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority => f.write_str("authority"),
            Self::Relay(number) => write!(f, "relay{number}"),
            Self::Service => f.write_str("service"),
            Self::Client => f.write_str("client"),
        }
    }
}

/// The authority's keys, as others know them: fingerprints, hexadecimal.
#[derive(Debug, PartialEq, Eq)]
pub struct Authority {
    /// Of the key that signs what it says.
    signs: String,
    /// Of the key that it has as a relay.
    identity: String,
}

impl Authority {
    /// From its certificate (`dir-spec`, "fingerprint"), and what its file `fingerprint` says: its
    /// name and the fingerprint.
    ///
    /// # Errors
    /// If they do not say.
    pub fn read(certificate: &str, identity: &str) -> Result<Self> {
        let signs = certificate
            .lines()
            .find_map(|line| line.strip_prefix("fingerprint "))
            .context("no fingerprint in the certificate")?;
        let identity = identity
            .split_once(' ')
            .context("no fingerprint of the identity")?;
        Ok(Self {
            signs: signs.trim().to_owned(),
            identity: identity.1.trim().to_owned(),
        })
    }
}

/// An authority that there is not.
pub fn nobody() -> String {
    format!("nobody {HERE}:1 {}", "f".repeat(40))
}

/// Where the onion service's keys and name are.
pub fn onion_service(all: &Path) -> PathBuf {
    Role::Service.directory(all).join("onion")
}

/// The configuration of one process.
pub fn torrc(role: Role, authority: &Authority, all: &Path) -> String {
    let Authority { signs, identity } = authority;
    let of_all = format!(
        "TestingTorNetwork 1\n\
         DirAuthority authority orport={CELLS_PORT} no-v2 v3ident={signs} \
         {HERE}:{CERTIFICATE_PORT} {identity}\n\
         Address {HERE}\n\
         DataDirectory {}\n\
         Nickname {role}\n\
         Log notice stdout\n\
         ShutdownWaitLength 0\n\
         AssumeReachable 1\n\
         V3AuthVotingInterval 20\n\
         TestingV3AuthInitialVotingInterval 10\n",
        role.directory(all).display()
    );
    let own = match role {
        // It gives every relay the flags without which nobody would use it yet.
        Role::Authority => format!(
            "SocksPort 0\n\
             AuthoritativeDirectory 1\n\
             V3AuthoritativeDirectory 1\n\
             ContactInfo nobody@localhost\n\
             ORPort {HERE}:{CELLS_PORT}\n\
             DirPort {HERE}:{CERTIFICATE_PORT}\n\
             V3AuthVoteDelay 2\n\
             V3AuthDistDelay 2\n\
             TestingV3AuthInitialVoteDelay 2\n\
             TestingV3AuthInitialDistDelay 2\n\
             TestingDirAuthVoteExit *\n\
             TestingDirAuthVoteGuard *\n\
             TestingDirAuthVoteHSDir *\n\
             TestingMinExitFlagThreshold 0\n"
        ),
        Role::Relay(number) => {
            let port = CELLS_PORT + number;
            format!("SocksPort 0\nORPort {HERE}:{port}\nExitRelay 0\n")
        }
        Role::Service => format!(
            "SocksPort 0\nHiddenServiceDir {}\nHiddenServicePort 80 {HERE}:80\n",
            onion_service(all).display()
        ),
        Role::Client => format!("SocksPort {HERE}:{SOCKS_PORT}\n"),
    };
    of_all + &own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_known_by_both_keys() {
        let certificate = "dir-key-certificate-version 3\nfingerprint ABCD\ndir-key-published\n";
        let authority = Authority::read(certificate, "authority 1234\n").unwrap();
        for role in Role::all() {
            let torrc = torrc(role, &authority, Path::new("/all"));
            assert!(
                torrc.contains("v3ident=ABCD 127.0.0.1:7000 1234\n"),
                "{torrc}"
            );
            assert!(torrc.contains(&format!("DataDirectory /all/{role}\n")));
        }
        assert!(Authority::read("dir-key-published\n", "authority 1234").is_err());
        assert!(Authority::read(certificate, "").is_err());
    }

    #[test]
    fn every_process_has_ports_of_its_own() {
        let authority = Authority::read("fingerprint A\n", "authority B").unwrap();
        let mut ports: Vec<_> = Role::all()
            .flat_map(|role| {
                let torrc = torrc(role, &authority, Path::new("/"));
                let lines = torrc.lines().filter(|line| line.contains("Port 127"));
                lines.map(str::to_owned).collect::<Vec<_>>()
            })
            .collect();
        let count = ports.len();
        ports.sort();
        ports.dedup();
        // The authority has two, the others one, the service none.
        assert_eq!((ports.len(), count), (11, 11));
    }
}
