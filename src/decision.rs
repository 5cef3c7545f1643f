//! What a commit does: one table, without I/O.
//!
//! | origin | destroy | regenerate | save¹ | unchanged |
//! |---|---|---|---|---|
//! | new | remove² | as save | create, set | - |
//! | rejected | destroy, remove² | as save | create, set | - |
//! | loaded | destroy, remove² | rotate, set | update, set³ | touch, set³ if due; else set if a former key sealed it |
//! | tombstone | destroy⁴, remove² | create, set | gone | - |
//!
//! ¹ data changed, `force_save` or `set_idle_timeout`. ² only when a token of the name arrived. ³ only where the
//! client's copy would differ: always when the token carries the data; otherwise when a former key sealed it,
//! when the cookie's kind changes, or when the cookie would end before the row could. ⁴ the session that the
//! old id was replaced by. `destroy` wins over every other intent. On a new session `regenerate` alone does
//! nothing.

use bytes::Bytes;

use crate::{
    clock::Timestamp,
    expiry::{ExpiryPolicy, IdleTimeout, LONGEST_COOKIE, Lifetime},
    id::{OwnerKey, SessionId, StoreKey},
    record::Record,
};

/// Where the session of this request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// No token came in, or none that opens.
    New,
    /// A session came in and was refused; its row is left to expire unless `destroy` is asked.
    Rejected,
    /// A valid session came in, or one was committed earlier in this request.
    Loaded(Box<Live>),
    /// The id that came in was replaced by a `regenerate` elsewhere.
    Tombstone,
}

/// A valid session as this request knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) id: SessionId,
    pub(crate) record: Record,
    /// A former key sealed the token.
    pub(crate) former_key: bool,
}

impl Live {
    pub(crate) fn new(id: SessionId, record: Record) -> Self {
        Self { id, record, former_key: false }
    }

    /// Returns the session under the same id with another record.
    pub(crate) fn with(&self, record: Record) -> Self {
        Self { record, id: self.id.clone(), former_key: self.former_key }
    }

    pub(crate) fn key(&self) -> StoreKey {
        self.id.store_key()
    }
}

/// What a handler asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Intents {
    pub(crate) destroy: bool,
    pub(crate) regenerate: bool,
    pub(crate) clear: bool,
    pub(crate) force_save: bool,
    pub(crate) idle_timeout: Option<IdleTimeout>,
}

impl Intents {
    /// Returns `true` if anything was asked for, which makes a guard a changed one.
    pub(crate) fn any(&self) -> bool {
        *self != Self::default()
    }

    /// Returns what two guards of a request asked for together; of two idle timeouts the later.
    pub(crate) fn and(self, later: Self) -> Self {
        Self {
            destroy: self.destroy || later.destroy,
            regenerate: self.regenerate || later.regenerate,
            clear: self.clear || later.clear,
            force_save: self.force_save || later.force_save,
            idle_timeout: later.idle_timeout.or(self.idle_timeout),
        }
    }
}

/// Session data ready to be stored.
#[derive(Clone)]
pub(crate) struct Prepared {
    /// The data as the handler left it, which is what merges.
    pub(crate) ours: Bytes,
    /// The data as `before_save` left it, which is what is stored.
    pub(crate) payload: Bytes,
    pub(crate) owner: Option<OwnerKey>,
}

/// Everything a commit's decision depends on.
#[derive(Clone, Copy)]
pub(crate) struct Situation<'a> {
    pub(crate) origin: &'a Origin,
    /// A token of this name came with the request, valid or not.
    pub(crate) arrived: bool,
    pub(crate) intents: &'a Intents,
    /// What is to be saved, by [`saves`].
    pub(crate) prepared: Option<&'a Prepared>,
    /// The data changed, though it may not be possible to save it.
    pub(crate) changed: bool,
    /// The token carries the data, not only an id.
    pub(crate) data_in_token: bool,
    pub(crate) policy: &'a ExpiryPolicy,
    pub(crate) now: Timestamp,
}

/// A save of a session that exists.
#[derive(Clone, Copy)]
pub(crate) struct Save<'a> {
    pub(crate) live: &'a Live,
    pub(crate) prepared: &'a Prepared,
    pub(crate) intents: &'a Intents,
    pub(crate) lifetime: Lifetime,
    pub(crate) now: Timestamp,
}

impl Save<'_> {
    fn changes_owner(&self) -> bool {
        self.prepared.owner != self.live.record.owner
    }

    /// Returns `true` if somebody logs in who was not the session's owner.
    pub(crate) fn is_login(&self) -> bool {
        self.prepared.owner.is_some() && self.changes_owner()
    }

    /// Returns `true` if the person behind the session is, or may be, another from here on.
    ///
    /// Without an `.owner(..)` only a new id tells.
    pub(crate) fn begins_identity(&self, owner_is_told: bool) -> bool {
        self.leaves_identity()
            || self.changes_owner()
            || (self.intents.regenerate && !owner_is_told)
    }

    /// Returns `true` if this ends what an owner, or a visitor whose data is cleared, had.
    ///
    /// Within one request, which is one client in one order, only this is a boundary.
    pub(crate) fn leaves_identity(&self) -> bool {
        self.intents.clear || (self.changes_owner() && self.live.record.owner.is_some())
    }

    /// Returns `true` if what others wrote meanwhile may be merged with this save.
    ///
    /// A login takes over what the anonymous session gathered, also from an equal login.
    pub(crate) fn merges_with(&self, theirs: &Record, owner_is_told: bool) -> bool {
        let takes_over = self.is_login() && self.live.record.owner.is_none();
        if theirs.epoch == self.live.record.epoch {
            takes_over || !self.begins_identity(owner_is_told)
        } else {
            takes_over && theirs.owner == self.prepared.owner
        }
    }
}

