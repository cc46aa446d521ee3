//! Hears when another program changes `/etc/resolv.conf`, or what systemd-resolved was told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchDescriptor, WatchMask};

use super::Host;

/// What nobody announces is looked at this often, such as a file that was mounted over.
const LOOK: Duration = Duration::from_secs(2);
/// Who writes a file does it in several steps.
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes of announcements that are read at a time.
const BUFFER: usize = 4096;
/// Where systemd-resolved keeps what it was told about links: one file for each.
const TOLD: &str = "/run/systemd/resolve/netif";

/// Hears of changes of a file: of what it holds, and of which file it is.
pub struct Watch {
    path: PathBuf,
    /// None where the kernel has no more to give.
    events: Option<EventStream<[u8; BUFFER]>>,
    file: Option<WatchDescriptor>,
    told: Option<WatchDescriptor>,
}

/// What may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// The file, or what may be done to it.
    File,
    /// What systemd-resolved was told of links.
    Resolved,
    /// Something beside the file, or what nobody announces.
    Something,
}

impl Watch {
    /// Listens for changes of the host's resolver.
    #[must_use]
    pub fn new(host: &Host) -> Self {
        let stream = Inotify::init().and_then(|inotify| inotify.into_event_stream([0; BUFFER]));
        let events = stream
            .inspect_err(|error| tracing::debug!(%error, "inotify"))
            .ok();
        Self {
            path: host.resolv_conf.clone(),
            events,
            file: None,
            told: None,
        }
    }

    /// Waits until something may have changed.
    pub async fn next(&mut self) -> Announced {
        let announced = async {
            match &mut self.events {
                Some(events) => {
                    let event = events.next().await;
                    tokio::time::sleep(PAUSE).await;
                    event.and_then(|event| Some(event.ok()?.wd))
                }
                None => std::future::pending().await,
            }
        };
        match tokio::time::timeout(LOOK, announced).await.ok().flatten() {
            Some(of) if self.file.as_ref() == Some(&of) => Announced::File,
            Some(of) if self.told.as_ref() == Some(&of) => Announced::Resolved,
            _ => Announced::Something,
        }
    }

    /// Listens to the file, to where it is, and to where it leads if it is a link. What is listened
    /// to already stays so.
    pub fn listen(&mut self) {
        let Some(events) = &self.events else {
            return;
        };
        let target = std::fs::canonicalize(&self.path).ok();
        let directory = |path: &Path| path.parent().map(Path::to_owned);
        let directories = [directory(&self.path), target.as_deref().and_then(directory)];
        let names =
            WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::DELETE;
        for directory in directories.into_iter().flatten() {
            let _ = events.watches().add(directory, names);
        }
        let changes = WatchMask::MODIFY | WatchMask::ATTRIB;
        self.file = target.and_then(|target| events.watches().add(target, changes).ok());
        self.told = events.watches().add(TOLD, names | WatchMask::MODIFY).ok();
    }
}
