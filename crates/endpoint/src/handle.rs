//! Holding on to a running endpoint.

use std::sync::Arc;
use std::time::Duration;

use mixline_protocol::identity::AnonymousId;
use mixline_protocol::records::{Lease, ServiceDescriptor};
use tokio::sync::{broadcast, watch};

use crate::directory_queries::DirectoryQueries;
use crate::error::Error;
use crate::guard_probes::{GuardsProbed, ProbeOptions, probe_guards};
use crate::requests::Requests;
use mixline_endpoint_engine::access::Access;
use mixline_endpoint_engine::command::{Answer, Command, Question};
use mixline_endpoint_engine::status::PingReport;
use mixline_endpoint_engine::{Event, QueryError, Status};

/// A running endpoint. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(crate) id: AnonymousId,
    pub(crate) requests: Requests,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) descriptor: watch::Receiver<Option<Arc<ServiceDescriptor>>>,
    pub(crate) online: watch::Receiver<bool>,
    pub(crate) stopped: watch::Receiver<Option<Option<Arc<Error>>>>,
}

impl Handle {
    /// The own ID.
    #[must_use]
    pub fn id(&self) -> AnonymousId {
        self.id
    }

    /// Questions to the directory.
    #[must_use]
    pub fn directory(&self) -> DirectoryQueries {
        DirectoryQueries {
            requests: self.requests.clone(),
        }
    }

    /// Makes a peer known without asking the directory. The descriptor has been verified.
    pub async fn learn(&self, descriptor: ServiceDescriptor) {
        self.requests
            .command(Command::Learn(Box::new(descriptor)))
            .await;
    }

    /// Uses a lease from now on: in certificates, in the own descriptor, and as the one IPv4
    /// address that packets may come from. A lease of another ID is ignored.
    pub async fn set_lease(&self, lease: Lease) {
        self.requests
            .command(Command::SetLease(Box::new(lease)))
            .await;
    }

    /// Uses other settings of the engine from now on. Sessions and the flows in them go on; paths, tails
    /// and guards that are not as they should be any more are replaced one after the other. When
    /// others may not open sessions any more, the directory is told so.
    ///
    /// # Errors
    /// [`Error::Config`] names the first setting that is out of its range; then nothing changes.
    pub async fn reconfigure(
        &self,
        settings: mixline_endpoint_engine::Config,
    ) -> Result<(), Error> {
        settings.check()?;
        let command = Command::Reconfigure(Box::new(settings));
        self.requests.command(command).await;
        Ok(())
    }

    /// Lets in these clients only from now on, or everybody, and is these services' client. Sessions that
    /// others have begun end; the own descriptor says so as soon as it is published again.
    pub async fn set_access(&self, access: Access) {
        let command = Command::SetAccess(Box::new(access));
        self.requests.command(command).await;
    }

    /// The state of everything; `None` if the endpoint has stopped.
    pub async fn status(&self) -> Option<Status> {
        match self.requests.ask(Question::Status).await {
            Ok(Answer::Status(status)) => Some(*status),
            _ => None,
        }
    }

    /// Measures round trip and loss over each path to a peer: `count` questions over each
    /// (1 to [`MAX_PINGS`](mixline_endpoint_engine::command::MAX_PINGS)), `interval` apart (at
    /// least [`PING_INTERVAL`](mixline_endpoint_engine::command::PING_INTERVAL), at most 10 s).
    /// The answer comes when the last question is answered, or 2 s after it. Opens a session if
    /// there is none.
    ///
    /// # Errors
    /// [`QueryError::Refused`] if nobody has published the ID, or it is the own one;
    /// [`QueryError::Timeout`] if the peer or the directory does not answer;
    /// [`QueryError::Busy`] with too many measurements under way.
    pub async fn ping(
        &self,
        id: AnonymousId,
        count: u32,
        interval: Duration,
    ) -> std::result::Result<PingReport, QueryError> {
        let question = Question::Ping {
            id,
            count,
            interval,
        };
        match self.requests.ask(question).await? {
            Answer::Ping(report) => Ok(*report),
            _ => Err(QueryError::Invalid("it answers another question".into())),
        }
    }

    /// Measures the way to each guard in use, over all its addresses at once.
    ///
    /// # Errors
    /// [`QueryError::Stopped`] if the endpoint has stopped.
    pub async fn probe_guards(
        &self,
        options: &ProbeOptions,
    ) -> std::result::Result<GuardsProbed, QueryError> {
        match self.requests.ask(Question::Guards).await? {
            Answer::Guards(guards) => Ok(probe_guards(guards, options).await),
            _ => Err(QueryError::Invalid("it answers another question".into())),
        }
    }

    /// Addresses, routes or links of this host have changed, or it has slept: guards are reached
    /// anew at once. The endpoint notices both by itself as far as the kernel tells; this is for
    /// those who know more.
    pub async fn host_changed(&self) {
        self.requests.command(Command::HostChanged).await;
    }

    /// What happens from now on. A receiver that is slow misses events.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// The own signed descriptor, whenever it changes: for those that publish it themselves, as
    /// the directory does in its snapshot. `None` until there are public tails.
    #[must_use]
    pub fn descriptor(&self) -> watch::Receiver<Option<Arc<ServiceDescriptor>>> {
        self.descriptor.clone()
    }

    /// Whether guards are up, so that peers and the directory can be reached.
    #[must_use]
    pub fn online(&self) -> watch::Receiver<bool> {
        self.online.clone()
    }

    /// Waits until the endpoint has stopped by itself or was shut down; the error if it failed.
    pub async fn stopped(&self) -> Option<Arc<Error>> {
        let mut stopped = self.stopped.clone();
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().flatten(),
            Err(_) => {
                let why = std::io::Error::other("the endpoint's thread ended unexpectedly");
                Some(Arc::new(Error::Thread(why)))
            }
        }
    }

    /// Closes all sessions and links, tells the other ends, and stops.
    pub async fn shutdown(&self) {
        self.requests.command(Command::Shutdown).await;
        self.stopped().await;
    }
}
