//! Making a manager, with the checks that make a bad configuration fail early.

use std::{sync::atomic::AtomicU64, time::Duration};

use cookie::Cookie;

use super::{DAY, Options, SessionManagerBuilder, TokenOptions};
use crate::{
    codec::JSON_TAG,
    cookies::CookieTemplate,
    error::ConfigError,
    expiry::LONGEST_COOKIE,
    id::Scope,
    manager::{ConflictPolicy, Core, DataType, Home, SessionManager, Settings},
    seal::Sealer,
    transport::{Carrier, Transport},
    warnings::Warnings,
};

/// Long enough for anything and short enough that no sum overflows.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl<T: Send + Sync + 'static> SessionManagerBuilder<T> {
    /// Checks everything and makes the manager.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] whose text names the option and what to change.
    pub fn build(self) -> Result<SessionManager<T>, ConfigError> {
        let core = self.token.build(self.options, Box::new(self.data))?;
        Ok(SessionManager::new(core))
    }
}

impl TokenOptions {
    fn build(self, options: Options, data: Box<dyn DataType>) -> Result<Core, ConfigError> {
        check_durations(&options)?;
        self.check_combinations(&options)?;
        let cookie = self.cookie.unwrap_or_else(|| Cookie::new("__Host-session", ""));
        let template = CookieTemplate::new(cookie, self.insecure_http, self.remove_unpartitioned)?;
        let carrier = Carrier::new(self.transport.unwrap_or(Transport::cookie()), template)?;
        let data_in_token = self.home.is_none();
        let home = self.home.unwrap_or(Home::Token(self.revocations));
        let (audience, kind) = (&*options.audience, &*options.events.kind);
        let bound_to = [audience, kind, carrier.binding, &*carrier.name];
        let seal = |ring| Sealer::new(ring, self.signed, data_in_token, bound_to);
        let sealer = self.keys.as_ref().map(seal).transpose()?;
        let settings = Settings {
            scope: Scope::new(audience, kind),
            sealer,
            carrier,
            warnings: Warnings::default(),
            saves: AtomicU64::new(0),
            options,
            data,
        };
        Ok(Core::new(settings, home))
    }

    fn check_combinations(&self, options: &Options) -> Result<(), ConfigError> {
        let has_store = self.home.is_some();
        let has_list = self.revocations.is_some();
        let has_migrate = options.migrate.is_some();
        let is_json = options.codec_tag == JSON_TAG;
        let merges = options.on_conflict.unwrap_or_default() == ConflictPolicy::Merge;
        let is_cookie = self.transport.as_ref().is_none_or(Transport::is_cookie);
        let problem = if !has_store && self.keys.is_none() {
            "sessions in a cookie need `.keys(..)`; sessions on the server need `.store(..)`"
        } else if has_store && has_list {
            "`.revocations(..)` cannot be used together with a store, whose sessions end by themselves"
        } else if has_store && self.signed && self.keys.is_none() {
            "`.signed(..)` needs `.keys(..)`"
        } else if has_store && merges && !is_json {
            "`.on_conflict(..)` needs `Reject` or `Overwrite` where a `.codec(..)` is set, since merging needs JSON"
        } else if !has_store && options.on_conflict.is_some() {
            "`.on_conflict(..)` needs `.store(..)`; a browser keeps the cookie that arrives last"
        } else if !has_store && !has_list && options.store_timeout.is_some() {
            "`.store_timeout(..)` needs `.store(..)` or `.revocations(..)`"
        } else if has_migrate && !is_json {
            "`.migrate(..)` needs JSON; it cannot be combined with a `.codec(..)`"
        } else if options.schema > 1 && !has_migrate {
            "`.schema_version(..)` needs `.migrate(..)`, which converts older data or rejects it"
        } else if options.accept_schema.is_some_and(|accepted| accepted < options.schema) {
            "`.accept_schema(..)` needs a version from `.schema_version(..)` up"
        } else if options.policy.anonymous_idle_timeout.is_some() && !options.owner_is_told {
            "`.anonymous_idle_timeout(..)` needs `.owner(..)`"
        } else if self.cookie.is_some() && !is_cookie {
            "`.cookie(..)` cannot be used together with a `.transport(..)` that is no cookie"
        } else if self.insecure_http && !is_cookie {
            "`.insecure_http(..)` cannot be used together with a `.transport(..)` that is no cookie"
        } else if self.remove_unpartitioned && !is_cookie {
            "`.remove_unpartitioned(..)` cannot be used together with a `.transport(..)` that is no cookie"
        } else if options.max_payload == 0 {
            "`.max_payload(..)`: no session fits into 0 bytes"
        } else if options.schema == 0 {
            "`.schema_version(..)`: versions begin with 1"
        } else if options.audience.is_empty() {
            "`.audience(..)`: an empty name tells nothing apart; leave the option out"
        } else if options.events.kind.is_empty() {
            "`.kind(..)`: an empty name tells nothing apart; leave the option out"
        } else {
            return Ok(());
        };
        Err(ConfigError::new(problem))
    }
}

fn check_durations(options: &Options) -> Result<(), ConfigError> {
    let policy = &options.policy;
    let (idle_timeout, absolute_timeout) =
        (policy.idle_timeout.duration(), policy.absolute_timeout);
    let durations = [
        ("idle_timeout", Some(idle_timeout), LONGEST_COOKIE),
        ("absolute_timeout", Some(absolute_timeout), LONGEST_TIMEOUT),
        ("max_absolute_timeout", policy.max_absolute_timeout, LONGEST_TIMEOUT),
        ("anonymous_idle_timeout", policy.anonymous_idle_timeout, LONGEST_COOKIE),
        ("store_timeout", options.store_timeout, DAY),
    ];
    for (option, duration, limit) in durations {
        if let Some(actual) = duration
            && (actual.is_zero() || actual > limit)
        {
            return Err(ConfigError::new(format!(
                "`.{option}({actual:?})` must be above zero and at most {limit:?}"
            )));
        }
    }
    if idle_timeout > absolute_timeout {
        return Err(ConfigError::new(format!(
            "idle_timeout {idle_timeout:?} is above absolute_timeout {absolute_timeout:?}, which ends every \
             session; shorten the one or raise `.absolute_timeout(..)`"
        )));
    }
    let max = policy.max_absolute_timeout();
    if max < absolute_timeout {
        return Err(ConfigError::new(format!(
            "max_absolute_timeout {max:?} is below absolute_timeout {absolute_timeout:?}, which sessions reach \
             without a timeout of their own; raise the one or shorten `.absolute_timeout(..)`"
        )));
    }
    Ok(())
}
