//! Following a directory whose address is configured anew while it is followed.

use std::sync::Arc;

use mixline_protocol::identity::NetworkId;
use mixline_protocol::records::Snapshot;
use tokio::sync::watch;

use crate::{DirectoryClient, FollowStatus};

/// Follows a network's directory where the settings say that it is, until nobody receives snapshots any
/// more. When they say another address, the same directory is followed there; the last snapshot stays
/// until there is one from there. An address that is none is told as the last error, until there is
/// another.
pub async fn follow_settings<T>(
    network: NetworkId,
    mut settings: watch::Receiver<T>,
    url: impl Fn(&T) -> &str,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    status: watch::Sender<FollowStatus>,
) {
    loop {
        let now = url(&settings.borrow_and_update()).to_owned();
        let client = DirectoryClient::new(&now, network);
        let (to, told) = (snapshots.clone(), status.clone());
        let following = async {
            match client {
                Ok(client) => client.follow(to, told).await,
                Err(error) => {
                    told.send_modify(|status| status.last_error = Some(error.to_string()));
                    to.closed().await;
                }
            }
        };
        let moved = async {
            if settings.wait_for(|new| url(new) != now).await.is_err() {
                // They stay as they are from now on.
                std::future::pending().await
            }
        };
        tokio::select! {
            () = following => return,
            () = moved => tracing::info!("the directory is looked for at its new address"),
        }
    }
}
