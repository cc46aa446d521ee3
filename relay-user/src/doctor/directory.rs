//! The directory: whether it can be reached, is the one that is configured, and agrees on the
//! time.

use mixline_directory_client::{DirectoryClient, Error, Fetched};

use super::finding::Finding;
use crate::config;

/// What the directory answered.
#[derive(Debug)]
pub struct Directory {
    url: String,
    /// Relays in its snapshot.
    answer: Result<usize, Error>,
}

impl Directory {
    /// Asks for the snapshot, once.
    pub async fn read(directory: &config::Directory) -> Self {
        let answer = async {
            let mut client = DirectoryClient::new(&directory.url, directory.id)?;
            Ok(match client.fetch().await? {
                Fetched::Snapshot(snapshot) => snapshot.relays.len(),
                Fetched::NotModified => 0,
            })
        };
        Self {
            url: directory.url.clone(),
            answer: answer.await,
        }
    }

    /// Compares it with what the relay needs. A running relay asks a silent directory again; a
    /// wrong address, ID or clock stays wrong.
    #[must_use]
    pub fn judge(&self) -> Finding {
        let check = "directory";
        let url = &self.url;
        match &self.answer {
            Ok(relays) => Finding::ok(
                check,
                format!("{url}: {relays} relays, its clock and ours agree"),
            ),
            Err(error @ Error::Url { .. }) => {
                Finding::problem(check, error.to_string(), "`directory: url` as it should be")
            }
            Err(error @ Error::Signature { .. }) => Finding::problem(
                check,
                error.to_string(),
                "the `id` that `mixline-directory id` prints",
            ),
            Err(error @ Error::Clock(_)) => {
                Finding::problem(check, error.to_string(), "timedatectl set-ntp true")
            }
            Err(error) => Finding::warning(
                check,
                error.to_string(),
                format!(
                    "`curl -sS {url}/healthz` from here must answer: see its log, and TCP rules"
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;
    use mixline_directory_client::ClockError;
    use mixline_protocol::identity::AnonymousId;

    fn level(answer: Result<usize, Error>) -> Level {
        let url = "http://192.0.2.1".into();
        Directory { url, answer }.judge().level
    }

    #[test]
    fn what_stays_wrong_is_a_problem() {
        assert_eq!(level(Ok(8)), Level::Ok);
        let url = || "http://192.0.2.1".to_string();
        assert_eq!(
            level(Err(Error::Unreachable {
                url: url(),
                reason: "x".into()
            })),
            Level::Warning
        );
        assert_eq!(
            level(Err(Error::Signature {
                url: url(),
                expected: AnonymousId([3; 32])
            })),
            Level::Problem
        );
        let clock = ClockError { ahead: 3600 };
        assert_eq!(level(Err(Error::Clock(clock))), Level::Problem);
    }

    #[test]
    fn nobody_answers() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let directory = config::Directory {
            url,
            id: AnonymousId([3; 32]),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let found = runtime.block_on(Directory::read(&directory)).judge();
        assert_eq!(found.level, Level::Warning);
        assert!(found.found.contains("unreachable"), "{}", found.found);
    }
}
