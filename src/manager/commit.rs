//! Carrying a decision out: the row first, then what the client is told.

use std::sync::Arc;

use super::{
    ConflictPolicy, SessionManager,
    basis::{Basis, Draft, Uncommitted},
    core::Core,
    data::Clash,
    endings::Successor,
};
use crate::{
    clock::Timestamp,
    decision::{CookieAction, Live, Origin, Prepared, RowAction, Save, Situation, decide, saves},
    error::{SessionError, SessionRejection},
    event::SessionEventKind as Kind,
    id::{SessionId, random},
    record::{Record, Version},
    store::{SaveOutcome, Write},
};

/// A new id that collides with a live one is drawn again this often; once in 2^256 for random ids.
const MAX_DRAWS: usize = 4;

impl<T: Send + Sync + 'static> SessionManager<T> {
    /// Returns `true` if committing an untouched draft would do nothing.
    pub(crate) fn rests(&self, basis: &Basis) -> bool {
        let Some(live) = basis.live() else {
            return basis.uncommitted.is_none() && basis.ending.is_none();
        };
        let stored = &live.record.lifetime;
        let owned = live.record.owner.is_some();
        let policy = &self.core.policy;
        !live.former_key
            && basis.uncommitted.is_none()
            && policy.extended(stored, self.core.now(), owned, self.core.data_in_token()).is_none()
    }

    /// Decides what a draft means for its session and does it. Returns what the request goes on with, or
    /// `None` if nothing was done.
    pub(crate) async fn commit(
        &self,
        basis: &Basis,
        draft: &mut Draft<T>,
    ) -> Result<Option<Basis>, SessionError> {
        let now = self.core.now();
        let mut told = basis.told.clone();
        if let Some(ending) = &basis.ending {
            Box::pin(self.core.destroy_all(ending, now)).await?;
            told = basis.incoming.arrived.then(|| self.core.carrier.removal());
        }
        let change = self.change(draft)?;
        let uncommitted = basis.uncommitted.as_ref();
        let intents =
            uncommitted.map_or(draft.intents, |earlier| earlier.intents.and(draft.intents));
        let ours = change.clone().or_else(|| uncommitted.map(|earlier| earlier.after.clone()));
        let changed = match (uncommitted, &ours) {
            (Some(earlier), Some(ours)) => !self.is_same_data(&earlier.before, ours),
            _ => change.is_some(),
        };
        let prepared = if saves(&basis.origin, &intents, changed) {
            Some(self.prepare(&mut draft.data, ours)?)
        } else {
            None
        };
        let decision = decide(&Situation {
            origin: &basis.origin,
            arrived: basis.incoming.arrived,
            intents: &intents,
            prepared: prepared.as_ref(),
            changed,
            data_in_token: self.core.data_in_token(),
            policy: &self.core.policy,
            now,
        });
        let mut identity = basis.identity;
        let counted = uncommitted.is_some_and(|earlier| earlier.leaves_identity);
        let mut origin = match decision.row {
            RowAction::None => basis.origin.clone(),
            RowAction::Create(prepared, lifetime) => {
                let record = self.core.record(prepared, lifetime, 0)?;
                Origin::Loaded(self.core.create(basis, record).await?)
            }
            RowAction::Update(save) => {
                identity += u32::from(save.leaves_identity() && !counted);
                Origin::Loaded(self.update_row(basis, &save).await?)
            }
            RowAction::Rotate(save) => {
                identity += u32::from(save.leaves_identity() && !counted);
                Origin::Loaded(Box::pin(self.rotate(basis, &save)).await?)
            }
            RowAction::Touch(live, expires_at) => {
                match self.core.touch(basis, live, expires_at).await? {
                    Some(live) => Origin::Loaded(live),
                    None => return Ok(None),
                }
            }
            RowAction::Destroy => {
                Box::pin(self.core.destroy_all(basis, now)).await?;
                (told, identity) = (None, identity + 1);
                Origin::New
            }
            RowAction::Gone => return Err(self.core.gone(None)),
        };
        match (decision.cookie, &mut origin) {
            (CookieAction::Set, Origin::Loaded(live)) => {
                live.former_key = false;
                told = Some(self.core.deliver(live, now)?);
            }
            (CookieAction::Remove, _) => told = Some(self.core.carrier.removal()),
            (CookieAction::None | CookieAction::Set, _) => {}
        }
        let did_nothing = matches!(decision.row, RowAction::None)
            && decision.cookie == CookieAction::None
            && basis.ending.is_none()
            && uncommitted.is_none();
        Ok((!did_nothing).then(|| Basis { identity, ..basis.after(origin, told) }))
    }

    /// Folds what a dropped guard changed into the basis it was handed out of, for the layer to commit.
    pub(crate) fn fold(
        &self,
        basis: &Arc<Basis>,
        draft: &mut Draft<T>,
    ) -> Result<Basis, SessionError> {
        if draft.intents.destroy {
            return Ok(basis.with_ending());
        }
        let change = self.change(draft)?;
        let earlier = basis.uncommitted.as_ref();
        let handed_out = basis.handed_out(&self.core).or(draft.base.as_ref());
        let before = match (earlier, handed_out) {
            (Some(earlier), _) => earlier.before.clone(),
            (None, Some(handed_out)) => handed_out.clone(),
            (None, None) => self.encode(&draft.data)?,
        };
        let found = earlier.map_or(&before, |earlier| &earlier.after);
        let after = change.unwrap_or_else(|| found.clone());
        let intents = earlier.map_or(draft.intents, |earlier| earlier.intents.and(draft.intents));
        let owner = basis.live().and_then(|live| live.record.owner);
        let leaves_identity = (intents.clear && basis.live().is_some())
            || (owner.is_some() && self.owner_of(&draft.data) != owner);
        let left = Uncommitted { before, after, intents, leaves_identity };
        Ok(basis.with_uncommitted(Some(left)))
    }

    /// Folds what guards left in `folded` into what a commit came to meanwhile.
    pub(crate) fn fold_again(
        &self,
        folded: &Basis,
        committed: &Arc<Basis>,
    ) -> Result<Arc<Basis>, SessionError> {
        let onto = match folded.ending {
            Some(_) => Arc::new(committed.with_ending()),
            None => committed.clone(),
        };
        let Some(left) = &folded.uncommitted else {
            return Ok(onto);
        };
        let mut draft = Draft::new(self.data_of(folded)?);
        draft.intents = left.intents;
        draft.base = Some(left.before.clone());
        draft.encoded = Some(left.after.clone());
        self.rebase(folded, &onto, &mut draft)?;
        self.fold(&onto, &mut draft).map(Arc::new)
    }

    async fn update_row(&self, basis: &Basis, save: &Save<'_>) -> Result<Live, SessionError> {
        let core = &self.core;
        let key = save.live.key();
        let record = core.record(save.prepared, save.lifetime, self.epoch_after(save)?)?;
        let record = match core.rows(basis.incoming.store.as_ref()) {
            Some(rows) => {
                let epoch = record.epoch;
                let again = |theirs: &Record| self.reconciled(save, epoch, theirs).map(Some);
                let written = rows.overwrite(&key, record, save.live.record.version, again);
                written.await?.map_err(|_| core.gone(Some(key)))?
            }
            None => {
                core.check_fits(&record)?;
                if let Some(list) = &basis.incoming.store
                    && core.revocation(list, &key).await?.is_some()
                {
                    return Err(core.gone(Some(key)));
                }
                record
            }
        };
        core.report(Kind::Saved, || key);
        Ok(save.live.with(record))
    }

    /// Gives a session a new id. The new row comes first and ends by itself soon; then a tombstone replaces
    /// the old row at the version this request loaded, so that no write of another request is lost and no
    /// logout undone; then the new row gets its life. Dropped anywhere, it leaves one session at most.
    async fn rotate(&self, basis: &Basis, save: &Save<'_>) -> Result<Live, SessionError> {
        let core = &self.core;
        let epoch = self.epoch_after(save)?;
        let mut record = core.record(save.prepared, save.lifetime, epoch)?;
        let soon = save.now.saturating_add(core.tombstone_life());
        let store = basis.incoming.store.as_ref();
        let rotated = match (core.rows(store), store) {
            (Some(rows), Some(store)) => {
                let first = record.clone().with_expires_at(soon.min(record.expires_at()));
                let id = core.insert(basis, &first).await?;
                let old = save.live.key();
                let successor = self.successor(&id, save);
                let tombstone = core.tombstone(save.now, soon, Some(successor))?;
                let mut replaced = save.live.record.clone();
                let again = |theirs: &Record| {
                    record = self.reconciled(save, epoch, theirs)?;
                    replaced = theirs.clone();
                    Ok(Some(tombstone.clone()))
                };
                let version = save.live.record.version;
                let written = rows.overwrite(&old, tombstone.clone(), version, again).await;
                let follows = match written {
                    Ok(Ok(_)) => true,
                    Ok(Err(Some(theirs))) => core.may_follow(store, save, &theirs).await?,
                    Ok(Err(None)) => false,
                    // The tombstone may be there, so the new row stays; it ends by itself.
                    Err(error @ SessionError::Store(_)) => return Err(error),
                    Err(error) => {
                        // No client knows the new id, so a leftover row is harmless and expires.
                        let _ = rows.destroy(&id.store_key()).await;
                        return Err(error);
                    }
                };
                if !follows {
                    let _ = rows.destroy(&id.store_key()).await;
                    return Err(core.gone(Some(old)));
                }
                record.version = Version::random().map_err(SessionError::Random)?;
                let write = Write::Update { expected: first.version };
                match rows.save_twice(&id.store_key(), &record, write).await {
                    Ok(SaveOutcome::Saved) => {}
                    // Every session of the owner was ended meanwhile.
                    Ok(SaveOutcome::Conflict(_) | SaveOutcome::Gone) => {
                        return Err(core.gone(Some(old)));
                    }
                    Err(error) => {
                        let write = Write::Update { expected: tombstone.version };
                        if let Ok(SaveOutcome::Saved) =
                            rows.save_twice(&old, &replaced, write).await
                        {
                            // The session lives on under its old id.
                            let _ = rows.destroy(&id.store_key()).await;
                        }
                        return Err(error.into());
                    }
                }
                Live::new(id, record)
            }
            (_, list) => {
                let id = core.insert(basis, &record).await?;
                if let Some(list) = list {
                    let old = save.live.key();
                    let (replaced, successor) = (&save.live.record, self.successor(&id, save));
                    let entered =
                        core.revoke(list, &old, Some(replaced), Some(successor), save.now);
                    if let Some(earlier) = entered.await?
                        && !core.may_follow(list, save, &earlier).await?
                    {
                        return Err(core.gone(Some(old)));
                    }
                }
                Live::new(id, record)
            }
        };
        let former = save.live.key().fingerprint();
        core.report(Kind::Regenerated { former }, || rotated.key());
        Ok(rotated)
    }

    fn successor(&self, id: &SessionId, save: &Save<'_>) -> Successor {
        Successor { key: id.store_key(), is_other_identity: save.leaves_identity() }
    }

    fn epoch_after(&self, save: &Save<'_>) -> Result<u64, SessionError> {
        if save.begins_identity(self.core.owner_is_told) {
            self.core.new_epoch()
        } else {
            Ok(save.live.record.epoch)
        }
    }

    /// Makes the record that holds a save and what others wrote before it; `epoch` is the one of the save.
    fn reconciled(
        &self,
        save: &Save<'_>,
        epoch: u64,
        theirs: &Record,
    ) -> Result<Record, SessionError> {
        let core = &self.core;
        let prepared = self.reconcile(save, theirs);
        let field = prepared.as_ref().err().and_then(|(_, field)| field.clone());
        core.report(Kind::Conflict { field: field.clone() }, || save.live.key());
        if let Some(field) = field {
            self.warn_of_conflict(&field);
        }
        let prepared = prepared.map_err(|(error, _)| error)?;
        let mut lifetime = save.lifetime;
        if save.intents.max_age.is_none() && lifetime.max_age != theirs.max_age() {
            let owned = prepared.owner.is_some();
            lifetime = core.policy.renewed(&lifetime, save.now, theirs.max_age(), owned);
        }
        let is_same_login = theirs.epoch != save.live.record.epoch && !save.intents.clear;
        core.record(&prepared, lifetime, if is_same_login { theirs.epoch } else { epoch })
    }

    /// Merges a save with what others wrote, as the policy has it, within one identity.
    fn reconcile(
        &self,
        save: &Save<'_>,
        theirs: &Record,
    ) -> Result<Prepared, (SessionError, Option<String>)> {
        let base = &save.live.record;
        let ours = save.prepared;
        let refuse = |error: SessionError| Err((error, None));
        if theirs.schema > self.core.accept_schema {
            // Whatever the policy: data of a newer node is not replaced.
            return refuse(SessionRejection::Newer.into());
        }
        // What others wrote is what a clear removes.
        if save.intents.clear {
            return Ok(ours.clone());
        }
        if !save.merges_with(theirs, self.core.owner_is_told) {
            return refuse(SessionError::Conflict);
        }
        if theirs.payload == base.payload && theirs.owner == base.owner {
            // Only the expiry moved, in a store whose `touch` draws a new version.
            return Ok(ours.clone());
        }
        match self.core.on_conflict {
            ConflictPolicy::Reject => refuse(SessionError::Conflict),
            ConflictPolicy::Overwrite => Ok(ours.clone()),
            ConflictPolicy::Merge => {
                let merged = self.merge_records(base, &ours.ours, theirs);
                let mut data = merged.map_err(|Clash { field }| (SessionError::Conflict, field))?;
                let merged = self.prepare(&mut data, None).map_err(|error| (error, None))?;
                // Two changes that name no owner may together name one.
                if merged.owner == ours.owner { Ok(merged) } else { refuse(SessionError::Conflict) }
            }
        }
    }

    fn warn_of_conflict(&self, field: &str) {
        if self.core.warnings.is_due("conflict", field.to_owned(), self.core.now()) {
            tracing::warn!(
                session = std::any::type_name::<T>(),
                field,
                "two requests changed the same field of a session, and the later one is answered with 409: \
                 make the field a `Counter`, `Latest`, `Set` or `Once`, or change it through `session.update(..)`"
            );
        }
    }
}

