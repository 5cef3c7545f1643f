//! What a commit does: one table, without I/O.
//!
//! | origin | destroy | regenerate | save¹ | unchanged |
//! |---|---|---|---|---|
//! | new | destroy² | as save | create, set | - |
//! | loaded | destroy | rotate, set | update⁶, set³ | touch, set³ if due⁵; else set if outdated⁷ |
//! | tombstone | destroy⁴ | create, set; gone after a `clear`⁸ | gone | - |
//!
//! ¹ data changed, `force_save`, `clear` in a store or a change of a timeout; `clear`, `clear_idle_timeout` and
//! `clear_absolute_timeout` save nothing on a new session. ² the sessions that came in and were refused, if any.
//! ³ only where the client's copy would differ: always when the token carries the data; otherwise when it is
//! outdated⁷, when the cookie's kind changes, or when the cookie would end before the row could. ⁴ the session
//! that the old id was replaced by. ⁵ by `rolling`, unless `extend_if` says that the request extends nothing; also to write data or an owner with
//! today's key, if a former key sealed or hashed it in the store.
//! ⁶ rotate where a revocation list is asked and the save changes how long the session lives after a save. ⁷ a former
//! key sealed it, or a former cookie carried it. ⁸ a logout, which would leave the session that the old id was
//! replaced by; a login is none.
//! `destroy` wins over every other intent, and removes the cookie if one arrived.
//! On a new session `regenerate` alone does nothing.
//!
//! | a save of a loaded session | its lifetime |
//! |---|---|
//! | the owner arrives | begins anew, with the session's own timeouts |
//! | `clear` and `regenerate` | begins anew, with the configured timeouts |
//! | any other | the idle timeout restarts, unless `extend_if` says that the request extends nothing |
//!
//! `set_idle_timeout` and `set_absolute_timeout` count before all of these.

use bytes::Bytes;

use crate::{
    clock::Timestamp,
    error::SessionError,
    expiry::{ExpiryPolicy, LONGEST_COOKIE, Lifetime, TimeoutChanges},
    id::{OwnerKey, SessionId, StoreKey},
    store::Record,
};

/// Where the session of this request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// No valid session came in.
    New,
    /// A valid session came in, or one was committed earlier in this request.
    Loaded(Live),
    /// The id that came in was replaced by a `regenerate` elsewhere.
    Tombstone,
}

/// A valid session as this request knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) id: SessionId,
    /// Boxed, since it is large and moves often.
    pub(crate) record: Box<Record>,
    /// The client has to be sent the token again: a former key sealed it, or a former cookie carried it.
    pub(crate) is_outdated: bool,
}

impl Live {
    pub(crate) fn new(id: SessionId, record: Record) -> Self {
        Self { id, record: Box::new(record), is_outdated: false }
    }

    /// Returns the session under the same id with another record.
    pub(crate) fn with(&self, record: Record) -> Self {
        Self { id: self.id.clone(), record: Box::new(record), is_outdated: self.is_outdated }
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
    pub(crate) timeouts: TimeoutChanges,
}

impl Intents {
    /// Returns `true` if anything was asked for, which makes a guard a changed one.
    pub(crate) fn any(&self) -> bool {
        *self != Self::default()
    }

    /// Returns `true` if nothing of the session goes on but what is written to it now.
    pub(crate) fn leave_nothing(&self) -> bool {
        self.clear && self.regenerate
    }

    /// Returns `true` if a commit changes when the session ends, whatever it does to the data.
    pub(crate) fn change_lifetime(&self) -> bool {
        self.timeouts != TimeoutChanges::default() || self.leave_nothing()
    }

    /// Returns what two guards of a request asked for together; of two changes of a timeout the later.
    pub(crate) fn and(self, later: Self) -> Self {
        Self {
            destroy: self.destroy || later.destroy,
            regenerate: self.regenerate || later.regenerate,
            clear: self.clear || later.clear,
            force_save: self.force_save || later.force_save,
            timeouts: later.timeouts.or(self.timeouts),
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

/// What a commit's decision depends on, besides the data that it saves.
#[derive(Clone, Copy)]
pub(crate) struct Situation<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) intents: &'a Intents,
    /// The data changed, though it may not be possible to save it.
    pub(crate) changed: bool,
    /// The token carries the data, not only an id.
    pub(crate) data_in_token: bool,
    /// Every token of an id has to live equally long, so that the revocation list knows when to forget the id.
    pub(crate) has_list: bool,
    /// The request extends its session.
    pub(crate) extends: bool,
    pub(crate) policy: &'a ExpiryPolicy,
    pub(crate) now: Timestamp,
}

/// A save of a session that exists.
pub(crate) struct Save<'a> {
    pub(crate) live: &'a Live,
    pub(crate) prepared: Prepared,
    pub(crate) intents: &'a Intents,
    pub(crate) lifetime: Lifetime,
    pub(crate) extends: bool,
    pub(crate) now: Timestamp,
}

impl Save<'_> {
    fn changes_owner(&self) -> bool {
        self.prepared.owner != self.live.record.owner
    }

