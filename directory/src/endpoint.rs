//! The directory as an endpoint of the network that it describes.

use std::sync::Arc;
use std::time::Duration;

use mixline_endpoint::{Access, Endpoint, Handle, Identity, MessageService, NoDevice};
use mixline_protocol::identity::{IdentityKey, X25519Secret};
use mixline_protocol::records::Snapshot;
use tokio::sync::watch;

use crate::board::Board;
use crate::config::Config;
use crate::service::Life;

/// Before an endpoint that failed is started again.
const PAUSE: Duration = Duration::from_secs(5);

/// Who the private part is, and who it works for.
pub struct PrivatePart {
    /// The directory's identity.
    pub identity: Arc<IdentityKey>,
    /// The key of its sessions.
    pub session: X25519Secret,
    /// Answers.
    pub service: Arc<dyn MessageService>,
    /// From where its tails come into snapshots.
    pub board: Arc<Board>,
    /// Shows that it lives.
    pub life: Arc<Life>,
}

/// The configuration that counts.
type Configs = watch::Receiver<Arc<Config>>;

impl PrivatePart {
    /// Runs the endpoint until `stop`: waits for enough relays, starts it, and puts its tails into
    /// the snapshot. An endpoint that fails is started again; without one, the public part goes on.
    /// It follows the configuration, also when that has no private part for a while.
    pub async fn run(self, mut configs: Configs, mut stop: watch::Receiver<bool>) {
        let mut snapshots = self.board.subscribe();
        loop {
            let config = Arc::clone(&configs.borrow_and_update());
            if !config.endpoint.enabled {
                tracing::warn!("endpoint.enabled is false: nobody can publish or look anything up");
                tokio::select! {
                    changed = configs.changed() => if changed.is_err() { return },
                    () = told(&mut stop) => return,
                }
                continue;
            }
            let settings = mixline_endpoint::Config::from(&*config);
            let enough = settings.engine.head_length.max(settings.engine.tail_length);
            tokio::select! {
                there = has_relays(&mut snapshots, enough) => if !there { return },
                Ok(()) = configs.changed() => continue,
                () = told(&mut stop) => return,
            }
            match self.start(settings) {
                Ok(handle) => {
                    tracing::info!(
                        "the private part starts: the network has {enough} relays or more"
                    );
                    tokio::select! {
                        () = publish(&handle, &self.board) => {
                            let reason = handle.stopped().await;
                            let text = reason.map_or("it stopped".to_owned(), |e| e.to_string());
                            tracing::error!(
                                "the private part failed: {text}; starting it again"
                            );
                        }
                        () = self.life.of_private_part(&handle) => {}
                        () = follow(&handle, &mut configs) => {
                            handle.shutdown().await;
                            self.board.set_service(None);
                            continue;
                        }
                        () = told(&mut stop) => {
                            handle.shutdown().await;
                            return;
                        }
                    }
                }
                Err(error) => {
                    tracing::error!("the private part did not start: {error}; trying again");
                }
            }
            self.board.set_service(None);
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = told(&mut stop) => return,
            }
        }
    }

    fn start(&self, settings: mixline_endpoint::Config) -> mixline_endpoint::Result<Handle> {
        let own = Identity {
            key: IdentityKey::from_seed(*self.identity.seed()),
            session: self.session.clone(),
            access: Access::default(),
        };
        Endpoint::start(
            settings,
            own,
            self.board.subscribe(),
            NoDevice,
            Some(Arc::clone(&self.service)),
        )
    }
}

/// Has a running endpoint follow the configuration; returns when that has no private part any more.
async fn follow(handle: &Handle, configs: &mut Configs) {
    while configs.changed().await.is_ok() {
        let config = Arc::clone(&configs.borrow_and_update());
        if !config.endpoint.enabled {
            return;
        }
        let settings = mixline_endpoint::Config::from(&*config);
        if let Err(error) = handle.reconfigure(settings.engine).await {
            tracing::error!("the private part goes on as before: {error}");
        }
    }
    std::future::pending().await
}

/// Waits for a network of so many relays; false if there will be none any more.
async fn has_relays(snapshots: &mut watch::Receiver<Option<Arc<Snapshot>>>, enough: usize) -> bool {
    let there = |s: &Option<Arc<Snapshot>>| s.as_ref().is_some_and(|s| s.relays.len() >= enough);
    snapshots.wait_for(there).await.is_ok()
}

/// Waits until it is time to stop.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Puts the endpoint's descriptor into the snapshot whenever it changes, until the endpoint stops.
async fn publish(handle: &Handle, board: &Board) {
    let mut descriptor = handle.descriptor();
    loop {
        let newest = descriptor.borrow_and_update().clone();
        board.set_service(newest);
        tokio::select! {
            changed = descriptor.changed() => if changed.is_err() { return },
            _ = handle.stopped() => return,
        }
    }
}
