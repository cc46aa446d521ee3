//! Following a network whose directories' addresses are configured anew while it is followed.

use tokio::sync::watch;

use crate::{Following, NetworkClient};

/// Follows a network whose directories are where the settings say, until nobody receives snapshots any
/// more; which network, `to.known` says. When the settings say other addresses, the same network is followed
/// there; the last snapshot stays until there is one from there. An address that is none is told as
/// the last error, until there are others.
pub async fn follow_settings<T>(
    mut settings: watch::Receiver<T>,
    urls: impl Fn(&T) -> &[String],
    to: Following,
) {
    loop {
        let now = urls(&settings.borrow_and_update()).to_vec();
        let client = NetworkClient::new(&now, to.known.borrow().clone());
        let following = async {
            match client {
                Ok(client) => client.follow(to.clone()).await,
                Err(error) => {
                    let text = error.to_string();
                    to.status
                        .send_modify(|status| status.last_error = Some(text));
                    to.snapshots.closed().await;
                }
            }
        };
        let moved = async {
            if settings.wait_for(|new| urls(new) != now).await.is_err() {
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
