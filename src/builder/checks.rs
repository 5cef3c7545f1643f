//! Making a manager, with the checks that make a bad configuration fail early.

use std::{
    any::{TypeId, type_name},
    sync::Arc,
    time::Duration,
};

use super::{DAY, Options, SessionManagerBuilder};
use crate::{
    codec::JSON_TAG,
    cookies::CookieTemplate,
    error::ConfigError,
    event::Events,
    expiry::LONGEST_COOKIE,
    id::Scope,
    manager::{ConflictPolicy, Core, Home, SessionManager, Settings},
    seal::{Content, Protection, Sealer},
    transport::Carrier,
    warnings::Warnings,
};

const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// Long enough for anything and short enough that no sum overflows.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl<T: Send + Sync + 'static> SessionManagerBuilder<T> {
    /// Checks everything and makes the manager.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] whose text names the option and what to change.
    pub fn build(self) -> Result<SessionManager<T>, ConfigError> {
        let data = &self.data;
        let facts = DataFacts {
            id: TypeId::of::<T>(),
            name: type_name::<T>(),
            codec_tag: data.codec.tag(),
            has_owner: data.owner.is_some(),
            has_migrate: data.migrate.is_some(),
        };
        Ok(SessionManager::new(self.options.build(facts)?, self.data))
    }
}

/// What the checks need to know of the data type and its options.
#[derive(Clone, Copy)]
struct DataFacts {
    id: TypeId,
    name: &'static str,
    codec_tag: u8,
    has_owner: bool,
    has_migrate: bool,
}

impl Options {
    fn build(self, data: DataFacts) -> Result<Core, ConfigError> {
        self.check_durations()?;
        self.check_combinations(data)?;
        let template =
            CookieTemplate::new(self.cookie, self.insecure_http, self.remove_unpartitioned)?;
        let carrier = Carrier::new(self.transport, template)?;
        let kind: Arc<str> = self.kind.unwrap_or_else(|| short_name(data.name)).into();
        let (home, content) = match self.home {
            Some(home) => (home, Content::Id),
            None => (Home::Token(self.revocations), Content::Data),
        };
        let purpose = [&*self.audience, &*kind, carrier.binding, &*carrier.name];
        let sealer = match &self.keys {
            Some(ring) => Some(Sealer::new(ring, self.protection, content, purpose)?),
            None if content == Content::Id => None,
            None => return Err(ConfigError::MissingKeys),
        };
        let settings = Settings {
            scope: Scope::new(&self.audience, &kind),
            audience: self.audience,
            kind: kind.clone(),
            sealer,
            carrier,
            policy: self.policy,
            clock: self.clock,
            events: Events { kind, hook: self.on_event },
            warnings: Warnings::default(),
            generate_id: self.generate_id,
            error_response: self.error_response,
            codec_tag: data.codec_tag,
            schema: self.schema,
            accept_schema: self.accept_schema.unwrap_or(self.schema),
            owner_is_told: data.has_owner,
            on_conflict: self.on_conflict.unwrap_or_default(),
            max_payload: self.max_payload,
            store_timeout: self.store_timeout.unwrap_or(STORE_TIMEOUT),
        };
        let core = Core::new(settings, home);
        core.warn_of_shared_kind(data.id, data.name);
        Ok(core)
    }

    fn check_durations(&self) -> Result<(), ConfigError> {
        let policy = &self.policy;
        let idle_timeout = ("idle_timeout", policy.idle_timeout.duration(), LONGEST_COOKIE);
        let durations = [
            Some(idle_timeout),
            Some(("absolute_timeout", policy.absolute_timeout, LONGEST_TIMEOUT)),
            policy
                .anonymous_idle_timeout
                .map(|timeout| ("anonymous_idle_timeout", timeout, LONGEST_COOKIE)),
            self.store_timeout.map(|timeout| ("store_timeout", timeout, DAY)),
        ];
        for (option, actual, limit) in durations.into_iter().flatten() {
            if actual.is_zero() || actual > limit {
                return Err(ConfigError::Duration { option, actual, limit });
            }
        }
        if policy.idle_timeout.duration() > policy.absolute_timeout {
            return Err(ConfigError::IdleTimeoutAboveAbsoluteTimeout {
                idle_timeout: policy.idle_timeout.duration(),
                absolute_timeout: policy.absolute_timeout,
            });
        }
        Ok(())
    }

    fn check_combinations(&self, data: DataFacts) -> Result<(), ConfigError> {
        let needs = |option, needs| Err(ConfigError::Needs { option, needs });
        let excludes = |option, excludes| Err(ConfigError::Excludes { option, excludes });
        let invalid = |option, problem| Err(ConfigError::Invalid { option, problem });
        let is_json = data.codec_tag == JSON_TAG;
        let merges = self.on_conflict.unwrap_or_default() == ConflictPolicy::Merge;
        if self.home.is_some() {
            if self.revocations.is_some() {
                return excludes("revocations", "a store, whose sessions end by themselves");
            }
            if self.protection == Protection::Signed && self.keys.is_none() {
                return needs("signed", "`.keys(..)`");
            }
            if merges && !is_json {
                return needs(
                    "on_conflict",
                    "`Reject` or `Overwrite` where a `.codec(..)` is set, since merging needs JSON",
                );
            }
        } else {
            if self.on_conflict.is_some() {
                return needs(
                    "on_conflict",
                    "`.store(..)`; a browser keeps the cookie that arrives last",
                );
            }
            if self.store_timeout.is_some() && self.revocations.is_none() {
                return needs("store_timeout", "`.store(..)` or `.revocations(..)`");
            }
        }
        if data.has_migrate && !is_json {
            return needs("migrate", "JSON; it cannot be combined with a `.codec(..)`");
        }
        if self.schema > 1 && !data.has_migrate {
            return needs(
                "schema_version",
                "`.migrate(..)`, which converts older data or rejects it",
            );
        }
        if self.accept_schema.is_some_and(|accepted| accepted < self.schema) {
            return needs("accept_schema", "a version from `.schema_version(..)` up");
        }
        if self.policy.anonymous_idle_timeout.is_some() && !data.has_owner {
            return needs("anonymous_idle_timeout", "`.owner(..)`");
        }
        if !self.transport.is_cookie() {
            let no_cookie = "a `.transport(..)` that is no cookie";
            if self.has_cookie {
                return excludes("cookie", no_cookie);
            }
            if self.insecure_http {
                return excludes("insecure_http", no_cookie);
            }
        }
        if self.max_payload == 0 {
            return invalid("max_payload", "no session fits into 0 bytes");
        }
        if self.schema == 0 {
            return invalid("schema_version", "versions begin with 1");
        }
        let names = [("audience", Some(&*self.audience)), ("kind", self.kind.as_deref())];
        for (option, name) in names {
            if name == Some("") {
                return invalid(option, "an empty name tells nothing apart; leave the option out");
            }
        }
        Ok(())
    }
}

/// Returns the name of a type without the paths of its modules, such as `Vec<Login>`.
fn short_name(name: &str) -> String {
    let mut short = String::new();
    for part in name.split_inclusive(|letter| "<>,()[]& ;".contains(letter)) {
        short.push_str(part.rsplit("::").next().unwrap_or(part));
    }
    short
}
