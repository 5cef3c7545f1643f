//! Carrying a decision out: the row first, then what the client is told.

use super::{
    Basis, Live, SessionManager,
    payload::{Draft, Ours, Prepared},
    save::Change,
};
use crate::{
    clock::Timestamp,
    decision::{CookieAction, Decision, Intents, Origin, RowAction, Situation, decide, saves},
    error::SessionError,
    record::Record,
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

impl<T: Send + Sync + 'static> SessionManager<T> {
    /// Decides what a draft means for its session and does it.
    pub(crate) async fn commit(
        &self,
        basis: &Basis,
        draft: &mut Draft<T>,
    ) -> Result<Committed, SessionError> {
        let now = self.now();
        let (decision, prepared) = self.decide(basis, draft, now)?;
        self.carry_out(basis, &decision, &draft.intents, prepared.as_ref(), now).await
    }

    /// Decides, and prepares the data if it is to be saved.
    fn decide(
        &self,
        basis: &Basis,
        draft: &mut Draft<T>,
        now: Timestamp,
    ) -> Result<(Decision, Option<Prepared>), SessionError> {
        let intents = draft.intents;
        let ours = self.changes(basis, draft)?;
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
        Ok((decision, prepared))
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
        let persistent =
            policy.max_age_of(record.max_age(), record.owner.is_some()).is_persistent();
        let moved = record.expires_at() != live.record.expires_at();
        let mut live = live.with(record);
        let effect = if live.retired_key || (persistent && moved) {
            let delivery = self.deliver(&live, self.now())?;
            live.retired_key = false;
            Effect::Send(delivery)
        } else {
            Effect::None
        };
        Ok(Committed { basis: Some(basis.after(Origin::Loaded, Some(live))), effect })
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
        let compared = if same { Ours::Same(encoded) } else { Ours::Changed(encoded) };
        Ok(draft.compared.insert(compared).clone())
    }

    /// Does what was decided. What few requests need is boxed, so that it takes no room in the others'
    /// futures.
    async fn carry_out(
        &self,
        basis: &Basis,
        decision: &Decision,
        intents: &Intents,
        prepared: Option<&Prepared>,
        now: Timestamp,
    ) -> Result<Committed, SessionError> {
        let change = |prepared, lifetime| Change { prepared, lifetime, intents, now };
        let live = match (&decision.row, prepared, &basis.live) {
            (RowAction::None, _, live) => live.clone(),
            (RowAction::Create(lifetime), Some(prepared), _) => {
                Some(self.create(basis, prepared, lifetime).await?)
            }
            (RowAction::Update(lifetime), Some(prepared), Some(live)) => {
                let change = change(prepared, lifetime);
                Some(self.update_row(basis, live, &change).await?)
            }
            (RowAction::Rotate(lifetime), Some(prepared), Some(live)) => {
                let change = change(prepared, lifetime);
                Some(Box::pin(self.rotate(basis, live, &change)).await?)
            }
            (RowAction::Touch(expires_at), _, Some(live)) => {
                match self.touch(basis, live, *expires_at).await? {
                    Some(live) => Some(live),
                    None => return Ok(Committed::nothing()),
                }
            }
            (RowAction::Destroy, ..) => {
                Box::pin(self.destroy_all(basis, now)).await?;
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
        decision: &Decision,
        live: Option<Live>,
        now: Timestamp,
    ) -> Result<Committed, SessionError> {
        let effect = match (decision.cookie, &live) {
            (CookieAction::Set | CookieAction::Reseal, Some(live)) => {
                Effect::Send(self.deliver(live, now)?)
            }
            (CookieAction::Remove, _) => {
                Effect::Send(self.config.carrier.removal().map_err(SessionError::Encode)?)
            }
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
        let live = live.map(|live| Live { retired_key: live.retired_key && !resealed, ..live });
        Ok(Committed { basis: Some(basis.after(origin, live)), effect })
    }
}

impl Committed {
    fn nothing() -> Self {
        Self { basis: None, effect: Effect::None }
    }
}
