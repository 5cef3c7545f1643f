//! The effect of a draft on its session, alone or together with the changes of other drafts and requests.

use super::{
    ConflictPolicy,
    basis::{Basis, Draft, Uncommitted},
    core::Core,
    data::Clash,
};
use crate::{
    clock::Timestamp,
    decision::{Live, Prepared, Save, Situation, decide, lifetime_after_save},
    error::{Result, SessionError},
    event::SessionEventKind as Kind,
    expiry::{Rolling, TimeoutChanges},
    store::Record,
    warnings,
};

impl Core {
    /// Returns `true` if committing an untouched draft would do nothing.
    pub(crate) fn rests(&self, basis: &Basis) -> bool {
        let is_due = |live: &Live| {
            let (stored, owned) = (&live.record.lifetime, live.record.owner.is_some());
            let extended = || self.policy.extended(stored, self.now(), owned, self.data_in_token());
            let rolls = self.policy.rolling != Rolling::Off && basis.incoming.extends;
            live.is_outdated || live.record.is_outdated() || (rolls && extended().is_some())
        };
        !basis.has_leftovers() && !basis.live().is_some_and(is_due)
    }

    /// Returns when a draft's session ends: as stored, or where the handler changed its lifetime, as a commit would
    /// store it now.
    pub(crate) fn expires_at(&self, draft: &Draft) -> Timestamp {
        let (basis, policy, now) = (&draft.basis, &self.policy, self.now());
        let intents = basis.intents_with(draft.intents);
        let owner = || self.owner_of(&*draft.data);
        let Some(Live { record, .. }) = basis.live() else {
            return policy.begun(now, intents.timeouts, owner().is_some()).expires_at;
        };
        if !intents.change_lifetime() {
            return policy.ends_at(&record.lifetime);
        }
        let extends = basis.incoming.extends;
        lifetime_after_save(policy, record, owner(), &intents, extends, now).expires_at
    }

    /// Decides the effect of a draft on its session and carries it out. Returns the next basis of the request,
    /// or `None` if nothing was done.
    pub(crate) async fn commit(&self, draft: &mut Draft) -> Result<Option<Basis>> {
        let (change, now) = (self.take_change(draft)?, self.now());
        let Draft { basis, data, intents: own, .. } = draft;
        let (basis, intents) = (&**basis, basis.intents_with(*own));
        let mut identity = basis.identity;
        // A block, so that the future does not keep what only the decision needs.
        let decision = {
            let uncommitted = basis.uncommitted.as_ref();
            let ours = change.or_else(|| uncommitted.map(|earlier| earlier.after.clone()));
            let changed = ours.as_ref().is_some_and(|ours| {
                uncommitted.is_none_or(|earlier| !self.is_same_data(&earlier.before, ours))
            });
            let situation = Situation {
                origin: &basis.origin,
                intents: &intents,
                changed,
                data_in_token: self.data_in_token(),
                has_list: self.list().is_some(),
                extends: basis.incoming.extends,
                policy: &self.policy,
                now,
            };
            decide(&situation, || {
                // Dropped `Session`s left their data as it was before `before_save`, which may change the owner.
                let named = uncommitted.map(|_| self.owner_of(&**data));
                let prepared = self.prepare(&mut **data, ours)?;
                identity = basis.identity_after(own, named.unwrap_or(prepared.owner));
                Ok(prepared)
            })?
        };
        let committed = self.carry_out(basis, &decision, identity, now).await?;
        self.warn_of_cut_timeouts(&intents.timeouts, committed.as_ref());
        Ok(committed)
    }

    /// Warns of a timeout that is longer than the whole life that a session may have. If only the remaining time
    /// cuts the timeout, there is no mistake.
    fn warn_of_cut_timeouts(&self, timeouts: &TimeoutChanges, committed: Option<&Basis>) {
        let Some(live) = committed.and_then(Basis::live).filter(|_| timeouts.set_any()) else {
            return;
        };
        let lifetime = &live.record.lifetime;
        let is_cut = |timeout| lifetime.created_at.saturating_add(timeout) > lifetime.absolute_end;
        if timeouts.absolute.flatten().is_some_and(is_cut) {
            self.warn_once(warnings::ABSOLUTE_TIMEOUT_IS_CUT);
        } else if timeouts.idle.flatten().is_some_and(|idle| is_cut(idle.duration())) {
            self.warn_once(warnings::IDLE_TIMEOUT_IS_CUT);
        }
    }

