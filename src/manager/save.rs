//! Writing a session: under a new id, over what was loaded, or from an old id to a new one.

use std::sync::Arc;

use super::{
    Basis, Live, SessionManager,
    contention::Contention,
    end::{Revocation, TOMBSTONE_TTL},
    payload::Prepared,
    token::UNVERSIONED,
};
use crate::{
    clock::Timestamp,
    decision::Intents,
    error::SessionError,
    event::SessionEvent,
    expiry::Lifetime,
    id::{SessionId, StoreKey},
    record::{Record, Version},
    store::{SaveOutcome, SessionStore, Write},
};

/// A new id that collides with a live one is drawn again this often; once in 2^256 for random ids.
const MAX_DRAWS: usize = 4;

/// A save to be carried out.
pub(super) struct Change<'a> {
    pub(super) prepared: &'a Prepared,
    pub(super) lifetime: &'a Lifetime,
    pub(super) intents: &'a Intents,
    pub(super) now: Timestamp,
}

impl<T: Send + Sync + 'static> SessionManager<T> {
    pub(super) async fn create(
        &self,
        basis: &Basis,
        prepared: &Prepared,
        lifetime: &Lifetime,
    ) -> Result<Live, SessionError> {
        let record = self.record(prepared, lifetime)?;
        let id = self.insert(basis, &record).await?;
        self.emit(|| SessionEvent::Created { session: id.store_key().fingerprint() });
        Ok(Live::new(id, record))
    }

    /// Puts a record under a new id, which it returns.
    async fn insert(&self, basis: &Basis, record: &Record) -> Result<SessionId, SessionError> {
        self.check_fits(record)?;
        for _ in 0..MAX_DRAWS {
            let id = self.draw_id(basis)?;
            let taken = match &basis.store {
                Some(store) if !self.data_in_token() => {
                    let key = id.store_key();
                    let outcome = self.rows(store).save(&key, record, Write::Create).await?;
                    !matches!(outcome, SaveOutcome::Saved)
                }
                _ => false,
            };
            if !taken {
                return Ok(id);
            }
        }
        Err(SessionError::IdInUse)
    }

    pub(super) async fn update_row(
        &self,
        basis: &Basis,
        live: &Live,
        change: &Change<'_>,
    ) -> Result<Live, SessionError> {
        let record = match &basis.store {
            Some(store) if !self.data_in_token() => {
                self.overwrite(store, &live.id.store_key(), live, change).await?
            }
            list => {
                let record = self.record(change.prepared, change.lifetime)?;
                self.check_fits(&record)?;
                if let Some(list) = list {
                    let key = live.id.store_key();
                    if self.revocation(list, &key, change.now).await?.is_some() {
                        return Err(self.gone(Some(key)));
                    }
                }
                record
            }
        };
        self.emit(|| SessionEvent::Saved { session: live.id.store_key().fingerprint() });
        Ok(live.with(record))
    }

    /// Writes over the version that was loaded, bringing in what others wrote first.
    async fn overwrite(
        &self,
        store: &Arc<dyn SessionStore>,
        key: &StoreKey,
        live: &Live,
        change: &Change<'_>,
    ) -> Result<Record, SessionError> {
        let rows = self.rows(store);
        let mut record = self.record(change.prepared, change.lifetime)?;
        let mut expected = live.record.version();
        let mut contention = Contention::start();
        loop {
            let write = Write::Update { expected };
            let theirs = match rows.save(key, &record, write).await? {
                SaveOutcome::Saved => return Ok(record),
                // Boxed, since every save would hold it and few are contended.
                SaveOutcome::Conflict(theirs) => {
                    Box::pin(contention.next(&rows, key, theirs)).await?
                }
                SaveOutcome::Gone => None,
            };
            let theirs = self.not_gone(key, theirs)?;
            record = self.reconciled(key, live, change, &theirs, false)?;
            expected = theirs.version();
        }
    }

    /// Gives a session a new id: the new row, then the end of the old one at the version this request
    /// loaded, so that neither a write of another request is lost nor a logout undone.
    pub(super) async fn rotate(
        &self,
        basis: &Basis,
        live: &Live,
        change: &Change<'_>,
    ) -> Result<Live, SessionError> {
        let record = self.record(change.prepared, change.lifetime)?;
        let id = self.insert(basis, &record).await?;
        let created = Live::new(id, record);
        let rotated = if self.data_in_token() {
            let old = live.id.store_key();
            let revoke =
                self.revoke(basis, &old, Some(&live.record), Revocation::Replaced, change.now);
            if revoke.await?.is_some() {
                // It has ended or was replaced already, which a new id must not undo.
                return Err(self.gone(Some(old)));
            }
            created
        } else {
            match self.retire(basis, live, &created, change).await {
                Ok(record) => created.with(record),
                Err(error) => {
                    // Nobody knows the new id, so a row that stays is only untidy.
                    if let Some(store) = &basis.store {
                        let _ = self.rows(store).destroy(&created.id.store_key()).await;
                    }
                    return Err(error);
                }
            }
        };
        self.emit(|| SessionEvent::Regenerated {
            session: rotated.id.store_key().fingerprint(),
            former: live.id.store_key().fingerprint(),
        });
        Ok(rotated)
    }

    /// Turns the old row into a tombstone, first bringing over what others wrote to it.
    async fn retire(
        &self,
        basis: &Basis,
        live: &Live,
        created: &Live,
        change: &Change<'_>,
    ) -> Result<Record, SessionError> {
        let Some(store) = &basis.store else {
            return Ok(created.record.clone());
        };
        let rows = self.rows(store);
        let (old, new) = (live.id.store_key(), created.id.store_key());
        let tombstone = self.tombstone(change.now, change.now.saturating_add(TOMBSTONE_TTL))?;
        let mut record = created.record.clone();
        let mut expected = live.record.version();
        let mut contention = Contention::start();
        loop {
            let write = Write::Update { expected };
            let theirs = match rows.save(&old, &tombstone, write).await? {
                SaveOutcome::Saved => return Ok(record),
                SaveOutcome::Conflict(theirs) => contention.next(&rows, &old, theirs).await?,
                SaveOutcome::Gone => None,
            };
            let theirs = self.not_gone(&old, theirs)?;
            let merged = self.reconciled(&old, live, change, &theirs, true)?;
            let write = Write::Update { expected: record.version() };
            match rows.save(&new, &merged, write).await? {
                SaveOutcome::Saved => record = merged,
                // Every session of the owner was ended meanwhile.
                SaveOutcome::Conflict(_) | SaveOutcome::Gone => return Err(self.gone(Some(old))),
            }
            expected = theirs.version();
        }
    }

    /// Makes the record that holds our change and theirs.
    fn reconciled(
        &self,
        key: &StoreKey,
        live: &Live,
        change: &Change<'_>,
        theirs: &Record,
        rotating: bool,
    ) -> Result<Record, SessionError> {
        self.emit(|| SessionEvent::Conflict { session: key.fingerprint() });
        let merged =
            self.reconcile(&live.record, change.prepared, theirs, change.intents.reset, rotating)?;
        let mut lifetime = *change.lifetime;
        if change.intents.max_age.is_none() && lifetime.max_age != theirs.max_age() {
            lifetime = self.config.policy.saved(
                lifetime.created_at,
                Some(lifetime.absolute_end),
                change.now,
                theirs.max_age(),
                merged.owner.is_some(),
            );
        }
        self.record(&merged, &lifetime)
    }

    /// Moves a row's expiry; `None` if another request changed or ended the session, which then is up
    /// to that request's response.
    pub(super) async fn touch(
        &self,
        basis: &Basis,
        live: &Live,
        expires_at: Timestamp,
    ) -> Result<Option<Live>, SessionError> {
        match &basis.store {
            Some(store) if !self.data_in_token() => {
                let rows = self.rows(store);
                let key = live.id.store_key();
                match rows.touch(&key, live.record.version(), expires_at).await? {
                    SaveOutcome::Saved => {}
                    SaveOutcome::Conflict(_) | SaveOutcome::Gone => return Ok(None),
                }
            }
            _ => {}
        }
        self.emit(|| SessionEvent::Touched { session: live.id.store_key().fingerprint() });
        Ok(Some(live.with(live.record.clone().with_expires_at(expires_at))))
    }

    fn record(&self, prepared: &Prepared, lifetime: &Lifetime) -> Result<Record, SessionError> {
        Ok(Record {
            version: if self.data_in_token() {
                UNVERSIONED
            } else {
                Version::random().map_err(SessionError::Random)?
            },
            schema: self.config.schema,
            codec: self.config.codec.tag(),
            owner: prepared.owner,
            lifetime: *lifetime,
            tombstone: false,
            payload: prepared.payload.clone(),
        })
    }
}

impl Live {
    fn new(id: SessionId, record: Record) -> Self {
        Self { id, record, retired_key: false }
    }

    /// What a destroy needs to know of a session that came in beside the one that counts.
    pub(super) fn further(self) -> (StoreKey, Option<Record>) {
        (self.id.store_key(), Some(self.record))
    }

    pub(super) fn with(&self, record: Record) -> Self {
        Self { record, id: self.id.clone(), retired_key: self.retired_key }
    }
}
