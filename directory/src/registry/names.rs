//! Names: first come, first served, and kept by renewing.

use mixline_protocol::directory::RefusalCode;
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::name::Label;
use mixline_protocol::records::NameRecord;
use mixline_protocol::time::UnixTime;

use super::refusal::{Decision, Refusal, contended, damaged, older, unavailable};
use super::{ATTEMPTS, Registry};
use crate::store::{Outcome, Table, Transaction};

/// One ID has at most this many names.
pub const NAMES_PER_ID: usize = 16;
/// For how many seconds after its end a name is kept for its holder. It does not resolve then.
pub const NAME_GRACE: u64 = 7 * 24 * 3600;

impl Registry {
    /// Gives a name to the ID that signed the record, or renews it.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn claim_name(&self, record: &NameRecord, now: UnixTime) -> Decision<()> {
        record.verify(now).map_err(|e| Refusal::of(&e, now))?;
        let label = record.label.as_str();
        let of = name_of_key(&record.id, &record.label);
        for _ in 0..ATTEMPTS {
            let stored = self
                .store
                .get(Table::Names, label.as_bytes())
                .map_err(|e| unavailable(&e))?;
            let held = stored.as_ref().filter(|entry| entry.expires > now);
            let mut holder = None;
            let before = stored
                .as_ref()
                .and_then(|entry| NameRecord::decode(&entry.value).ok());
            if held.is_some() {
                let is_own = match &before {
                    Some(before) => before.id == record.id,
                    // One that cannot be read is its holder's to replace, whom another table knows.
                    None => self.keeps_name(&of, now)?,
                };
                if before.as_ref().is_some_and(|before| before == record) {
                    return Ok(());
                }
                if !is_own {
                    let text = format!("{} belongs to another ID", record.label.host());
                    return Err(Refusal::new(RefusalCode::Taken, text));
                }
                if before
                    .as_ref()
                    .is_some_and(|it| it.version >= record.version)
                {
                    return Err(older());
                }
            } else {
                self.room(Table::Names, self.limits.names, "names")?;
                // Before its names are counted: a claim of another one, here or at another front end, changes it.
                let entry = self.store.get(Table::Holders, &record.id.0);
                holder = Some(entry.map_err(|e| unavailable(&e))?);
                if self.names_of(&record.id, now)?.len() >= NAMES_PER_ID {
                    let text = format!("an ID can hold {NAMES_PER_ID} names, and this one does");
                    return Err(Refusal::new(RefusalCode::Full, text));
                }
            }
            let end = record.expires.plus(NAME_GRACE);
            let mut change = Transaction::new()
                .check(Table::Names, label, stored.as_ref())
                .put(Table::Names, label, record.encode(), end)
                .put(Table::NamesOf, of.as_slice(), [], end);
            if let Some(holder) = &holder {
                change = change
                    .check(Table::Holders, record.id.0, holder.as_ref())
                    .put(Table::Holders, record.id.0, [], end);
            }
            // One that has ended, was not swept yet, and was another ID's.
            if let Some(before) = before.filter(|before| before.id != record.id) {
                change = change.delete(Table::NamesOf, name_of_key(&before.id, &before.label));
            }
            match self.store.commit(change).map_err(|e| unavailable(&e))? {
                Outcome::Committed => return Ok(()),
                Outcome::Conflict => {}
            }
        }
        Err(contended())
    }

    /// Whose a name is.
    ///
    /// # Errors
    /// A [`Refusal`] if the store does not work.
    pub fn lookup_name(&self, label: &Label, now: UnixTime) -> Decision<Option<NameRecord>> {
        let key = label.as_str().as_bytes();
        let entry = self
            .store
            .get(Table::Names, key)
            .map_err(|e| unavailable(&e))?;
        let record = entry
            .map(|e| NameRecord::decode(&e.value))
            .transpose()
            .map_err(damaged)?;
        Ok(record.filter(|record| record.expires > now))
    }

    /// The first, in the alphabet, of an ID's names.
    ///
    /// # Errors
    /// A [`Refusal`] if the store does not work.
    pub fn name_of(&self, id: &AnonymousId, now: UnixTime) -> Decision<Option<NameRecord>> {
        for label in self.names_of(id, now)? {
            let found = self.lookup_name(&label, now)?;
            if let Some(record) = found.filter(|record| record.id == *id) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Whether a name is kept for an ID; `of`: their [`name_of_key`].
    fn keeps_name(&self, of: &[u8], now: UnixTime) -> Decision<bool> {
        let entry = self.store.get(Table::NamesOf, of);
        let entry = entry.map_err(|e| unavailable(&e))?;
        Ok(entry.is_some_and(|entry| entry.expires > now))
    }

    /// The names that are kept for an ID.
    fn names_of(&self, id: &AnonymousId, now: UnixTime) -> Decision<Vec<Label>> {
        // Ended ones may stand there until they are swept.
        let most = 4 * NAMES_PER_ID;
        let found = self
            .store
            .list(Table::NamesOf, &id.0, None, most)
            .map_err(|e| unavailable(&e))?;
        found
            .into_iter()
            .filter(|(_, entry)| entry.expires > now)
            .map(|(key, _)| {
                let label = key.get(id.0.len()..).unwrap_or_default();
                let text = std::str::from_utf8(label).map_err(damaged)?;
                Label::new(text).map_err(damaged)
            })
            .collect()
    }
}

fn name_of_key(id: &AnonymousId, label: &Label) -> Vec<u8> {
    [id.0.as_slice(), label.as_str().as_bytes()].concat()
}
