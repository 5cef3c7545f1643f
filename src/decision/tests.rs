//! The whole table, against the sentences of the design written down once more.

use std::time::Duration;

use super::*;
use crate::{
    expiry::{IdleTimeout, Rolling},
    id::Scope,
    store::Version,
};

/// What a rule expects to happen to the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    Untouched,
    Created,
    Updated,
    Touched,
    Rotated,
    Destroyed,
    Gone,
}

/// One combination of all values that a decision depends on.
#[derive(Clone, Debug)]
struct Case {
    origin: Origin,
    intents: Intents,
    changed: bool,
    /// The owner that the data names when it is saved.
    owner: Option<OwnerKey>,
    data_in_token: bool,
    extends: bool,
    policy: ExpiryPolicy,
    now: Timestamp,
}

impl Case {
    /// Returns what is decided, and asserts that data is prepared exactly where it is written.
    fn decided(&self) -> (RowAction<'_>, bool) {
        let Self { origin, intents, policy, .. } = self;
        let Self { changed, data_in_token, extends, now, .. } = *self;
        let has_list = false;
        let situation =
            Situation { origin, intents, changed, data_in_token, has_list, extends, policy, now };
        let mut is_prepared = false;
        let decided = decide(&situation, || {
            is_prepared = true;
            Ok(prepared(self.owner))
        });
        let (row, tells) = decided.expect("prepared data");
        let writes = matches!(row_of(&row), Row::Created | Row::Updated | Row::Rotated);
        // Only its data tells a logout by a replaced id from a login.
        assert_eq!(is_prepared, writes || self.is_logout_by_a_replaced_id(), "{self:?}");
        (row, tells)
    }

    fn live(&self) -> Option<&Live> {
        match &self.origin {
            Origin::Loaded(live) => Some(live),
            Origin::New | Origin::Tombstone => None,
        }
    }

    /// Asks for a save, and neither for the session's end nor for a new id.
    fn saves(&self) -> bool {
        let timeouts = self.intents.timeouts;
        let asks = asks_first_save(self) || timeouts.idle.is_some() || timeouts.absolute.is_some();
        asks && !self.intents.destroy && !self.intents.regenerate
    }

    fn rotates(&self) -> bool {
        self.intents.regenerate && !self.intents.destroy
    }

    fn is_logout_by_a_replaced_id(&self) -> bool {
        let is_logout = self.rotates() && self.intents.clear && self.owner.is_none();
        self.origin == Origin::Tombstone && is_logout
    }

    fn rests(&self) -> bool {
        !self.intents.destroy && !self.intents.regenerate && !self.saves()
    }

    fn has_former_key(&self) -> bool {
        self.live().is_some_and(|live| live.is_outdated)
    }

    fn extension(&self) -> Option<Timestamp> {
        let record = &self.live().filter(|_| self.extends)?.record;
        let owned = record.owner.is_some();
        self.policy.extended(&record.lifetime, self.now, owned, self.data_in_token)
    }

    /// With a store, only a new life or another kind of cookie is news to the browser.
    fn is_news(&self) -> bool {
        let Some(live) = self.live() else { return true };
        let stored = &live.record;
        let is_persistent = |chosen: Option<IdleTimeout>| {
            chosen.unwrap_or(self.policy.idle_timeout).is_persistent()
        };
        let TimeoutChanges { idle, absolute } = self.intents.timeouts;
        let now_persistent = is_persistent(idle.unwrap_or(stored.idle_timeout()));
        let arrives = self.owner.is_some() && self.owner != stored.owner;
        let begins = if arrives { self.now } else { stored.created_at() };
        let stored_timeout = stored.absolute_end().saturating_since(stored.created_at());
        let timeout = match absolute {
            None => stored_timeout,
            Some(own) => own.unwrap_or(self.policy.absolute_timeout),
        };
        let lives_longer = begins.saturating_add(timeout) > stored.absolute_end();
        is_persistent(stored.idle_timeout()) != now_persistent || (lives_longer && now_persistent)
    }
}

