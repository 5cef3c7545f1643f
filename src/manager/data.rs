//! Between session data and its stored form: decoding, migrating, preparing a save, merging.

use std::{
    cell::OnceCell,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use serde_json::Value;

use super::{
    ConflictPolicy,
    any_data::Data,
    basis::{Basis, Draft},
    core::Core,
};
use crate::{
    codec::JSON_TAG,
    decision::Prepared,
    error::{DOES_NOT_READ_BACK, Result, SessionError, StoreError},
    id::OwnerKey,
    merge::{Merger, Pointer},
    store::Record,
    warnings,
};

/// The reason why a change cannot be saved together with the writes of other requests.
pub(super) struct Clash {
    pub(super) error: SessionError,
    /// The field that both changed, if a single field is the cause.
    pub(super) field: Option<Pointer>,
}

impl From<SessionError> for Clash {
    fn from(error: SessionError) -> Self {
        Self { error, field: None }
    }
}

impl Core {
    /// Decodes a record's data, migrated where an older schema wrote it; `None` if `migrate` refuses it.
    pub(super) fn decode(&self, record: &Record) -> Result<Option<Box<Data>>, StoreError> {
        if self.is_newer(record) {
            return Err(StoreError::Newer);
        }
        if record.codec != self.codec_tag {
            return Err(StoreError::Corrupt);
        }
        let Some(migrate) = self.migrate.as_ref().filter(|_| record.schema < self.schema) else {
            return self.decode_payload(&record.payload).map(Some);
        };
        let value = serde_json::from_slice(&record.payload).map_err(|_| StoreError::Corrupt)?;
        let Ok(value) = migrate(record.schema, value) else { return Ok(None) };
        let migrated = serde_json::to_vec(&value).map_err(|_| StoreError::Corrupt)?;
        self.decode_payload(&migrated).map(Some)
    }

    fn decode_payload(&self, payload: &[u8]) -> Result<Box<Data>, StoreError> {
        self.data.decode(payload).map_err(|_| StoreError::Corrupt)
    }

    /// Makes the draft of a further `Session`.
    pub(crate) fn draft_of(&self, basis: Arc<Basis>) -> Result<Box<Draft>> {
        let data = self.data_of(&basis)?;
        Ok(Box::new(Draft::new(basis, data)))
    }

    /// Decodes the data of a basis.
    pub(super) fn data_of(&self, basis: &Basis) -> Result<Box<Data>> {
        let decoded = match (&basis.uncommitted, basis.live()) {
            (Some(uncommitted), _) => self.decode_payload(&uncommitted.after).map(Some),
            (None, Some(live)) => self.decode(&live.record),
            (None, None) => return Ok(self.data.default()),
        };
        Ok(decoded?.ok_or(StoreError::Corrupt)?)
    }

    /// Lends the data of a draft out to be changed, and keeps the encoded data from before.
    pub(crate) fn lend<'a>(&self, draft: &'a mut Draft) -> &'a mut Box<Data> {
        if !draft.is_lent && draft.basis.handed_out(self).is_none() {
            // No encoding is empty: data that cannot be encoded counts as changed, and fails later.
            draft.base = Some(self.encode(&*draft.data).unwrap_or_default());
        }
        (draft.is_lent, draft.encoded) = (true, None);
        &mut draft.data
    }

    /// Returns `true` if the data of the draft differs from the data before the first mutable borrow.
    pub(crate) fn is_changed(&self, draft: &mut Draft) -> Result<bool> {
        let Some(base) = draft.base(self).filter(|_| !draft.intents.destroy) else {
            return Ok(false);
        };
        if draft.encoded.is_none() {
            let encoded = self.encode(&*draft.data)?;
            if self.is_same_data(base, &encoded) {
                // The draft counts as never lent out.
                (draft.is_lent, draft.base) = (false, None);
            } else {
                draft.encoded = Some(encoded);
            }
        }
        Ok(draft.encoded.is_some())
    }

    /// Takes the encoded data of the draft if it differs from the data before the first mutable borrow.
    pub(super) fn take_change(&self, draft: &mut Draft) -> Result<Option<Bytes>> {
        Ok(if self.is_changed(draft)? { draft.encoded.take() } else { None })
    }

    /// Returns `true` if two encodings mean the same.
    pub(super) fn is_same_data(&self, one: &[u8], other: &[u8]) -> bool {
        one == other || self.data.is_same(one, other)
    }

    pub(super) fn encode(&self, data: &Data) -> Result<Bytes> {
        self.data.encode(data).map(Bytes::from).map_err(SessionError::Encode)
    }

    /// Runs `before_save`, encodes and checks; `ours` is the encoding before it, if it is at hand.
    ///
    /// Every save comes through here.
    pub(super) fn prepare(&self, data: &mut Data, ours: Option<Bytes>) -> Result<Prepared> {
        let ours = ours.map_or_else(|| self.encode(data), Ok)?;
        let payload = if self.data.prepare(data) { self.encode(data)? } else { ours.clone() };
        if !self.data.is_valid(data, None) {
            return Err(SessionError::Invalid);
        }
        self.check_size(payload.len(), self.max_payload)?;
        self.check_reads_back(&payload)?;
        Ok(Prepared { ours, payload, owner: self.owner_of(data) })
    }

    pub(super) fn owner_of(&self, data: &Data) -> Option<OwnerKey> {
        self.data.owner(data).and_then(|name| self.hashes_of(&name).next())
    }

    /// Returns the hashes of an owner's name: the one for new rows, and those of the other keys.
    pub(super) fn hashes_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = OwnerKey> + 'a {
        let (scope, keys) = (&self.tenant.scope, &self.owner_keys);
        let unkeyed = keys.is_empty().then(|| scope.owner(name));
        unkeyed.into_iter().chain(keys.iter().map(|key| scope.keyed_owner(&key.secret, name)))
    }

    /// Replaces the owner of a record by the hash for new rows, if another key hashed the same name.
    pub(super) fn rekey_owner(&self, record: &mut Record, data: &Data) {
        let Some(stored) = record.owner.filter(|_| self.owner_keys.len() > 1) else { return };
        let Some(name) = self.data.owner(data) else { return };
        let mut hashes = self.hashes_of(&name).zip(&self.owner_keys);
        let Some((current, _)) = hashes.next() else { return };
        if let Some((_, key)) = hashes.find(|(hash, _)| *hash == stored) {
            record.opened_from().is_outdated |= key.is_former;
            record.owner = Some(current);
        }
    }

    /// Checks that data reads back: every save in builds with debug assertions, elsewhere the first thousand
    /// of a manager and every 64th after them.
    fn check_reads_back(&self, payload: &[u8]) -> Result<()> {
        let earlier = self.saves.fetch_add(1, Ordering::Relaxed);
        if !cfg!(debug_assertions) && earlier >= 1000 && !earlier.is_multiple_of(64) {
            return Ok(());
        }
        let data = self.data.decode(payload);
        // Not the reason: serde puts data into its texts.
        let data = data.map_err(|_| SessionError::Encode(DOES_NOT_READ_BACK.into()))?;
        if cfg!(debug_assertions)
            && let Ok(again) = self.encode(&*data)
            && !self.is_same_data(payload, &again)
        {
            self.warn(warnings::UNSTABLE_ENCODING, None, None);
        }
        Ok(())
    }

    /// Encodes decoded data once more, so that defaults and renames look as in other data that `T` wrote.
    ///
    /// Data that cannot be read becomes an empty text, which does not merge.
    pub(super) fn encode_again(&self, decoded: Option<Box<Data>>) -> Bytes {
        decoded.and_then(|data| self.encode(&*data).ok()).unwrap_or_default()
    }

    /// Merges two changes of one base, all three as `T` writes them. The result decodes.
    pub(super) fn merge(
        &self,
        base: &[u8],
        ours: &[u8],
        theirs: &[u8],
    ) -> Result<Box<Data>, Clash> {
        let conflict = || Clash::from(SessionError::Conflict);
        let parse = |bytes| serde_json::from_slice::<Value>(bytes).map_err(|_| conflict());
        if self.codec_tag != JSON_TAG {
            return Err(conflict());
        }
        let sides = [parse(base)?, parse(ours)?, parse(theirs)?];
        let shape = self.data.shape(sides.each_ref());
        let shuffles = OnceCell::new();
        let shuffles = || *shuffles.get_or_init(|| self.shuffles([base, ours, theirs]));
        let merged = Merger { shuffles }.merge(&shape, sides);
        let merged = merged.map_err(|field| Clash { field: Some(field), ..conflict() })?;
        let merged = serde_json::to_vec(&merged).map_err(|_| conflict())?;
        self.data.decode(&merged).map_err(|_| conflict())
    }

    /// Returns `true` if `T` writes the same data in another order each time. Two items in a `HashSet` have the same
    /// order in all of these attempts once in 2^15.
    fn shuffles(&self, documents: [&[u8]; 3]) -> bool {
        let again = |document| self.encode_again(self.data.decode(document).ok());
        let differs = |document| !self.is_same_data(document, &again(document));
        (0..5).flat_map(|_| documents).any(differs)
    }

    /// Brings a draft from its basis to the current basis of the request.
    pub(crate) fn rebase(&self, onto: &Arc<Basis>, draft: &mut Draft) -> Result<()> {
        if Arc::ptr_eq(onto, &draft.basis) || draft.intents.destroy {
            draft.basis.clone_from(onto);
            return Ok(());
        }
        let is_other = onto.identity != draft.basis.identity;
        let change = self.take_change(draft)?;
        if is_other && onto.live().is_none() && (change.is_some() || draft.intents.any()) {
            return Err(self.gone(None));
        }
        let Some(ours) = change else {
            draft.restart(onto.clone(), self.data_of(onto)?);
            return Ok(());
        };
        if is_other {
            return Err(self.clash_in_request(onto, None));
        }
        let theirs = self.encode(&*self.data_of(onto)?)?;
        if !draft.intents.clear {
            let base = draft.base(self).map(|base| self.data.decode(base));
            let base = self.encode_again(base.and_then(Result::ok));
            if !self.is_same_data(&base, &theirs) {
                match self.merge(&base, &ours, &theirs) {
                    Ok(merged) => draft.data = merged,
                    Err(_) if self.on_conflict == Some(ConflictPolicy::Overwrite) => {}
                    Err(clash) => return Err(self.clash_in_request(onto, clash.field.as_deref())),
                }
            }
        }
        draft.encoded = None;
        (draft.base, draft.basis) = (Some(theirs), onto.clone());
        Ok(())
    }

    /// Reports that two `Session`s of one request changed the same data, which is a mistake of the application.
    fn clash_in_request(&self, basis: &Basis, field: Option<&str>) -> SessionError {
        let route = Some(&basis.incoming.route);
        self.warn(warnings::GUARDS_CONFLICT, route, field);
        SessionError::Conflict
    }
}
