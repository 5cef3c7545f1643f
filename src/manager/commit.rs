//! Carrying a decision out: the row first, then what the client is told.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Basis, Live, SessionManager,
    contention::Contention,
    open::{TOMBSTONE_TTL, data_len, write_data},
    payload::{Draft, Ours, Prepared},
};
use crate::{
    clock::Timestamp,
    cookies::NAME_VALUE_LIMIT,
    decision::{CookieAction, Decision, Intents, Origin, RowAction, Situation, decide, saves},
    error::SessionError,
    event::SessionEvent,
    expiry::{Lifetime, cookie_seconds},
    id::{ID_BYTES, StoreKey},
    record::{Record, Version},
    store::{SaveOutcome, SessionStore, Write},
    transport::Delivery,
};

/// What a commit did.
pub(crate) struct Committed {
    /// What the rest of the request starts from; `None` if nothing changed.
    pub(crate) basis: Option<Basis>,
    pub(crate) effect: Effect,
}

/// What a commit means for the response.
pub(crate) enum Effect {
    /// Whatever was to be sent still is.
    None,
    Send(Delivery),
    /// Nothing is to be sent, whatever was.
    Retract,
}

/// A new id that collides with a live one is drawn again this often; once in 2^256 for random ids.
const MAX_DRAWS: usize = 4;

