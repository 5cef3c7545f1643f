//! How long sessions live: pure arithmetic that takes the current time as an argument.

use std::time::Duration;

use crate::clock::Timestamp;

/// The idle timeout: the time after a save at which an unused session ends, and whether its cookie survives a
/// restart of the browser.
///
/// [`idle_timeout`](crate::SessionManagerBuilder::idle_timeout) sets it for all sessions, and
/// [`set_idle_timeout`](crate::Session::set_idle_timeout) for one. A `Duration` is
/// [`Persistent`](Self::Persistent). Default: `Persistent`, 1 day. [`guide::lifetime`](crate::guide::lifetime)
/// shows all timeouts on one timeline.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use axum_typed_session::{IdleTimeout, Key, SessionManager};
///
/// let hour = Duration::from_secs(60 * 60);
/// let sessions = SessionManager::<u32>::builder()
///     .keys(Key::generate())
///     .idle_timeout(IdleTimeout::BrowserSession(8 * hour))
///     .build()?;
/// # Ok::<(), axum_typed_session::ConfigError>(())
/// ```
#[doc(alias("MaxAge", "max-age", "ttl", "Expiry", "OnInactivity", "OnSessionEnd"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdleTimeout {
    /// The cookie has `Max-Age` and survives a restart of the browser.
    Persistent(Duration),
    /// The browser drops the cookie when it closes. If it stays open, the server ends the session after this time.
    BrowserSession(Duration),
}

impl IdleTimeout {
    /// Returns the time for which the server keeps the session after a save.
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum_typed_session::IdleTimeout;
    ///
    /// let timeout = IdleTimeout::BrowserSession(Duration::from_secs(3600));
    /// assert_eq!(timeout.duration().as_secs(), 3600);
    /// assert!(!timeout.is_persistent());
    /// ```
    pub const fn duration(self) -> Duration {
        match self {
            Self::Persistent(ttl) | Self::BrowserSession(ttl) => ttl,
        }
    }

    /// Returns `true` if the cookie has `Max-Age`. [`duration`](Self::duration) has an example of both.
    pub const fn is_persistent(self) -> bool {
        matches!(self, Self::Persistent(_))
    }
}

impl From<Duration> for IdleTimeout {
    fn from(ttl: Duration) -> Self {
        Self::Persistent(ttl)
    }
}

/// The commits of an unchanged session that restart its idle timeout, for
/// [`rolling`](crate::SessionManagerBuilder::rolling). Default: [`Off`](Self::Off).
///
/// A save of changed data always restarts the idle timeout. `true` is [`EveryCommit`](Self::EveryCommit), and
/// `false` is `Off`. [`guide::lifetime`](crate::guide::lifetime) shows the difference.
///
/// # Example
///
/// ```
/// use axum_typed_session::{Key, Rolling, SessionManager};
///
/// let sessions = SessionManager::<u32>::builder()
///     .keys(Key::generate())
///     .rolling(Rolling::BelowHalf)
///     .build()?;
/// # Ok::<(), axum_typed_session::ConfigError>(())
/// ```
#[doc(alias("renew", "touch", "sliding"))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rolling {
    /// No commit of an unchanged session restarts the idle timeout.
    #[default]
    Off,
    /// A commit restarts it if less than half of the idle timeout is left, as `renew` of koa-session does.
    BelowHalf,
    /// Every commit restarts it.
    EveryCommit,
}

impl From<bool> for Rolling {
    /// `true` is [`EveryCommit`](Self::EveryCommit), `false` is [`Off`](Self::Off).
    fn from(rolling: bool) -> Self {
        if rolling { Self::EveryCommit } else { Self::Off }
    }
}

/// The instants and the duration that decide when a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) absolute_end: Timestamp,
    /// `set_absolute_timeout` set the absolute end; otherwise it follows the configuration.
    pub(crate) has_own_end: bool,
    /// The time that `set_idle_timeout` set; `None` follows the configuration.
    pub(crate) idle_timeout: Option<IdleTimeout>,
}

impl Lifetime {
    /// Makes a lifetime that lasts until its absolute end, without timeouts of its own.
    pub(crate) fn new(created_at: Timestamp, absolute_end: Timestamp) -> Self {
        Self {
            created_at,
            expires_at: absolute_end,
            absolute_end,
            has_own_end: false,
            idle_timeout: None,
        }
    }

    /// Returns the changes that give another session the timeouts of this one.
    pub(crate) fn timeouts(&self) -> TimeoutChanges {
        let absolute_timeout = self.absolute_end.saturating_since(self.created_at);
        TimeoutChanges {
            idle: Some(self.idle_timeout),
            absolute: Some(self.has_own_end.then_some(absolute_timeout)),
        }
    }
}