/// One rule of the design: the cases that it holds for, and what happens in them.
struct Rule {
    says: &'static str,
    of: fn(&Case) -> bool,
    row: Row,
    /// Returns `true` if a token goes out.
    tells: fn(&Case) -> bool,
}

const RULES: [Rule; 10] = [
    Rule {
        says: "destroy wins over every other intent",
        of: |case| case.intents.destroy,
        row: Row::Destroyed,
        tells: |_| false,
    },
    Rule {
        says: "new, and nothing to save: nothing, also where a new id or default timeouts are asked for",
        of: |case| case.origin == Origin::New && !case.intents.destroy && !asks_first_save(case),
        row: Row::Untouched,
        tells: |_| false,
    },
    Rule {
        says: "new, and something to save: created under a new id",
        of: |case| case.origin == Origin::New && !case.intents.destroy && asks_first_save(case),
        row: Row::Created,
        tells: |_| true,
    },
    Rule {
        says: "a replaced id that only reads does nothing",
        of: |case| case.origin == Origin::Tombstone && case.rests(),
        row: Row::Untouched,
        tells: |_| false,
    },
    Rule {
        says: "a replaced id saves nothing and sets no cookie",
        of: |case| case.origin == Origin::Tombstone && case.saves(),
        row: Row::Gone,
        tells: |_| false,
    },
    Rule {
        says: "except for a repeated login, which asks for a new id itself",
        of: |case| case.origin == Origin::Tombstone && case.rotates(),
        row: Row::Created,
        tells: |_| true,
    },
    Rule {
        says: "a new id is one that the browser cannot have yet",
        of: |case| case.live().is_some() && case.rotates(),
        row: Row::Rotated,
        tells: |_| true,
    },
    Rule {
        says: "changed: saved; a cookie only where what the browser holds would differ",
        of: |case| case.live().is_some() && case.saves(),
        row: Row::Updated,
        tells: |case| case.data_in_token || case.has_former_key() || case.is_news(),
    },
    Rule {
        says: "unchanged and due in a request that extends: touched; a cookie only where it holds the expiry, or a former key",
        of: |case| case.live().is_some() && case.rests() && case.extension().is_some(),
        row: Row::Touched,
        tells: |case| case.data_in_token || case.has_former_key(),
    },
    Rule {
        says: "unchanged and not due: nothing, or sealed again under the current key",
        of: |case| case.live().is_some() && case.rests() && case.extension().is_none(),
        row: Row::Untouched,
        tells: |case| case.has_former_key(),
    },
];

fn asks_first_save(case: &Case) -> bool {
    case.changed || case.intents.force_save || case.intents.timeouts.set_any()
}

fn row_of(row: &RowAction<'_>) -> Row {
    match row {
        RowAction::None => Row::Untouched,
        RowAction::Create(..) => Row::Created,
        RowAction::Update(_) => Row::Updated,
        RowAction::Touch(..) => Row::Touched,
        RowAction::Rotate(_) => Row::Rotated,
        RowAction::Destroy => Row::Destroyed,
        RowAction::Gone => Row::Gone,
    }
}

/// Asserts that a new session begins now, that a save goes on as [`lifetime_after_save`] has it, and that a
/// touch moves the expiry as far as is due.
fn check_times(case: &Case, row: &RowAction<'_>) {
    let Case { policy, owner, intents, extends, now, .. } = case;
    match row {
        RowAction::Create(_, lifetime) => {
            assert_eq!(
                *lifetime,
                policy.begun(*now, intents.timeouts, owner.is_some()),
                "{case:?}"
            );
        }
        RowAction::Update(save) | RowAction::Rotate(save) => {
            let stored = &save.live.record;
            let expected = lifetime_after_save(policy, stored, *owner, intents, *extends, *now);
            let found = (save.lifetime, save.extends, save.now);
            assert_eq!(found, (expected, *extends, *now), "{case:?}");
        }
        RowAction::Touch(_, expires_at) => {
            assert_eq!(Some(*expires_at), case.extension(), "{case:?}");
        }
        RowAction::None | RowAction::Destroy | RowAction::Gone => {}
    }
}

const TTL: u64 = 1_000_000;
const TIMEOUT: u64 = 5_000_000;
const CREATED: u64 = 7_000_000;
const DAY: u64 = 24 * 60 * 60 * 1000;