/// What is done to the row.
#[derive(Clone, Copy)]
pub(crate) enum RowAction<'a> {
    None,
    Create(&'a Prepared, Lifetime),
    Update(Save<'a>),
    Touch(&'a Live, Timestamp),
    /// Create under a new id, end the old one.
    Rotate(Save<'a>),
    Destroy,
    /// Refuse: another request has ended this session.
    Gone,
}

/// What is done to the client's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CookieAction {
    None,
    Set,
    Remove,
}

/// The outcome of the table.
#[derive(Clone, Copy)]
pub(crate) struct Decision<'a> {
    pub(crate) row: RowAction<'a>,
    pub(crate) cookie: CookieAction,
}

/// Returns `true` if a commit writes the data, so that it must be encoded and its owner known.
pub(crate) fn saves(origin: &Origin, intents: &Intents, changed: bool) -> bool {
    let save = asks_save(intents, changed);
    !intents.destroy
        && match origin {
            Origin::New | Origin::Rejected => save,
            Origin::Loaded(_) => save || intents.regenerate,
            Origin::Tombstone => intents.regenerate,
        }
}

fn asks_save(intents: &Intents, changed: bool) -> bool {
    changed || intents.force_save || intents.idle_timeout.is_some()
}

/// Decides what a commit does.
pub(crate) fn decide<'a>(situation: &Situation<'a>) -> Decision<'a> {
    use CookieAction::{None as Keep, Remove, Set};

    let Situation { intents, arrived, changed, .. } = *situation;
    let (row, cookie) = match (situation.origin, situation.prepared) {
        _ if intents.destroy => (RowAction::Destroy, if arrived { Remove } else { Keep }),
        (Origin::Loaded(live), Some(prepared)) => {
            let Situation { policy, now, .. } = *situation;
            let lifetime = lifetime_after_save(
                policy,
                &live.record,
                prepared.owner,
                intents.idle_timeout,
                now,
            );
            let save = Save { live, prepared, intents, lifetime, now };
            if intents.regenerate {
                (RowAction::Rotate(save), Set)
            } else {
                let owned = prepared.owner.is_some();
                let told = situation.data_in_token || tells(policy, live, &lifetime, owned);
                (RowAction::Update(save), if told { Set } else { Keep })
            }
        }
        (Origin::Loaded(live), None) => keep(situation, live),
        (Origin::New | Origin::Rejected | Origin::Tombstone, Some(prepared)) => {
            let owned = prepared.owner.is_some();
            let lifetime = situation.policy.begun(situation.now, intents.idle_timeout, owned);
            (RowAction::Create(prepared, lifetime), Set)
        }
        (Origin::Tombstone, None) if asks_save(intents, changed) => (RowAction::Gone, Keep),
        (Origin::New | Origin::Rejected | Origin::Tombstone, None) => (RowAction::None, Keep),
    };
    Decision { row, cookie }
}

fn keep<'a>(situation: &Situation<'_>, live: &'a Live) -> (RowAction<'a>, CookieAction) {
    let Situation { policy, now, data_in_token, .. } = *situation;
    let stored = &live.record.lifetime;
    let owned = live.record.owner.is_some();
    let (row, told) = match policy.extended(stored, now, owned, data_in_token) {
        Some(expires_at) => {
            let lifetime = Lifetime { expires_at, ..*stored };
            let told = data_in_token || tells(policy, live, &lifetime, owned);
            (RowAction::Touch(live, expires_at), told)
        }
        None => (RowAction::None, live.former_key),
    };
    (row, if told { CookieAction::Set } else { CookieAction::None })
}

/// Returns `true` if the cookie of a session in a store has to be sent again once `lifetime` is stored.
pub(crate) fn tells(policy: &ExpiryPolicy, live: &Live, lifetime: &Lifetime, owned: bool) -> bool {
    let stored = &live.record.lifetime;
    let before = policy.idle_timeout_of(stored.idle_timeout, live.record.owner.is_some());
    let after = policy.idle_timeout_of(lifetime.idle_timeout, owned);
    // A cookie lives to the absolute end it was sent with, or as long as browsers keep any.
    let cookie_end = stored.absolute_end.min(stored.created_at.saturating_add(LONGEST_COOKIE));
    let ends_early = lifetime.absolute_end > stored.absolute_end
        || (lifetime.expires_at > cookie_end && lifetime.expires_at != stored.expires_at);
    live.former_key
        || before.is_persistent() != after.is_persistent()
        || (after.is_persistent() && ends_early)
}

/// Returns the lifetime of an existing session after a save; it begins anew when its owner arrives.
pub(crate) fn lifetime_after_save(
    policy: &ExpiryPolicy,
    stored: &Record,
    owner: Option<OwnerKey>,
    idle_timeout: Option<IdleTimeout>,
    now: Timestamp,
) -> Lifetime {
    if owner.is_some() && owner != stored.owner {
        policy.begun(now, idle_timeout.or(stored.idle_timeout()), true)
    } else {
        policy.renewed(&stored.lifetime, now, idle_timeout, owner.is_some())
    }
}

#[cfg(test)]
mod tests;
