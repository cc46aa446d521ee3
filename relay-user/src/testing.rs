//! What tests look into: the control plane's neighbours, which need no sockets, and sealed files.

pub use crate::control::handshakes::SERVED;
pub use crate::control::neighbours::{Neighbours, Output};
pub use crate::control::places::{MAX_UNCONFIRMED, MAX_UNPROVEN};
pub use crate::control::staying::{CONFIRM_WITHIN, KEEP_MAILBOXES};
pub use crate::control::unproven::{OF_ONE_NETWORK, TO_ONE_ADDRESS, TO_ONE_FIRST, TO_ONE_NETWORK};
pub use crate::erasable::Erasable;
