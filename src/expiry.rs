//! How long sessions live: pure arithmetic that takes the current time as an argument.

use std::time::Duration;

use crate::clock::Timestamp;

/// How long a session lives after a save, and whether its cookie survives a restart of the browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdleTimeout {
    /// The cookie carries `Max-Age` and survives a restart of the browser.
    Persistent(Duration),
    /// The browser drops the cookie when it closes. The server still ends the session after this time.
    BrowserSession(Duration),
}

impl IdleTimeout {
    /// Returns how long the server keeps the session after a save.
    pub const fn duration(self) -> Duration {
        match self {
            Self::Persistent(ttl) | Self::BrowserSession(ttl) => ttl,
        }
    }

    /// Returns `true` if the cookie carries `Max-Age`.
    pub const fn is_persistent(self) -> bool {
        matches!(self, Self::Persistent(_))
    }
}

impl From<Duration> for IdleTimeout {
    fn from(ttl: Duration) -> Self {
        Self::Persistent(ttl)
    }
}

/// Which commits of an unchanged session restart its idle timeout, for
/// [`rolling`](crate::SessionManagerBuilder::rolling).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rolling {
    /// No commit does. Only a save restarts it.
    #[default]
    Off,
    /// Each commit with less than half of the time left, as koa-session's `renew`.
    BelowHalf,
    /// Every commit does.
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
    /// The time that `set_idle_timeout` set; `None` follows the configuration.
    pub(crate) idle_timeout: Option<IdleTimeout>,
}

/// The configured rules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpiryPolicy {
    pub(crate) idle_timeout: IdleTimeout,
    pub(crate) rolling: Rolling,
    pub(crate) absolute_timeout: Duration,
    pub(crate) anonymous_idle_timeout: Option<Duration>,
}

/// The shortest idle timeout. `Max-Age` counts whole seconds, so a shorter one could not be sent to a browser.
const SHORTEST: Duration = Duration::from_secs(1);

impl ExpiryPolicy {
    /// Returns `true` if the cookie of a session survives a restart of the browser.
    pub(crate) fn is_persistent(&self, lifetime: &Lifetime) -> bool {
        lifetime.idle_timeout.unwrap_or(self.idle_timeout).is_persistent()
    }

    /// Returns the lifetime of a session that begins `now`.
    pub(crate) fn begun(
        &self,
        now: Timestamp,
        idle_timeout: Option<IdleTimeout>,
        owned: bool,
    ) -> Lifetime {
        let absolute_end = now.saturating_add(self.absolute_timeout);
        let begun = Lifetime { created_at: now, expires_at: now, absolute_end, idle_timeout };
        self.renewed(&begun, now, None, owned)
    }

    /// Returns the lifetime of a stored session after a save `now`.
    pub(crate) fn renewed(
        &self,
        stored: &Lifetime,
        now: Timestamp,
        idle_timeout: Option<IdleTimeout>,
        owned: bool,
    ) -> Lifetime {
        let idle_timeout = idle_timeout.or(stored.idle_timeout);
        let absolute_end = self.absolute_end(stored);
        let expires_at = now.saturating_add(self.ttl(idle_timeout, owned)).min(absolute_end);
        Lifetime { created_at: stored.created_at, expires_at, absolute_end, idle_timeout }
    }

    /// Returns how long a session lives after a save.
    pub(crate) fn ttl(&self, chosen: Option<IdleTimeout>, owned: bool) -> Duration {
        let ttl = chosen.unwrap_or(self.idle_timeout).duration();
        let limit = if owned { None } else { self.anonymous_idle_timeout };
        limit.map_or(ttl, |limit| ttl.min(limit)).max(SHORTEST)
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
        let expires_at = self.renewed(stored, now, None, owned).expires_at;
        let gained = expires_at.saturating_since(stored.expires_at);
        let step = if data_in_token { ttl / 20 } else { Duration::ZERO };
        (due && !gained.is_zero() && gained >= step).then_some(expires_at)
    }

    fn absolute_end(&self, stored: &Lifetime) -> Timestamp {
        stored.absolute_end.min(stored.created_at.saturating_add(self.absolute_timeout))
    }
}

/// Browsers keep no cookie longer than this (RFC 6265bis, section 5.5).
pub(crate) const LONGEST_COOKIE: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// Returns the seconds for a cookie's `Max-Age`. They are rounded up: the server enforces the end, and zero would
/// remove the cookie.
pub(crate) fn cookie_seconds(expires_at: Timestamp, now: Timestamp) -> u64 {
    let left = expires_at.saturating_since(now);
    let whole = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    whole.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    fn policy(rolling: Rolling) -> ExpiryPolicy {
        ExpiryPolicy {
            idle_timeout: IdleTimeout::Persistent(Duration::from_secs(1000)),
            rolling,
            absolute_timeout: Duration::from_secs(5000),
            anonymous_idle_timeout: None,
        }
    }

    fn stored(expires_at: u64) -> Lifetime {
        Lifetime {
            created_at: at(0),
            expires_at: at(expires_at),
            absolute_end: at(5_000_000),
            idle_timeout: None,
        }
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
        let saved = policy.renewed(&stored(1_000_000), at(4_999_999), None, true);
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
        let anonymous = policy.begun(at(0), Some(IdleTimeout::Persistent(DAY)), false);
        assert_eq!(anonymous.expires_at, at(60_000));
        let owned = policy.begun(at(0), None, true);
        assert_eq!(owned.expires_at, at(1_000_000));
    }

    #[test]
    fn cookie_seconds_round_up_and_never_reach_zero() {
        assert_eq!(cookie_seconds(at(86_400_000), at(0)), 86_400);
        assert_eq!(cookie_seconds(at(1_001), at(0)), 2);
        assert_eq!(cookie_seconds(at(1), at(0)), 1);
        assert_eq!(cookie_seconds(at(0), at(5)), 1);
    }
}
