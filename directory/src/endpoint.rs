//! The directory as an endpoint of the network that it describes.

use std::sync::Arc;
use std::time::Duration;

use mixline_endpoint::{Endpoint, Handle, Identity, MessageService, NoDevice};
use mixline_protocol::identity::{IdentityKey, X25519Secret};
use mixline_protocol::records::Snapshot;
use tokio::sync::watch;

use crate::service::Life;
use crate::snapshot::Publisher;

/// Before an endpoint that failed is started again.
const PAUSE: Duration = Duration::from_secs(5);

/// Runs the endpoint until `stop`: waits for enough relays, starts it, and puts its tails into
/// the snapshot. An endpoint that fails is started again; without one, the public part goes on.
pub async fn run(
    config: mixline_endpoint::Config,
    identity: Arc<IdentityKey>,
    session: X25519Secret,
    service: Arc<dyn MessageService>,
    publisher: Arc<Publisher>,
    life: Arc<Life>,
    mut stop: watch::Receiver<bool>,
) {
    let mut snapshots = publisher.subscribe();
    let enough = config.engine.head_length.max(config.engine.tail_length);
    loop {
        tokio::select! {
            there = has_relays(&mut snapshots, enough) => if !there { return },
            () = told(&mut stop) => return,
        }
        let own = Identity {
            key: IdentityKey::from_seed(*identity.seed()),
            session: session.clone(),
        };
        let started = Endpoint::start(
            config.clone(),
            own,
            publisher.subscribe(),
            NoDevice,
            Some(service.clone()),
        );
        match started {
            Ok(handle) => {
                tracing::info!("the private part starts: the network has {enough} relays or more");
                tokio::select! {
                    () = publish(&handle, &publisher) => {
                        let reason = handle.stopped().await;
                        let text = reason.map_or("it stopped".to_owned(), |e| e.to_string());
                        tracing::error!("the private part failed: {text}; starting it again");
                    }
                    () = life.of_private_part(&handle) => {}
                    () = told(&mut stop) => {
                        handle.shutdown().await;
                        return;
                    }
                }
            }
            Err(error) => tracing::error!("the private part did not start: {error}; trying again"),
        }
        publisher.set_service(None);
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = told(&mut stop) => return,
        }
    }
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
async fn publish(handle: &Handle, publisher: &Publisher) {
    let mut descriptor = handle.descriptor();
    loop {
        let newest = descriptor.borrow_and_update().clone();
        publisher.set_service(newest);
        tokio::select! {
            changed = descriptor.changed() => if changed.is_err() { return },
            _ = handle.stopped() => return,
        }
    }
}
