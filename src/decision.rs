//! What a commit does: one table, without I/O.
//!
//! | origin | destroy | regenerate | save¹ | unchanged |
//! |---|---|---|---|---|
//! | new | remove² | as save | create, set | - |
//! | rejected | destroy if known, remove² | as save | create, set | - |
//! | loaded | destroy, remove² | rotate, set | update, set³ | touch, set³ if due; else re-seal if a retired key sealed it |
//! | tombstone | gone | create, set | gone | - |
//!
//! ¹ data changed, `force_save` or `set_max_age`. ² only when a token of the name arrived. ³ the cookie is
//! set only where what the browser holds would differ: always when the data is in it, otherwise when a
//! persistent cookie's expiry or its persistence moved or a retired key sealed the id.
//! `destroy` beats every other intent. On a new session `regenerate` alone is nothing.

use crate::{
    clock::Timestamp,
    expiry::{ExpiryPolicy, Lifetime, MaxAge},
};

/// Where the session of this request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// No token came in, or none that opens.
    New,
    /// A session came in and was refused; its row is left to expire unless `destroy` is asked.
    Rejected,
    /// A valid session came in, or one was committed earlier in this request.
    Loaded,
    /// The id that came in was replaced by a `regenerate` elsewhere.
    Tombstone,
}

/// What a handler asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "four independent wishes, each its own method of the session"
)]
pub(crate) struct Intents {
    pub(crate) destroy: bool,
    pub(crate) regenerate: bool,
    pub(crate) reset: bool,
    pub(crate) force_save: bool,
    pub(crate) max_age: Option<MaxAge>,
}

impl Intents {
    /// Says whether anything was asked for, which makes a guard a changed one.
    pub(crate) fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// Everything a commit's decision depends on.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts, the columns of the table")]
pub(crate) struct Situation<'a> {
    pub(crate) origin: Origin,
    /// A token of this name came with the request, valid or not.
    pub(crate) arrived: bool,
    pub(crate) changed: bool,
    pub(crate) intents: Intents,
    /// What is stored about time; `None` unless loaded.
    pub(crate) stored: Option<Lifetime>,
    /// The token is sealed by a key that retires.
    pub(crate) retired_key: bool,
    /// The token carries the data, not only an id.
    pub(crate) data_in_token: bool,
    /// The data names an owner after this commit.
    pub(crate) owned: bool,
    /// The data named an owner when it was loaded.
    pub(crate) was_owned: bool,
    /// The owner went from none or another to some.
    pub(crate) owner_arrived: bool,
    pub(crate) policy: &'a ExpiryPolicy,
    pub(crate) now: Timestamp,
}

/// What is done to the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowAction {
    None,
    Create(Lifetime),
    Update(Lifetime),
    Touch(Timestamp),
    /// Create under a new id, end the old one.
    Rotate(Lifetime),
    Destroy,
    /// Refuse: another request has ended this session.
    Gone,
}

/// What is done to the browser's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CookieAction {
    None,
    Set,
    /// The same session and expiry, under the current key.
    Reseal,
    Remove,
}

/// The outcome of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) row: RowAction,
    pub(crate) cookie: CookieAction,
}

/// Says whether a commit writes the data, so that it must be encoded and its owner known.
pub(crate) fn saves(origin: Origin, intents: &Intents, changed: bool) -> bool {
    let save = changed || intents.force_save || intents.max_age.is_some();
    !intents.destroy
        && match origin {
            Origin::New | Origin::Rejected => save,
            Origin::Loaded => save || intents.regenerate,
            Origin::Tombstone => intents.regenerate,
        }
}

/// Decides what a commit does.
pub(crate) fn decide(situation: &Situation<'_>) -> Decision {
    let intents = &situation.intents;
    let save = situation.changed || intents.force_save || intents.max_age.is_some();
    match situation.origin {
        Origin::Tombstone if intents.regenerate && !intents.destroy => create(situation),
        Origin::Tombstone if save || intents.destroy => {
            Decision { row: RowAction::Gone, cookie: CookieAction::None }
        }
        Origin::New | Origin::Rejected | Origin::Loaded if intents.destroy => destroy(situation),
        Origin::New | Origin::Rejected if save => create(situation),
        Origin::New | Origin::Rejected | Origin::Tombstone => Decision::NOTHING,
        Origin::Loaded => match situation.stored {
            // Unreachable: what is loaded has a lifetime. A fresh row is the safe answer.
            None => create(situation),
            Some(stored) if intents.regenerate => rotate(situation, &stored),
            Some(stored) if save => update(situation, &stored),
            Some(stored) => keep(situation, &stored),
        },
    }
}

impl Decision {
    const NOTHING: Self = Self { row: RowAction::None, cookie: CookieAction::None };
}

fn create(situation: &Situation<'_>) -> Decision {
    let Situation { policy, now, owned, .. } = *situation;
    let lifetime = policy.saved(now, None, now, situation.intents.max_age, owned);
    Decision { row: RowAction::Create(lifetime), cookie: CookieAction::Set }
}

fn destroy(situation: &Situation<'_>) -> Decision {
    Decision {
        row: match situation.origin {
            Origin::New => RowAction::None,
            Origin::Rejected | Origin::Loaded | Origin::Tombstone => RowAction::Destroy,
        },
        cookie: if situation.arrived { CookieAction::Remove } else { CookieAction::None },
    }
}

fn rotate(situation: &Situation<'_>, stored: &Lifetime) -> Decision {
    Decision { row: RowAction::Rotate(saved(situation, stored)), cookie: CookieAction::Set }
}

fn update(situation: &Situation<'_>, stored: &Lifetime) -> Decision {
    let lifetime = saved(situation, stored);
    let policy = situation.policy;
    let before = policy.max_age_of(stored.max_age, situation.was_owned);
    let after = policy.max_age_of(lifetime.max_age, situation.owned);
    let browser_differs = situation.data_in_token
        || situation.retired_key
        || before.is_persistent() != after.is_persistent()
        || (after.is_persistent() && lifetime.expires_at != stored.expires_at);
    Decision {
        row: RowAction::Update(lifetime),
        cookie: if browser_differs { CookieAction::Set } else { CookieAction::None },
    }
}

fn keep(situation: &Situation<'_>, stored: &Lifetime) -> Decision {
    let Situation { policy, now, .. } = *situation;
    if let Some(expires_at) = policy.extended(stored, now, situation.was_owned) {
        let persistent = policy.max_age_of(stored.max_age, situation.was_owned).is_persistent();
        let browser_differs = situation.data_in_token || situation.retired_key || persistent;
        return Decision {
            row: RowAction::Touch(expires_at),
            cookie: if browser_differs { CookieAction::Set } else { CookieAction::None },
        };
    }
    Decision {
        row: RowAction::None,
        cookie: if situation.retired_key { CookieAction::Reseal } else { CookieAction::None },
    }
}

/// The lifetime of an existing session after a save.
fn saved(situation: &Situation<'_>, stored: &Lifetime) -> Lifetime {
    let Situation { policy, now, owned, .. } = *situation;
    let max_age = situation.intents.max_age.or(stored.max_age);
    if situation.owner_arrived {
        policy.saved(now, None, now, max_age, owned)
    } else {
        policy.saved(stored.created_at, Some(stored.absolute_end), now, max_age, owned)
    }
}

#[cfg(test)]
mod tests;