    /// Returns `true` if the session lives for another time after this save than after the one before.
    fn changes_ttl(&self, policy: &ExpiryPolicy) -> bool {
        let stored = &self.live.record;
        policy.ttl(self.lifetime.idle_timeout, self.prepared.owner.is_some())
            != policy.ttl(stored.idle_timeout(), stored.owner.is_some())
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
pub(crate) enum RowAction<'a> {
    None,
    Create(Prepared, Lifetime),
    Update(Save<'a>),
    Touch(&'a Live, Timestamp),
    /// Create under a new id, end the old one.
    Rotate(Save<'a>),
    Destroy,
    /// Refuse: another request has ended this session.
    Gone,
}

/// Decides what a commit does to the row. Returns `true` as well if the client is sent a token.
///
/// `prepare` makes the data ready. It is called only if the commit writes the data.
pub(crate) fn decide<'a>(
    situation: &Situation<'a>,
    prepare: impl FnOnce() -> Result<Prepared, SessionError>,
) -> Result<(RowAction<'a>, bool), SessionError> {
    let Situation { origin, intents, changed, data_in_token, extends, policy, now, .. } =
        *situation;
    let timeouts = intents.timeouts;
    let asks_first_save = changed || intents.force_save || timeouts.set_any();
    // What other requests wrote is cleared too. A token has no other writers.
    let clears = intents.clear && (!data_in_token || *origin == Origin::Tombstone);
    let asks_save = asks_first_save || clears || timeouts != TimeoutChanges::default();
    Ok(match origin {
        _ if intents.destroy => (RowAction::Destroy, false),
        Origin::Loaded(live) if asks_save || intents.regenerate => {
            let prepared = prepare()?;
            let owner = prepared.owner;
            let lifetime = lifetime_after_save(policy, &live.record, owner, intents, extends, now);
            let save = Save { live, prepared, intents, lifetime, extends, now };
            if intents.regenerate || (situation.has_list && save.changes_ttl(policy)) {
                (RowAction::Rotate(save), true)
            } else {
                (RowAction::Update(save), data_in_token || tells(policy, live, &lifetime))
            }
        }
        Origin::Loaded(live) => {
            let (stored, owned) = (&live.record.lifetime, live.record.owner.is_some());
            match policy.extended(stored, now, owned, data_in_token) {
                Some(expires_at) if extends => {
                    let lifetime = Lifetime { expires_at, ..*stored };
                    let told = data_in_token || tells(policy, live, &lifetime);
                    (RowAction::Touch(live, expires_at), told)
                }
                _ if live.record.is_outdated() => {
                    (RowAction::Touch(live, stored.expires_at), live.is_outdated)
                }
                _ => (RowAction::None, live.is_outdated),
            }
        }
        Origin::New if !asks_first_save => (RowAction::None, false),
        Origin::Tombstone if !intents.regenerate => {
            (if asks_save { RowAction::Gone } else { RowAction::None }, false)
        }
        Origin::New | Origin::Tombstone => {
            let prepared = prepare()?;
            if *origin == Origin::Tombstone && intents.leave_nothing() && prepared.owner.is_none() {
                return Ok((RowAction::Gone, false));
            }
            let lifetime = policy.begun(now, timeouts, prepared.owner.is_some());
            (RowAction::Create(prepared, lifetime), true)
        }
    })
}

/// Returns `true` if the cookie of a session in a store has to be sent again once `lifetime` is stored.
pub(crate) fn tells(policy: &ExpiryPolicy, live: &Live, lifetime: &Lifetime) -> bool {
    let stored = &live.record.lifetime;
    let is_persistent = policy.is_persistent(lifetime);
    // A cookie lives to the absolute end it was sent with, or as long as browsers keep any.
    let cookie_end = stored.absolute_end.min(stored.created_at.saturating_add(LONGEST_COOKIE));
    let ends_early = lifetime.absolute_end > stored.absolute_end
        || (lifetime.expires_at > cookie_end && lifetime.expires_at != stored.expires_at);
    live.is_outdated
        || policy.is_persistent(stored) != is_persistent
        || (is_persistent && ends_early)
}

/// Returns the lifetime of an existing session after a save, by the second table above.
pub(crate) fn lifetime_after_save(
    policy: &ExpiryPolicy,
    stored: &Record,
    owner: Option<OwnerKey>,
    intents: &Intents,
    extends: bool,
    now: Timestamp,
) -> Lifetime {
    let timeouts = intents.timeouts;
    if intents.leave_nothing() {
        policy.begun(now, timeouts, owner.is_some())
    } else if owner.is_some() && owner != stored.owner {
        policy.begun(now, timeouts.or(stored.lifetime.timeouts()), true)
    } else {
        policy.renewed(&stored.lifetime, now, timeouts, owner.is_some(), extends)
    }
}

#[cfg(test)]
mod tests;
