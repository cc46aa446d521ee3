//! `mixline-client ping`: round trip and loss of each path to a peer, in the manner of ping(8).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

/// What was measured, round after round.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Measured {
    /// What was asked for: a name, an ID or an address.
    pub name: String,
    /// The peer's ID.
    pub id: String,
    /// Rounds: each asks once over each path.
    pub rounds: usize,
    /// Of these, those in which there was no way to ask.
    pub failed: usize,
    /// Milliseconds that it took to open a session, if there was none before.
    pub opened_ms: Option<f64>,
    /// Each path that was asked over, in the order in which they came to be.
    pub paths: Vec<Path>,
}

/// One path, as it was measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Path {
    /// The relays that this side chose, the guard first.
    pub head: Vec<String>,
    /// The first relay of the peer's tail.
    pub tail: String,
    /// Questions over it.
    pub sent: u64,
    /// Of these, answered.
    pub answered: u64,
    /// Round trips of those that were answered.
    pub rtt_ms: Option<Spread>,
    /// The round trip of each question in order, milliseconds; none if it was lost.
    pub replies: Vec<Option<f64>>,
}

/// Round trips in short, as ping(8) does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The shortest, milliseconds.
    pub min: f64,
    /// The mean, milliseconds.
    pub avg: f64,
    /// The longest, milliseconds.
    pub max: f64,
    /// The standard deviation, milliseconds.
    pub mdev: f64,
}

impl Spread {
    /// Of these round trips, milliseconds; none of none.
    #[must_use]
    pub fn of(trips: &[f64]) -> Option<Self> {
        let count = trips.len() as f64;
        let min = trips.iter().copied().reduce(f64::min)?;
        let max = trips.iter().copied().reduce(f64::max)?;
        let avg = trips.iter().sum::<f64>() / count;
        let variance = trips.iter().map(|trip| (trip - avg).powi(2)).sum::<f64>() / count;
        Some(Self {
            min,
            avg,
            max,
            mdev: variance.sqrt(),
        })
    }
}

/// A path's relays, and how many paths of one round before had the same ones.
type Key = (Vec<String>, String, usize);

impl Measured {
    /// Nothing yet, of a peer.
    #[must_use]
    pub fn new(name: &str, id: &str) -> Self {
        Self {
            name: name.to_owned(),
            id: id.to_owned(),
            ..Self::default()
        }
    }

    /// Takes note of one round, as the running client reports it. Gives what a person reads of it.
    pub fn add(&mut self, report: &Value) -> String {
        self.rounds += 1;
        let mut out = String::new();
        if let Some(opened) = report["opened_ms"].as_f64() {
            self.opened_ms.get_or_insert(opened);
            let _ = writeln!(out, "a session was opened in {opened:.0} ms");
        }
        let mut places: BTreeMap<Key, usize> = BTreeMap::new();
        for (index, path) in self.paths.iter().enumerate() {
            let mut key = (path.head.clone(), path.tail.clone(), 0);
            while places.contains_key(&key) {
                key.2 += 1;
            }
            places.insert(key, index);
        }
        let mut seen: BTreeMap<(Vec<String>, String), usize> = BTreeMap::new();
        let mut round = Vec::new();
        for path in list(&report["paths"]) {
            let head: Vec<String> = list(&path["head"]).iter().map(text).collect();
            let tail = text(&path["tail"]);
            let nth = seen.entry((head.clone(), tail.clone())).or_default();
            let key = (head.clone(), tail.clone(), *nth);
            *nth += 1;
            let index = places.get(&key).copied().unwrap_or_else(|| {
                self.paths.push(Path {
                    head,
                    tail,
                    ..Path::default()
                });
                let index = self.paths.len() - 1;
                let _ = writeln!(out, "{}", self.paths[index].line(index));
                index
            });
            let Some(known) = self.paths.get_mut(index) else {
                continue;
            };
            let replies = list(&path["replies"]).iter().map(Value::as_f64);
            for reply in replies {
                known.sent += 1;
                known.answered += u64::from(reply.is_some());
                known.replies.push(reply);
                let what = reply.map_or_else(|| "lost".to_owned(), |ms| format!("{ms:.1} ms"));
                round.push(format!("path {}: {what}", index + 1));
            }
            let trips: Vec<f64> = known.replies.iter().copied().flatten().collect();
            known.rtt_ms = Spread::of(&trips);
        }
        let what = if round.is_empty() {
            "there is no path".to_owned()
        } else {
            round.join(", ")
        };
        let _ = writeln!(out, "{}: {what}", self.rounds);
        out
    }

