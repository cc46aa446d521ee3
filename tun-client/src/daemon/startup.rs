//! The start: every step until applications can use the interface.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mixline_daemon::service_manager;
use mixline_protocol::address::{self, VirtualNetwork};
use mixline_protocol::records::Snapshot;
use mixline_protocol::time::UnixTime;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::names::ClaimState;
use super::resolver::{self, Resolver};
use super::shared::Shared;
use super::status::Phase;
use super::{host, lease, outside, service, status_report};
use crate::error::Result;
use crate::host_dns::Earlier;
use crate::progress::Progress;

/// How long the kernel may take for an address.
const MOMENT: Duration = Duration::from_secs(2);
/// While a step takes long, what delays it is reported this often.
const REMIND: Duration = Duration::from_secs(10);

/// The latest snapshot, `None` before the first.
pub type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

/// What the steps of a start work with.
pub struct Startup<'a> {
    /// What the tasks share.
    pub shared: Arc<Shared>,
    /// The directory's snapshots.
    pub snapshots: Snapshots,
    /// What the host's resolver used before.
    pub earlier: &'a Earlier,
    /// Where progress is reported.
    pub progress: &'a Progress,
    /// Where the tasks go that keep the lifecycle going.
    pub tasks: &'a mut JoinSet<()>,
    /// Where the task goes that has the host's resolver ask here.
    pub resolver: &'a mut Option<AbortHandle>,
}

impl Startup<'_> {
    /// Takes all steps. It waits, visibly, for what the network delays; what waiting does not
    /// mend is an error.
    ///
    /// # Errors
    /// What keeps the client from starting.
    pub async fn run(mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let urls = shared.config().network.urls.join(" or ");
        self.step(&format!("fetching the snapshot from {urls}"));
        // From the first moment on, which the directories may make a long one. Their names are looked up with the
        // host closed, and then they are let through as well.
        host::let_through(&shared, outside::known(&shared, &self.snapshots)).await?;
        let outside = outside::of(&shared, &self.snapshots).await;
        host::let_through(&shared, outside).await?;
        let mut snapshots = self.snapshots.clone();
        let network = self
            .patiently(async move {
                let snapshot = snapshots.wait_for(Option::is_some).await;
                snapshot
                    .ok()
                    .and_then(|s| s.as_ref().map(|s| s.parameters.network))
            })
            .await
            .unwrap_or_default();

        self.step(&format!("setting up {}", shared.config().interface));
        self.close_host(network).await?;

        self.step("connecting to guards");
        let mut online = shared.handle.online();
        let _ = self
            .patiently(async move { online.wait_for(|up| *up).await.map(|_| ()) })
            .await;

        self.lease(&network).await;
        self.dns(&network).await?;
        self.publish().await;

        shared.update(|facts| {
            facts.phase = Phase::Up;
            facts.step.clear();
        });
        let summary = self.summary();
        self.progress.step(&summary);
        self.progress.ready();
        service_manager::ready(&summary);
        self.tasks
            .spawn(service::show_problems(Arc::clone(&shared), summary));
        Ok(())
    }

    /// Closes the host to virtual addresses, and opens the interface for them.
    async fn close_host(&self, network: VirtualNetwork) -> Result<()> {
        let shared = &self.shared;
        let place = resolver::place(shared, network).await;
        let outside = outside::of(shared, &self.snapshots).await;
        host::close(shared, network, place, outside).await?;
        Ok(())
    }

    /// Uses the kept lease, or waits for one; renews it from then on.
    async fn lease(&mut self, network: &VirtualNetwork) {
        let shared = Arc::clone(&self.shared);
        let snapshot = self.snapshots.borrow().clone();
        let id = shared.handle.id();
        let directory = lease::granted_by(snapshot.as_deref(), shared.config().network.id);
        let kept = lease::usable(
            shared.state.lease(),
            id,
            &directory,
            network,
            UnixTime::from(SystemTime::now()),
        );
        if let Some(kept) = kept {
            lease::adopt(&shared, kept);
            shared.handle.set_lease(kept).await;
        }
        self.tasks.spawn(lease::keep(Arc::clone(&shared)));
        if kept.is_none() {
            self.step("leasing an address");
            let mut lease = shared.lease.subscribe();
            let _ = self
                .patiently(async move { lease.wait_for(Option::is_some).await.map(|_| ()) })
                .await;
        }
        // The host has it in a moment, or its status says why not.
        let mut reports = shared.host_state.reports();
        let has_it = reports.wait_for(|report| report.as_ref().is_some_and(|report| report.ipv4));
        let _ = tokio::time::timeout(MOMENT, has_it).await;
    }

    async fn dns(&mut self, network: &VirtualNetwork) -> Result<()> {
        let resolver = Resolver::new(&self.shared, *network, self.earlier.clone());
        self.step(&format!("answering names at {}", resolver.address()));
        let serving = resolver.start().await?;
        *self.resolver = Some(self.tasks.spawn(serving.keep()));
        Ok(())
    }

    /// Publishes and claims the names, once; what fails is tried again in the background.
    async fn publish(&mut self) {
        let shared = Arc::clone(&self.shared);
        if shared.accepting() {
            self.step("publishing where this service is reached");
            let directory = shared.handle.directory();
            if let Err(error) = self
                .patiently(async move { directory.publish().await })
                .await
            {
                tracing::warn!("not published yet: {error}");
            }
        }
        if !shared.names.is_empty() {
            self.step("claiming names");
            let (names, directory) = (Arc::clone(&shared.names), shared.handle.directory());
            self.patiently(async move { names.claim_due(&directory).await })
                .await;
        }
        // A command may give it its first name.
        self.tasks
            .spawn(Arc::clone(&shared.names).keep(shared.handle.directory()));
    }

    fn step(&self, text: &str) {
        self.shared.update(|facts| text.clone_into(&mut facts.step));
        self.progress.step(text);
        service_manager::status(text);
    }

    /// Waits for something, and reports what delays it while it takes long.
    async fn patiently<T>(&self, waiting: impl Future<Output = T>) -> T {
        tokio::pin!(waiting);
        loop {
            match tokio::time::timeout(REMIND, &mut waiting).await {
                Ok(done) => return done,
                Err(_) => {
                    service_manager::wait_for_another(REMIND * 3);
                    let status = status_report::collect(&self.shared).await;
                    let why = status
                        .endpoint
                        .problems
                        .first()
                        .map(|problem| format!(": {problem}"));
                    let line = format!("still {}{}", status.step, why.unwrap_or_default());
                    self.progress.step(&line);
                    service_manager::status(&line);
                }
            }
        }
    }

    fn summary(&self) -> String {
        let shared = &self.shared;
        let id = shared.handle.id();
        let ipv4 = shared
            .lease
            .borrow()
            .as_ref()
            .map(|lease| format!("{} and ", lease.ipv4));
        let names: Vec<String> = shared
            .names
            .list()
            .into_iter()
            .filter(|name| name.claim == ClaimState::Published)
            .map(|name| name.name)
            .collect();
        let mut line = format!(
            "up on {} as {}, {}{}; .anon names through {}",
            shared.config().interface,
            id.host(),
            ipv4.unwrap_or_default(),
            address::ipv6(&id),
            shared.facts().dns.mode,
        );
        if !names.is_empty() {
            line += &format!("; serving {}", names.join(", "));
        }
        line
    }
}
