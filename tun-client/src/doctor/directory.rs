//! The directories: whether each can be reached, is one of the network that is configured, has the newest round, and
//! agrees on the time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::join_all;
use mixline_daemon::doctor::Finding;
use mixline_directory_client::{DirectoryClient, Error, Fetched, Known};
use mixline_protocol::identity::NetworkId;
use mixline_protocol::records::{Roster, Snapshot};
use mixline_protocol::time::UnixTime;

use super::client::Client;
use crate::config::Config;
use crate::state::State;

/// With a clock that differs by more than this, records soon seem to have expired; seconds.
const CLOCK_TOLERANCE: i64 = 60;
/// A directory has a round from the others so long after it was published; seconds.
const ROUND_TOLERANCE: u64 = 60;

/// What the directories answered.
#[derive(Debug)]
pub struct Directories {
    asked: Vec<Asked>,
    /// How long a round is, seconds; 0 if the directory is alone.
    round_seconds: u64,
}

/// What one answered.
#[derive(Debug)]
struct Asked {
    url: String,
    answer: Result<Newest, Error>,
    /// Seconds that this machine's clock is ahead of its.
    clock_ahead: Option<i64>,
}

/// The snapshot that it has.
#[derive(Debug, Clone, Copy)]
struct Newest {
    round: UnixTime,
    /// The version of the roster that has signed; 0 for a directory that is alone.
    roster: u32,
    relays: usize,
    /// For how many seconds it is valid.
    left: u64,
}

impl Directories {
    /// Asks each for its snapshot, once: those that are configured, and those that the roster has besides.
    pub async fn read(config: &Config) -> (Self, Option<Arc<Snapshot>>) {
        let network = &config.network;
        let mut asking = Asking {
            network: network.id,
            known: State::known_in(&config.state_dir, network.id),
            urls: BTreeSet::new(),
            asked: Vec::new(),
            snapshot: None,
        };
        asking.ask(network.urls.clone()).await;
        // What they said of the others may be new.
        asking.ask(asking.members()).await;
        let roster = asking.known.roster();
        let seen = Self {
            round_seconds: roster.map_or(0, |roster| roster.round_seconds.into()),
            asked: asking.asked,
        };
        (seen, asking.snapshot)
    }

    /// Whether any answered as it should.
    #[must_use]
    pub fn any_answered(&self) -> bool {
        self.asked.iter().any(|asked| asked.answer.is_ok())
    }

    /// Seconds that this machine's clock is ahead of theirs: of the one in the middle.
    #[must_use]
    pub fn clock_ahead(&self) -> Option<i64> {
        let mut ahead: Vec<i64> = self.asked.iter().filter_map(|it| it.clock_ahead).collect();
        ahead.sort_unstable();
        ahead.get(ahead.len() / 2).copied()
    }

    /// Compares them with what the client needs. A running one goes on for as long as its last snapshot
    /// is valid.
    #[must_use]
    pub fn judge(&self, client: &Client) -> Vec<Finding> {
        let answers = self.asked.iter().filter_map(|it| it.answer.as_ref().ok());
        let newest = answers.map(|it| it.round).max();
        let judge = |asked: &Asked| match &asked.answer {
            Ok(answer) => {
                let behind = newest.map_or(0, |newest| newest.since(answer.round));
                self.judge_answer(&asked.url, answer, behind)
            }
            Err(error) => self.judge_error(&asked.url, error, client),
        };
        self.asked.iter().map(judge).collect()
    }

    fn judge_answer(&self, url: &str, answer: &Newest, behind: u64) -> Finding {
        let check = "directory";
        let Newest {
            round,
            roster,
            relays,
            left,
        } = answer;
        if behind > self.round_seconds + ROUND_TOLERANCE {
            return Finding::warning(
                check,
                format!("{url}: its newest round is {behind} s older than that of another"),
                format!("nothing here: who runs {url} should look at its log"),
            );
        }
        let signed = match roster {
            0 => "signed by the configured ID".to_owned(),
            version => format!("round {}, signed by a quorum of roster {version}", round.0),
        };
        Finding::ok(
            check,
            format!("{url}: {relays} relays, {signed}, valid for {left} s"),
        )
    }

