//! The whole table, against the sentences of the design written down once more.

use std::time::Duration;

use super::*;
use crate::expiry::Extension;

/// What a sentence says of the row; the lifetimes are checked apart.
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

/// One rule: which situations it speaks of, and what happens there.
struct Rule {
    says: &'static str,
    of: fn(&Situation<'_>) -> bool,
    row: fn(&Situation<'_>) -> Row,
    cookie: fn(&Situation<'_>) -> CookieAction,
}

const fn rule(
    says: &'static str,
    of: fn(&Situation<'_>) -> bool,
    row: fn(&Situation<'_>) -> Row,
    cookie: fn(&Situation<'_>) -> CookieAction,
) -> Rule {
    Rule { says, of, row, cookie }
}

const RULES: [Rule; 9] = [
    rule(
        "a replaced id commits nothing and sets no cookie",
        |s| s.origin == Origin::Tombstone && (asks_destroy(s) || (asks_save(s) && !rotates(s))),
        |_| Row::Gone,
        |_| CookieAction::None,
    ),
    rule(
        "except when it regenerates itself: a repeated login",
        |s| s.origin == Origin::Tombstone && rotates(s),
        |_| Row::Created,
        |_| CookieAction::Set,
    ),
    rule(
        "new, or as good as new, and nothing to save: nothing",
        |s| {
            s.origin != Origin::Loaded
                && !asks_destroy(s)
                && !asks_save(s)
                && (fresh(s) || !rotates(s))
        },
        |_| Row::Untouched,
        |_| CookieAction::None,
    ),
    rule(
        "new, or as good as new, and something to save: created under a new id",
        |s| fresh(s) && !asks_destroy(s) && asks_save(s),
        |_| Row::Created,
        |_| CookieAction::Set,
    ),
    rule(
        "destroy beats every other intent; the removal goes out if a cookie of the name arrived",
        |s| asks_destroy(s) && !replaced(s),
        |s| {
            if s.origin == Origin::New { Row::Untouched } else { Row::Destroyed }
        },
        |s| {
            if s.arrived { CookieAction::Remove } else { CookieAction::None }
        },
    ),
    rule(
        "regenerate gives a new id, which the browser cannot have yet",
        |s| s.origin == Origin::Loaded && rotates(s),
        |_| Row::Rotated,
        |_| CookieAction::Set,
    ),
    rule(
        "changed: saved; a cookie only where what the browser holds would differ",
        |s| s.origin == Origin::Loaded && asks_save(s) && !rotates(s) && !asks_destroy(s),
        |_| Row::Updated,
        |s| {
            let chosen = s.intents.idle_timeout.or(s.stored.unwrap().idle_timeout);
            let held = browser_end(s, s.stored.unwrap().idle_timeout, s.stored.unwrap().expires_at);
            let next = browser_end(s, chosen, expiry_if_saved(s));
            if s.data_in_token || s.retired_key || held != next {
                CookieAction::Set
            } else {
                CookieAction::None
            }
        },
    ),
    rule(
        "unchanged and due: touched; a cookie only where what the browser holds would differ",
        |s| s.origin == Origin::Loaded && idle(s) && due(s),
        |_| Row::Touched,
        |s| {
            let stored = s.stored.unwrap();
            let persistent = browser_end(s, stored.idle_timeout, stored.expires_at).is_some();
            if s.data_in_token || s.retired_key || persistent {
                CookieAction::Set
            } else {
                CookieAction::None
            }
        },
    ),
    rule(
        "unchanged and not due: nothing, or sealed again under the current key",
        |s| s.origin == Origin::Loaded && idle(s) && !due(s),
        |_| Row::Untouched,
        |s| {
            if s.retired_key { CookieAction::Reseal } else { CookieAction::None }
        },
    ),
];

fn asks_destroy(s: &Situation<'_>) -> bool {
    s.intents.destroy
}

fn asks_save(s: &Situation<'_>) -> bool {
    s.changed || s.intents.force_save || s.intents.idle_timeout.is_some()
}

fn rotates(s: &Situation<'_>) -> bool {
    s.intents.regenerate && !s.intents.destroy
}

fn idle(s: &Situation<'_>) -> bool {
    !asks_save(s) && !s.intents.regenerate && !s.intents.destroy
}

fn fresh(s: &Situation<'_>) -> bool {
    matches!(s.origin, Origin::New | Origin::Rejected)
}

fn replaced(s: &Situation<'_>) -> bool {
    s.origin == Origin::Tombstone
}

/// The time to live of a session, in milliseconds.
fn ttl(s: &Situation<'_>, chosen: Option<IdleTimeout>, owned: bool) -> u64 {
    let configured = whole(chosen.unwrap_or(s.policy.idle_timeout).duration());
    match s.policy.anonymous_idle_timeout {
        Some(anonymous) if !owned => configured.min(whole(anonymous)),
        _ => configured,
    }
}

/// When a session that exists ends for good.
fn end(s: &Situation<'_>, stored: Lifetime) -> u64 {
    let timeout = whole(s.policy.absolute_timeout);
    (millis(stored.created_at) + timeout).min(millis(stored.absolute_end))
}

fn expiry_if_saved(s: &Situation<'_>) -> Timestamp {
    let stored = s.stored.unwrap();
    let chosen = s.intents.idle_timeout.or(stored.idle_timeout);
    let restarted = millis(s.now) + ttl(s, chosen, s.owned);
    at(if s.owner_arrived {
        restarted.min(millis(s.now) + whole(s.policy.absolute_timeout))
    } else {
        restarted.min(end(s, stored))
    })
}

/// When the browser drops the cookie by itself; `None` is when it closes.
fn browser_end(
    s: &Situation<'_>,
    chosen: Option<IdleTimeout>,
    expires_at: Timestamp,
) -> Option<Timestamp> {
    match chosen.unwrap_or(s.policy.idle_timeout) {
        IdleTimeout::Persistent(_) => Some(expires_at),
        IdleTimeout::BrowserSession(_) => None,
    }
}

/// Whether `rolling` or `renew` moves the expiry of an unchanged session, and where to.
fn extension(s: &Situation<'_>) -> Option<u64> {
    let stored = s.stored.unwrap();
    let ttl = ttl(s, stored.idle_timeout, s.was_owned);
    let left = millis(stored.expires_at) - millis(s.now);
    let wanted = match s.policy.extension {
        Extension::OnSave => false,
        Extension::Renew => left * 2 < ttl,
        Extension::Rolling => true,
    };
    let next = (millis(s.now) + ttl).min(end(s, stored));
    (wanted && next > millis(stored.expires_at)).then_some(next)
}

fn due(s: &Situation<'_>) -> bool {
    extension(s).is_some()
}

fn row_of(decision: &Decision) -> Row {
    match decision.row {
        RowAction::None => Row::Untouched,
        RowAction::Create(_) => Row::Created,
        RowAction::Update(_) => Row::Updated,
        RowAction::Touch(_) => Row::Touched,
        RowAction::Rotate(_) => Row::Rotated,
        RowAction::Destroy => Row::Destroyed,
        RowAction::Gone => Row::Gone,
    }
}

/// What the design says of a row's times.
fn check_times(s: &Situation<'_>, decision: &Decision) {
    let timeout = s.policy.absolute_timeout;
    match decision.row {
        RowAction::Create(lifetime) => {
            let expires = (millis(s.now) + ttl(s, s.intents.idle_timeout, s.owned))
                .min(millis(s.now.saturating_add(timeout)));
            let expected = Lifetime {
                created_at: s.now,
                expires_at: at(expires),
                absolute_end: s.now.saturating_add(timeout),
                idle_timeout: s.intents.idle_timeout,
            };
            assert_eq!(lifetime, expected, "{s:?}");
        }
        RowAction::Update(lifetime) | RowAction::Rotate(lifetime) => {
            let stored = s.stored.unwrap();
            let (created_at, absolute_end) = if s.owner_arrived {
                (s.now, s.now.saturating_add(timeout))
            } else {
                (stored.created_at, at(end(s, stored)))
            };
            let expected = Lifetime {
                created_at,
                expires_at: expiry_if_saved(s),
                absolute_end,
                idle_timeout: s.intents.idle_timeout.or(stored.idle_timeout),
            };
            assert_eq!(lifetime, expected, "{s:?}");
        }
        RowAction::Touch(expires_at) => {
            assert_eq!(Some(millis(expires_at)), extension(s), "{s:?}");
        }
        RowAction::None | RowAction::Destroy | RowAction::Gone => {}
    }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_unix_millis(millis)
}

fn whole(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

fn millis(timestamp: Timestamp) -> u64 {
    timestamp.as_unix_millis()
}

const BOTH: [bool; 2] = [false, true];
const TTL: u64 = 1_000_000;
const TIMEOUT: u64 = 5_000_000;
const CREATED: u64 = 7_000_000;

const fn persistent(millis: u64) -> IdleTimeout {
    IdleTimeout::Persistent(Duration::from_millis(millis))
}

const fn until_closed(millis: u64) -> IdleTimeout {
    IdleTimeout::BrowserSession(Duration::from_millis(millis))
}

fn policy(extension: Extension) -> ExpiryPolicy {
    ExpiryPolicy {
        idle_timeout: persistent(TTL),
        extension,
        absolute_timeout: Duration::from_millis(TIMEOUT),
        anonymous_idle_timeout: None,
    }
}

fn stored(expires_at: u64, idle_timeout: Option<IdleTimeout>) -> Lifetime {
    Lifetime {
        created_at: at(CREATED),
        expires_at: at(expires_at),
        absolute_end: at(CREATED + TIMEOUT),
        idle_timeout,
    }
}

fn all_intents() -> Vec<Intents> {
    let mut all = Vec::new();
    for bits in 0..16_u8 {
        for idle_timeout in [None, Some(persistent(2 * TTL)), Some(until_closed(TTL / 2))] {
            all.push(Intents {
                destroy: bits & 1 != 0,
                regenerate: bits & 2 != 0,
                reset: bits & 4 != 0,
                force_save: bits & 8 != 0,
                idle_timeout,
            });
        }
    }
    all
}

fn all_policies() -> Vec<ExpiryPolicy> {
    let mut all = Vec::new();
    for extension in [Extension::OnSave, Extension::Renew, Extension::Rolling] {
        for idle_timeout in [persistent(TTL), until_closed(TTL)] {
            for anonymous_idle_timeout in [None, Some(Duration::from_millis(TTL / 4))] {
                all.push(ExpiryPolicy {
                    idle_timeout,
                    anonymous_idle_timeout,
                    ..policy(extension)
                });
            }
        }
    }
    all
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

/// Owned now, owned before, and whether the owner went from none or another to some.
const OWNERS: [(bool, bool, bool); 5] = [
    (false, false, false),
    (true, true, false),
    (true, true, true),
    (true, false, true),
    (false, true, false),
];

/// Calls `check` with every combination of everything the decision depends on.
fn for_every_situation(mut check: impl FnMut(&Situation<'_>)) {
    let origins = [Origin::New, Origin::Rejected, Origin::Loaded, Origin::Tombstone];
    for policy in &all_policies() {
        for origin in origins {
            for intents in all_intents() {
                for bits in 0..16_u8 {
                    for (owned, was_owned, owner_arrived) in OWNERS {
                        for (now, expires_at) in MOMENTS {
                            for chosen in [None, Some(persistent(3 * TTL)), Some(until_closed(TTL))]
                            {
                                let loaded = origin == Origin::Loaded;
                                check(&Situation {
                                    origin,
                                    arrived: bits & 1 != 0,
                                    changed: bits & 2 != 0,
                                    intents,
                                    stored: loaded.then(|| stored(expires_at, chosen)),
                                    retired_key: bits & 4 != 0,
                                    data_in_token: bits & 8 != 0,
                                    owned,
                                    was_owned,
                                    owner_arrived,
                                    policy,
                                    now: at(now),
                                });
                                if !loaded {
                                    break;
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_situation_is_spoken_of_by_one_rule_and_decided_as_it_says() {
    let mut spoken = [0_u32; RULES.len()];
    for_every_situation(|situation| {
        let mut rules = (0..RULES.len()).filter(|&index| (RULES[index].of)(situation));
        let (Some(index), None) = (rules.next(), rules.next()) else {
            panic!("not spoken of by exactly one rule: {situation:?}");
        };
        spoken[index] += 1;
        let rule = &RULES[index];
        let decision = decide(situation);
        let actual = (row_of(&decision), decision.cookie);
        let expected = ((rule.row)(situation), (rule.cookie)(situation));
        assert_eq!(actual, expected, "{}: {situation:?}", rule.says);
        check_times(situation, &decision);
    });
    for (rule, spoken) in RULES.iter().zip(spoken) {
        assert!(spoken > 0, "{}: no situation", rule.says);
    }
}

#[test]
fn the_data_is_prepared_exactly_where_a_row_is_written() {
    for_every_situation(|situation| {
        let Situation { origin, intents, changed, .. } = *situation;
        let writes =
            matches!(row_of(&decide(situation)), Row::Created | Row::Updated | Row::Rotated);
        assert_eq!(saves(origin, &intents, changed), writes, "{situation:?}");
    });
}

#[test]
fn reset_alone_decides_nothing_since_its_data_speaks() {
    for_every_situation(|situation| {
        let mut without = *situation;
        without.intents.reset = false;
        assert_eq!(decide(situation), decide(&without));
    });
}

/// A loaded and unchanged session in a store, one second after its save.
fn loaded(policy: &ExpiryPolicy) -> Situation<'_> {
    Situation {
        origin: Origin::Loaded,
        arrived: true,
        changed: false,
        intents: Intents::default(),
        stored: Some(stored(CREATED + TTL, None)),
        retired_key: false,
        data_in_token: false,
        owned: true,
        was_owned: true,
        owner_arrived: false,
        policy,
        now: at(CREATED + 1_000),
    }
}

#[track_caller]
fn expect(situation: &Situation<'_>, row: RowAction, cookie: CookieAction) {
    assert_eq!(decide(situation), Decision { row, cookie });
}

#[test]
fn a_change_restarts_the_clock_to_the_millisecond() {
    let policy = policy(Extension::OnSave);
    let changed = Situation { changed: true, ..loaded(&policy) };
    let lifetime = Lifetime { expires_at: at(CREATED + 1_000 + TTL), ..stored(0, None) };
    expect(&changed, RowAction::Update(lifetime), CookieAction::Set);
}

#[test]
fn a_change_in_the_very_millisecond_of_the_last_save_sends_no_cookie_for_a_stored_session() {
    let policy = policy(Extension::OnSave);
    let changed = Situation { changed: true, now: at(CREATED), ..loaded(&policy) };
    let update = RowAction::Update(stored(CREATED + TTL, None));
    expect(&changed, update, CookieAction::None);
    let in_token = Situation { data_in_token: true, ..changed };
    expect(&in_token, update, CookieAction::Set);
    let retired = Situation { retired_key: true, ..changed };
    expect(&retired, update, CookieAction::Set);
}

#[test]
fn renew_waits_for_the_first_millisecond_past_half_time() {
    let policy = policy(Extension::Renew);
    let half = Situation { now: at(CREATED + TTL / 2), ..loaded(&policy) };
    expect(&half, RowAction::None, CookieAction::None);
    let past = Situation { now: at(CREATED + TTL / 2 + 1), ..half };
    let touch = RowAction::Touch(at(CREATED + TTL / 2 + 1 + TTL));
    expect(&past, touch, CookieAction::Set);
}

#[test]
fn rolling_touches_with_the_first_millisecond() {
    let policy = policy(Extension::Rolling);
    let same = Situation { now: at(CREATED), ..loaded(&policy) };
    expect(&same, RowAction::None, CookieAction::None);
    let next = Situation { now: at(CREATED + 1), ..same };
    expect(&next, RowAction::Touch(at(CREATED + 1 + TTL)), CookieAction::Set);
}

#[test]
fn rolling_a_browser_session_in_a_store_moves_the_row_alone() {
    let policy = ExpiryPolicy { idle_timeout: until_closed(TTL), ..policy(Extension::Rolling) };
    let rolled = loaded(&policy);
    let touch = RowAction::Touch(at(CREATED + 1_000 + TTL));
    expect(&rolled, touch, CookieAction::None);
    let in_token = Situation { data_in_token: true, ..rolled };
    expect(&in_token, touch, CookieAction::Set);
}

#[test]
fn nothing_is_touched_once_the_absolute_end_is_reached() {
    let policy = policy(Extension::Rolling);
    let last = Situation {
        stored: Some(stored(CREATED + TIMEOUT, None)),
        now: at(CREATED + TIMEOUT - 1),
        ..loaded(&policy)
    };
    expect(&last, RowAction::None, CookieAction::None);
}

#[test]
fn a_change_saves_up_to_the_absolute_end_and_no_further() {
    let policy = policy(Extension::OnSave);
    let late = Situation {
        changed: true,
        stored: Some(stored(CREATED + TIMEOUT - 1, None)),
        now: at(CREATED + TIMEOUT - 2),
        ..loaded(&policy)
    };
    let update = RowAction::Update(stored(CREATED + TIMEOUT, None));
    expect(&late, update, CookieAction::Set);
}

#[test]
fn a_retired_key_seals_again_and_keeps_the_expiry() {
    let policy = policy(Extension::OnSave);
    for data_in_token in BOTH {
        let retired = Situation { retired_key: true, data_in_token, ..loaded(&policy) };
        expect(&retired, RowAction::None, CookieAction::Reseal);
    }
}

#[test]
fn a_login_restarts_created_at_and_a_logout_does_not() {
    let policy = policy(Extension::OnSave);
    let regenerate = Intents { regenerate: true, ..Intents::default() };
    let now = CREATED + 1_000;
    let login =
        Situation { intents: regenerate, was_owned: false, owner_arrived: true, ..loaded(&policy) };
    let restarted = Lifetime {
        created_at: at(now),
        expires_at: at(now + TTL),
        absolute_end: at(now + TIMEOUT),
        idle_timeout: None,
    };
    expect(&login, RowAction::Rotate(restarted), CookieAction::Set);
    let logout = Situation { intents: regenerate, owned: false, ..loaded(&policy) };
    let kept = stored(now + TTL, None);
    expect(&logout, RowAction::Rotate(kept), CookieAction::Set);
}

#[test]
fn a_chosen_max_age_stays_across_later_saves() {
    let policy = policy(Extension::OnSave);
    let chosen = Some(persistent(3 * TTL));
    let later = Situation {
        changed: true,
        stored: Some(stored(CREATED + 3 * TTL, chosen)),
        ..loaded(&policy)
    };
    let update = RowAction::Update(stored(CREATED + 1_000 + 3 * TTL, chosen));
    expect(&later, update, CookieAction::Set);
}

#[test]
fn choosing_a_browser_session_tells_the_browser_even_if_the_expiry_stays() {
    let policy = policy(Extension::OnSave);
    let chosen = Some(until_closed(TTL));
    let intents = Intents { idle_timeout: chosen, ..Intents::default() };
    let moved = Situation { intents, now: at(CREATED), ..loaded(&policy) };
    let update = RowAction::Update(stored(CREATED + TTL, chosen));
    expect(&moved, update, CookieAction::Set);
}