const ADA: Option<OwnerKey> = Some(OwnerKey::from_bytes([1; 32]));
const BOB: Option<OwnerKey> = Some(OwnerKey::from_bytes([2; 32]));

fn at(millis: u64) -> Timestamp {
    Timestamp::from_unix_millis(millis)
}

const fn persistent(millis: u64) -> IdleTimeout {
    IdleTimeout::Persistent(Duration::from_millis(millis))
}

const fn until_closed(millis: u64) -> IdleTimeout {
    IdleTimeout::BrowserSession(Duration::from_millis(millis))
}

fn policy(idle_timeout: IdleTimeout, rolling: Rolling) -> ExpiryPolicy {
    ExpiryPolicy {
        idle_timeout,
        rolling,
        absolute_timeout: Duration::from_millis(TIMEOUT),
        max_absolute_timeout: Some(Duration::from_millis(3 * TIMEOUT)),
        anonymous_idle_timeout: None,
    }
}

fn lifetime(expires_at: u64, idle_timeout: Option<IdleTimeout>) -> Lifetime {
    Lifetime {
        created_at: at(CREATED),
        expires_at: at(expires_at),
        absolute_end: at(CREATED + TIMEOUT),
        has_own_end: false,
        idle_timeout,
    }
}

fn live(owner: Option<OwnerKey>, lifetime: Lifetime) -> Live {
    let id = Scope::new("app", "kind").id([7; 32]);
    let record = Record {
        version: Version::from_bytes([7; 16]),
        schema: 1,
        codec: 1,
        owner,
        lifetime,
        epoch: 3,
        kind: 0,
        tombstone: false,
        is_sealed: false,
        opened_from: None,
        payload: Bytes::new(),
    };
    Live::new(id, record)
}

fn prepared(owner: Option<OwnerKey>) -> Prepared {
    Prepared { ours: Bytes::new(), payload: Bytes::new(), owner }
}

/// Now, and when the stored session expires: just saved, half gone to the millisecond, nearly over, and
/// against the absolute end.
const MOMENTS: [(u64, u64); 6] = [
    (CREATED, CREATED + TTL),
    (CREATED + TTL / 2, CREATED + TTL),
    (CREATED + TTL / 2 + 1, CREATED + TTL),
    (CREATED + TTL - 1, CREATED + TTL),
    (CREATED + TIMEOUT - 10, CREATED + TIMEOUT - 5),
    (CREATED + TIMEOUT - 10, CREATED + TIMEOUT),
];

/// The owner before and after.
const OWNERS: [(Option<OwnerKey>, Option<OwnerKey>); 5] =
    [(None, None), (None, ADA), (ADA, ADA), (ADA, BOB), (ADA, None)];

fn origins() -> Vec<(Origin, Option<OwnerKey>, Timestamp)> {
    let mut origins = Vec::new();
    for (before, after) in OWNERS {
        for (now, expires_at) in MOMENTS {
            for chosen in [None, Some(persistent(3 * TTL)), Some(until_closed(TTL))] {
                for is_outdated in [false, true] {
                    let live = live(before, lifetime(expires_at, chosen));
                    let origin = Origin::Loaded(Live { is_outdated, ..live });
                    origins.push((origin, after, at(now)));
                }
            }
        }
    }
    for origin in [Origin::New, Origin::Tombstone] {
        origins.extend([None, ADA].map(|owner| (origin.clone(), owner, at(CREATED))));
    }
    origins
}

fn all_timeouts() -> [TimeoutChanges; 6] {
    let idle = |idle| TimeoutChanges { idle: Some(idle), absolute: None };
    let absolute = |absolute| TimeoutChanges { idle: None, absolute: Some(absolute) };
    [
        TimeoutChanges::default(),
        idle(Some(persistent(2 * TTL))),
        idle(Some(until_closed(TTL / 2))),
        idle(None),
        absolute(Some(Duration::from_millis(2 * TIMEOUT))),
        absolute(None),
    ]
}

