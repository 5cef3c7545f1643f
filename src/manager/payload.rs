//! Between session data and its stored form: decoding, migrating, preparing a save, merging.

use bytes::Bytes;
use serde_json::Value;

use super::{Basis, ConflictPolicy, SessionManager};
use crate::{
    codec::JSON_TAG,
    decision::Intents,
    error::{DoesNotReadBack, SessionError, SessionRejection, StoreError},
    event::SessionEvent,
    id::OwnerKey,
    merge::merge,
    record::Record,
};

/// A handler's copy of the data, and what it asked for.
pub(crate) struct Draft<T> {
    pub(crate) data: T,
    /// The data was lent out mutably, so it may differ.
    pub(crate) borrowed: bool,
    /// The encoding of what was handed out, where no stored payload tells: `None` if never lent out.
    pub(super) handed_out: Option<Bytes>,
    pub(crate) intents: Intents,
    /// What comparing came to, so that the data is encoded once however often one asks.
    pub(super) compared: Option<Ours>,
}

/// A handler's data beside what it was handed.
#[derive(Clone)]
pub(super) enum Ours {
    /// Never lent out mutably, so not even encoded.
    Untouched,
    Same(Bytes),
    Changed(Bytes),
}

impl Ours {
    pub(super) fn into_encoded(self) -> Option<Bytes> {
        match self {
            Self::Untouched => None,
            Self::Same(encoded) | Self::Changed(encoded) => Some(encoded),
        }
    }
}

impl<T> Draft<T> {
    pub(crate) fn new(data: T) -> Self {
        Self {
            data,
            borrowed: false,
            handed_out: None,
            intents: Intents::default(),
            compared: None,
        }
    }

    /// Starts with other data, which nobody has lent out yet, and keeps the wishes.
    pub(crate) fn restart(&mut self, data: T) {
        *self = Self { intents: self.intents, ..Self::new(data) };
    }

    /// Marks the data as lent out; `handed_out` is what it was, where nothing stored tells.
    pub(crate) fn lend(&mut self, handed_out: Option<Bytes>) {
        self.borrowed = true;
        self.handed_out = handed_out;
    }

    /// Returns the data to be changed.
    pub(crate) fn data_mut(&mut self) -> &mut T {
        self.compared = None;
        &mut self.data
    }

    /// Marks data that turned out as it was handed out as never lent.
    pub(crate) fn settle(&mut self) {
        self.borrowed = false;
        self.handed_out = None;
        self.compared = None;
    }

    /// Says whether a commit might have something to do.
    pub(crate) fn is_dirty(&self) -> bool {
        self.borrowed || self.intents.any()
    }
}

/// Session data ready for a save.
#[derive(Clone)]
pub(super) struct Prepared {
    /// The data as the handler left it, which is what merges.
    pub(super) ours: Bytes,
    /// The data as `before_save` left it, which is what is stored.
    pub(super) payload: Bytes,
    pub(super) owner: Option<OwnerKey>,
}

/// Why stored data cannot be handed out.
pub(super) enum Unreadable {
    Newer,
    Corrupt,
    /// `migrate` refused it.
    Refused,
}