impl<T: Send + Sync + 'static> SessionManager<T> {
    /// Decides what a draft means for its session and does it.
    pub(crate) async fn commit(
        &self,
        basis: &Basis,
        mut draft: Draft<T>,
    ) -> Result<Committed, SessionError> {
        let now = self.now();
        let intents = draft.intents;
        let ours = self.changes(basis, &mut draft)?;
        let changed = matches!(ours, Ours::Changed(_));
        let prepared = if saves(basis.origin, &intents, changed) {
            Some(self.prepare(&mut draft.data, ours.into_encoded())?)
        } else {
            None
        };
        let stored = basis.live.as_ref().map(|live| &live.record);
        let was_owner = stored.and_then(|record| record.owner);
        let owner = prepared.as_ref().map_or(was_owner, |ready| ready.owner);
        let decision = decide(&Situation {
            origin: basis.origin,
            arrived: basis.arrived,
            changed,
            intents,
            stored: stored.map(|record| record.lifetime),
            retired_key: basis.live.as_ref().is_some_and(|live| live.retired_key),
            data_in_token: self.data_in_token(),
            owned: owner.is_some(),
            was_owned: was_owner.is_some(),
            owner_arrived: owner.is_some() && owner != was_owner,
            policy: &self.config.policy,
            now,
        });
        self.carry_out(basis, decision, intents, prepared, now)
            .await
    }

    /// Says whether a draft differs from what was handed out of `basis`; an intent is a difference.
    pub(crate) fn differs(
        &self,
        basis: &Basis,
        draft: &mut Draft<T>,
    ) -> Result<bool, SessionError> {
        Ok(draft.intents.any() || matches!(self.changes(basis, draft)?, Ours::Changed(_)))
    }

    /// Says what an `update` that wrote `record` means for the client.
    pub(crate) fn updated(
        &self,
        basis: &Basis,
        live: &Live,
        record: Record,
    ) -> Result<Committed, SessionError> {
        let policy = &self.config.policy;
        let persistent = policy
            .max_age_of(record.max_age(), record.owner.is_some())
            .is_persistent();
        let moved = record.expires_at() != live.record.expires_at();
        let mut live = live.with(record);
        let effect = if live.retired_key || (persistent && moved) {
            let delivery = self.deliver(&live, self.now())?;
            live.retired_key = false;
            Effect::Send(delivery)
        } else {
            Effect::None
        };
        Ok(Committed {
            basis: Some(basis.after(Origin::Loaded, Some(live))),
            effect,
        })
    }

    /// Encodes the data if it may differ, and says whether it does.
    fn changes(&self, basis: &Basis, draft: &mut Draft<T>) -> Result<Ours, SessionError> {
        if !draft.borrowed || draft.intents.destroy {
            return Ok(Ours::Untouched);
        }
        if let Some(compared) = &draft.compared {
            return Ok(compared.clone());
        }
        let encoded = self.encode(&draft.data)?;
        let handed_out = match (&draft.handed_out, &basis.live) {
            (Some(handed_out), _) => Some(handed_out),
            (None, Some(live)) => Some(&live.record.payload),
            (None, None) => None,
        };
        let same = handed_out.is_some_and(|before| self.is_same_data(before, &encoded));
        let compared = if same {
            Ours::Same(encoded)
        } else {
            Ours::Changed(encoded)
        };
        Ok(draft.compared.insert(compared).clone())
    }

    async fn carry_out(
        &self,
        basis: &Basis,
        decision: Decision,
        intents: Intents,
        prepared: Option<Prepared>,
        now: Timestamp,
    ) -> Result<Committed, SessionError> {
        let change = |prepared, lifetime| Change {
            prepared,
            lifetime,
            intents,
            now,
        };
        let live = match (decision.row, prepared, &basis.live) {
            (RowAction::None, _, live) => live.clone(),
            (RowAction::Create(lifetime), Some(prepared), _) => {
                Some(self.create(basis, prepared, lifetime).await?)
            }
            (RowAction::Update(lifetime), Some(prepared), Some(live)) => {
                let change = change(prepared, lifetime);
                Some(self.update_row(basis, live, change).await?)
            }
            (RowAction::Rotate(lifetime), Some(prepared), Some(live)) => {
                let change = change(prepared, lifetime);
                Some(self.rotate(basis, live, change).await?)
            }
            (RowAction::Touch(expires_at), _, Some(live)) => {
                match self.touch(basis, live, expires_at).await? {
                    Some(live) => Some(live),
                    None => return Ok(Committed::nothing()),
                }
            }
            (RowAction::Destroy, ..) => {
                self.destroy_all(basis, now).await?;
                None
            }
            (
                RowAction::Gone
                | RowAction::Create(_)
                | RowAction::Update(_)
                | RowAction::Rotate(_)
                | RowAction::Touch(_),
                ..,
            ) => {
                let live = basis.live.as_ref();
                return Err(self.gone(live.map(|live| live.id.store_key())));
            }
        };
        self.finish(basis, decision, live, now)
    }

    /// Renders what the client is told.
    fn finish(
        &self,
        basis: &Basis,
        decision: Decision,
        live: Option<Live>,
        now: Timestamp,
    ) -> Result<Committed, SessionError> {
        let effect = match (decision.cookie, &live) {
            (CookieAction::Set | CookieAction::Reseal, Some(live)) => {
                Effect::Send(self.deliver(live, now)?)
            }
            (CookieAction::Remove, _) => Effect::Send(
                self.config
                    .carrier
                    .removal()
                    .map_err(SessionError::Encode)?,
            ),
            (CookieAction::None, None) if matches!(decision.row, RowAction::Destroy) => {
                Effect::Retract
            }
            (CookieAction::None | CookieAction::Set | CookieAction::Reseal, _) => Effect::None,
        };
        let origin = match (&live, decision.row) {
            (Some(_), _) => Origin::Loaded,
            (None, RowAction::None) => basis.origin,
            (None, _) => Origin::New,
        };
        let resealed = matches!(decision.cookie, CookieAction::Set | CookieAction::Reseal);
        let live = live.map(|live| Live {
            retired_key: live.retired_key && !resealed,
            ..live
        });
        Ok(Committed {
            basis: Some(basis.after(origin, live)),
            effect,
        })
    }

    /// Renders the token of a session and the headers that carry it.
    pub(super) fn deliver(&self, live: &Live, now: Timestamp) -> Result<Delivery, SessionError> {
        let owned = live.record.owner.is_some();
        let max_age = self.config.policy.max_age_of(live.record.max_age(), owned);
        let seconds = max_age
            .is_persistent()
            .then(|| cookie_seconds(live.record.expires_at(), now));
        let token = match &self.config.sealer {
            Some(sealer) if self.data_in_token() => {
                self.check_fits(&live.record)?;
                sealer.seal(data_len(&live.record), |into| {
                    write_data(&live.id, now, &live.record, into);
                })
            }
            Some(sealer) => sealer.seal(ID_BYTES, |into| {
                into.extend_from_slice(live.id.as_bytes());
            }),
            None => Ok(live.id.to_text()),
        };
        let token = token.map_err(SessionError::Random)?;
        let delivery = self.config.carrier.set(token, seconds);
        delivery.map_err(SessionError::Encode)
    }

    /// Measures a token before anything is stored or sent.
    fn check_fits(&self, record: &Record) -> Result<(), SessionError> {
        match &self.config.sealer {
            Some(sealer) if self.data_in_token() => {
                let value = sealer.token_len(data_len(record));
                self.check_size(self.config.carrier.name().len() + value, NAME_VALUE_LIMIT)
            }
            _ => Ok(()),
        }
    }

    async fn create(
        &self,
        basis: &Basis,
        prepared: Prepared,
        lifetime: Lifetime,
    ) -> Result<Live, SessionError> {
        let record = self.record(prepared, lifetime)?;
        let live = self.insert(basis, record).await?;
        self.emit(|| SessionEvent::Created {
            session: live.id.store_key().fingerprint(),
        });
        Ok(live)
    }

    /// Puts a record under a new id.
    async fn insert(&self, basis: &Basis, record: Record) -> Result<Live, SessionError> {
        self.check_fits(&record)?;
        for _ in 0..MAX_DRAWS {
            let id = self.draw_id(basis)?;
            let taken = match &basis.store {
                Some(store) if !self.data_in_token() => {
                    let key = id.store_key();
                    let outcome = self.rows(store).save(&key, &record, Write::Create).await?;
                    !matches!(outcome, SaveOutcome::Saved)
                }
                _ => false,
            };
            if !taken {
                return Ok(Live {
                    id,
                    record,
                    retired_key: false,
                });
            }
        }
        let problem = "every id drawn was in use; `id_generator` must return random ids";
        Err(SessionError::Random(problem.into()))
    }

    async fn update_row(
        &self,
        basis: &Basis,
        live: &Live,
        change: Change,
    ) -> Result<Live, SessionError> {
        let key = live.id.store_key();
        let mut record = self.record(change.prepared.clone(), change.lifetime)?;
        self.check_fits(&record)?;
        match &basis.store {
            Some(list) if self.data_in_token() => {
                if self.revocation(list, &key, change.now).await?.is_some() {
                    return Err(self.gone(Some(key)));
                }
            }
            Some(store) => {
                let rows = self.rows(store);
                let mut expected = live.record.version();
                let mut contention = Contention::start();
                loop {
                    let write = Write::Update { expected };
                    let theirs = match rows.save(&key, &record, write).await? {
                        SaveOutcome::Saved => break,
                        SaveOutcome::Conflict(theirs) if !theirs.is_tombstone() => theirs,
                        SaveOutcome::Conflict(_) | SaveOutcome::Gone => {
                            return Err(self.gone(Some(key)));
                        }
                    };
                    record = self.reconciled(&key, live, &change, &theirs, false)?;
                    expected = theirs.version();
                    contention.pause().await?;
                }
            }
            None => {}
        }
        self.emit(|| SessionEvent::Saved {
            session: key.fingerprint(),
        });
        Ok(live.with(record))
    }

    /// Gives a session a new id: the new row, then the end of the old one at the version this request
    /// loaded, so that neither a write of another request is lost nor a logout undone.
    async fn rotate(
        &self,
        basis: &Basis,
        live: &Live,
        change: Change,
    ) -> Result<Live, SessionError> {
        let record = self.record(change.prepared.clone(), change.lifetime)?;
        let rotated = if self.data_in_token() {
            let rotated = self.insert(basis, record).await?;
            self.revoke(basis, &live.id.store_key(), true, change.now)
                .await?;
            rotated
        } else {
            let created = self.insert(basis, record).await?;
            match self.retire(basis, live, &created, &change).await {
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
        change: &Change,
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
                SaveOutcome::Conflict(theirs) if !theirs.is_tombstone() => theirs,
                SaveOutcome::Conflict(_) | SaveOutcome::Gone => return Err(self.gone(Some(old))),
            };
            let merged = self.reconciled(&old, live, change, &theirs, true)?;
            let write = Write::Update {
                expected: record.version(),
            };
            match rows.save(&new, &merged, write).await? {
                SaveOutcome::Saved => record = merged,
                // Every session of the owner was ended meanwhile.
                SaveOutcome::Conflict(_) | SaveOutcome::Gone => return Err(self.gone(Some(old))),
            }
            expected = theirs.version();
            contention.pause().await?;
        }
    }

    /// Makes the record that holds our change and theirs.
    fn reconciled(
        &self,
        key: &StoreKey,
        live: &Live,
        change: &Change,
        theirs: &Record,
        rotating: bool,
    ) -> Result<Record, SessionError> {
        self.emit(|| SessionEvent::Conflict {
            session: key.fingerprint(),
        });
        let merged = self.reconcile(
            &live.record,
            &change.prepared,
            theirs,
            change.intents.reset,
            rotating,
        )?;
        let mut lifetime = change.lifetime;
        if change.intents.max_age.is_none() && lifetime.max_age != theirs.max_age() {
            lifetime = self.config.policy.saved(
                lifetime.created_at,
                Some(lifetime.absolute_end),
                change.now,
                theirs.max_age(),
                merged.owner.is_some(),
            );
        }
        self.record(merged, lifetime)
    }

    /// Moves a row's expiry; `None` if another request changed or ended the session, which then is up
    /// to that request's response.
    async fn touch(
        &self,
        basis: &Basis,
        live: &Live,
        expires_at: Timestamp,
    ) -> Result<Option<Live>, SessionError> {
        let key = live.id.store_key();
        match &basis.store {
            Some(store) if !self.data_in_token() => {
                let rows = self.rows(store);
                match rows.touch(&key, live.record.version(), expires_at).await? {
                    SaveOutcome::Saved => {}
                    SaveOutcome::Conflict(_) | SaveOutcome::Gone => return Ok(None),
                }
            }
            _ => {}
        }
        self.emit(|| SessionEvent::Touched {
            session: key.fingerprint(),
        });
        Ok(Some(
            live.with(live.record.clone().with_expires_at(expires_at)),
        ))
    }

    /// Ends every session that came in, and is certain of it before it says so.
    async fn destroy_all(&self, basis: &Basis, now: Timestamp) -> Result<(), SessionError> {
        let live = basis.live.as_ref().map(|live| live.id.store_key());
        for key in live.iter().chain(&basis.others) {
            if self.data_in_token() {
                self.revoke(basis, key, false, now).await?;
            } else if let Some(store) = &basis.store {
                match &basis.live {
                    Some(own) if Some(*key) == live => {
                        let version = own.record.version();
                        self.destroy_session(store, key, version).await?;
                    }
                    _ => self.rows(store).destroy(key).await?,
                }
            }
            self.emit(|| SessionEvent::Destroyed {
                session: key.fingerprint(),
            });
        }
        Ok(())
    }

    /// Removes a row whatever others write to it, unless it got a new id: then the session lives on, and
    /// saying that it ended would be a lie.
    pub(super) async fn destroy_session(
        &self,
        store: &Arc<dyn SessionStore>,
        key: &StoreKey,
        mut version: Version,
    ) -> Result<(), SessionError> {
        let mut contention = Contention::start();
        loop {
            match self.rows(store).destroy_at(key, version).await? {
                SaveOutcome::Saved | SaveOutcome::Gone => return Ok(()),
                SaveOutcome::Conflict(theirs) if theirs.is_tombstone() => {
                    return Err(self.gone(Some(*key)));
                }
                SaveOutcome::Conflict(theirs) => version = theirs.version(),
            }
            contention.pause().await?;
        }
    }

    /// Enters a session of cookie mode into the revocation list, if there is one.
    async fn revoke(
        &self,
        basis: &Basis,
        key: &StoreKey,
        replaced: bool,
        now: Timestamp,
    ) -> Result<(), SessionError> {
        let Some(list) = &basis.store else {
            return Ok(());
        };
        // A token of this id that a request in flight seals later cannot outlive this.
        let last_end = now
            .saturating_add(self.config.policy.absolute_timeout)
            .saturating_add(REQUEST_IN_FLIGHT);
        let mut entry = self.tombstone(now, last_end)?;
        entry.tombstone = replaced;
        match self.rows(list).save(key, &entry, Write::Create).await? {
            SaveOutcome::Saved => Ok(()),
            SaveOutcome::Conflict(_) | SaveOutcome::Gone if replaced => Err(self.gone(Some(*key))),
            SaveOutcome::Conflict(_) | SaveOutcome::Gone => Ok(()),
        }
    }

    fn record(&self, prepared: Prepared, lifetime: Lifetime) -> Result<Record, SessionError> {
        Ok(Record {
            version: if self.data_in_token() {
                UNVERSIONED
            } else {
                Version::random().map_err(SessionError::Random)?
            },
            schema: self.config.schema,
            codec: self.config.codec.tag(),
            owner: prepared.owner,
            lifetime,
            tombstone: false,
            payload: prepared.payload,
        })
    }

    fn tombstone(&self, now: Timestamp, end: Timestamp) -> Result<Record, SessionError> {
        Ok(Record {
            version: Version::random().map_err(SessionError::Random)?,
            schema: self.config.schema,
            codec: self.config.codec.tag(),
            owner: None,
            lifetime: Lifetime {
                created_at: now,
                expires_at: end,
                absolute_end: end,
                max_age: None,
            },
            tombstone: true,
            payload: Bytes::new(),
        })
    }

    pub(super) fn gone(&self, key: Option<StoreKey>) -> SessionError {
        self.emit(|| SessionEvent::Gone {
            session: key.map(|key| key.fingerprint()),
        });
        SessionError::Gone
    }
}

/// The version of a record inside a token, which is replaced as a whole.
pub(super) const UNVERSIONED: Version = Version::from_bytes([0; 16]);

/// A request that began before a revocation may seal its token this much later.
const REQUEST_IN_FLIGHT: Duration = Duration::from_secs(600);

impl Live {
    fn with(&self, record: Record) -> Self {
        Self {
            record,
            ..self.clone()
        }
    }
}

impl Committed {
    fn nothing() -> Self {
        Self {
            basis: None,
            effect: Effect::None,
        }
    }
}

/// A save to be carried out.
struct Change {
    prepared: Prepared,
    lifetime: Lifetime,
    intents: Intents,
    now: Timestamp,
}
