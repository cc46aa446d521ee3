//! What most tests begin with: a relay and the directory that it registers at, and a client with a
//! path through the relay.

use std::path::Path as FilePath;

use mixline_protocol::link::CellKind;
use mixline_protocol::records::{ListedRelay, Parameters};
use mixline_testnet::link_client::Client;
use tempfile::TempDir;

use crate::directory::Directory;
use crate::network::Network;
use crate::process::Relay;
use crate::relaying::Path;

/// A relay, its directory, and a folder that goes with them.
pub struct Setting {
    pub relay: Relay,
    pub directory: Directory,
    folder: TempDir,
}

impl Setting {
    /// On loopback; `more` is added to the relay's configuration.
    pub fn new(more: &str) -> Self {
        Self::with(Parameters::default(), more)
    }

    /// On loopback, in a network with these parameters.
    pub fn with(parameters: Parameters, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::start(parameters);
        let relay = Relay::new(folder.path(), "relay", &directory, more);
        Self {
            relay,
            directory,
            folder,
        }
    }

    /// The relay in the first namespace of a network, over IPv4.
    pub fn within(network: &Network, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::start_at(Network::hub_address(true), Parameters::default());
        let (address, namespace) = (Network::address(0, true), network.relay(0));
        let relay = Relay::at(
            address,
            Some(&namespace),
            folder.path(),
            "relay",
            &directory,
            more,
        );
        Self {
            relay,
            directory,
            folder,
        }
    }

    /// The same with the relay at work.
    pub fn registered(mut self) -> Self {
        self.relay.start_and_register();
        self
    }

    pub fn folder(&self) -> &FilePath {
        self.folder.path()
    }

    /// What the directory has of the relay, which has registered.
    pub fn descriptor(&self) -> ListedRelay {
        self.directory.relay("relay").unwrap()
    }

    /// A client at work with the relay, on loopback.
    pub fn traffic(&self) -> Traffic {
        let descriptor = self.descriptor();
        let path = Path::new(&descriptor, &descriptor, 9);
        let mut client = Client::local();
        let link = client.connect(self.relay.address, &descriptor.descriptor.link);
        client.register(link, path.token);
        Traffic { client, link, path }
    }
}

/// A client with a link to a relay, and a path through it that ends at the client.
pub struct Traffic {
    pub client: Client,
    pub link: usize,
    pub path: Path,
}

impl Traffic {
    pub fn send(&self, message: u64) {
        let cell = self.path.cell(message);
        self.client.send(self.link, &cell, CellKind::Cell);
    }

    /// Waits for a cell that has come back: its message.
    pub fn received(&self) -> u64 {
        self.path.message(&self.client.cell().expect("a cell").1)
    }

    /// Sends a message, and waits until it has come back.
    pub fn goes_round(&self, message: u64) {
        self.send(message);
        assert_eq!(self.received(), message);
    }

    /// Links anew to the relay, which was started again or has another key.
    pub fn connect_again(&mut self, relay: &Relay, descriptor: &ListedRelay) {
        self.link = self
            .client
            .connect(relay.address, &descriptor.descriptor.link);
        self.client.register(self.link, self.path.token);
    }
}
