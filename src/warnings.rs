//! Warnings about mistakes that every request repeats. Each is logged once a minute, or once.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::extract::MatchedPath;
use http::{Method, request::Parts};

use crate::clock::Timestamp;

/// The method and route pattern of a request. The path itself may hold what a log should not.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    method: Method,
    pattern: Option<MatchedPath>,
}

impl Route {
    pub(crate) fn of(parts: &Parts) -> Self {
        Self { method: parts.method.clone(), pattern: parts.extensions.get().cloned() }
    }

    /// Returns the route as text, such as `GET /users/{id}`.
    pub(crate) fn describe(&self) -> String {
        let pattern = self.pattern.as_ref().map_or("(no route)", MatchedPath::as_str);
        format!("{} {pattern}", self.method)
    }
}

pub(crate) const DROPPED_CHANGE: &str = "changes to a session were dropped: call `session.commit().await`, add \
    `AutoCommitLayer`, or say `session.discard()`";

pub(crate) const DROPPED_GUARD: &str = "a `SessionCommit` was dropped, so the client was not told: return it with \
    the response, as in `Ok((session.commit().await?, body))`";

pub(crate) const READ_WITHOUT_GUARD: &str = "a session was read, but no guard went into the response: a shared \
    cache may serve it to other visitors, and `rolling` did not extend the session. Return the guard, as in \
    `Ok((session.commit().await?, body))`, or add `AutoCommitLayer`";

pub(crate) const GUARDS_CONFLICT: &str = "two `Session` guards of one request changed the same data: commit or \
    drop the first before extracting the next";

pub(crate) const REQUESTS_CONFLICT: &str = "two requests changed the same field of a session, and the later one is \
    answered with 409: make the field a `Counter`, `Latest`, `Set` or `Once`, or change it through `session.update`";

pub(crate) const UNSTABLE_ENCODING: &str = "session data is encoded in another order each time, so that it counts \
    as changed whenever it is borrowed: use `BTreeSet<V>` or `axum_typed_session::Set<V>` for a `HashSet<V>`";

pub(crate) const IDLE_TIMEOUT_IS_CUT: &str = "`session.set_idle_timeout(..)` set more than the absolute timeout, \
    which ends the session earlier: also call `session.set_absolute_timeout(..)` within the builder's \
    `.max_absolute_timeout(..)`, raise its `.absolute_timeout(..)`, or set less";

pub(crate) const ABSOLUTE_TIMEOUT_IS_CUT: &str = "`session.set_absolute_timeout(..)` set more than the builder's \
    `.max_absolute_timeout(..)`, which is `.absolute_timeout(..)` by default and ends the session earlier: raise \
    `.max_absolute_timeout(..)`, or set less";

/// When each warning was last given, by its text and place.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<HashMap<(&'static str, String), Timestamp>>);

const PAUSE: Duration = Duration::from_secs(60);

/// Clients choose methods, so the places are not all the application's.
const MOST: usize = 1000;

impl Warnings {
    /// Logs a warning, unless it was logged for this place within the last minute.
    pub(crate) fn warn(
        &self,
        warning: &'static str,
        session: &'static str,
        route: Option<&Route>,
        pointer: Option<&str>,
        now: Timestamp,
    ) {
        let route = route.map(Route::describe);
        let place = format!("{route:?} {pointer:?}");
        if self.is_due((warning, place), PAUSE, now) {
            tracing::warn!(session, route, pointer, "{warning}");
        }
    }

    /// Logs a warning, unless it was logged before.
    pub(crate) fn warn_once(&self, warning: &'static str, session: &'static str) {
        let now = Timestamp::from_unix_millis(0);
        if self.is_due((warning, String::new()), Duration::MAX, now) {
            tracing::warn!(session, "{warning}");
        }
    }

    fn is_due(&self, place: (&'static str, String), pause: Duration, now: Timestamp) -> bool {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len() >= MOST {
            given.clear();
        }
        let is_due = given.get(&place).is_none_or(|last| last.saturating_add(pause) <= now);
        if is_due {
            given.insert(place, now);
        }
        is_due
    }
}
