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
    seal::{Protection, Sealer},
    transport::Carrier,
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
        let carrier = Carrier::new(self.transport, template)?;
        let data_in_token = self.home.is_none();
        let home = self.home.unwrap_or(Home::Token(self.revocations));
        let (audience, kind) = (&*options.audience, &*options.events.kind);
        let bound_to = [audience, kind, carrier.binding, &*carrier.name];
        let sealer = match &self.keys {
            Some(ring) => Some(Sealer::new(ring, self.protection, data_in_token, bound_to)?),
            None if !data_in_token => None,
            None => return Err(ConfigError::MissingKeys),
        };
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
        let needs = |option, needs| ConfigError::Needs { option, needs };
        let excludes = |option, excludes| ConfigError::Excludes { option, excludes };
        let invalid = |option, problem| ConfigError::Invalid { option, problem };
        let has_store = self.home.is_some();
        let has_list = self.revocations.is_some();
        let has_migrate = options.migrate.is_some();
        let is_json = options.codec_tag == JSON_TAG;
        let merges = options.on_conflict.unwrap_or_default() == ConflictPolicy::Merge;
        let is_cookie = self.transport.is_cookie();
        let error = if has_store && has_list {
            excludes("revocations", "a store, whose sessions end by themselves")
        } else if has_store && self.protection == Protection::Signed && self.keys.is_none() {
            needs("signed", "`.keys(..)`")
        } else if has_store && merges && !is_json {
            needs(
                "on_conflict",
                "`Reject` or `Overwrite` where a `.codec(..)` is set, since merging needs JSON",
            )
        } else if !has_store && options.on_conflict.is_some() {
            needs("on_conflict", "`.store(..)`; a browser keeps the cookie that arrives last")
        } else if !has_store && !has_list && options.store_timeout.is_some() {
            needs("store_timeout", "`.store(..)` or `.revocations(..)`")
        } else if has_migrate && !is_json {
            needs("migrate", "JSON; it cannot be combined with a `.codec(..)`")
        } else if options.schema > 1 && !has_migrate {
            needs("schema_version", "`.migrate(..)`, which converts older data or rejects it")
        } else if options.accept_schema.is_some_and(|accepted| accepted < options.schema) {
            needs("accept_schema", "a version from `.schema_version(..)` up")
        } else if options.policy.anonymous_idle_timeout.is_some() && !options.owner_is_told {
            needs("anonymous_idle_timeout", "`.owner(..)`")
        } else if self.cookie.is_some() && !is_cookie {
            excludes("cookie", "a `.transport(..)` that is no cookie")
        } else if self.insecure_http && !is_cookie {
            excludes("insecure_http", "a `.transport(..)` that is no cookie")
        } else if self.remove_unpartitioned && !is_cookie {
            excludes("remove_unpartitioned", "a `.transport(..)` that is no cookie")
        } else if options.max_payload == 0 {
            invalid("max_payload", "no session fits into 0 bytes")
        } else if options.schema == 0 {
            invalid("schema_version", "versions begin with 1")
        } else if options.audience.is_empty() {
            invalid("audience", NAMELESS)
        } else if options.events.kind.is_empty() {
            invalid("kind", NAMELESS)
        } else {
            return Ok(());
        };
        Err(error)
    }
}

const NAMELESS: &str = "an empty name tells nothing apart; leave the option out";

fn check_durations(options: &Options) -> Result<(), ConfigError> {
    let policy = &options.policy;
    let (idle_timeout, absolute_timeout) =
        (policy.idle_timeout.duration(), policy.absolute_timeout);
    let durations = [
        ("idle_timeout", Some(idle_timeout), LONGEST_COOKIE),
        ("absolute_timeout", Some(absolute_timeout), LONGEST_TIMEOUT),
        ("anonymous_idle_timeout", policy.anonymous_idle_timeout, LONGEST_COOKIE),
        ("store_timeout", options.store_timeout, DAY),
    ];
    for (option, duration, limit) in durations {
        if let Some(actual) = duration
            && (actual.is_zero() || actual > limit)
        {
            return Err(ConfigError::Duration { option, actual, limit });
        }
    }
    if idle_timeout > absolute_timeout {
        return Err(ConfigError::IdleTimeoutAboveAbsoluteTimeout {
            idle_timeout,
            absolute_timeout,
        });
    }
    Ok(())
}