fn all_intents() -> Vec<Intents> {
    let mut all = Vec::new();
    for bits in 0..8_u8 {
        for timeouts in all_timeouts() {
            all.push(Intents {
                destroy: bits & 1 != 0,
                regenerate: bits & 2 != 0,
                clear: false,
                force_save: bits & 4 != 0,
                timeouts,
            });
        }
    }
    all
}

/// Calls `check` with every combination.
fn for_every_case(mut check: impl FnMut(&Case)) {
    let (origins, intents) = (origins(), all_intents());
    for rolling in [Rolling::Off, Rolling::BelowHalf, Rolling::EveryCommit] {
        for idle_timeout in [persistent(TTL), until_closed(TTL)] {
            let policy = policy(idle_timeout, rolling);
            for (origin, owner, now) in &origins {
                for bits in 0..8_u8 {
                    let mut case = Case {
                        origin: origin.clone(),
                        intents: Intents::default(),
                        changed: bits & 1 != 0,
                        owner: *owner,
                        data_in_token: bits & 2 != 0,
                        extends: bits & 4 != 0,
                        policy,
                        now: *now,
                    };
                    for intents in &intents {
                        case.intents = *intents;
                        check(&case);
                    }
                }
            }
        }
    }
}

#[test]
fn every_case_is_spoken_of_by_one_rule_and_decided_as_it_says() {
    let mut spoken = [0_u32; RULES.len()];
    for_every_case(|case| {
        let mut rules = (0..RULES.len()).filter(|&index| (RULES[index].of)(case));
        let (Some(index), None) = (rules.next(), rules.next()) else {
            panic!("not spoken of by exactly one rule: {case:?}");
        };
        spoken[index] += 1;
        let rule = &RULES[index];
        let (row, tells) = case.decided();
        let expected = (rule.row, (rule.tells)(case));
        assert_eq!((row_of(&row), tells), expected, "{}: {case:?}", rule.says);
        check_times(case, &row);
    });
    for (rule, spoken) in RULES.iter().zip(spoken) {
        assert!(spoken > 0, "{}: no case", rule.says);
    }
}

#[test]
fn clear_is_a_save_in_a_store_and_of_a_replaced_id_and_else_its_data_speaks() {
    for_every_case(|case| {
        let (mut clears, mut alike) = (case.clone(), case.clone());
        // With a new id it begins the session anew, which is seen from the outside only by its lifetime.
        clears.intents.clear = true;
        alike.intents.force_save |= match case.origin {
            Origin::New => false,
            Origin::Loaded(_) => !case.data_in_token,
            Origin::Tombstone => true,
        };
        let ((row, tells), mut expected) = (clears.decided(), alike.decided());
        if clears.is_logout_by_a_replaced_id() {
            expected = (RowAction::Gone, false);
        }
        assert_eq!((row_of(&row), tells), (row_of(&expected.0), expected.1), "{case:?}");
    });
}

const NONE: Intents = Intents {
    destroy: false,
    regenerate: false,
    clear: false,
    force_save: false,
    timeouts: TimeoutChanges { idle: None, absolute: None },
};
const REGENERATE: Intents = Intents { regenerate: true, ..NONE };
const CLEAR: Intents = Intents { clear: true, ..NONE };

