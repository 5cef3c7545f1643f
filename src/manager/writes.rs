//! Carrying a decision out: the row first, then what the client is told.

use super::{basis::Basis, core::Core, endings::Successor, rows::Rows};
use crate::{
    clock::Timestamp,
    decision::{Live, Origin, RowAction, Save},
    error::SessionError,
    event::SessionEventKind as Kind,
    id::{SessionId, random},
    store::{Record, SaveOutcome, Version, Write},
};

/// A new id that collides with a live one is drawn again this often; once in 2^256 for random ids.
const MAX_DRAWS: usize = 4;

/// Makes the record that holds a save and what others wrote before it, from the save's epoch and their record.
pub(super) type Merge<'a> =
    dyn Fn(&Save<'_>, u64, &Record) -> Result<Record, SessionError> + Send + Sync + 'a;

impl Core {
    /// Does what was decided: the row first, then what the client is told. Returns what the request goes on
    /// with, or `None` if nothing was done.
    ///
    /// The futures of its steps are boxed one by one: past a kilobyte allocators leave their fast path.
    pub(super) async fn carry_out(
        &self,
        basis: &Basis,
        (row, tells): (RowAction<'_>, bool),
        merge: &Merge<'_>,
        mut identity: u32,
        now: Timestamp,
    ) -> Result<Option<Basis>, SessionError> {
        let removal = || basis.incoming.arrived.then(|| self.carrier.removal());
        let mut told = basis.told.clone();
        if let Some(ending) = &basis.ending {
            Box::pin(self.destroy_all(ending, now)).await?;
            told = removal();
        }
        let live = match row {
            RowAction::None => None,
            RowAction::Create(prepared, lifetime) => {
                let record = self.record(prepared, lifetime, 0)?;
                let id = Box::pin(self.insert(basis, &record)).await?;
                self.report(Kind::Created, || id.store_key());
                Some(Live::new(id, record))
            }
            RowAction::Update(save) => Some(Box::pin(self.update_row(basis, &save, merge)).await?),
            RowAction::Rotate(save) => Some(Box::pin(self.rotate(basis, &save, merge)).await?),
            RowAction::Touch(live, expires_at) => {
                let touched = Box::pin(self.touch(basis, live, expires_at)).await?;
                if touched.is_none() && basis.uncommitted.is_none() {
                    return Ok(None);
                }
                touched
            }
            RowAction::Destroy => {
                Box::pin(self.destroy_all(basis, now)).await?;
                (told, identity) = (removal(), identity + 1);
                None
            }
            RowAction::Gone => return Err(self.gone(None)),
        };
        let did_nothing = matches!(row, RowAction::None) && !tells;
        if did_nothing && basis.ending.is_none() && basis.uncommitted.is_none() {
            return Ok(None);
        }
        let mut origin = match (live, row) {
            (Some(live), _) => Origin::Loaded(Box::new(live)),
            (None, RowAction::Destroy) => Origin::New,
            (None, _) => basis.origin.clone(),
        };
        if let Origin::Loaded(live) = &mut origin
            && tells
        {
            live.former_key = false;
            told = Some(self.deliver(live, now)?);
        }
        Ok(Some(Basis { identity, ..basis.after(origin, told) }))
    }

    /// Puts a record under a new id, which it returns.
    async fn insert(&self, basis: &Basis, record: &Record) -> Result<SessionId, SessionError> {
        self.check_fits(record)?;
        for _ in 0..MAX_DRAWS {
            let secret = match (&self.generate_id, &basis.incoming.parts) {
                (Some(generate), Some(parts)) => generate(parts),
                _ => random().map_err(SessionError::Random)?,
            };
            let id = self.scope.id(secret);
            let saved = match self.rows(&basis.incoming) {
                Some(rows) => rows.save(&id.store_key(), record, Write::Create).await?,
                None => SaveOutcome::Saved,
            };
            if saved == SaveOutcome::Saved {
                return Ok(id);
            }
        }
        Err(SessionError::IdInUse)
    }

    /// Moves a row's expiry; `None` if another request changed the row first: its cookie counts.
    async fn touch(
        &self,
        basis: &Basis,
        live: &Live,
        expires_at: Timestamp,
    ) -> Result<Option<Live>, SessionError> {
        if let Some(rows) = self.rows(&basis.incoming) {
            match rows.touch(&live.key(), live.record.version(), expires_at).await? {
                SaveOutcome::Saved => {}
                SaveOutcome::Conflict(_) | SaveOutcome::Gone => return Ok(None),
            }
        }
        self.report(Kind::Touched, || live.key());
        Ok(Some(live.with(live.record.clone().with_expires_at(expires_at))))
    }

    async fn update_row(
        &self,
        basis: &Basis,
        save: &Save<'_>,
        merge: &Merge<'_>,
    ) -> Result<Live, SessionError> {
        // Hashed only where it is needed.
        let key = || save.live.key();
        let record = self.record_of(save)?;
        let record = if let Some(rows) = self.rows(&basis.incoming) {
            let (key, epoch) = (key(), record.epoch);
            let again = |theirs: &Record| merge(save, epoch, theirs).map(Some);
            let written = rows.overwrite(&key, record, save.live.record.version, again);
            written.await?.map_err(|_| self.gone(Some(key)))?
        } else {
            self.check_fits(&record)?;
            if let Some(list) = self.list(&basis.incoming)
                && self.revocation(list, &key()).await?.is_some()
            {
                return Err(self.gone(Some(key())));
            }
            record
        };
        self.report(Kind::Saved, key);
        Ok(save.live.with(record))
    }

    /// Gives a session a new id.
    async fn rotate(
        &self,
        basis: &Basis,
        save: &Save<'_>,
        merge: &Merge<'_>,
    ) -> Result<Live, SessionError> {
        let record = self.record_of(save)?;
        let rotated = match self.rows(&basis.incoming) {
            Some(rows) => self.rotate_row(basis, rows, save, record, merge).await?,
            None => self.rotate_token(basis, save, record).await?,
        };
        let former = save.live.key().fingerprint();
        self.report(Kind::Regenerated { former }, || rotated.key());
        Ok(rotated)
    }

    /// Writes the new row, which ends by itself soon; then a tombstone over the old row at the version this
    /// request loaded, so that no write of another request is lost and no logout undone; then the new row's
    /// life. Dropped between these writes, it leaves one session at most.
    async fn rotate_row(
        &self,
        basis: &Basis,
        rows: Rows<'_>,
        save: &Save<'_>,
        mut record: Record,
        merge: &Merge<'_>,
    ) -> Result<Live, SessionError> {
        let soon = save.now.saturating_add(self.unfinished_life());
        let first = record.clone().with_expires_at(soon.min(record.expires_at()));
        let id = self.insert(basis, &first).await?;
        let (old, new) = (save.live.key(), id.store_key());
        let tombstone = self.tombstone(
            save.now,
            save.now.saturating_add(self.tombstone_life()),
            Some(Successor::new(new, save)),
        )?;
        let (epoch, mut replaced) = (record.epoch, save.live.record.clone());
        let version = replaced.version;
        let again = |theirs: &Record| {
            record = merge(save, epoch, theirs)?;
            replaced = theirs.clone();
            Ok(Some(tombstone.clone()))
        };
        let follows = match rows.overwrite(&old, tombstone.clone(), version, again).await {
            Ok(Ok(_)) => true,
            Ok(Err(Some(theirs))) => self.may_follow(rows, save, &theirs).await?,
            Ok(Err(None)) => false,
            // The tombstone may be there, so the new row stays. It ends by itself.
            Err(error @ SessionError::Store(_)) => return Err(error),
            Err(error) => {
                // No client knows the new id, so a leftover row is harmless and expires.
                let _ = rows.destroy(&new).await;
                return Err(error);
            }
        };
        if !follows {
            let _ = rows.destroy(&new).await;
            return Err(self.gone(Some(old)));
        }
        record.version = Version::random().map_err(SessionError::Random)?;
        let write = Write::Update { expected: first.version };
        match rows.save_twice(&new, &record, write).await {
            Ok(SaveOutcome::Saved) => Ok(Live::new(id, record)),
            // Every session of the owner was ended meanwhile.
            Ok(SaveOutcome::Conflict(_) | SaveOutcome::Gone) => Err(self.gone(Some(old))),
            Err(error) => {
                let write = Write::Update { expected: tombstone.version };
                if let Ok(SaveOutcome::Saved) = rows.save_twice(&old, &replaced, write).await {
                    // The session lives on under its old id, unless it was ended under the new one.
                    let mut removed = rows.destroy_at(&new, first.version).await;
                    if let Ok(SaveOutcome::Conflict(_)) = removed {
                        removed = rows.destroy_at(&new, record.version).await;
                    }
                    if let Ok(SaveOutcome::Gone) = removed {
                        let _ = rows.destroy(&old).await;
                    }
                }
                Err(error.into())
            }
        }
    }

    /// Gives a session of cookie mode a new id, and enters the old one into the list, if there is one.
    async fn rotate_token(
        &self,
        basis: &Basis,
        save: &Save<'_>,
        record: Record,
    ) -> Result<Live, SessionError> {
        let id = self.insert(basis, &record).await?;
        if let Some(list) = self.list(&basis.incoming) {
            let old = save.live.key();
            let successor = Successor::new(id.store_key(), save);
            let replaced = Some(&save.live.record);
            let earlier = self.revoke(list, &old, replaced, Some(successor), save.now).await?;
            if let Some(earlier) = earlier
                && !self.may_follow(list, save, &earlier).await?
            {
                return Err(self.gone(Some(old)));
            }
        }
        Ok(Live::new(id, record))
    }

    /// Makes the record of a save; a new identity gets a new epoch.
    fn record_of(&self, save: &Save<'_>) -> Result<Record, SessionError> {
        let begins = save.begins_identity(self.owner_is_told);
        let epoch = if begins { self.new_epoch()? } else { save.live.record.epoch };
        self.record(save.prepared, save.lifetime, epoch)
    }
}
