//! What attacks, and what is honest beside it. Each runs inside a namespace, so each is this very
//! executable with a hidden subcommand.
//!
//! All that is sent is made by the crates' own code, as a program that keeps to the protocol would make
//! it, so that attacks follow the protocol when it changes.

mod cells;
mod connections;
mod honest;
mod identities;
mod initiations;
mod links;
mod mailboxes;
mod probes;
mod sources;
mod spending;
mod turns;

use std::fs;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result};
use clap::Subcommand;
use mixline_endpoint::Identity;
use mixline_protocol::identity::{AnonymousId, IdentityKey, X25519Secret};
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{ListedRelay, RelayDescriptor, Roster, Snapshot};
use mixline_protocol::time::UnixTime;

pub use honest::{Counted, Tried};
pub use turns::Done;

/// What runs inside a namespace. The attacks print `ready`, wait for a line, attack until their input
/// ends or their time is over, and print what they did as JSON.
#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Attack by forged link initiations.
    #[command(hide = true)]
    AttackByInitiations {
        /// The network.
        #[command(flatten)]
        network: Network,
        /// How long and how fast.
        #[command(flatten)]
        limits: turns::Limits,
        /// What exactly.
        #[command(flatten)]
        how: initiations::How,
    },
    /// Attack by link initiations with cookies, from addresses that answer.
    #[command(hide = true)]
    AttackByLinks {
        /// The network.
        #[command(flatten)]
        network: Network,
        /// How long and how fast.
        #[command(flatten)]
        limits: turns::Limits,
        /// What exactly.
        #[command(flatten)]
        how: links::How,
    },
    /// Attack by path probes from forged addresses.
    #[command(hide = true)]
    AttackByProbes {
        /// The network.
        #[command(flatten)]
        network: Network,
        /// How long and how fast.
        #[command(flatten)]
        limits: turns::Limits,
        /// What exactly.
        #[command(flatten)]
        how: probes::How,
    },
    /// Attack by cells through public tails, or of new paths.
    #[command(hide = true)]
    AttackByCells {
        /// The network.
        #[command(flatten)]
        network: Network,
        /// How long and how fast.
        #[command(flatten)]
        limits: turns::Limits,
        /// What exactly.
        #[command(flatten)]
        how: cells::How,
    },
    /// Attack by throw-away IDs that keep the directory's sessions.
    #[command(hide = true)]
    AttackByIdentities {
        /// The network.
        #[command(flatten)]
        network: Network,
        /// How long and how fast.
        #[command(flatten)]
        limits: turns::Limits,
        /// What exactly.
        #[command(flatten)]
        how: identities::How,
    },
    /// Attack by HTTP connections of one site that read nothing.
    #[command(hide = true)]
    AttackByConnections {
        /// How long and how fast.
        #[command(flatten)]
        limits: turns::Limits,
        /// What exactly.
        #[command(flatten)]
        how: connections::How,
    },
    /// Attack by mailboxes of one address' many link keys.
    #[command(hide = true)]
    AttackByMailboxes {
        /// The network.
        #[command(flatten)]
        network: Network,
        /// How long and how fast.
        #[command(flatten)]
        limits: turns::Limits,
        /// What exactly.
        #[command(flatten)]
        how: mailboxes::How,
    },
    /// Open sessions, look a name up and register a relay, as often as each line of the input says
    /// for how long; print what came of it as JSON.
    #[command(hide = true)]
    Newcomers {
        /// What exactly.
        #[command(flatten)]
        how: honest::How,
    },
}

impl Tool {
    /// Runs it.
    ///
    /// # Errors
    /// If what is attacked is not there, or a socket does not do what it should.
    pub fn run(&self) -> Result<()> {
        match self {
            Self::AttackByInitiations {
                network,
                limits,
                how,
            } => initiations::attack(network, limits, how),
            Self::AttackByLinks {
                network,
                limits,
                how,
            } => links::attack(network, limits, how),
            Self::AttackByProbes {
                network,
                limits,
                how,
            } => probes::attack(network, limits, how),
            Self::AttackByCells {
                network,
                limits,
                how,
            } => cells::attack(network, limits, how),
            Self::AttackByIdentities {
                network,
                limits,
                how,
            } => identities::attack(network, limits, how),
            Self::AttackByConnections { limits, how } => connections::attack(limits, how),
            Self::AttackByMailboxes {
                network,
                limits,
                how,
            } => mailboxes::attack(network, limits, how),
            Self::Newcomers { how } => honest::serve(how),
        }
    }
}

/// What everybody may know of the network.
#[derive(Debug, clap::Args)]
pub struct Network {
    /// The directory's ID.
    #[arg(long)]
    directory: AnonymousId,
    /// A file with its snapshot.
    #[arg(long)]
    snapshot: PathBuf,
}

impl Network {
    fn snapshot(&self) -> Result<Snapshot> {
        let bytes = fs::read(&self.snapshot)
            .with_context(|| format!("reading {}", self.snapshot.display()))?;
        let roster = Roster::alone(self.directory);
        Ok(Snapshot::decode_and_verify(&bytes, &roster, now())?)
    }
}

/// The relays with these names, as they are listed.
fn listed(snapshot: &Snapshot, names: &[String]) -> Result<Vec<ListedRelay>> {
    let named = |name: &String| {
        let mut relays = snapshot.relays.iter();
        let found = relays.find(|relay| relay.descriptor.name == *name);
        found.cloned().with_context(|| format!("no relay {name}"))
    };
    names.iter().map(named).collect()
}

/// What the relays with these names say of themselves.
fn relays(snapshot: &Snapshot, names: &[String]) -> Result<Vec<RelayDescriptor>> {
    let listed = listed(snapshot, names)?.into_iter();
    Ok(listed.map(|relay| relay.descriptor).collect())
}

/// Where a relay is reached over IPv4.
fn address_of(relay: &RelayDescriptor) -> Result<SocketAddrV4> {
    let v4 = relay.addresses.iter().find_map(|address| match address {
        std::net::SocketAddr::V4(address) => Some(*address),
        std::net::SocketAddr::V6(_) => None,
    });
    v4.with_context(|| format!("{} has no IPv4 address", relay.name))
}

/// Somebody whom nobody has seen before.
fn new_identity() -> Identity {
    let rng = &mut OsRandom::new();
    Identity {
        key: IdentityKey::generate(rng),
        session: X25519Secret::generate(rng),
        access: mixline_endpoint::Access::default(),
    }
}

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}
