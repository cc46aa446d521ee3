//! The directory's snapshots, from where the configuration says.

use std::sync::Arc;

use mixline_directory_client::{DirectoryClient, FollowStatus};
use mixline_protocol::records::Snapshot;
use tokio::sync::watch;

use crate::config::Config;

/// Where snapshots go, and how fetching them goes.
pub type Followed = (
    watch::Sender<Option<Arc<Snapshot>>>,
    watch::Sender<FollowStatus>,
);

/// Follows `directory`, which is at `url`, for ever. When the configuration names another address, the
/// same directory is followed there; the last snapshot stays until there is one from there.
pub async fn follow(
    directory: DirectoryClient,
    mut url: String,
    mut configs: watch::Receiver<Arc<Config>>,
    (snapshots, status): Followed,
) {
    let mut directory = Some(directory);
    loop {
        let client = directory.take();
        let (snapshots, told) = (snapshots.clone(), status.clone());
        let following = async {
            match client {
                Some(client) => client.follow(snapshots, told).await,
                None => std::future::pending().await,
            }
        };
        let moved = async {
            let moved = configs.wait_for(|config| config.directory.url != url);
            match moved.await.map(|config| config.directory.clone()) {
                Ok(directory) => directory,
                Err(_) => std::future::pending().await,
            }
        };
        let to = tokio::select! {
            () = following => return,
            to = moved => to,
        };
        match DirectoryClient::new(&to.url, to.id) {
            Ok(client) => directory = Some(client),
            // Nothing comes from the address that does not count any more.
            Err(error) => status.send_modify(|status| status.last_error = Some(error.to_string())),
        }
        url = to.url;
    }
}
