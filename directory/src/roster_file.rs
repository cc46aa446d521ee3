//! The roster of a network of several directories, as a file that its owners pass around and sign.
//!
//! The file is the chain of all versions; the last one may lack signatures still. Nobody needs more than this file and
//! its own identity to sign, so that can happen where no network leads.

use std::fs;
use std::path::Path;

use mixline_protocol::identity::{AnonymousId, IdentityKey};
use mixline_protocol::records::{Member, Roster};
use mixline_protocol::wire::Reader;

use crate::{Error, Result};

/// All versions in a file. What is signed is not checked.
///
/// # Errors
/// [`Error::Roster`].
pub fn read(path: &Path) -> Result<Vec<Roster>> {
    let bytes = fs::read(path).map_err(|error| wrong(path, error))?;
    let decoded = (|| {
        let mut reader = Reader::new(&bytes, "roster");
        let mut rosters = Vec::new();
        while reader.left() > 0 {
            let length = usize::from(reader.u16()?);
            rosters.push(Roster::decode(reader.take(length)?)?);
        }
        Ok::<_, mixline_protocol::Error>(rosters)
    })();
    let rosters = decoded.map_err(|error| wrong(path, error))?;
    if rosters.is_empty() {
        return Err(wrong(path, "it is empty"));
    }
    Ok(rosters)
}

/// Writes all versions into a file, which is replaced.
///
/// # Errors
/// [`Error::Roster`].
pub fn write(path: &Path, rosters: &[Roster]) -> Result<()> {
    let partial = path.with_extension("new");
    let written = fs::write(&partial, Roster::encode_chain(rosters))
        .and_then(|()| fs::rename(&partial, path));
    written.map_err(|error| wrong(path, error))
}

/// A member as on the command line: `NAME=ID@URL`.
///
/// # Errors
/// What is wrong with it.
pub fn member(text: &str) -> std::result::Result<Member, String> {
    let form = || format!("`{text}` is not NAME=ID@URL");
    let (name, rest) = text.split_once('=').ok_or_else(form)?;
    let (id, url) = rest.split_once('@').ok_or_else(form)?;
    let id: AnonymousId = id.parse().map_err(|_| {
        format!("`{id}` is not the ID of a directory, which has 52 characters (mixline-directory identity)")
    })?;
    Ok(Member {
        key: id.0,
        name: name.to_owned(),
        url: url.trim_end_matches('/').to_owned(),
    })
}

/// The first version of a new network's roster, in a new file.
///
/// # Errors
/// [`Error::Roster`].
pub fn create(path: &Path, members: Vec<Member>, round: u32, validity: u32) -> Result<Roster> {
    if path.exists() {
        return Err(wrong(
            path,
            "it is there already; `roster next` adds a version",
        ));
    }
    let roster =
        Roster::first(members, round, validity).map_err(|error| wrong(path, form(&error)))?;
    write(path, std::slice::from_ref(&roster))?;
    Ok(roster)
}

/// The next version of a network's roster.
///
/// # Errors
/// [`Error::Roster`], also if the last version in the file is not signed by enough.
pub fn next(path: &Path, members: Vec<Member>, round: u32, validity: u32) -> Result<Roster> {
    let mut rosters = crate::rounds::several::read_rosters(path)?;
    let last = rosters.last().ok_or_else(|| wrong(path, "it is empty"))?;
    let roster = last
        .next(members, round, validity)
        .map_err(|error| wrong(path, form(&error)))?;
    rosters.push(roster.clone());
    write(path, &rosters)?;
    Ok(roster)
}

/// Signs the last version.
///
/// # Errors
/// [`Error::Roster`], also if the key is in neither this version nor the one before.
pub fn sign(path: &Path, key: &IdentityKey) -> Result<Roster> {
    changed(path, |roster, before| {
        let member = roster.sign(key, before);
        member
            .then_some(())
            .ok_or_else(|| format!("{} is not one of its directories", key.anonymous_id()))
    })
}

/// Takes over what others have signed in their copies of the last version.
///
/// # Errors
/// [`Error::Roster`], also if a copy is of something else.
pub fn merge(path: &Path, copies: &[impl AsRef<Path>]) -> Result<Roster> {
    let mut read_copies = Vec::new();
    for copy in copies {
        let copy = copy.as_ref();
        let rosters = read(copy)?;
        read_copies.extend(
            rosters
                .last()
                .map(|roster| (copy.to_owned(), roster.clone())),
        );
    }
    changed(path, |roster, _| {
        for (from, copy) in &read_copies {
            roster
                .merge(copy)
                .map_err(|_| format!("{} is not a copy of the same version", from.display()))?;
        }
        Ok(())
    })
}

