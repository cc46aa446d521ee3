//! The directories: whether they can be reached, are those of the network that is configured, and agree on the
//! time.

use mixline_daemon::network::Network;
use mixline_directory_client::{DirectoryClient, Error, Fetched, Known};

use super::finding::Finding;

/// What a directory answered.
#[derive(Debug)]
pub struct Directory {
    url: String,
    /// Relays in its snapshot.
    answer: Result<usize, Error>,
}

impl Directory {
    /// Asks each directory that is configured, and each that the network's roster names, for the snapshot,
    /// once.
    pub async fn read_all(network: &Network) -> Vec<Self> {
        let mut known = Known::nothing(network.id);
        let mut urls = network.urls.clone();
        let (mut read, mut at) = (Vec::<Self>::new(), 0);
        while let Some(url) = urls.get(at).cloned() {
            at += 1;
            let (one, now) = Self::read(url, known.clone()).await;
            known = now;
            if read.iter().all(|other| other.url != one.url) {
                read.push(one);
            }
            if let Some(roster) = known.roster() {
                for member in &roster.members {
                    if !urls.contains(&member.url) {
                        urls.push(member.url.clone());
                    }
                }
            }
        }
        read
    }

    /// Asks one, which is to go on from what is known.
    async fn read(url: String, known: Known) -> (Self, Known) {
        let mut client = match DirectoryClient::new(&url, known.network()) {
            Ok(client) => client,
            Err(error) => {
                let answer = Err(error);
                return (Self { url, answer }, known);
            }
        };
        client.set_known(known);
        let answer = client.fetch().await.map(|fetched| match fetched {
            Fetched::Snapshot(snapshot) => snapshot.relays.len(),
            Fetched::NotModified => 0,
        });
        let url = url.trim().trim_end_matches('/').to_owned();
        (Self { url, answer }, client.known().clone())
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
            Err(error @ Error::Url { .. }) => Finding::problem(
                check,
                error.to_string(),
                "`directories` (or `directory: url`) as it should be",
            ),
            Err(error @ (Error::Signature { .. } | Error::Roster { .. })) => Finding::problem(
                check,
                error.to_string(),
                "the network's ID that `mixline-directory id` prints",
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
    use mixline_protocol::identity::NetworkId;

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
                expected: NetworkId([3; 32])
            })),
            Level::Problem
        );
        let clock = ClockError { ahead: 3600 };
        assert_eq!(level(Err(Error::Clock(clock))), Level::Problem);
    }

    #[test]
    fn nobody_answers_at_any_address() {
        let free = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            format!("http://{}", listener.local_addr().unwrap())
        };
        let network = Network {
            id: NetworkId([3; 32]),
            urls: vec![free(), free()],
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let read = runtime.block_on(Directory::read_all(&network));
        assert_eq!(read.len(), 2);
        for (directory, url) in read.iter().zip(&network.urls) {
            let found = directory.judge();
            assert_eq!(found.level, Level::Warning);
            assert!(found.found.contains("unreachable"), "{}", found.found);
            assert!(found.found.contains(url), "{}", found.found);
        }
    }
}
