//! Whom reverse names of a neighbourhood are asked of, whose network lies inside the virtual one.
//!
//! systemd-resolved is told that all reverse names of the virtual network are answered here. To ask it for
//! those of a neighbourhood would lead back: the servers that it has are asked themselves. They change
//! with the networks that the host is in, and nobody says so; such questions are few.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::forward::Forwarder;
use crate::host_dns::upstream::Upstream;

/// The servers, looked for at each question.
pub struct Neighbours {
    servers: Box<dyn Fn() -> Vec<Upstream> + Send + Sync>,
    known: Mutex<(Vec<Upstream>, Option<Arc<Forwarder>>)>,
}

impl Neighbours {
    /// Those that `servers` gives, which may read a file.
    pub fn new(servers: impl Fn() -> Vec<Upstream> + Send + Sync + 'static) -> Self {
        Self {
            servers: Box::new(servers),
            known: Mutex::default(),
        }
    }

    /// A forwarder to them, the same as before if they are; none if there are none.
    pub fn forwarder(&self) -> Option<Arc<Forwarder>> {
        let servers = (self.servers)();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != servers {
            let forwarder = Forwarder::new(&servers).map(Arc::new);
            *known = (servers, forwarder);
        }
        known.1.clone()
    }
}

impl fmt::Debug for Neighbours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Neighbours")
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}
