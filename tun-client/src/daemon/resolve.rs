//! What the command `resolve` asks for: who has a name, an ID or a virtual address, and if nobody is
//! found, at which step that came out.

use std::net::IpAddr;
use std::time::SystemTime;

use mixline_protocol::name::{AnonName, Label};
use mixline_protocol::time::UnixTime;
use serde::Serialize;
use serde_json::{Value, json};

use crate::dns::shares::Asker;
use crate::dns::{Backend, Entry, LookupError, Reach};

/// Why nothing can be looked up.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// It can be nobody's.
    #[error("{what:?} is no name (label.anon), no ID and no virtual address")]
    NotASubject {
        /// What was asked for.
        what: String,
    },
}

/// What has to be in order, one after the other, for a program to reach a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Step {
    /// The client is connected to a guard.
    Guard,
    /// The directory answers through the relays.
    Directory,
    /// The directory knows the name, the ID or the address.
    Name,
    /// Its holder has published where it is reached.
    Descriptor,
    /// It has a lease of an IPv4 address.
    Lease,
    /// Packets to its addresses enter the tunnel.
    Route,
}

/// A step that is not in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Problem {
    step: Step,
    /// A line for a person.
    text: String,
}

/// A name, an ID or an address.
enum Subject {
    Name(Label),
    Id(mixline_protocol::identity::AnonymousId),
    Address(IpAddr),
}

/// Looks up a name, an ID or a virtual address. What is found comes with what is in the way; if nothing
/// is found, `found` is false.
///
/// # Errors
/// [`ResolveError`].
pub async fn resolve<B: Backend>(
    backend: &B,
    reach: &Reach,
    what: &str,
) -> Result<Value, ResolveError> {
    let subject = subject(what)?;
    let looked_up = async {
        Ok::<_, LookupError>(match &subject {
            Subject::Name(label) => (backend.by_label(label).await?, Some(*label)),
            Subject::Id(id) => (backend.by_id(id).await?, backend.name_of(id).await?),
            Subject::Address(address) => {
                let entry = backend.by_address(*address).await?;
                (entry, backend.name_of(&entry.id).await?)
            }
        })
    };
    let now = UnixTime::from(SystemTime::now());
    Ok(match looked_up.await {
        Ok((entry, name)) => {
            let leased = entry.leased(now).map(|(address, _)| address);
            // Who asked gives it to a program.
            let shown = leased.map(IpAddr::V4).into_iter();
            for address in shown.chain([entry.ipv6.into()]) {
                backend.told(address, Asker::Host);
            }
            json!({
                "found": true,
                "name": name.map(|label| label.host()),
                "id": entry.id.to_string(),
                "ipv4": leased,
                "ipv6": entry.ipv6,
                "lease_expires": entry.lease_expires.map(|time| time.0),
                "name_expires": entry.name_expires.map(|time| time.0),
                "problems": problems(&entry, reach, now),
            })
        }
        Err(error) => json!({
            "found": false,
            "name": match &subject {
                Subject::Name(label) => Some(label.host()),
                _ => None,
            },
            "id": null,
            "ipv4": null,
            "ipv6": null,
            "problems": [missing(what, &subject, error)],
        }),
    })
}

fn subject(what: &str) -> Result<Subject, ResolveError> {
    if let Ok(address) = what.parse() {
        return Ok(Subject::Address(address));
    }
    let name = what
        .parse::<AnonName>()
        .ok()
        .or_else(|| what.parse().ok().map(AnonName::Id))
        .or_else(|| what.parse().ok().map(AnonName::Label));
    match name {
        Some(AnonName::Label(label)) => Ok(Subject::Name(label)),
        Some(AnonName::Id(id)) => Ok(Subject::Id(id)),
        None => Err(ResolveError::NotASubject {
            what: what.to_owned(),
        }),
    }
}

/// Why nothing was found.
fn missing(what: &str, subject: &Subject, error: LookupError) -> Problem {
    let (step, why) = match (error, subject) {
        (LookupError::Offline, _) => (
            Step::Guard,
            "no guard is reached, so nobody can be asked: `mixline-client status` says why",
        ),
        (LookupError::Unreachable, _) => (
            Step::Directory,
            "guards are reached, and the directory does not answer through them: see `queries` in \
             `mixline-client status`",
        ),
        (LookupError::NotFound, Subject::Name(_)) => {
            (Step::Name, "nobody holds this name, or its claim has ended")
        }
        (LookupError::NotFound, Subject::Id(_)) => (
            Step::Descriptor,
            "nothing is published for this ID: there is none, it is not up, or it has a list of \
             clients that this host is not on (`mixline-client key`)",
        ),
        (LookupError::NotFound, Subject::Address(_)) => (
            Step::Name,
            "nobody has this address, or whoever has it is not up",
        ),
    };
    Problem {
        step,
        text: format!("{what}: {why}"),
    }
}