/// Calls `check` with a save that takes a session from one owner to another.
fn with_save<R>(
    before: Option<OwnerKey>,
    after: Option<OwnerKey>,
    intents: Intents,
    check: impl FnOnce(Save<'_>) -> R,
) -> R {
    let lifetime = lifetime(CREATED + TTL, None);
    let live = live(before, lifetime);
    let (prepared, now) = (prepared(after), at(CREATED));
    check(Save { live: &live, prepared, intents: &intents, lifetime, extends: true, now })
}

#[test]
fn a_login_is_an_owner_who_was_not_there_before() {
    for ((before, after), is_login) in OWNERS.into_iter().zip([false, true, false, true, false]) {
        for intents in [NONE, REGENERATE, CLEAR] {
            let found = with_save(before, after, intents, |save| save.is_login());
            assert_eq!(found, is_login, "{before:?} {after:?}");
        }
    }
}

#[test]
fn identities_begin_and_end_with_owners_with_a_clear_and_without_owners_with_a_new_id() {
    // Owner before and after, intents, whether an `.owner(..)` tells; leaves one, begins one.
    for (before, after, intents, is_told, leaves, begins) in [
        (None, None, NONE, true, false, false),
        (None, None, REGENERATE, true, false, false),
        (None, None, CLEAR, true, true, true),
        (None, ADA, NONE, true, false, true),
        (None, ADA, REGENERATE, true, false, true),
        (ADA, ADA, NONE, true, false, false),
        (ADA, ADA, REGENERATE, true, false, false),
        (ADA, ADA, CLEAR, true, true, true),
        (ADA, BOB, NONE, true, true, true),
        (ADA, None, NONE, true, true, true),
        (None, None, NONE, false, false, false),
        (None, None, REGENERATE, false, false, true),
        (None, None, CLEAR, false, true, true),
    ] {
        let found = with_save(before, after, intents, |save| {
            (save.leaves_identity(), save.begins_identity(is_told))
        });
        assert_eq!(found, (leaves, begins), "{before:?} {after:?} {intents:?} {is_told}");
    }
}

#[test]
fn a_save_merges_within_one_identity_and_a_login_with_what_the_visitor_gathered() {
    // As above; then what is merged with: the same identity, an equal login, another one.
    for (before, after, intents, is_told, expected) in [
        (None, None, NONE, true, [true, false, false]),
        (None, None, REGENERATE, true, [true, false, false]),
        (None, ADA, NONE, true, [true, true, false]),
        (None, ADA, REGENERATE, true, [true, true, false]),
        (ADA, ADA, NONE, true, [true, false, false]),
        (ADA, ADA, REGENERATE, true, [true, false, false]),
        (ADA, BOB, NONE, true, [false, false, false]),
        (ADA, None, NONE, true, [false, false, false]),
        (None, None, NONE, false, [true, false, false]),
        (None, None, REGENERATE, false, [false, false, false]),
    ] {
        let found = with_save(before, after, intents, |save| {
            let same = Record::clone(&save.live.record);
            let equal = Record { epoch: 4, owner: after, ..same.clone() };
            let other =
                Record { epoch: 4, owner: Some(OwnerKey::from_bytes([3; 32])), ..same.clone() };
            [same, equal, other].map(|theirs| save.merges_with(&theirs, is_told))
        });
        assert_eq!(found, expected, "{before:?} {after:?} {intents:?} {is_told}");
    }
}

#[test]
fn the_cookie_of_a_stored_session_is_sent_again_only_where_the_browsers_would_not_do() {
    let policy = policy(persistent(TTL), Rolling::EveryCommit);
    let stored = lifetime(CREATED + TTL, None);
    let saved = lifetime(CREATED + 2 * TTL, None);
    let longer = at(CREATED + TIMEOUT + 1);
    let (closing, kept) = (Some(until_closed(TTL)), Some(persistent(TTL)));
    // Browsers keep no cookie longer than 400 days.
    let years = |days: u64| Lifetime {
        absolute_end: at(1000 * DAY),
        ..lifetime(CREATED + days * DAY, None)
    };
    for (what, stored, saved, told) in [
        ("the same life", stored, stored, false),
        ("a later expiry", stored, saved, false),
        ("a later end", stored, Lifetime { absolute_end: longer, ..saved }, true),
        (
            "a later end of a browser session",
            Lifetime { idle_timeout: closing, ..stored },
            Lifetime { idle_timeout: closing, absolute_end: longer, ..saved },
            false,
        ),
        ("a browser session now", stored, Lifetime { idle_timeout: closing, ..saved }, true),
        (
            "no browser session any more",
            Lifetime { idle_timeout: closing, ..stored },
            Lifetime { idle_timeout: kept, ..saved },
            true,
        ),
        ("another time of the same kind", stored, Lifetime { idle_timeout: kept, ..saved }, false),
        ("up to 400 days", years(399), years(400), false),
        ("past 400 days", years(400), years(401), true),
        ("past 400 days as before", years(401), years(401), false),
    ] {
        let mut live = live(ADA, stored);
        assert_eq!(tells(&policy, &live, &saved), told, "{what}");
        live.is_outdated = true;
        assert!(tells(&policy, &live, &saved), "{what}, under a former key");
    }
}

const fn set_idle(millis: u64) -> TimeoutChanges {
    TimeoutChanges { idle: Some(Some(persistent(millis))), absolute: None }
}

/// A session of a second's age with timeouts of its own.
fn with_own_timeouts(owner: Option<OwnerKey>) -> (Record, Timestamp) {
    let own = Lifetime {
        absolute_end: at(CREATED + 2 * TIMEOUT),
        has_own_end: true,
        ..lifetime(CREATED + 2 * TTL, Some(persistent(2 * TTL)))
    };
    (*live(owner, own).record, at(CREATED + 1_000))
}

#[test]
fn a_session_begins_anew_with_its_own_timeouts_when_its_owner_arrives_and_only_then() {
    let policy = policy(persistent(TTL), Rolling::Off);
    for (before, after) in OWNERS {
        let (stored, now) = with_own_timeouts(before);
        let arrives = after.is_some() && after != before;
        let begins = if arrives { now } else { stored.created_at() };
        for (timeouts, extends, idle_timeout, expires_in) in [
            (NONE.timeouts, true, 2 * TTL, 2 * TTL),
            (NONE.timeouts, false, 2 * TTL, if arrives { 2 * TTL } else { 2 * TTL - 1_000 }),
            (set_idle(3 * TTL), true, 3 * TTL, 3 * TTL),
            (set_idle(3 * TTL), false, 3 * TTL, 3 * TTL),
        ] {
            let expected = Lifetime {
                created_at: begins,
                expires_at: now.saturating_add(Duration::from_millis(expires_in)),
                absolute_end: begins.saturating_add(Duration::from_millis(2 * TIMEOUT)),
                has_own_end: true,
                idle_timeout: Some(persistent(idle_timeout)),
            };
            let intents = Intents { timeouts, ..NONE };
            let found = lifetime_after_save(&policy, &stored, after, &intents, extends, now);
            assert_eq!(found, expected, "{before:?} {after:?} {timeouts:?} {extends}");
        }
    }
}

#[test]
fn clear_with_a_new_id_begins_anew_with_the_configured_timeouts_and_neither_does_alone() {
    let policy = policy(persistent(TTL), Rolling::Off);
    for (before, after) in OWNERS {
        let (stored, now) = with_own_timeouts(before);
        let after_save =
            |intents: Intents| lifetime_after_save(&policy, &stored, after, &intents, false, now);
        let logout = Intents { clear: true, ..REGENERATE };
        let begun = policy.begun(now, NONE.timeouts, after.is_some());
        assert_eq!((begun.has_own_end, begun.idle_timeout), (false, None));
        assert_eq!(after_save(logout), begun);
        let timeouts = set_idle(3 * TTL);
        let begun = policy.begun(now, timeouts, after.is_some());
        assert_eq!(after_save(Intents { timeouts, ..logout }), begun);
        for intents in [CLEAR, REGENERATE] {
            assert_eq!(after_save(intents), after_save(NONE), "{before:?} {after:?}");
        }
    }
}

#[test]
fn of_two_guards_every_intent_holds_and_the_later_change_of_each_timeout() {
    let earlier = Intents { regenerate: true, timeouts: set_idle(TTL), ..NONE };
    assert_eq!(earlier.and(CLEAR), Intents { clear: true, ..earlier });
    let later = Intents { force_save: true, timeouts: set_idle(2 * TTL), ..NONE };
    assert_eq!(earlier.and(later), Intents { regenerate: true, ..later });
    let defaults = TimeoutChanges { idle: Some(None), absolute: Some(Some(Duration::ZERO)) };
    let last = Intents { timeouts: defaults, ..NONE };
    assert_eq!(earlier.and(last), Intents { regenerate: true, ..last });
    assert_eq!(
        last.and(earlier).timeouts,
        TimeoutChanges { absolute: defaults.absolute, ..set_idle(TTL) }
    );
    assert!(earlier.any() && !NONE.any() && !NONE.and(NONE).any());
}