    /// Takes note of a round in which nobody could be asked. Gives what a person reads of it.
    pub fn fail(&mut self, why: &str) -> String {
        self.rounds += 1;
        self.failed += 1;
        format!("{}: {why}\n", self.rounds)
    }

    /// Whether anything came back.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.paths.iter().any(|path| path.answered > 0)
    }

    /// What a person reads at the end.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut out = format!("\n--- {} ({}.anon) ---\n", self.name, self.id);
        for (index, path) in self.paths.iter().enumerate() {
            let lost = path.sent - path.answered;
            let percent = lost as f64 * 100.0 / (path.sent.max(1)) as f64;
            let _ = write!(
                out,
                "path {}: {} sent, {} answered, {percent:.0}% loss",
                index + 1,
                path.sent,
                path.answered
            );
            if let Some(Spread {
                min,
                avg,
                max,
                mdev,
            }) = path.rtt_ms
            {
                let _ = write!(
                    out,
                    ", rtt min/avg/max/mdev = {min:.1}/{avg:.1}/{max:.1}/{mdev:.1} ms"
                );
            }
            out.push('\n');
        }
        if self.paths.is_empty() {
            out += "there is no path to it\n";
        }
        if self.failed > 0 {
            let _ = writeln!(out, "{} rounds without a way to ask", self.failed);
        }
        out
    }
}

impl Path {
    fn line(&self, index: usize) -> String {
        format!(
            "path {}: {} > [{} and on]",
            index + 1,
            self.head.join(" > "),
            self.tail
        )
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(guard: &str, reply: Option<f64>) -> Value {
        json!({"head": [guard, "b", "c"], "tail": "d", "replies": [reply]})
    }

    #[test]
    fn rounds_add_up_path_by_path() {
        let mut measured = Measured::new("a.anon", "id");
        let first = json!({"opened_ms": 312.4, "paths": [path("a", Some(10.0)), path("a", None)]});
        let said = measured.add(&first);
        assert_eq!(
            said,
            "a session was opened in 312 ms\n\
             path 1: a > b > c > [d and on]\n\
             path 2: a > b > c > [d and on]\n\
             1: path 1: 10.0 ms, path 2: lost\n"
        );
        // A third path came to be, and the order is another.
        let second = json!({"opened_ms": null, "paths": [
            path("e", Some(5.0)), path("a", Some(20.0)), path("a", None)
        ]});
        let said = measured.add(&second);
        assert!(said.starts_with("path 3: e > b > c"), "{said}");
        assert_eq!(measured.rounds, 2);
        let counts: Vec<(u64, u64)> = measured
            .paths
            .iter()
            .map(|path| (path.sent, path.answered))
            .collect();
        assert_eq!(counts, [(2, 2), (2, 0), (1, 1)]);
        let summary = measured.summary();
        assert!(
            summary.contains(
                "path 1: 2 sent, 2 answered, 0% loss, rtt min/avg/max/mdev = 10.0/15.0/20.0/5.0 ms"
            ),
            "{summary}"
        );
        assert!(summary.contains("path 2: 2 sent, 0 answered, 100% loss\n"));
        assert!(measured.is_answered());
        let json = serde_json::to_value(&measured).unwrap();
        assert_eq!(json["paths"][0]["rtt_ms"]["avg"], 15.0);
        assert_eq!(json["paths"][1]["replies"], json!([null, null]));
    }

    #[test]
    fn nothing_came_back() {
        let mut measured = Measured::new("a.anon", "id");
        assert!(measured.add(&json!({"paths": []})).contains("no path"));
        measured.add(&json!({"paths": [path("a", None)]}));
        assert_eq!(measured.fail("no answer"), "3: no answer\n");
        assert!(measured.summary().contains("1 rounds without"));
        assert!(!measured.is_answered());
        assert_eq!(Spread::of(&[]), None);
    }
}