/// What stands between a program and what was found.
fn problems(entry: &Entry, reach: &Reach, now: UnixTime) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |step, text: String| problems.push(Problem { step, text });
    if !entry.published {
        add(
            Step::Descriptor,
            "it is held, but its holder has not published where it is reached: it is not up, or has \
             a list of clients that this host is not on (`mixline-client key`)"
                .into(),
        );
        return problems;
    }
    match (entry.leased(now), entry.lease_expires) {
        (Some((address, _)), _) if !reach.has(address.into()) => {
            let why = if reach.leaves(address.into()) {
                "is somebody else's in this host's network"
            } else {
                "does not lead into the tunnel: see `mixline-client status`"
            };
            add(
                Step::Route,
                format!("{address} {why}, so programs are told the IPv6 address only"),
            );
        }
        (Some(_), _) => {}
        (None, Some(expires)) => add(
            Step::Lease,
            format!(
                "its lease of an IPv4 address ended {} s ago by this machine's clock: it has an IPv6 \
                 address only",
                now.since(expires)
            ),
        ),
        (None, None) => add(
            Step::Lease,
            "it has no lease of an IPv4 address, and an IPv6 address only".into(),
        ),
    }
    if !reach.has(entry.ipv6.into()) {
        add(
            Step::Route,
            format!(
                "{} does not lead into the tunnel, so programs are not told it: see `mixline-client \
                 status`",
                entry.ipv6
            ),
        );
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use mixline_protocol::identity::AnonymousId;

    use super::*;
    use crate::host::prefix::Prefix;

    /// Answers everything with one thing.
    struct One(Result<Entry, LookupError>);

    impl Backend for One {
        async fn by_label(&self, _: &Label) -> Result<Entry, LookupError> {
            self.0
        }

        async fn by_id(&self, _: &AnonymousId) -> Result<Entry, LookupError> {
            self.0
        }

        async fn by_address(&self, _: IpAddr) -> Result<Entry, LookupError> {
            self.0
        }

        async fn is_peers(&self, _: IpAddr) -> bool {
            false
        }

        fn told(&self, _: IpAddr, _: Asker) {}

        async fn name_of(&self, _: &AnonymousId) -> Result<Option<Label>, LookupError> {
            Ok(None)
        }
    }

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);

    fn reach() -> Reach {
        Reach {
            ipv4: true,
            ipv6: true,
            ..Reach::default()
        }
    }

    fn entry() -> Entry {
        Entry {
            id: AnonymousId([1; 32]),
            ipv4: Some(ADDRESS),
            ipv6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
            published: true,
            lease_expires: Some(UnixTime(u64::MAX / 2)),
            name_expires: None,
        }
    }

    /// The steps that are said not to be in order, and what is found.
    async fn steps(found: Result<Entry, LookupError>, reach: &Reach, what: &str) -> (Value, Value) {
        let value = resolve(&One(found), reach, what).await.unwrap();
        let problems = value["problems"].as_array().unwrap();
        let steps = problems.iter().map(|problem| problem["step"].clone());
        (steps.collect(), value)
    }

    #[tokio::test]
    async fn each_step_is_told() {
        let all = reach();
        let (none, found) = steps(Ok(entry()), &all, "a.anon").await;
        assert_eq!(none, json!([]));
        assert_eq!(found["ipv4"], "10.1.2.3");
        assert_eq!(found["found"], true);
        for (error, step) in [
            (LookupError::Offline, "guard"),
            (LookupError::Unreachable, "directory"),
            (LookupError::NotFound, "name"),
        ] {
            let (told, value) = steps(Err(error), &all, "a.anon").await;
            assert_eq!(told, json!([step]));
            assert_eq!(value["found"], false);
            assert_eq!(value["name"], "a.anon");
        }
        let unpublished = Entry {
            published: false,
            ipv4: None,
            ..entry()
        };
        let (told, value) = steps(Ok(unpublished), &all, "a.anon").await;
        assert_eq!(
            (told, &value["found"]),
            (json!(["descriptor"]), &json!(true))
        );
        let (told, _) = steps(Err(LookupError::NotFound), &all, &entry().id.host()).await;
        assert_eq!(told, json!(["descriptor"]));
    }

    #[tokio::test]
    async fn a_lease_that_ended_gives_no_address() {
        let ended = Entry {
            lease_expires: Some(UnixTime(1)),
            ..entry()
        };
        let none = Entry {
            ipv4: None,
            lease_expires: None,
            ..entry()
        };
        for entry in [ended, none] {
            let (told, value) = steps(Ok(entry), &reach(), "a.anon").await;
            assert_eq!((told, &value["ipv4"]), (json!(["lease"]), &Value::Null));
        }
    }

    #[tokio::test]
    async fn an_address_of_the_neighbourhood_is_told_as_such() {
        let shadowed = Reach {
            others: vec![Prefix::new(ADDRESS, 16)],
            ..reach()
        };
        let (told, value) = steps(Ok(entry()), &shadowed, "10.1.2.3").await;
        assert_eq!(told, json!(["route"]));
        let text = value["problems"][0]["text"].as_str().unwrap();
        assert!(text.contains("somebody else's"), "{text}");
        let closed = Reach::default();
        let (told, _) = steps(Ok(entry()), &closed, "a.anon").await;
        assert_eq!(told, json!(["route", "route"]));
        assert!(resolve(&One(Ok(entry())), &closed, "x y").await.is_err());
    }
}