/// The timeouts that a handler changes for one session. `Some(None)` gives the configured one back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::option_option, reason = "no change, and a change to no timeout of its own")]
pub(crate) struct TimeoutChanges {
    pub(crate) idle: Option<Option<IdleTimeout>>,
    pub(crate) absolute: Option<Option<Duration>>,
}

impl TimeoutChanges {
    /// Returns `true` if the session gets a timeout of its own.
    pub(crate) fn set_any(&self) -> bool {
        self.idle.flatten().is_some() || self.absolute.flatten().is_some()
    }

    /// Returns these changes, and others where these change nothing.
    pub(crate) fn or(self, others: Self) -> Self {
        Self { idle: self.idle.or(others.idle), absolute: self.absolute.or(others.absolute) }
    }
}

/// The configured rules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpiryPolicy {
    pub(crate) idle_timeout: IdleTimeout,
    pub(crate) rolling: Rolling,
    pub(crate) absolute_timeout: Duration,
    /// The longest absolute timeout that a session may set; `None` is the one of all sessions.
    pub(crate) max_absolute_timeout: Option<Duration>,
    pub(crate) anonymous_idle_timeout: Option<Duration>,
}

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest timeout. `Max-Age` counts whole seconds, so a shorter one could not be sent to a browser.
const SHORTEST: Duration = Duration::from_secs(1);

impl Default for ExpiryPolicy {
    fn default() -> Self {
        Self {
            idle_timeout: IdleTimeout::Persistent(DAY),
            rolling: Rolling::Off,
            absolute_timeout: 30 * DAY,
            max_absolute_timeout: None,
            anonymous_idle_timeout: None,
        }
    }
}

impl ExpiryPolicy {
    /// Returns `true` if the cookie of a session survives a restart of the browser.
    pub(crate) fn is_persistent(&self, lifetime: &Lifetime) -> bool {
        lifetime.idle_timeout.unwrap_or(self.idle_timeout).is_persistent()
    }

    /// Returns the lifetime of a session that begins `now`.
    pub(crate) fn begun(&self, now: Timestamp, timeouts: TimeoutChanges, owned: bool) -> Lifetime {
        let longest = Lifetime::new(now, now.saturating_add(self.absolute_timeout));
        self.renewed(&longest, now, timeouts, owned, true)
    }

    /// Returns the lifetime of a stored session after a save `now`. A save that does not extend it restarts the
    /// idle timeout only where it changes it.
    pub(crate) fn renewed(
        &self,
        stored: &Lifetime,
        now: Timestamp,
        timeouts: TimeoutChanges,
        owned: bool,
        extends: bool,
    ) -> Lifetime {
        let mut saved = *stored;
        if let Some(own) = timeouts.absolute
            && (own.is_some() || stored.has_own_end)
        {
            let timeout = own.unwrap_or(self.absolute_timeout).max(SHORTEST);
            saved.absolute_end = stored.created_at.saturating_add(timeout);
            saved.has_own_end = own.is_some();
        }
        saved.absolute_end = self.absolute_end(&saved);
        saved.idle_timeout = timeouts.idle.unwrap_or(stored.idle_timeout);
        if extends || timeouts.idle.is_some() {
            saved.expires_at = now.saturating_add(self.ttl(saved.idle_timeout, owned));
        }
        saved.expires_at = saved.expires_at.min(saved.absolute_end);
        saved
    }

