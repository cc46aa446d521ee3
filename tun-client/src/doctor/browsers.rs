//! What browsers do with names: whether a policy of this host sends them around the client by DNS over
//! HTTPS. What a person chose in a browser stays that person's.

use std::fs;
use std::path::{Path, PathBuf};

use mixline_daemon::doctor::Finding;
use serde_json::Value;

/// Where Firefox reads the policies of a host (its "policies.json").
const FIREFOX: [&str; 3] = [
    "/etc/firefox/policies/policies.json",
    "/usr/lib/firefox/distribution/policies.json",
    "/usr/lib/firefox-esr/distribution/policies.json",
];
/// Where Chromium and Chrome read theirs.
const CHROMIUM: [&str; 2] = [
    "/etc/chromium/policies/managed",
    "/etc/opt/chrome/policies/managed",
];
/// The longest policy that is read, bytes, and how many of a directory are.
const MAX_FILE: u64 = 1 << 20;
const MAX_FILES: usize = 32;

/// Policies that make browsers ask by DNS over HTTPS.
#[derive(Debug, Clone, Default)]
pub struct Browsers {
    /// The files that say so.
    pub around: Vec<PathBuf>,
}

impl Browsers {
    /// Looks at the policies.
    #[must_use]
    pub fn read() -> Self {
        let mut around = Vec::new();
        for path in FIREFOX.map(Path::new) {
            if read(path).is_some_and(|policy| firefox_goes_around(&policy)) {
                around.push(path.to_owned());
            }
        }
        for directory in CHROMIUM {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            for path in entries.map(|entry| entry.path()).take(MAX_FILES) {
                if read(&path).is_some_and(|policy| chromium_goes_around(&policy)) {
                    around.push(path);
                }
            }
        }
        Self { around }
    }

    /// Says what browsers will do.
    #[must_use]
    pub fn judge(&self) -> Finding {
        let check = "browsers";
        if self.around.is_empty() {
            return Finding::ok(
                check,
                "ask this host while a client is up (the canary says so), unless DNS over HTTPS was \
                 switched on in the browser itself",
            );
        }
        let files: Vec<String> = self
            .around
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        Finding::warning(
            check,
            format!(
                "{} makes them ask by DNS over HTTPS, which does not know of .anon",
                files.join(", ")
            ),
            "Firefox: DNSOverHTTPS {\"Enabled\": false}; Chromium: \"DnsOverHttpsMode\": \"off\"",
        )
    }
}

fn read(path: &Path) -> Option<Value> {
    let metadata = fs::metadata(path).ok()?;
    if metadata.len() > MAX_FILE {
        return None;
    }
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

/// With `Enabled`, the canary is not asked for.
fn firefox_goes_around(policy: &Value) -> bool {
    policy["policies"]["DNSOverHTTPS"]["Enabled"] == true
}

/// `automatic` falls back to the host's resolver.
fn chromium_goes_around(policy: &Value) -> bool {
    policy["DnsOverHttpsMode"] == "secure"
}

#[cfg(test)]
mod tests {
    use mixline_daemon::doctor::Level;
    use serde_json::json;

    use super::*;

    #[test]
    fn policies() {
        assert!(firefox_goes_around(
            &json!({"policies": {"DNSOverHTTPS": {"Enabled": true}}})
        ));
        assert!(!firefox_goes_around(
            &json!({"policies": {"DNSOverHTTPS": {"Enabled": false}}})
        ));
        assert!(!firefox_goes_around(&json!([])));
        assert!(chromium_goes_around(&json!({"DnsOverHttpsMode": "secure"})));
        assert!(!chromium_goes_around(
            &json!({"DnsOverHttpsMode": "automatic"})
        ));
        assert_eq!(Browsers::default().judge().level, Level::Ok);
        let forced = Browsers {
            around: vec!["/etc/x.json".into()],
        };
        assert_eq!(forced.judge().level, Level::Warning);
    }
}
