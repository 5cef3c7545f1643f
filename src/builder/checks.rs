//! Making a manager, with the checks that make a bad configuration fail early.

use std::{sync::atomic::AtomicU64, time::Duration};

use super::{DAY, Options, SessionManagerBuilder, TokenOptions};
use crate::{
    codec::JSON_TAG,
    cookies::NAME_VALUE_LIMIT,
    error::ConfigError,
    expiry::LONGEST_COOKIE,
    manager::{ConflictPolicy, Core, DataType, Home, SessionManager, Settings, cookie_bytes},
    seal::Sealer,
    store::Record,
    transport::Transport,
    warnings::Warnings,
};

/// Long enough for anything and short enough that no sum overflows.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

const LONGEST_SKEW: Duration = Duration::from_secs(60 * 60);

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
        let seal = |ring| Sealer::new(ring, self.signed, self.home.is_none());
        let settings = Settings {
            sealer: self.keys.as_ref().map(seal).transpose()?,
            warnings: Warnings::default(),
            saves: AtomicU64::new(0),
            options,
            data,
        };
        let forgets = self.revocations.as_ref().is_some_and(|list| !list.survives_restart());
        let core = Core::new(settings, self.home.unwrap_or(Home::Token(self.revocations)))?;
        if let (Some(limit), Some(sealer)) = (core.max_cookie_bytes, &core.sealer) {
            let empty = core.data.encode(&*core.data.default()).unwrap_or_default();
            let record = Record::FIXED_BYTES + empty.len();
            check_max_cookie_bytes(limit, cookie_bytes(sealer, &core.tenant.carrier, record))?;
        }
        if forgets {
            tracing::warn!(
                "the list of `.revocations(..)` is in this process's memory: a restart forgets every logout, and the \
                 ended cookies are valid again if the keys come back; use a store that outlives the process"
            );
        }
        for risk in &core.tenant.carrier.template.risks {
            tracing::warn!("{risk}");
        }
        Ok(core)
    }

    fn check_combinations(&self, options: &Options) -> Result<(), ConfigError> {
        let has_store = self.home.is_some();
        let has_list = self.revocations.is_some();
        let has_migrate = options.migrate.is_some();
        let is_json = options.codec_tag == JSON_TAG;
        let merges = options.on_conflict.unwrap_or_default() == ConflictPolicy::Merge;
        let is_cookie = options.transport.as_ref().is_none_or(Transport::is_cookie);
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
        } else if has_store && options.max_cookie_bytes.is_some() {
            "`.max_cookie_bytes(..)` cannot be used together with a store; the cookie then holds only an id"
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
        } else if options.cookie.is_some() && !is_cookie {
            "`.cookie(..)` cannot be used together with a `.transport(..)` that is no cookie"
        } else if !options.former_cookies.is_empty() && !is_cookie {
            "`.former_cookie(..)` cannot be used together with a `.transport(..)` that is no cookie"
        } else if options.cookie_for.is_some() && !is_cookie {
            "`.cookie_for(..)` cannot be used together with a `.transport(..)` that is no cookie"
        } else if options.insecure_http && !is_cookie {
            "`.insecure_http(..)` cannot be used together with a `.transport(..)` that is no cookie"
        } else if options.remove_unpartitioned && !is_cookie {
            "`.remove_unpartitioned(..)` cannot be used together with a `.transport(..)` that is no cookie"
        } else if options.max_payload == 0 {
            "`.max_payload(..)`: no session fits into 0 bytes"
        } else if options.schema == 0 {
            "`.schema_version(..)`: versions begin with 1"
        } else {
            return Ok(());
        };
        Err(ConfigError::new(problem))
    }
}

fn check_max_cookie_bytes(limit: usize, smallest: usize) -> Result<(), ConfigError> {
    if (smallest..=NAME_VALUE_LIMIT).contains(&limit) {
        return Ok(());
    }
    Err(ConfigError::new(format!(
        "`.max_cookie_bytes({limit})` must be from {smallest}, which an empty session takes, to \
         {NAME_VALUE_LIMIT}, above which browsers drop a cookie"
    )))
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
    if options.clock_skew > LONGEST_SKEW {
        return Err(ConfigError::new(format!(
            "`.clock_skew({:?})` must be at most {LONGEST_SKEW:?}; set the clocks of the nodes with NTP",
            options.clock_skew
        )));
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
