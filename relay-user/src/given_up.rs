//! An XDP port under watch while the relay runs: what `status` says of it, and what happens when it
//! is given up.

use std::time::{Duration, Instant};

use mixline_relay_engine::queues::WorkerHandle;
use tokio::sync::watch::{self, Sender};

use crate::observe::{PortReport, QueueReport};
use crate::port::{LOOK_EVERY, Watch};
use crate::reload::Offer;

/// Watches over an XDP port, and says so when it is given up.
pub async fn watch_port(
    mut watch: Watch,
    report: Sender<PortReport>,
    workers: Vec<WorkerHandle>,
    offer: watch::Receiver<Offer>,
) {
    let mut asked = None;
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if watch.needs_answer() && asked.is_none_or(|at: Instant| at.elapsed() >= ASK_EVERY) {
            asked = Some(Instant::now());
            if let Some(url) = offer.borrow().directories.first() {
                tokio::spawn(ask(url.clone()));
            }
        }
        if let Some(doubt) = watch.look(Instant::now()) {
            workers.iter().for_each(|worker| worker.waker.wake());
            tracing::error!(
                card = %watch.card(),
                "XDP is given up, the relay goes on by UDP: {doubt}; {UNTIL}"
            );
            report.send_modify(|report| {
                report.kind = "udp".into();
                report.why = format!("XDP on {} was given up: {doubt}; {UNTIL}", watch.card());
            });
        }
        report.send_modify(|report| {
            report.check = Some(watch.known().into());
            report.queues = watch
                .queues()
                .iter()
                .map(|(redirected, received)| QueueReport {
                    redirected: *redirected,
                    received: *received,
                })
                .collect();
        });
    }
}

/// How long a relay does without XDP, and what ends that.
const UNTIL: &str = "a restart of the relay tries XDP again";

/// How often the directory is asked for a sign of life of the port.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Begins a connection to the directory. Whatever its host answers, the kernel has to receive.
async fn ask(directory: String) {
    let host = directory.trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or_default();
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = if has_port {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let connect = tokio::net::TcpStream::connect(host);
    let _ = tokio::time::timeout(3 * ASK_EVERY, connect).await;
}