impl<T: Send + Sync + 'static> SessionManager<T> {
    /// Decodes a record's data, migrating it where an older schema wrote it.
    pub(super) fn decode(&self, record: &Record) -> Result<T, Unreadable> {
        let config = &self.config;
        if record.schema > config.accept_schema {
            return Err(Unreadable::Newer);
        }
        if record.codec != config.codec.tag() {
            return Err(Unreadable::Corrupt);
        }
        let decode = |bytes: &[u8]| config.codec.decode(bytes).map_err(|_| Unreadable::Corrupt);
        if record.schema >= config.schema {
            return decode(&record.payload);
        }
        let value = self.migrate(record)?;
        decode(&serde_json::to_vec(&value).map_err(|_| Unreadable::Corrupt)?)
    }

    fn migrate(&self, record: &Record) -> Result<Value, Unreadable> {
        let value = serde_json::from_slice(&record.payload).map_err(|_| Unreadable::Corrupt)?;
        match &self.config.hooks.migrate {
            Some(migrate) if record.schema < self.config.schema => {
                migrate(record.schema, value).map_err(|_| Unreadable::Refused)
            }
            _ => Ok(value),
        }
    }

    /// Decodes the data of a basis once more, for a second guard.
    pub(crate) fn data_of(&self, basis: &Basis) -> Result<T, SessionRejection> {
        let Some(live) = &basis.live else {
            return Ok(self.default_data());
        };
        self.decode(&live.record).map_err(|unreadable| match unreadable {
            Unreadable::Newer => SessionRejection::Newer,
            Unreadable::Corrupt | Unreadable::Refused => {
                SessionRejection::Store(StoreError::Corrupt)
            }
        })
    }

    /// Says whether the stored payload is in today's shape, so that edits compare with it.
    pub(crate) fn is_current(&self, record: &Record) -> bool {
        record.schema == self.config.schema
    }

    /// Says whether two encodings mean the same.
    pub(super) fn is_same_data(&self, one: &[u8], other: &[u8]) -> bool {
        self.config.codec.is_same(one, other)
    }

    /// Runs `before_save` and encodes; `ours` is the encoding before it, if it is at hand.
    ///
    /// Every save comes through here, so that nothing is saved which does not read back.
    pub(super) fn prepare(
        &self,
        data: &mut T,
        ours: Option<Bytes>,
    ) -> Result<Prepared, SessionError> {
        let ours = match ours {
            Some(ours) => ours,
            None => self.encode(data)?,
        };
        let payload = match &self.config.hooks.before_save {
            Some(before_save) => {
                before_save(data);
                self.encode(data)?
            }
            None => ours.clone(),
        };
        self.check_size(payload.len(), self.config.max_payload)?;
        self.check_reads_back(&payload)?;
        let owner = self.owner_of(data);
        Ok(Prepared { ours, payload, owner })
    }

    fn check_reads_back(&self, payload: &[u8]) -> Result<(), SessionError> {
        match self.config.codec.decode(payload) {
            Ok(_) => Ok(()),
            // Not the reason: serde puts data into its texts.
            Err(_) => Err(SessionError::Encode(DoesNotReadBack.into())),
        }
    }

    fn owner_of(&self, data: &T) -> Option<OwnerKey> {
        let name = self.config.hooks.owner.as_ref()?(data)?;
        Some(self.config.scope.owner(&name))
    }

    /// Makes one of our change and theirs, as the policy has it.
    ///
    /// `replace` is a reset: what others wrote meanwhile is what it wants gone.
    pub(super) fn reconcile(
        &self,
        base: &Record,
        ours: &Prepared,
        theirs: &Record,
        replace: bool,
        our_owner_may_differ: bool,
    ) -> Result<Prepared, SessionError> {
        if theirs.schema > self.config.accept_schema {
            // Whatever the policy: what a newer node wrote is not ours to replace.
            return Err(SessionRejection::Newer.into());
        }
        if theirs.payload == base.payload && theirs.owner == base.owner {
            // Only its expiry moved, in a store whose `touch` draws a new version.
            return Ok(ours.clone());
        }
        match self.config.on_conflict {
            ConflictPolicy::Reject => Err(SessionError::Conflict),
            ConflictPolicy::Overwrite => Ok(ours.clone()),
            ConflictPolicy::Merge if replace => Ok(ours.clone()),
            ConflictPolicy::Merge => {
                let owner_moved = theirs.owner != base.owner
                    || (ours.owner != base.owner && !our_owner_may_differ);
                if owner_moved {
                    return Err(SessionError::Conflict);
                }
                let merged = self.merge(base, &ours.ours, theirs)?;
                if merged.owner != ours.owner {
                    // Two changes that each are nobody's may together name somebody.
                    return Err(SessionError::Conflict);
                }
                Ok(merged)
            }
        }
    }

    fn merge(&self, base: &Record, ours: &[u8], theirs: &Record) -> Result<Prepared, SessionError> {
        if theirs.codec != JSON_TAG {
            return Err(SessionError::Conflict);
        }
        self.merge_data(base, ours, theirs)
            .filter(|data| self.is_valid_data(data))
            .ok_or(SessionError::Conflict)
            .and_then(|mut data| self.prepare(&mut data, None))
    }

    /// Returns `None` for a conflict.
    fn merge_data(&self, base: &Record, ours: &[u8], theirs: &Record) -> Option<T> {
        let codec = &self.config.codec;
        // Through `T`, so that defaults and renames look as they do in ours.
        let base = codec.encode(&self.decode(base).ok()?).ok()?;
        let base = serde_json::from_slice(&base).ok()?;
        let ours = serde_json::from_slice(ours).ok()?;
        let theirs = self.migrate(theirs).ok()?;
        let shape = (self.config.shape)([&base, &ours, &theirs]);
        match merge(&base, ours, theirs, &shape) {
            Ok(merged) => codec.decode(&serde_json::to_vec(&merged).ok()?).ok(),
            Err(conflict) => {
                tracing::warn!(
                    pointer = conflict.pointer,
                    "two requests changed the same part of a session, so one is a conflict; give the field \
                     a type that merges (`Counter`, `Latest`, `Set`, `Once`), or change it in \
                     `session.update`"
                );
                None
            }
        }
    }

    pub(super) fn is_valid_data(&self, data: &T) -> bool {
        let validate = self.config.hooks.validate_data.as_ref();
        validate.is_none_or(|validate| validate(data))
    }

    pub(super) fn check_size(&self, actual: usize, limit: usize) -> Result<(), SessionError> {
        if actual <= limit {
            return Ok(());
        }
        self.alarm(&SessionEvent::TooLarge { actual, limit });
        Err(SessionError::TooLarge { actual, limit })
    }
}
