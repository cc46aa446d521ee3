//! How registration goes, for people and for who makes the record.

use mixline_protocol::identity::Digest;
use mixline_protocol::time::UnixTime;

/// With all directories.
#[derive(Debug, Clone, Default)]
pub struct RegistrationStatus {
    /// Each of them, in the order of the network's roster.
    pub directories: Vec<Registered>,
    /// How many it takes.
    pub quorum: usize,
}

/// With one directory.
#[derive(Debug, Clone, Default)]
pub struct Registered {
    /// What the roster calls it; `None` if it is alone.
    pub name: Option<String>,
    /// Where it is asked.
    pub url: String,
    /// When it last took a registration or a heartbeat.
    pub last_success: Option<UnixTime>,
    /// What went wrong since, one line.
    pub last_error: Option<String>,
    /// Whether it has been told last that the relay leaves.
    pub withdrawn: bool,
    /// The record that it has.
    pub(super) has: Option<Digest>,
    /// The record that it does not take from here.
    pub(super) forbids: Option<Digest>,
}

impl RegistrationStatus {
    /// When a directory last took a registration or a heartbeat.
    #[must_use]
    pub fn last_success(&self) -> Option<UnixTime> {
        self.directories
            .iter()
            .filter_map(|of| of.last_success)
            .max()
    }

    /// What is wrong, if fewer directories than it takes have this relay.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        let well = |of: &&Registered| of.last_success.is_some() && of.last_error.is_none();
        let enough = self.directories.iter().filter(well).count() >= self.quorum;
        let mut errors = self
            .directories
            .iter()
            .filter_map(|of| of.last_error.as_deref());
        errors.next().filter(|_| !enough)
    }

    /// Whether so many directories know that the relay leaves that no snapshot will list it.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        let told = self.directories.iter().filter(|of| of.withdrawn).count();
        told > 0 && told >= self.quorum
    }

    /// Whether most directories do not take this record from where it is sent.
    pub(super) fn is_forbidden(&self, record: &Digest) -> bool {
        let forbids = |of: &&Registered| of.forbids.as_ref() == Some(record);
        self.directories.iter().filter(forbids).count() * 2 > self.directories.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(of: &[Registered], quorum: usize) -> RegistrationStatus {
        RegistrationStatus {
            directories: of.to_vec(),
            quorum,
        }
    }

    #[test]
    fn one_of_four_may_be_away() {
        let well = Registered {
            last_success: Some(UnixTime(5)),
            ..Registered::default()
        };
        let away = Registered {
            last_error: Some("away".into()),
            ..well.clone()
        };
        let gone = Registered {
            withdrawn: true,
            ..well.clone()
        };
        let [w, a, g] = [&well, &away, &gone].map(Clone::clone);
        let three = status(&[w.clone(), a.clone(), w.clone(), w.clone()], 3);
        assert_eq!(three.last_error(), None);
        assert_eq!(three.last_success(), Some(UnixTime(5)));
        let two = status(&[w.clone(), a.clone(), a.clone(), w.clone()], 3);
        assert_eq!(two.last_error(), Some("away"));
        assert_eq!(status(&[a], 1).last_error(), Some("away"));
        assert!(!status(&[g.clone(), g.clone(), w.clone(), w.clone()], 3).is_withdrawn());
        assert!(status(&[g.clone(), w, g.clone(), g], 3).is_withdrawn());
        assert!(!status(&[], 0).is_withdrawn());
    }

    #[test]
    fn one_of_four_does_not_say_which_address_is_first() {
        let (this, other) = (Digest([1; 32]), Digest([2; 32]));
        let forbids = |record| Registered {
            forbids: Some(record),
            ..Registered::default()
        };
        let takes = Registered::default;
        assert!(status(&[forbids(this)], 1).is_forbidden(&this));
        assert!(!status(&[forbids(other)], 1).is_forbidden(&this));
        let two = [forbids(this), forbids(this), takes(), forbids(other)];
        assert!(!status(&two, 3).is_forbidden(&this));
        let three = [forbids(this), forbids(this), takes(), forbids(this)];
        assert!(status(&three, 3).is_forbidden(&this));
    }
}