    /// Returns how long a session lives after a save, in whole milliseconds, as records hold it.
    pub(crate) fn ttl(&self, chosen: Option<IdleTimeout>, owned: bool) -> Duration {
        let ttl = chosen.unwrap_or(self.idle_timeout).duration();
        let limit = if owned { None } else { self.anonymous_idle_timeout };
        let limit = limit.unwrap_or(Duration::MAX).min(self.max_absolute_timeout());
        let millis = ttl.min(limit).max(SHORTEST).as_millis();
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// Returns when a stored session ends under the current rules, which may be stricter than at its last save.
    pub(crate) fn ends_at(&self, stored: &Lifetime) -> Timestamp {
        stored.expires_at.min(self.absolute_end(stored))
    }

    /// Returns the later expiry that `rolling` gives an unchanged session; `None` if it gives none.
    ///
    /// A token that carries the data is sealed anew only once a twentieth of its life has passed. Each new token
    /// could overwrite a newer one in the browser with older data.
    pub(crate) fn extended(
        &self,
        stored: &Lifetime,
        now: Timestamp,
        owned: bool,
        data_in_token: bool,
    ) -> Option<Timestamp> {
        let ttl = self.ttl(stored.idle_timeout, owned);
        let left = stored.expires_at.saturating_since(now);
        let due = match self.rolling {
            Rolling::Off => false,
            Rolling::BelowHalf => left.saturating_mul(2) < ttl,
            Rolling::EveryCommit => true,
        };
        let expires_at = now.saturating_add(ttl).min(self.absolute_end(stored));
        let gained = expires_at.saturating_since(stored.expires_at);
        let step = if data_in_token { ttl / 20 } else { Duration::ZERO };
        (due && !gained.is_zero() && gained >= step).then_some(expires_at)
    }

    fn absolute_end(&self, stored: &Lifetime) -> Timestamp {
        let limit =
            if stored.has_own_end { self.max_absolute_timeout() } else { self.absolute_timeout };
        stored.absolute_end.min(stored.created_at.saturating_add(limit))
    }

    /// Returns the greatest age that any session may reach.
    pub(crate) fn max_absolute_timeout(&self) -> Duration {
        self.max_absolute_timeout.unwrap_or(self.absolute_timeout)
    }
}

/// Browsers keep no cookie longer than this (RFC 6265bis, section 5.5).
pub(crate) const LONGEST_COOKIE: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// Returns the seconds for a cookie's `Max-Age`. They are rounded up: the server enforces the end, and zero would
/// remove the cookie.
pub(crate) fn cookie_seconds(expires_at: Timestamp, now: Timestamp) -> u64 {
    let left = expires_at.as_unix_millis().saturating_sub(now.as_unix_millis());
    left.div_ceil(1000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    fn policy(rolling: Rolling) -> ExpiryPolicy {
        ExpiryPolicy {
            idle_timeout: IdleTimeout::Persistent(Duration::from_secs(1000)),
            rolling,
            absolute_timeout: Duration::from_secs(5000),
            max_absolute_timeout: None,
            anonymous_idle_timeout: None,
        }
    }

    fn stored(expires_at: u64) -> Lifetime {
        Lifetime {
            created_at: at(0),
            expires_at: at(expires_at),
            absolute_end: at(5_000_000),
            has_own_end: false,
            idle_timeout: None,
        }
    }

    const UNCHANGED: TimeoutChanges = TimeoutChanges { idle: None, absolute: None };

    fn idle(timeout: Option<Duration>) -> TimeoutChanges {
        TimeoutChanges { idle: Some(timeout.map(IdleTimeout::Persistent)), ..UNCHANGED }
    }

    fn absolute(timeout: Option<u64>) -> TimeoutChanges {
        TimeoutChanges { absolute: Some(timeout.map(Duration::from_secs)), ..UNCHANGED }
    }

    fn extended(policy: &ExpiryPolicy, stored: &Lifetime, now: Timestamp) -> Option<Timestamp> {
        policy.extended(stored, now, true, false)
    }

    #[test]
    fn renew_waits_until_less_than_half_is_left_to_the_millisecond() {
        let policy = policy(Rolling::BelowHalf);
        let session = stored(1_000_000);
        assert_eq!(extended(&policy, &session, at(500_000)), None);
        assert_eq!(extended(&policy, &session, at(500_001)), Some(at(1_500_001)));
    }

    #[test]
    fn rolling_moves_with_the_first_millisecond_and_not_before() {
        let policy = policy(Rolling::EveryCommit);
        let session = stored(1_000_000);
        assert_eq!(extended(&policy, &session, at(0)), None);
        assert_eq!(extended(&policy, &session, at(1)), Some(at(1_000_001)));
    }

    #[test]
    fn a_token_with_data_rolls_once_a_twentieth_of_its_life_has_passed() {
        let policy = policy(Rolling::EveryCommit);
        let session = stored(1_000_000);
        assert_eq!(policy.extended(&session, at(49_999), true, true), None);
        assert_eq!(policy.extended(&session, at(50_000), true, true), Some(at(1_050_000)));
    }

    #[test]
    fn nothing_extends_past_the_absolute_end() {
        let policy = policy(Rolling::EveryCommit);
        assert_eq!(extended(&policy, &stored(4_900_000), at(4_500_000)), Some(at(5_000_000)));
        assert_eq!(extended(&policy, &stored(5_000_000), at(4_999_999)), None);
        let saved = policy.renewed(&stored(1_000_000), at(4_999_999), UNCHANGED, true, true);
        assert_eq!(saved.expires_at, at(5_000_000));
    }

    #[test]
    fn a_tightened_absolute_timeout_ends_sessions_that_were_promised_more() {
        let mut policy = policy(Rolling::Off);
        policy.absolute_timeout = Duration::from_millis(10);
        assert_eq!(policy.ends_at(&stored(1_000_000)), at(10));
    }

    #[test]
    fn a_raised_absolute_timeout_does_not_extend_sessions_that_exist() {
        let mut policy = policy(Rolling::EveryCommit);
        policy.absolute_timeout = DAY;
        assert_eq!(extended(&policy, &stored(4_900_000), at(4_800_000)), Some(at(5_000_000)));
    }

    #[test]
    fn anonymous_sessions_are_cut_to_their_own_ttl() {
        let mut policy = policy(Rolling::Off);
        policy.anonymous_idle_timeout = Some(Duration::from_secs(60));
        let anonymous = policy.begun(at(0), idle(Some(DAY)), false);
        assert_eq!(anonymous.expires_at, at(60_000));
        let owned = policy.begun(at(0), UNCHANGED, true);
        assert_eq!(owned.expires_at, at(1_000_000));
    }

    #[test]
    fn a_save_that_extends_nothing_keeps_the_expiry_unless_it_changes_the_idle_timeout() {
        let policy = policy(Rolling::EveryCommit);
        let saved = |timeouts| policy.renewed(&stored(700_000), at(600_000), timeouts, true, false);
        assert_eq!(saved(UNCHANGED), stored(700_000));
        assert_eq!(saved(idle(Some(DAY))).expires_at, at(5_000_000));
        assert_eq!(saved(idle(None)).expires_at, at(1_600_000));
        assert_eq!(saved(absolute(Some(4000))).expires_at, at(700_000));
        assert_eq!(saved(absolute(Some(650))).expires_at, at(650_000));
    }

    #[test]
    fn an_absolute_timeout_of_its_own_counts_from_the_beginning_up_to_the_bound() {
        let mut policy = policy(Rolling::Off);
        for (max, asked, end) in [
            (None, 4000, 4000),
            (None, 6000, 5000),
            (Some(9000), 6000, 6000),
            (Some(9000), 9000, 9000),
            (Some(9000), u64::MAX, 9000),
            (Some(9000), 0, 1),
        ] {
            policy.max_absolute_timeout = max.map(Duration::from_secs);
            let expected = Lifetime {
                absolute_end: at(end * 1000),
                has_own_end: true,
                ..stored((end * 1000).min(1_300_000))
            };
            let asked = absolute(Some(asked));
            let saved = policy.renewed(&stored(1_000_000), at(300_000), asked, true, true);
            assert_eq!(saved, expected, "{max:?} {asked:?}");
            assert_eq!(policy.begun(at(0), asked, true).absolute_end, at(end * 1000));
        }
    }

    #[test]
    fn the_bound_is_for_sessions_with_an_end_of_their_own_only() {
        let mut policy = policy(Rolling::Off);
        policy.max_absolute_timeout = Some(Duration::from_secs(9000));
        let promised = |has_own_end| Lifetime {
            absolute_end: at(9_500_000),
            has_own_end,
            ..stored(9_500_000)
        };
        assert_eq!(policy.ends_at(&promised(false)), at(5_000_000));
        assert_eq!(policy.ends_at(&promised(true)), at(9_000_000));
        policy.max_absolute_timeout = None;
        assert_eq!(policy.ends_at(&promised(true)), at(5_000_000), "the option is gone");
    }

    #[test]
    fn the_configured_absolute_timeout_comes_back_and_extends_no_session_that_never_had_another() {
        let policy = policy(Rolling::Off);
        let now = at(100_000);
        let shorter = policy.renewed(&stored(1_000_000), now, absolute(Some(500)), true, true);
        assert_eq!(shorter.expires_at, at(500_000));
        let back = policy.renewed(&shorter, now, absolute(None), true, true);
        assert_eq!(back, stored(1_100_000));
        let tightened = Lifetime { absolute_end: at(400_000), ..stored(400_000) };
        assert_eq!(policy.renewed(&tightened, now, absolute(None), true, true), tightened);
    }

    #[test]
    fn cookie_seconds_round_up_and_never_reach_zero() {
        assert_eq!(cookie_seconds(at(86_400_000), at(0)), 86_400);
        assert_eq!(cookie_seconds(at(1_001), at(0)), 2);
        assert_eq!(cookie_seconds(at(1), at(0)), 1);
        assert_eq!(cookie_seconds(at(0), at(5)), 1);
    }
}