    /// Folds the changes of a dropped `Session` into the basis of its draft, for the layer to commit.
    pub(crate) fn fold(&self, draft: &mut Draft) -> Result<Basis> {
        if draft.intents.destroy {
            return Ok(draft.basis.with_ending());
        }
        let change = self.take_change(draft)?;
        let basis = &draft.basis;
        let found = basis.handed_out(self).or(draft.base.as_ref()).cloned();
        let found = found.map_or_else(|| self.encode(&*draft.data), Ok)?;
        let owner = self.owner_of(&*draft.data);
        let identity = basis.identity_after(&draft.intents, owner);
        let uncommitted = Uncommitted {
            before: basis.uncommitted.as_ref().map_or(&found, |earlier| &earlier.before).clone(),
            after: change.unwrap_or(found),
            intents: basis.intents_with(draft.intents),
            owner,
        };
        Ok(Basis { identity, uncommitted: Some(Box::new(uncommitted)), ..Basis::clone(basis) })
    }

    /// Makes the record that holds a save together with the writes of other requests before it.
    pub(super) fn reconciled(&self, save: &Save<'_>, theirs: &Record) -> Result<Record> {
        let prepared = self.reconcile(save, theirs);
        let field = prepared.as_ref().err().and_then(|clash| clash.field.clone());
        self.report(Kind::Conflict { field: field.clone() }, || save.live.key());
        if field.is_some() {
            self.warn(warnings::REQUESTS_CONFLICT, None, field.as_deref());
        }
        let prepared = prepared.map_err(|clash| clash.error)?;
        let (policy, owner) = (&self.policy, prepared.owner);
        let Save { intents, extends, now, .. } = *save;
        // From their record, which may have a timeout of its own or a later end.
        let lifetime = lifetime_after_save(policy, theirs, owner, intents, extends, now);
        let merged = self.record_of(&Save { prepared, lifetime, ..*save });
        let is_same_login = theirs.epoch != save.live.record.epoch && !save.intents.clear;
        Ok(if is_same_login { Record { epoch: theirs.epoch, ..merged } } else { merged })
    }

    /// Merges a save with the writes of other requests by the policy, within one identity.
    fn reconcile(&self, save: &Save<'_>, theirs: &Record) -> Result<Prepared, Clash> {
        let base = &save.live.record;
        let ours = &save.prepared;
        let conflict = || Err(SessionError::Conflict.into());
        if self.is_newer(theirs) {
            // No policy replaces data of a newer node.
            return Err(SessionError::Newer.into());
        }
        // A clear removes the writes of other requests.
        if save.intents.clear {
            return Ok(ours.clone());
        }
        if !save.merges_with(theirs, self.owner_is_told) {
            return conflict();
        }
        if theirs.payload == base.payload && theirs.owner == base.owner {
            // Only the expiry moved, in a store whose `touch` draws a new version.
            return Ok(ours.clone());
        }
        match self.on_conflict.unwrap_or_default() {
            ConflictPolicy::Reject => conflict(),
            ConflictPolicy::Overwrite => Ok(ours.clone()),
            ConflictPolicy::Merge => {
                let [base, theirs] = [base, theirs]
                    .map(|record| self.encode_again(self.decode(record).ok().flatten()));
                let mut data = self.merge(&base, &ours.ours, &theirs)?;
                let merged = self.prepare(&mut *data, None);
                let is_invalid = matches!(merged, Err(SessionError::Invalid));
                let merged = if is_invalid { return conflict() } else { merged? };
                // Two changes that name no owner may together name one.
                if merged.owner == ours.owner { Ok(merged) } else { conflict() }
            }
        }
    }
}
