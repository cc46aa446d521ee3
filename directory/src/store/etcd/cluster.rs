//! Requests to whichever member of etcd answers.
//!
//! What only reads is asked of the next member when one fails. What writes is asked of the next one only
//! if it is certain that it has not been sent: otherwise whether it happened is not known, and asking
//! again might do it twice, or find a conflict with itself.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use mixline_http_client::{Answer, Failure, Patience, Request, Server, UrlError, header, one_line};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::messages::{Headed, Refused};

/// How long a call may take, whatever fails.
const CALL: Duration = Duration::from_secs(8);
/// The most bytes that are read of an answer: a page of entries, or all leases.
const LONGEST: usize = 16 << 20;
/// A read that a member does not answer is soon asked of the next one.
const READS: Patience = Patience {
    connect: Duration::from_secs(1),
    kept: Duration::from_millis(1500),
    begin: Duration::from_millis(2500),
    goes_on: Duration::from_secs(2),
    exchange: CALL,
};
/// A write waits while the members elect a leader, which takes them a second or two.
const WRITES: Patience = Patience {
    begin: Duration::from_secs(5),
    ..READS
};

/// gRPC's status codes that are told apart (`google/rpc/code.proto`).
pub(super) mod code {
    pub const NOT_FOUND: u32 = 5;
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    pub const FAILED_PRECONDITION: u32 = 9;
    /// Invalid argument, not found, permission denied, failed precondition, out of range, unimplemented,
    /// unauthenticated: said before anything is done.
    pub const REFUSED: [u32; 7] = [3, NOT_FOUND, 7, FAILED_PRECONDITION, 11, 12, 16];
}

/// Why etcd has not done what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No member does; nothing has happened. One line.
    Away(String),
    /// Whether it has happened is not known. One line.
    Unknown(String),
    /// Its quota is used up; nothing has happened.
    Full,
    /// etcd says no, with a gRPC code and one line; nothing has happened.
    Refused(u32, String),
}

/// Whether a request may be asked of several members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
}

const RANGE: &str = "v3/kv/range";
/// Who are you? Any member answers that, one without a leader too.
const WHO: &[u8] = br#"{"key":"AA==","serializable":true}"#;

/// The members of etcd.
#[derive(Debug)]
pub(super) struct Cluster {
    members: Vec<Member>,
    /// Of which etcd they are: that of the first that answered.
    id: OnceLock<String>,
    /// Who is asked first.
    preferred: AtomicUsize,
}

#[derive(Debug)]
struct Member {
    reads: Server,
    writes: Server,
    /// Whether it has said that it is of this etcd, since it last failed.
    is_known: AtomicBool,
}

/// What a member answered, and how far this machine's clock is ahead of its, seconds.
#[derive(Debug)]
pub(super) struct Answered<T> {
    pub answer: T,
    pub clock_ahead: Option<i64>,
}

impl Cluster {
    /// Those at these URLs, which were checked. Connects to nothing yet.
    pub(super) fn new(endpoints: &[String]) -> Result<Self, UrlError> {
        let member = |url: &String| {
            Ok::<_, UrlError>(Member {
                reads: Server::with_patience(url, READS)?,
                writes: Server::with_patience(url, WRITES)?,
                is_known: AtomicBool::new(false),
            })
        };
        Ok(Self {
            members: endpoints.iter().map(member).collect::<Result<_, _>>()?,
            id: OnceLock::new(),
            preferred: AtomicUsize::new(0),
        })
    }

    /// Whether the members that answer now are of one etcd.
    pub(super) async fn meet(&self) -> Result<(), Trouble> {
        for member in &self.members {
            if let Ok((answer, _)) = member.ask(RANGE, WHO, Kind::Read).await {
                self.check_member(member, &answer)?;
            }
        }
        Ok(())
    }