fn changed(
    path: &Path,
    change: impl FnOnce(&mut Roster, Option<&Roster>) -> std::result::Result<(), String>,
) -> Result<Roster> {
    let mut rosters = read(path)?;
    let mut last = rosters.pop().ok_or_else(|| wrong(path, "it is empty"))?;
    change(&mut last, rosters.last()).map_err(|reason| wrong(path, reason))?;
    rosters.push(last.clone());
    write(path, &rosters)?;
    Ok(last)
}

/// What people see of the last version: who is in it, and who has signed.
#[must_use]
pub fn describe(rosters: &[Roster]) -> String {
    let Some(roster) = rosters.last() else {
        return String::new();
    };
    let before = rosters.len().checked_sub(2).and_then(|at| rosters.get(at));
    let mut text = format!(
        "network {}\nversion {}, {} of {} decide, rounds of {} s, snapshots valid for {} s\n",
        roster.network(),
        roster.version,
        roster.quorum(),
        roster.members.len(),
        roster.round_seconds,
        roster.validity_s
    );
    for (member, index) in roster.members.iter().zip(0u8..) {
        let signed = roster.signed.iter().any(|(of, _)| of == index);
        text += &format!(
            "  {} {} {} {}\n",
            if signed { "signed " } else { "-      " },
            member.name,
            AnonymousId(member.key),
            member.url
        );
    }
    let complete = match before {
        None => roster.verify_first(roster.network()).is_ok(),
        Some(before) => {
            text += &format!(
                "{} of the version before have signed, {} are needed\n",
                roster.signed_before.count(),
                before.quorum()
            );
            roster.verify_after(before).is_ok()
        }
    };
    text += if complete {
        "enough have signed: it counts\n"
    } else {
        "too few have signed: it does not count yet\n"
    };
    text
}

fn form(error: &mixline_protocol::Error) -> String {
    format!(
        "{error}: a roster has 1, 4, 7 or 10 directories of different names and IDs, addresses such as \
         http://198.51.100.7:8080, rounds of 10 to 3600 s, and snapshots that are valid for two rounds to a day"
    )
}

fn wrong(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::Roster(format!("{}: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(n: u8) -> Vec<IdentityKey> {
        (1..=n).map(|n| IdentityKey::from_seed([n; 32])).collect()
    }

    fn members(keys: &[IdentityKey]) -> Vec<Member> {
        let text = |(n, key): (usize, &IdentityKey)| {
            let id = key.anonymous_id();
            member(&format!("d{n}={id}@http://127.0.0.1:{}", 8000 + n)).unwrap()
        };
        keys.iter().enumerate().map(text).collect()
    }

    #[test]
    fn owners_sign_copies_and_put_them_together() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let keys = keys(4);
        let made = create(&file("roster"), members(&keys), 20, 600).unwrap();
        assert!(create(&file("roster"), members(&keys), 20, 600).is_err());
        for (name, key) in ["a", "b"].iter().zip(&keys) {
            fs::copy(file("roster"), file(name)).unwrap();
            sign(&file(name), key).unwrap();
        }
        merge(&file("roster"), &[file("a"), file("b")]).unwrap();
        assert!(crate::rounds::several::read_rosters(&file("roster")).is_err());
        assert!(describe(&read(&file("roster")).unwrap()).contains("too few"));
        assert!(
            next(&file("roster"), members(&keys), 20, 600).is_err(),
            "too few"
        );
        sign(&file("roster"), &keys[3]).unwrap();
        let text = describe(&read(&file("roster")).unwrap());
        assert!(
            text.contains("it counts") && text.contains("3 of 4 decide"),
            "{text}"
        );
        assert!(text.contains(&made.network().to_string()));

        // One directory is replaced: enough of the old and of the new ones sign.
        let others: Vec<_> = [2, 3, 4, 9].map(|n| IdentityKey::from_seed([n; 32])).into();
        next(&file("roster"), members(&others), 20, 600).unwrap();
        for key in &others[..3] {
            sign(&file("roster"), key).unwrap();
        }
        let rosters = crate::rounds::several::read_rosters(&file("roster")).unwrap();
        assert_eq!(rosters.len(), 2);
        assert_eq!(rosters[1].network(), made.network());
        let stranger = IdentityKey::from_seed([77; 32]);
        let error = sign(&file("roster"), &stranger).unwrap_err().to_string();
        assert!(error.contains("is not one of its directories"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }

    #[test]
    fn what_is_no_member_is_told() {
        for text in ["d", "d=x@http://h", "d=http://h", "=@"] {
            assert!(member(text).is_err(), "{text}");
        }
    }
}
