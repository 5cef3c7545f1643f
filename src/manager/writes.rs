//! Carrying a decision out: first the row, then the token of the client.

use rand::Rng as _;

use super::{
    basis::{Basis, Incoming},
    core::Core,
    endings::Successor,
    rows::Rows,
};
use crate::{
    clock::Timestamp,
    cookies::NAME_VALUE_LIMIT,
    decision::{Intents, Live, Origin, RowAction, Save},
    error::{Result, SessionError},
    event::SessionEventKind as Kind,
    expiry::Rolling,
    id::{ID_BYTES, SessionId, random},
    store::{Record, SaveOutcome, Version, Write},
    warnings::{LOGIN_KEEPS_ID, PLAIN_HTTP},
};

/// A new id that collides with a live one is drawn again this often; once in 2^256 for random ids.
const MAX_DRAWS: usize = 4;

impl Core {
    /// Carries a decision out: first the row, then the token of the client. Returns the next basis of the request,
    /// or `None` if nothing was done.
    ///
    /// The futures of its steps are boxed one by one: past a kilobyte allocators leave their fast path.
    pub(super) async fn carry_out(
        &self,
        basis: &Basis,
        (row, tells): &(RowAction<'_>, bool),
        mut identity: u32,
        now: Timestamp,
    ) -> Result<Option<Basis>> {
        let removal = || basis.incoming.arrived.then(|| self.tenant.carrier.removal());
        let mut told = basis.told.clone();
        if let Some(ending) = &basis.ending {
            Box::pin(self.destroy_all(ending, now)).await?;
            told = removal();
        }
        let is_import = basis.importing().is_some() && !matches!(row, RowAction::Destroy);
        let is_ended = is_import && Box::pin(self.save_imported(basis, now)).await?;
        if let Some(live) = basis.live()
            && (*tells && !matches!(row, RowAction::Rotate(_)))
        {
            let is_revoked = is_ended || self.is_revoked(live, now).await?;
            let is_update = matches!(row, RowAction::Update(_));
            if is_revoked && is_update {
                return Err(self.gone(Some(live.key())));
            }
            // As with a row that is gone, an unchanged session is left alone. So is one that no browser would keep under
            // today's name: it stays in its former cookie.
            if is_revoked
                || (!is_update && self.cookie_bytes(live.record.encoded_len()) > NAME_VALUE_LIMIT)
            {
                let (incoming, origin) = (basis.incoming.clone(), basis.origin.clone());
                let rest = Basis::new(incoming, identity, origin, told);
                return Ok(basis.has_leftovers().then_some(rest));
            }
        }
        let is_login = match row {
            RowAction::Create(prepared, _) => prepared.owner.is_some(),
            RowAction::Update(save) | RowAction::Rotate(save) => save.is_login(),
            RowAction::None | RowAction::Touch(..) | RowAction::Destroy | RowAction::Gone => false,
        };
        let mut origin = match row {
            RowAction::None if !tells && !basis.has_leftovers() => return Ok(None),
            RowAction::None => basis.origin.clone(),
            RowAction::Create(prepared, lifetime) => {
                let incoming = Some(&*basis.incoming);
                let mut live = self.new_live(incoming, self.record(prepared, *lifetime, 0))?;
                self.insert(incoming, &mut live).await?;
                self.report(Kind::Created, || live.key());
                Origin::Loaded(live)
            }
            RowAction::Update(save) => Origin::Loaded(match self.rows() {
                Some(rows) => Box::pin(self.update_row(rows, save)).await?,
                None => self.updated(save)?,
            }),
            RowAction::Rotate(save) => Origin::Loaded(Box::pin(self.rotate(basis, save)).await?),
            RowAction::Touch(live, expires_at) => {
                match Box::pin(self.touch(live, *expires_at)).await? {
                    Some(touched) => Origin::Loaded(touched),
                    None if !basis.has_leftovers() => return Ok(None),
                    None => basis.origin.clone(),
                }
            }
            RowAction::Destroy => {
                Box::pin(self.destroy_all(basis, now)).await?;
                (told, identity) = (removal(), identity + 1);
                Origin::New
            }
            RowAction::Gone => return Err(self.gone(None)),
        };
        if is_import {
            Box::pin(self.note_import(basis, now)).await?;
        }
        if let Origin::Loaded(live) = &mut origin
            && (is_login || is_import)
        {
            // A token with data cannot be planted: the copy that somebody else keeps is not signed in.
            // Nor can the id of an import, which is derived with the key.
            let keeps_id = !is_import && matches!(row, RowAction::Update(_));
            if keeps_id && !self.data_in_token() && told.is_none() {
                self.warn_once(LOGIN_KEEPS_ID);
            }
            Box::pin(self.end_surplus(live.key(), &mut live.record)).await;
        }
        if let Origin::Loaded(live) = &mut origin
            && *tells
        {
            told = Some(self.deliver(live, now)?);
            if let Some(host) = &basis.incoming.plain_http_host {
                self.warnings.warn_once(PLAIN_HTTP, self.type_name, Some(host));
            }
        }
        Ok(Some(Basis::new(basis.incoming.clone(), identity, origin, told)))
    }

    /// Asks the revocation list, if there is one, before the client is sent a token of this id again.
    async fn is_revoked(&self, live: &Live, now: Timestamp) -> Result<bool> {
        Ok(match self.list() {
            Some(list) => Box::pin(self.revocation(list, &live.key(), now)).await?.is_some(),
            None => false,
        })
    }

    /// Stores a session under its new id, or under another one if that id is in use.
    pub(super) async fn insert(&self, incoming: Option<&Incoming>, live: &mut Live) -> Result<()> {
        let Some(rows) = self.rows() else { return Ok(()) };
        let mut draws = 1;
        while Box::pin(rows.save(&live.key(), &live.record, Write::Create)).await?
            != SaveOutcome::Saved
        {
            if draws == MAX_DRAWS {
                return Err(SessionError::IdInUse);
            }
            draws += 1;
            live.id = self.next_id(incoming)?;
        }
        Ok(())
    }

    /// Makes a session with a new id, if its token fits.
    pub(super) fn new_live(&self, incoming: Option<&Incoming>, record: Record) -> Result<Live> {
        self.check_fits(&record)?;
        Ok(Live::new(self.next_id(incoming)?, record))
    }

    fn next_id(&self, incoming: Option<&Incoming>) -> Result<SessionId> {
        // Taken out, so that no other session of the request gets it too.
        let early = incoming.and_then(|incoming| incoming.early_id().take());
        let secret = early.map_or_else(|| self.draw_id(incoming), Ok)?;
        Ok(self.session_id(secret))
    }

    fn draw_id(&self, incoming: Option<&Incoming>) -> Result<[u8; ID_BYTES]> {
        let parts = incoming.and_then(|incoming| incoming.parts.as_ref());
        let generated =
            self.generate_id.as_ref().zip(parts).map(|(generate, parts)| generate(parts));
        if !self.data_in_token() {
            return generated.map_or_else(|| random().map_err(SessionError::Random), Ok);
        }
        // Whoever knows this id cannot use it, so it costs no system call.
        Ok(generated.unwrap_or_else(|| {
            let mut id = [0; ID_BYTES];
            rand::rng().fill_bytes(&mut id);
            id
        }))
    }

    /// Returns the id that the client has once these intents are committed. A new one is drawn here, and a fresh
    /// session is saved for it.
    pub(crate) fn coming_id(&self, basis: &Basis, intents: &mut Intents) -> Result<SessionId> {
        let together = basis.intents_with(*intents);
        match &basis.origin {
            _ if together.destroy => return Err(self.gone(None)),
            Origin::Loaded(live) if !together.regenerate => return Ok(live.id.clone()),
            Origin::Tombstone if !together.regenerate => return Err(self.gone(None)),
            Origin::Loaded(_) | Origin::Tombstone => {}
            Origin::New => intents.force_save = true,
        }
        let incoming = &basis.incoming;
        // The application's code may draw it, so outside the lock.
        let early = *incoming.early_id();
        let secret = early.map_or_else(|| self.draw_id(Some(incoming)), Ok)?;
        Ok(self.session_id(*incoming.early_id().get_or_insert(secret)))
    }

    /// Moves a row's expiry, or writes the row with today's keys; `None` if another request changed the row first: its
    /// cookie counts.
    async fn touch(&self, live: &Live, expires_at: Timestamp) -> Result<Option<Live>> {
        let (key, loaded) = (live.key(), &live.record);
        let mut record = loaded.clone().with_expires_at(expires_at);
        if let Some(rows) = self.rows() {
            let outcome = if loaded.is_outdated() {
                record = self.with_latest_expiry(rows, live, record, false).await?;
                record.version = Version::unique();
                record.opened_from = None;
                rows.save(&key, &record, Write::Update { loaded }).await?
            } else {
                let touch = rows.store.touch(&key, loaded.version(), expires_at);
                rows.bounded("touch", touch).await?
            };
            if outcome != SaveOutcome::Saved {
                return Ok(None);
            }
        }
        self.report(Kind::Touched, || key);
        Ok(Some(live.with(record)))
    }

    /// Saves over the row of a session.
    pub(super) async fn update_row(&self, rows: Rows<'_>, save: &Save<'_>) -> Result<Live> {
        let key = &save.live.key();
        let again = |theirs: &Record| self.reconciled(save, theirs).map(Some);
        let mut live = save.live.with(self.row_of(rows, save).await?);
        let written = rows.overwrite(key, &mut live.record, &save.live.record, again).await?;
        written.map_err(|_| self.gone(Some(*key)))?;
        self.report(Kind::Saved, || *key);
        Ok(live)
    }

    /// Makes the session of a save that only the token carries.
    fn updated(&self, save: &Save<'_>) -> Result<Live> {
        let record = self.record_of(save);
        self.check_fits(&record)?;
        self.report(Kind::Saved, || save.live.key());
        Ok(save.live.with(record))
    }

    /// Gives a session a new id.
    async fn rotate(&self, basis: &Basis, save: &Save<'_>) -> Result<Live> {
        let rotated = match self.rows() {
            Some(rows) => self.rotate_row(basis, rows, save).await?,
            None => self.rotate_token(basis, save).await?,
        };
        let former = save.live.key().fingerprint();
        self.report(Kind::Regenerated { former }, || rotated.key());
        Ok(rotated)
    }

    /// Writes the new row, which ends by itself soon; then a tombstone over the old row at the version this
    /// request loaded, so that no write of another request is lost and no logout undone; then the new row's
    /// life. Dropped between these writes, it leaves one session at most.
    async fn rotate_row(&self, basis: &Basis, rows: Rows<'_>, save: &Save<'_>) -> Result<Live> {
        let mut record = self.row_of(rows, save).await?;
        let soon = save.now.saturating_add(self.unfinished_life());
        let first = record.clone().with_expires_at(soon.min(record.expires_at()));
        let incoming = Some(&*basis.incoming);
        let mut begun = self.new_live(incoming, first)?;
        self.insert(incoming, &mut begun).await?;
        let (old, new, first) = (save.live.key(), begun.key(), &begun.record);
        let end = save.now.saturating_add(self.tombstone_life());
        let tombstone = self.tombstone(save.now, end, Some(Successor::new(new, save)));
        let mut replaced = Record::clone(&save.live.record);
        let again = |theirs: &Record| {
            record = self.reconciled(save, theirs)?;
            replaced = theirs.clone();
            Ok(Some(tombstone.clone()))
        };
        let (mut mark, loaded) = (tombstone.clone(), &save.live.record);
        let refused = match rows.overwrite(&old, &mut mark, loaded, again).await {
            Ok(Ok(())) => None,
            Ok(Err(Some(theirs))) if self.may_follow(rows, save, &theirs).await? => None,
            Ok(Err(_)) => Some(self.gone(Some(old))),
            // The tombstone may be there, so the new row stays. It ends by itself.
            Err(error @ SessionError::Store(_)) => return Err(error),
            Err(error) => Some(error),
        };
        if let Some(error) = refused {
            // No client knows the new id, so a leftover row is harmless and expires.
            let _ = rows.destroy(&new).await;
            return Err(error);
        }
        record.version = Version::unique();
        let write = Write::Update { loaded: first };
        match rows.save_twice(&new, &record, write).await {
            Ok(SaveOutcome::Saved) => Ok(begun.with(record)),
            // The save set an absolute timeout that is over already.
            Ok(SaveOutcome::Gone) if record.expires_at() <= save.now => Ok(begun.with(record)),
            // Every session of the owner was ended meanwhile.
            Ok(SaveOutcome::Conflict(_) | SaveOutcome::Gone) => Err(self.gone(Some(old))),
            Err(error) => {
                let write = Write::Update { loaded: &tombstone };
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
    async fn rotate_token(&self, basis: &Basis, save: &Save<'_>) -> Result<Live> {
        let live = self.new_live(Some(&basis.incoming), self.record_of(save))?;
        if let Some(list) = self.list() {
            let old = save.live.key();
            let successor = Successor::new(live.key(), save);
            let replaced = Some(&*save.live.record);
            let earlier = self.revoke(list, &old, replaced, Some(successor), save.now).await?;
            if let Some(earlier) = earlier
                && !self.may_follow(list, save, &earlier).await?
            {
                return Err(self.gone(Some(old)));
            }
        }
        Ok(live)
    }

    /// Makes the row of a save.
    async fn row_of(&self, rows: Rows<'_>, save: &Save<'_>) -> Result<Record> {
        self.with_latest_expiry(rows, save.live, self.record_of(save), save.extends).await
    }

    /// Makes the record of a write that `extends` the session or else keeps its expiry. It does not take back what
    /// `rolling` gave the row meanwhile, which most stores note without a new version.
    pub(super) async fn with_latest_expiry(
        &self,
        rows: Rows<'_>,
        live: &Live,
        record: Record,
        extends: bool,
    ) -> Result<Record> {
        let found = &live.record;
        let is_moved = extends || record.expires_at() != found.expires_at();
        if is_moved || self.policy.rolling == Rolling::Off {
            return Ok(record);
        }
        let row = Box::pin(rows.load(&live.key())).await?;
        Ok(match row.filter(|row| row.version == found.version) {
            Some(row) => record.with_expires_at(row.expires_at()),
            None => record,
        })
    }

    /// Makes the record of a save; a new identity gets a new epoch.
    pub(super) fn record_of(&self, save: &Save<'_>) -> Record {
        let begins = save.begins_identity(self.owner_is_told);
        let epoch = if begins { self.new_epoch() } else { save.live.record.epoch };
        self.record(&save.prepared, save.lifetime, epoch)
    }
}