    /// Asks something that changes nothing.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        question: &impl Serialize,
    ) -> Result<Answered<T>, Trouble> {
        self.ask(path, question, Kind::Read).await
    }

    /// Asks for a change, at most once.
    pub(super) async fn write<T: DeserializeOwned>(
        &self,
        path: &str,
        question: &impl Serialize,
    ) -> Result<Answered<T>, Trouble> {
        self.ask(path, question, Kind::Write).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        question: &impl Serialize,
        kind: Kind,
    ) -> Result<Answered<T>, Trouble> {
        let body = serde_json::to_vec(question).map_err(|e| Trouble::Away(e.to_string()))?;
        let deadline = Instant::now() + CALL;
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = Trouble::Away("no members".into());
        for offset in 0..self.members.len() {
            let number = first.wrapping_add(offset) % self.members.len();
            let Some(member) = self.members.get(number) else {
                break;
            };
            let asked = timeout_at(deadline, self.ask_member(member, path, &body, kind)).await;
            last = match asked {
                Ok(Ok((answer, clock_ahead))) => {
                    return read_answer(&answer, clock_ahead, kind);
                }
                Ok(Err(trouble)) => trouble,
                Err(_) => missed(kind, "no answer in time"),
            };
            if let Trouble::Away(_) | Trouble::Unknown(_) = last {
                member.is_known.store(false, Ordering::Relaxed);
                self.avoid(number);
            }
            if !matches!(last, Trouble::Away(_)) || Instant::now() >= deadline {
                break;
            }
        }
        Err(last)
    }

    /// Asks one member. None is given anything to write before it has said that it is of this etcd.
    async fn ask_member(
        &self,
        member: &Member,
        path: &str,
        body: &[u8],
        kind: Kind,
    ) -> Result<(Vec<u8>, Option<i64>), Trouble> {
        if kind == Kind::Write && !member.is_known.load(Ordering::Relaxed) {
            let (answer, _) = member.ask(RANGE, WHO, Kind::Read).await?;
            self.check_member(member, &answer)?;
        }
        let (answer, clock_ahead) = member.ask(path, body, kind).await?;
        self.check_member(member, &answer)
            .map_err(|trouble| match (kind, trouble) {
                (Kind::Write, Trouble::Away(reason)) => Trouble::Unknown(reason),
                (_, trouble) => trouble,
            })?;
        Ok((answer, clock_ahead))
    }

    /// Whether an answer is of this etcd.
    fn check_member(&self, member: &Member, answer: &[u8]) -> Result<(), Trouble> {
        let read = serde_json::from_slice::<Headed>(answer);
        let Some(id) = read.ok().and_then(|headed| headed.header.cluster_id) else {
            // What is odd is said where it is read.
            return Ok(());
        };
        let url = member.reads.url();
        if *self.id.get_or_init(|| id.clone()) != id {
            return Err(Trouble::Away(format!(
                "{url} is a member of another etcd than the others, or than it was when this directory \
                 was started"
            )));
        }
        member.is_known.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Another member is asked first from now on.
    fn avoid(&self, number: usize) {
        let next = (number + 1) % self.members.len().max(1);
        // Who has moved on meanwhile is not called back.
        let _ = self
            .preferred
            .compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Member {
    /// The body of its answer, and how far this machine's clock is ahead.
    async fn ask(
        &self,
        path: &str,
        body: &[u8],
        kind: Kind,
    ) -> Result<(Vec<u8>, Option<i64>), Trouble> {
        let request = Request::post_json(path, body.to_vec());
        let (server, request) = match kind {
            Kind::Read => (&self.reads, request),
            Kind::Write => (&self.writes, request.once()),
        };
        let failed = |failure: &Failure| {
            let reason = format!("{}: {failure}", server.url());
            if failure.is_unsent() {
                Trouble::Away(reason)
            } else {
                missed(kind, &reason)
            }
        };
        let answer = server.ask(request).await.map_err(|e| failed(&e))?;
        let clock_ahead = clock_ahead(&answer);
        let status = answer.status();
        let body = answer.body(LONGEST).await.map_err(|e| failed(&e))?;
        if status.is_success() {
            return Ok((body, clock_ahead));
        }
        match serde_json::from_slice::<Refused>(&body) {
            Ok(refused) => Err(refusal(&refused, &server.url(), kind)),
            Err(_) => {
                let reason = format!(
                    "{} answers with status {status}: is it etcd, 3.4 or newer?",
                    server.url()
                );
                Err(missed(kind, &reason))
            }
        }
    }
}

fn read_answer<T: DeserializeOwned>(
    body: &[u8],
    clock_ahead: Option<i64>,
    kind: Kind,
) -> Result<Answered<T>, Trouble> {
    let odd = |error: serde_json::Error| {
        let reason = format!("an answer that etcd 3.4 does not give: {error}");
        missed(kind, &one_line(&reason))
    };
    Ok(Answered {
        answer: serde_json::from_slice(body).map_err(odd)?,
        clock_ahead,
    })
}

/// What etcd says no with.
fn refusal(refused: &Refused, url: &str, kind: Kind) -> Trouble {
    let said = one_line(&refused.message);
    let reason = format!("{url}: {said}");
    match refused.code {
        code::RESOURCE_EXHAUSTED if said.contains("space exceeded") => Trouble::Full,
        // Too much is under way; it has not been proposed.
        code::RESOURCE_EXHAUSTED => Trouble::Away(reason),
        code if code::REFUSED.contains(&code) => Trouble::Refused(code, reason),
        // No leader, a leader that changed, a member that stops: it may have been proposed.
        _ => missed(kind, &reason),
    }
}

/// Something that was sent, and not answered as it should be.
fn missed(kind: Kind, reason: &str) -> Trouble {
    match kind {
        Kind::Read => Trouble::Away(reason.to_owned()),
        Kind::Write => Trouble::Unknown(reason.to_owned()),
    }
}

fn clock_ahead(answer: &Answer) -> Option<i64> {
    let date = answer.headers().get(header::DATE)?.to_str().ok()?;
    let theirs = httpdate::parse_http_date(date).ok()?;
    let seconds = |passed: Duration| i64::try_from(passed.as_secs()).unwrap_or(i64::MAX);
    Some(match SystemTime::now().duration_since(theirs) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::messages::RangeAnswer;
    use super::*;

    fn refused(code: u32, message: &str, kind: Kind) -> Trouble {
        let message = message.to_owned();
        refusal(&Refused { code, message }, "u", kind)
    }

    #[test]
    fn what_may_have_happened_is_told_from_what_has_not() {
        let timed_out = "etcdserver: request timed out";
        assert!(matches!(
            refused(14, timed_out, Kind::Write),
            Trouble::Unknown(_)
        ));
        assert!(matches!(
            refused(14, timed_out, Kind::Read),
            Trouble::Away(_)
        ));
        let full = "etcdserver: mvcc: database space exceeded";
        assert_eq!(refused(8, full, Kind::Write), Trouble::Full);
        let busy = "etcdserver: too many requests";
        assert!(matches!(refused(8, busy, Kind::Write), Trouble::Away(_)));
        let no_lease = "etcdserver: requested lease not found";
        assert!(matches!(
            refused(5, no_lease, Kind::Write),
            Trouble::Refused(5, _)
        ));
    }

    /// A member that answers everything so; its URL, and how often it was asked.
    async fn member(
        status: u16,
        body: &'static str,
        date: SystemTime,
    ) -> (String, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let date = httpdate::fmt_http_date(date);
        let answer = move || {
            count.fetch_add(1, Ordering::Relaxed);
            let head = axum::http::Response::builder().status(status);
            let head = head.header("date", date.clone());
            std::future::ready(head.body(axum::body::Body::from(body)).unwrap())
        };
        let router = axum::Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, asked)
    }

    const STOPS: &str = r#"{"message":"etcdserver: server stopped","code":14}"#;

    #[tokio::test]
    async fn a_read_goes_on_to_the_next_member_and_a_write_does_not() {
        let now = SystemTime::now();
        let (stopping, asked) = member(503, STOPS, now).await;
        let (good, _) = member(200, "{}", now).await;
        let members = [stopping, good];
        let read = Cluster::new(&members).unwrap();
        let answer = read.read::<RangeAnswer>("v3/kv/range", &()).await;
        assert_eq!(answer.unwrap().answer.count, 0);
        // The next one is asked first from now on.
        read.write::<RangeAnswer>("v3/kv/txn", &()).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let write = Cluster::new(&members).unwrap();
        // As if it had said who it is, and stopped then.
        write.members[0].is_known.store(true, Ordering::Relaxed);
        let missed = write.write::<RangeAnswer>("v3/kv/txn", &()).await;
        assert!(matches!(missed, Err(Trouble::Unknown(_))), "{missed:?}");
        write.write::<RangeAnswer>("v3/kv/txn", &()).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn nothing_is_written_to_another_etcd() {
        let now = SystemTime::now();
        let (ours, _) = member(200, r#"{"header":{"cluster_id":"1"}}"#, now).await;
        let (other, asked) = member(200, r#"{"header":{"cluster_id":"2"}}"#, now).await;
        let cluster = Cluster::new(&[ours, other]).unwrap();
        cluster.read::<RangeAnswer>(RANGE, &()).await.unwrap();
        cluster.avoid(0);
        cluster
            .write::<RangeAnswer>("v3/kv/txn", &())
            .await
            .unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 1, "who it is");
        cluster.avoid(0);
        cluster.read::<RangeAnswer>(RANGE, &()).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2, "and goes on to the first");
        let met = cluster.meet().await;
        assert!(matches!(met, Err(Trouble::Away(_))), "{met:?}");
    }

    #[tokio::test]
    async fn what_is_no_etcd_is_said() {
        for (status, body) in [(404, "not found"), (200, "<html>"), (200, r#"{"kvs":7}"#)] {
            let (url, _) = member(status, body, SystemTime::now()).await;
            let cluster = Cluster::new(&[url]).unwrap();
            let odd = cluster.read::<RangeAnswer>("v3/kv/range", &()).await;
            let Err(Trouble::Away(reason)) = odd else {
                panic!("{odd:?}")
            };
            assert!(
                reason.contains("etcd") && reason.lines().count() == 1,
                "{reason}"
            );
        }
    }

    #[tokio::test]
    async fn the_clocks_are_compared() {
        let hour = Duration::from_secs(3600);
        for (date, seconds) in [
            (SystemTime::now() - hour, 3600),
            (SystemTime::now() + hour, -3600),
        ] {
            let (url, _) = member(200, "{}", date).await;
            let cluster = Cluster::new(&[url]).unwrap();
            let answer = cluster.read::<RangeAnswer>("v3/kv/range", &()).await;
            let ahead: i64 = answer.unwrap().clock_ahead.unwrap();
            assert!(ahead.abs_diff(seconds) < 60, "{ahead}");
        }
    }
}
