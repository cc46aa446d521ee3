//! What tests look into: the control plane's neighbours, which need no sockets.

pub use crate::control::neighbour_table::MAX_CLIENTS_PER_PREFIX;
pub use crate::control::neighbours::{Neighbours, Output};