impl Core {
    async fn create(&self, basis: &Basis, record: Record) -> Result<Live, SessionError> {
        let id = self.insert(basis, &record).await?;
        self.report(Kind::Created, || id.store_key());
        Ok(Live::new(id, record))
    }

    /// Puts a record under a new id, which it returns.
    async fn insert(&self, basis: &Basis, record: &Record) -> Result<SessionId, SessionError> {
        self.check_fits(record)?;
        for _ in 0..MAX_DRAWS {
            let id = self.draw_id(basis)?;
            let Some(rows) = self.rows(basis.incoming.store.as_ref()) else {
                return Ok(id);
            };
            if matches!(
                rows.save(&id.store_key(), record, Write::Create).await?,
                SaveOutcome::Saved
            ) {
                return Ok(id);
            }
        }
        Err(SessionError::IdInUse)
    }

    fn draw_id(&self, basis: &Basis) -> Result<SessionId, SessionError> {
        let secret = match (&self.generate_id, &basis.incoming.parts) {
            (Some(generate), Some(parts)) => generate(parts),
            _ => random().map_err(SessionError::Random)?,
        };
        Ok(self.scope.id(secret))
    }

    /// Moves a row's expiry; `None` if another request changed the row first: its cookie counts.
    async fn touch(
        &self,
        basis: &Basis,
        live: &Live,
        expires_at: Timestamp,
    ) -> Result<Option<Live>, SessionError> {
        if let Some(rows) = self.rows(basis.incoming.store.as_ref()) {
            match rows.touch(&live.key(), live.record.version(), expires_at).await? {
                SaveOutcome::Saved => {}
                SaveOutcome::Conflict(_) | SaveOutcome::Gone => return Ok(None),
            }
        }
        self.report(Kind::Touched, || live.key());
        Ok(Some(live.with(live.record.clone().with_expires_at(expires_at))))
    }
}
