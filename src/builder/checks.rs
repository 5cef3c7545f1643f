//! Making a manager, with the checks that make a bad configuration fail early.

use std::{sync::atomic::AtomicU64, time::Duration};

use super::{Options, SessionManagerBuilder, TokenOptions};
use crate::{
    codec::JSON_TAG,
    cookies::NAME_VALUE_LIMIT,
    error::ConfigError,
    expiry::{DAY, LONGEST_COOKIE},
    manager::{ConflictPolicy, Core, DataType, Home, SessionManager, Settings},
    seal::Sealer,
    store::Record,
    transport::Transport,
    warnings::Warnings,
};

/// Longer than any session needs, and short enough that no sum of timestamps overflows.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

const LONGEST_SKEW: Duration = Duration::from_secs(60 * 60);

/// **Building** the manager.
impl<T: Send + Sync + 'static> SessionManagerBuilder<T> {
    /// Checks all options and makes the manager.
    ///
    /// It reads and sends nothing, so a store that is down is no error here. A dangerous option, such as
    /// [`insecure_http`](Self::insecure_http), is logged as a WARN.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] if an option is missing, has a value that cannot work, or contradicts another option. Its
    /// text names the option and the way out.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::SessionManager;
    ///
    /// let error = SessionManager::<Visits>::builder().build().unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "set `.keys(..)` to keep sessions in a cookie, or `.store(..)` to keep them on the server",
    /// );
    /// ```
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
        let keys_of_rows = self.keys.as_ref().filter(|_| self.home.is_some());
        let owner_keys = keys_of_rows.map(|ring| ring.derive("owner")).transpose()?;
        let keys_of_imports = self.keys.as_ref().filter(|_| !options.imports.is_empty());
        let import_keys = keys_of_imports.map(|ring| ring.derive("import")).transpose()?;
        let settings = Settings {
            sealer: self.keys.as_ref().map(seal).transpose()?,
            row_sealer: keys_of_rows.map(Sealer::for_rows).transpose()?,
            owner_keys: owner_keys.unwrap_or_default(),
            import_keys: import_keys.unwrap_or_default(),
            warnings: Warnings::default(),
            saves: AtomicU64::new(0),
            options,
            data,
        };
        let forgets = self.revocations.as_ref().is_some_and(|list| !list.survives_restart());
        let core = Core::new(settings, self.home.unwrap_or(Home::Token(self.revocations)))?;
        if core.data.owner(&*core.data.default()).is_some() {
            return Err(ConfigError::new(
                "`.owner(..)` names an owner for the default data, so all visitors who are not signed in would be one \
                 owner; return `None` for them, as for an empty name",
            ));
        }
        if let Some(limit) = core.max_cookie_bytes {
            let empty = core.data.encode(&*core.data.default()).unwrap_or_default();
            let smallest = core.cookie_bytes(Record::FIXED_BYTES + empty.len());
            check_max_cookie_bytes(limit, smallest)?;
        }
        if forgets {
            tracing::warn!(
                "`.revocations(..)` keeps its list in memory, so a restart loses the list: if the keys \
                 stay the same, the cookies of ended sessions are valid again; use a store that survives a restart"
            );
        }
        if !core.imports.is_empty() && matches!(*core.home, Home::Token(None)) {
            tracing::warn!(
                "`.import(..)` keeps no note of the sessions that it imported: a copy of an old cookie can be imported \
                 again until it expires, even after a sign-out; set `.revocations(..)` or `.store(..)`"
            );
        }
        for risk in &core.tenant.carrier.template.risks {
            tracing::warn!("{risk}");
        }
        Ok(core)
    }

    /// Returns `true` if the store finds the sessions of an owner, or if it is known only with a request.
    fn indexes_owners(&self) -> bool {
        match &self.home {
            Some(Home::Store(store)) => store.indexes_owners(),
            Some(Home::StoreFor(_)) => true,
            Some(Home::Token(_)) | None => false,
        }
    }

    fn check_combinations(&self, options: &Options) -> Result<(), ConfigError> {
        let has_store = self.home.is_some();
        let has_list = self.revocations.is_some();
        let has_imports = !options.imports.is_empty();
        let waits_for_stores = has_store || has_list || has_imports;
        let has_migrate = options.migrate.is_some();
        let is_json = options.codec_tag == JSON_TAG;
        let merges = options.on_conflict.unwrap_or_default() == ConflictPolicy::Merge;
        let is_cookie = options.transport.as_ref().is_none_or(Transport::is_cookie);
        let problem = if !has_store && self.keys.is_none() {
            "set `.keys(..)` to keep sessions in a cookie, or `.store(..)` to keep them on the server"
        } else if has_store && has_list {
            "`.revocations(..)` is for sessions in a cookie; with a store, `destroy` ends the stored session"
        } else if has_store && self.signed && self.keys.is_none() {
            "`.signed(..)` needs `.keys(..)`"
        } else if has_store && merges && !is_json {
            "with a `.codec(..)`, `.on_conflict(..)` must be `Reject` or `Overwrite`, because `Merge` needs JSON"
        } else if !has_store && options.on_conflict.is_some() {
            "`.on_conflict(..)` needs `.store(..)`; without a store, the browser keeps the cookie that arrives last"
        } else if has_store && options.max_cookie_bytes.is_some() {
            "`.max_cookie_bytes(..)` is for sessions in a cookie; with a store, use `.max_payload(..)`"
        } else if options.store_timeout.is_some() && !waits_for_stores {
            "`.store_timeout(..)` needs `.store(..)`, `.revocations(..)` or `.import(..)`"
        } else if has_migrate && !is_json {
            "`.migrate(..)` needs JSON, so it cannot be combined with a `.codec(..)`"
        } else if options.schema > 1 && !has_migrate {
            "`.schema_version(..)` needs `.migrate(..)`, which converts older data or rejects it"
        } else if options.accept_schema.is_some_and(|accepted| accepted < options.schema) {
            "`.accept_schema(..)` must not be below `.schema_version(..)`"
        } else if options.policy.anonymous_idle_timeout.is_some() && !options.owner_is_told {
            "`.anonymous_idle_timeout(..)` needs `.owner(..)`"
        } else if options.cookie.is_some() && !is_cookie {
            "`.cookie(..)` needs the cookie as the transport; remove it, or set `Transport::cookie()`"
        } else if !options.former_cookies.is_empty() && !is_cookie {
            "`.former_cookie(..)` needs the cookie as the transport; remove it, or set `Transport::cookie()`"
        } else if has_imports && self.keys.is_none() {
            "`.import(..)` needs `.keys(..)`, from which it derives the ids of imported sessions"
        } else if has_imports && !is_cookie {
            "`.import(..)` needs the cookie as the transport; remove it, or set `Transport::cookie()`"
        } else if options.cookie_for.is_some() && !is_cookie {
            "`.cookie_for(..)` needs the cookie as the transport; remove it, or set `Transport::cookie()`"
        } else if options.insecure_http && !is_cookie {
            "`.insecure_http(..)` needs the cookie as the transport; remove it, or set `Transport::cookie()`"
        } else if options.remove_unpartitioned && !is_cookie {
            "`.remove_unpartitioned(..)` needs the cookie as the transport; remove it, or set `Transport::cookie()`"
        } else if options.encrypt_rows && !(has_store && self.keys.is_some()) {
            "`.encrypt_rows(..)` encrypts the data in a store, so it needs `.store(..)` and `.keys(..)`"
        } else if options.max_sessions_per_owner.is_some()
            && !(options.owner_is_told && self.indexes_owners())
        {
            "`.max_sessions_per_owner(..)` needs `.owner(..)`, and a `.store(..)` that indexes owners"
        } else if options.max_sessions_per_owner == Some(0) {
            "`.max_sessions_per_owner(..)` must be at least 1"
        } else if options.max_payload == 0 {
            "`.max_payload(..)` must be above 0 bytes"
        } else if options.schema == 0 {
            "`.schema_version(..)` must be at least 1"
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
        "`.max_cookie_bytes({limit})` must be at least {smallest}, because an empty session takes so many bytes, and \
         at most {NAME_VALUE_LIMIT}, because browsers drop a longer cookie"
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
            "`.clock_skew({:?})` must be at most {LONGEST_SKEW:?}; keep the clocks of the nodes together with NTP",
            options.clock_skew
        )));
    }
    if idle_timeout > absolute_timeout {
        return Err(ConfigError::new(format!(
            "`.idle_timeout({idle_timeout:?})` must not be above `.absolute_timeout({absolute_timeout:?})`, which ends \
             every session; lower the idle timeout or raise the absolute timeout"
        )));
    }
    let max = policy.max_absolute_timeout();
    if max < absolute_timeout {
        return Err(ConfigError::new(format!(
            "`.max_absolute_timeout({max:?})` must not be below `.absolute_timeout({absolute_timeout:?})`, which is \
             the timeout of every session that sets none; raise the first or lower the second"
        )));
    }
    Ok(())
}
