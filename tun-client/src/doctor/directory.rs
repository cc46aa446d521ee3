//! The directory: whether it can be reached, is the one that is configured, and agrees on the time.

use std::sync::Arc;
use std::time::SystemTime;

use mixline_daemon::doctor::Finding;
use mixline_directory_client::{DirectoryClient, Error, Fetched};
use mixline_protocol::records::Snapshot;
use mixline_protocol::time::UnixTime;

use super::client::Client;
use crate::config;

/// With a clock that differs by more than this, records soon seem to have expired; seconds.
const CLOCK_TOLERANCE: i64 = 60;

/// What the directory answered.
#[derive(Debug)]
pub struct Directory {
    /// Where it is.
    pub url: String,
    /// Relays in its snapshot, and for how many seconds that is valid.
    pub answer: Result<(usize, u64), Error>,
    /// Seconds that this machine's clock is ahead of its.
    pub clock_ahead: Option<i64>,
}

impl Directory {
    /// Asks for the snapshot, once.
    pub async fn read(directory: &config::Directory) -> (Self, Option<Arc<Snapshot>>) {
        let mut clock_ahead = None;
        let answer = async {
            let mut client = DirectoryClient::new(&directory.url, directory.id)?;
            let fetched = client.fetch().await;
            clock_ahead = client.clock_ahead();
            fetched
        };
        let (answer, snapshot) = match answer.await {
            Ok(Fetched::Snapshot(snapshot)) => {
                let left = snapshot
                    .valid_until
                    .since(UnixTime::from(SystemTime::now()));
                (Ok((snapshot.relays.len(), left)), Some(snapshot))
            }
            Ok(Fetched::NotModified) => (Ok((0, 0)), None),
            Err(error) => (Err(error), None),
        };
        let seen = Self {
            url: directory.url.clone(),
            answer,
            clock_ahead,
        };
        (seen, snapshot)
    }

    /// Compares it with what the client needs. A running one goes on for as long as its last snapshot
    /// is valid.
    #[must_use]
    pub fn judge(&self, client: &Client) -> Finding {
        let check = "directory";
        let url = &self.url;
        let error = match &self.answer {
            Ok((relays, left)) => {
                return Finding::ok(
                    check,
                    format!(
                        "{url}: {relays} relays, signed by the configured ID, valid for {left} s"
                    ),
                );
            }
            Err(error) => error,
        };
        let change = match error {
            Error::Url { .. } => "`directory: url` as it should be".to_owned(),
            Error::Signature { .. } => {
                "the `id` that `mixline-directory id` prints: sudo mixline-client join LINK"
                    .to_owned()
            }
            Error::Clock(_) => "sudo timedatectl set-ntp true".to_owned(),
            Error::Unreachable { .. } => format!(
                "`curl -sS {url}/healthz` from here must answer: is this host online, the URL right, \
                 TCP allowed?"
            ),
            _ => format!("`curl -sS {url}/healthz` from here must answer: see the directory's log"),
        };
        let valid_until = client
            .status()
            .and_then(|status| status["network"]["valid_until"].as_u64());
        let left = valid_until.and_then(|until| {
            let now = UnixTime::from(SystemTime::now()).0;
            until.checked_sub(now)
        });
        match left {
            Some(left) if error.may_pass() => Finding::warning(
                check,
                format!("{error}; the client goes on with its snapshot for {left} s"),
                change,
            ),
            _ => Finding::problem(check, error.to_string(), change),
        }
    }
}

/// This machine's clock, beside the directory's.
#[must_use]
pub fn judge_clock(ahead: i64) -> Finding {
    let check = "clock";
    match ahead {
        0 => Finding::ok(check, "that of the directory"),
        _ if ahead.abs() <= CLOCK_TOLERANCE => Finding::ok(
            check,
            format!("{} s {} the directory's", ahead.abs(), way(ahead)),
        ),
        _ => Finding::problem(
            check,
            format!("{} s {} the directory's", ahead.abs(), way(ahead)),
            "sudo timedatectl set-ntp true",
        ),
    }
}

fn way(ahead: i64) -> &'static str {
    if ahead > 0 { "ahead of" } else { "behind" }
}

#[cfg(test)]
mod tests {
    use mixline_daemon::doctor::Level;
    use mixline_protocol::identity::AnonymousId;
    use serde_json::json;

    use super::*;

    fn judged(answer: Result<(usize, u64), Error>, client: &Client) -> Finding {
        let directory = Directory {
            url: "http://192.0.2.1".into(),
            answer,
            clock_ahead: None,
        };
        directory.judge(client)
    }

    #[test]
    fn what_a_client_cannot_do_without_is_a_problem() {
        let none = Client::missing();
        assert_eq!(judged(Ok((8, 600)), &none).level, Level::Ok);
        let url = || "http://192.0.2.1".to_owned();
        let unreachable = || Error::Unreachable {
            url: url(),
            reason: "no route".into(),
        };
        let found = judged(Err(unreachable()), &none);
        assert_eq!(found.level, Level::Problem);
        assert!(found.found.contains("unreachable"));
        assert!(found.change.unwrap().contains("curl"));
        let wrong = Error::Signature {
            url: url(),
            expected: AnonymousId([3; 32]),
        };
        let found = judged(Err(wrong), &none);
        assert!(found.change.unwrap().contains("join"));
        let soon = UnixTime::from(SystemTime::now()).0 + 300;
        let running = Client::saying(json!({"network": {"valid_until": soon}}));
        assert_eq!(judged(Err(unreachable()), &running).level, Level::Warning);
        let stale = Client::saying(json!({"network": {"valid_until": soon - 400}}));
        assert_eq!(judged(Err(unreachable()), &stale).level, Level::Problem);
    }

    #[test]
    fn a_clock_that_is_wrong_is_a_problem() {
        assert_eq!(judge_clock(0).level, Level::Ok);
        assert_eq!(judge_clock(-60).level, Level::Ok);
        let found = judge_clock(-61);
        assert_eq!(found.level, Level::Problem);
        assert_eq!(found.found, "61 s behind the directory's");
    }
}