    fn judge_error(&self, url: &str, error: &Error, client: &Client) -> Finding {
        let check = "directory";
        let change = match error {
            Error::Url { .. } => "`directory: url` as it should be".to_owned(),
            Error::Signature { .. } | Error::Roster { .. } => {
                "the ID that `mixline-directory id` prints: sudo mixline-client join LINK"
                    .to_owned()
            }
            Error::Clock(_) => "sudo timedatectl set-ntp true".to_owned(),
            Error::Unreachable { .. } => format!(
                "`curl -sS {url}/healthz` from here must answer: is this host online, the URL right, \
                 TCP allowed?"
            ),
            _ => format!("`curl -sS {url}/healthz` from here must answer: see the directory's log"),
        };
        if self.any_answered() {
            let found = format!("{error}; the client asks another one");
            return Finding::warning(check, found, change);
        }
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

/// Directories that are being asked.
struct Asking {
    network: NetworkId,
    known: Known,
    urls: BTreeSet<String>,
    asked: Vec<Asked>,
    snapshot: Option<Arc<Snapshot>>,
}

impl Asking {
    /// Asks all of these that were not asked yet, at once.
    async fn ask(&mut self, urls: Vec<String>) {
        let new = |url: &String| self.urls.insert(url.trim_end_matches('/').to_owned());
        let urls: Vec<String> = urls.into_iter().filter(new).collect();
        let answers = urls
            .into_iter()
            .map(|url| fetch(url, self.network, &self.known));
        for (asked, known, snapshot) in join_all(answers).await {
            let version = |known: &Known| known.roster().map(|roster| roster.version);
            if version(&known) > version(&self.known) {
                self.known = known;
            }
            let round = |it: &Option<Arc<Snapshot>>| it.as_ref().map(|it| it.issued);
            if round(&snapshot) > round(&self.snapshot) {
                self.snapshot = snapshot;
            }
            self.asked.push(asked);
        }
    }

    /// Where the roster says that directories are.
    fn members(&self) -> Vec<String> {
        let roster: Option<&Roster> = self.known.roster().map(AsRef::as_ref);
        let members = roster.into_iter().flat_map(|it| &it.members);
        members.map(|member| member.url.clone()).collect()
    }
}

async fn fetch(
    url: String,
    network: NetworkId,
    known: &Known,
) -> (Asked, Known, Option<Arc<Snapshot>>) {
    let mut snapshot = None;
    let (mut known, mut clock_ahead) = (known.clone(), None);
    let answer = async {
        let mut client = DirectoryClient::new(&url, network)?;
        client.set_known(known.clone());
        let fetched = client.fetch().await;
        clock_ahead = client.clock_ahead();
        known = client.known().clone();
        fetched
    };
    let answer = match answer.await {
        Ok(Fetched::Snapshot(fetched)) => {
            let now = UnixTime::from(SystemTime::now());
            let newest = Newest {
                round: fetched.issued,
                roster: fetched.roster,
                relays: fetched.relays.len(),
                left: fetched.valid_until.since(now),
            };
            snapshot = Some(fetched);
            Ok(newest)
        }
        // Nothing was held that could be the newest still.
        Ok(Fetched::NotModified) => Err(Error::NotADirectory {
            url: url.clone(),
            reason: "it says that nothing has changed".into(),
        }),
        Err(error) => Err(error),
    };
    let asked = Asked {
        url,
        answer,
        clock_ahead,
    };
    (asked, known, snapshot)
}

/// This machine's clock, beside the directories'.
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
    use serde_json::json;

    use super::*;

    const URLS: [&str; 4] = [
        "http://192.0.2.1",
        "http://192.0.2.2",
        "http://192.0.2.3",
        "http://192.0.2.4",
    ];

    fn newest(round: u64, roster: u32) -> Newest {
        Newest {
            round: UnixTime(round),
            roster,
            relays: 8,
            left: 600,
        }
    }

    fn judged<const N: usize>(
        answers: [Result<Newest, Error>; N],
        client: &Client,
    ) -> Vec<Finding> {
        let asked = answers.into_iter().zip(URLS).map(|(answer, url)| Asked {
            url: url.into(),
            answer,
            clock_ahead: None,
        });
        let directories = Directories {
            asked: asked.collect(),
            round_seconds: if N == 1 { 0 } else { 300 },
        };
        directories.judge(client)
    }

    fn unreachable() -> Error {
        Error::Unreachable {
            url: URLS[0].into(),
            reason: "no route".into(),
        }
    }

    #[test]
    fn what_a_client_cannot_do_without_is_a_problem() {
        let none = Client::missing();
        let alone = |answer, client: &Client| judged([answer], client).remove(0);
        assert_eq!(alone(Ok(newest(1, 0)), &none).level, Level::Ok);
        let found = alone(Err(unreachable()), &none);
        assert_eq!(found.level, Level::Problem);
        assert!(found.found.contains("unreachable"));
        assert!(found.change.unwrap().contains("curl"));
        let wrong = Error::Signature {
            url: URLS[0].into(),
            expected: NetworkId([3; 32]),
        };
        let found = alone(Err(wrong), &none);
        assert!(found.change.unwrap().contains("join"));
        let soon = UnixTime::from(SystemTime::now()).0 + 300;
        let running = Client::saying(json!({"network": {"valid_until": soon}}));
        assert_eq!(alone(Err(unreachable()), &running).level, Level::Warning);
        let stale = Client::saying(json!({"network": {"valid_until": soon - 400}}));
        assert_eq!(alone(Err(unreachable()), &stale).level, Level::Problem);
    }

    #[test]
    fn of_several_directories_one_is_enough() {
        let none = Client::missing();
        let levels = |found: &[Finding]| found.iter().map(|it| it.level).collect::<Vec<_>>();
        let round = 1_800_000_000;
        let found = judged(
            [
                Err(unreachable()),
                Ok(newest(round, 2)),
                Ok(newest(round - 300, 2)),
                Ok(newest(round - 900, 2)),
            ],
            &none,
        );
        assert_eq!(
            levels(&found),
            [Level::Warning, Level::Ok, Level::Ok, Level::Warning]
        );
        assert!(
            found[0].found.contains("asks another"),
            "{}",
            found[0].found
        );
        assert!(
            found[1].found.contains("quorum of roster 2"),
            "{}",
            found[1].found
        );
        assert!(found[3].found.contains("900 s older"), "{}", found[3].found);
        let found = judged([Err(unreachable()), Err(unreachable())], &none);
        assert_eq!(levels(&found), [Level::Problem; 2]);
    }

    #[test]
    fn the_clock_is_compared_with_that_of_the_directory_in_the_middle() {
        let of = |clocks: &[Option<i64>]| {
            let asked = clocks.iter().map(|clock_ahead| Asked {
                url: URLS[0].into(),
                answer: Err(unreachable()),
                clock_ahead: *clock_ahead,
            });
            let asked = asked.collect();
            Directories {
                asked,
                round_seconds: 300,
            }
            .clock_ahead()
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[None, Some(3)]), Some(3));
        assert_eq!(of(&[Some(-9000), Some(2), Some(1), None]), Some(1));
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
