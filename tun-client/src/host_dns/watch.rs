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
/// Where systemd-resolved writes its `resolv.conf`, anew whenever it is told something of a link (systemd,
/// `manager_write_resolv_conf`). What it was told is in a directory below, which is its own (mode 0700),
/// and which a unit of few rights cannot look into, root's or not.
const TOLD: &str = "/run/systemd/resolve";

/// Hears of changes of a file: of what it holds, and of which file it is.
pub struct Watch {
    path: PathBuf,
    /// None where the kernel has no more to give.
    events: Option<EventStream<[u8; BUFFER]>>,
    file: Option<WatchDescriptor>,
    told: Option<WatchDescriptor>,
    /// What was announced, and not yet told to who waits: it may stop waiting at any moment.
    announced: Option<WatchDescriptor>,
    look: Duration,
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
            announced: None,
            look: LOOK,
        }
    }

    /// The same, with another time after which what nobody announces is looked at.
    #[must_use]
    pub fn looking_every(self, look: Duration) -> Self {
        Self { look, ..self }
    }

    /// Waits until something may have changed.
    pub async fn next(&mut self) -> Announced {
        let announced = async {
            match &mut self.events {
                Some(events) => {
                    if self.announced.is_none() {
                        let event = events.next().await;
                        self.announced = event.and_then(|event| Some(event.ok()?.wd));
                    }
                    tokio::time::sleep(PAUSE).await;
                    self.announced.take()
                }
                None => std::future::pending().await,
            }
        };
        // Where the file is one of systemd-resolved's, one directory stands for both; the file is looked at
        // in any case.
        match tokio::time::timeout(self.look, announced)
            .await
            .ok()
            .flatten()
        {
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
        self.told = events.watches().add(TOLD, names).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Nothing is looked at unless it is announced.
    const NEVER: Duration = Duration::from_secs(3600);
    const PATIENCE: Duration = Duration::from_secs(30);

    async fn next(watch: &mut Watch, after: &str) -> Announced {
        watch.listen();
        let next = tokio::time::timeout(PATIENCE, watch.next()).await;
        next.unwrap_or_else(|_| panic!("{after} is not heard of"))
    }

    /// Waits until all is told that came of what was done before.
    async fn silence(watch: &mut Watch) {
        watch.listen();
        while tokio::time::timeout(PAUSE * 4, watch.next()).await.is_ok() {}
    }

    #[tokio::test]
    async fn whatever_becomes_of_the_file_is_heard_of() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (
            directory.path().join("resolv.conf"),
            directory.path().join("other"),
        );
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let host = Host {
            resolv_conf: path.clone(),
            ..Host::default()
        };
        let mut watch = Watch::new(&host).looking_every(NEVER);
        silence(&mut watch).await;
        fs::write(&path, "nameserver 192.0.2.2\n").unwrap();
        assert_eq!(next(&mut watch, "what it says").await, Announced::File);
        fs::write(&other, "nameserver 192.0.2.3\n").unwrap();
        silence(&mut watch).await;
        fs::rename(&other, &path).unwrap();
        next(&mut watch, "another in its place").await;
        silence(&mut watch).await;
        fs::write(&path, "nameserver 192.0.2.4\n").unwrap();
        assert_eq!(next(&mut watch, "what that says").await, Announced::File);
        silence(&mut watch).await;
        fs::remove_file(&path).unwrap();
        next(&mut watch, "its end").await;
        silence(&mut watch).await;
        std::os::unix::fs::symlink("other", &path).unwrap();
        next(&mut watch, "a link in its place").await;
    }
}
