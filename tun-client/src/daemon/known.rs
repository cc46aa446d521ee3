//! What is known of the network's directories outlives the process.

use std::sync::Arc;

use super::shared::Shared;

/// Writes it down whenever it changes, for ever.
pub async fn keep(shared: Arc<Shared>) {
    let mut known = shared.known.subscribe();
    while known.changed().await.is_ok() {
        let new = known.borrow_and_update().clone();
        if let Err(error) = shared.state.keep_known(&new) {
            // Until it can be written, a client that starts again would go back to what it knew before.
            tracing::warn!(%error, "what is known of the directories is not kept");
        }
    }
}
