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
    `AutoCommitLayer` after the route, or call `session.discard()`; a handler that may fail makes its changes after \
    all checks";

pub(crate) const DROPPED_GUARD: &str = "a `SessionCommit` was dropped, so the response has neither the cookie nor `Vary`: \
    return it, as in `Ok((session.commit().await?, body))`; after the response, use a `SessionHandle`";

pub(crate) const READ_WITHOUT_GUARD: &str = "a handler read a session and returned no guard: a shared cache may serve \
    the response to other visitors, and `rolling` did not extend the session. Return the guard, as in \
    `Ok((session.commit().await?, body))`, or add `AutoCommitLayer` after the route";

pub(crate) const GUARDS_CONFLICT: &str = "two `Session`s of one request changed the same data: commit or drop the \
    first before you extract the second";

pub(crate) const REQUESTS_CONFLICT: &str = "two requests changed the same field of a session, and the later request \
    gets the status 409: make the field a `Counter`, `Latest`, `Set` or `Once`, or change it with `session.update(..)`";

pub(crate) const UNSTABLE_ENCODING: &str = "session data is encoded in another order each time, so every mutable \
    borrow counts as a change: use `BTreeSet<V>` or `axum_typed_session::Set<V>` instead of `HashSet<V>`";

pub(crate) const PLAIN_HTTP: &str = "browsers drop Secure cookies over plain http, so no session lasts at this host: \
    serve it over https (a proxy must then send `X-Forwarded-Proto: https`), or set `.insecure_http(true)` for \
    development";

/// Session fixation, unless the id is one that this response sends.
pub(crate) const LOGIN_KEEPS_ID: &str = "a user signed in to a session that keeps its id, which somebody else may have \
    planted: also call `session.regenerate()` at every sign-in";

pub(crate) const IDLE_TIMEOUT_IS_CUT: &str = "`session.set_idle_timeout(..)` set more than the absolute timeout, \
    which ends the session earlier: also call `session.set_absolute_timeout(..)` within the builder's \
    `.max_absolute_timeout(..)`, raise its `.absolute_timeout(..)`, or set a shorter timeout";

pub(crate) const ABSOLUTE_TIMEOUT_IS_CUT: &str = "`session.set_absolute_timeout(..)` set more than the builder's \
    `.max_absolute_timeout(..)`, which is `.absolute_timeout(..)` by default and ends the session earlier: raise \
    `.max_absolute_timeout(..)`, or set a shorter timeout";

/// The warnings that were logged.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    /// The time of the last log of each warning, by its text and place.
    last: Mutex<HashMap<(&'static str, String), Timestamp>>,
    /// The warnings that are logged once, by their text and host.
    once: Mutex<Vec<(&'static str, Box<str>)>>,
}

/// The length of the header `set-cookie: __Host-session=..` with 2,724 bytes of data and the default attributes.
///
/// nginx reads all headers of a response into 4096 bytes by default, so that 257 are left for the others.
const COOKIE_BYTES_NEAR_NGINX_LIMIT: usize = 3_839;

const PAUSE: Duration = Duration::from_secs(60);

/// The bound of the places. They contain the method, which clients choose.
const MOST: usize = 1000;

/// The bound of the hosts, which clients choose too.
const MOST_ONCE: usize = 10;

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
        if self.is_due((warning, place), now) {
            tracing::warn!(session, route, pointer, "{warning}");
        }
    }

    /// Logs a warning once, or once for each host and for ten hosts at most.
    pub(crate) fn warn_once(
        &self,
        warning: &'static str,
        session: &'static str,
        host: Option<&str>,
    ) {
        if self.is_new(warning, host.unwrap_or_default()) {
            tracing::warn!(session, host, "{warning}");
        }
    }

    /// Warns once of cookies that together nearly fill nginx's buffer for headers.
    pub(crate) fn warn_of_size(&self, bytes: usize, session: &'static str) {
        if bytes >= COOKIE_BYTES_NEAR_NGINX_LIMIT && self.is_new("size", "") {
            tracing::warn!(
                session,
                "the cookies of one response take {bytes} bytes; nginx answers 502 if all headers of a response \
                 take more than its `proxy_buffer_size`, which is 4096 by default: set it to 8k, keep less data in \
                 the session, use `.store(..)`, or let larger sessions fail with `.max_cookie_bytes(..)`"
            );
        }
    }

    fn is_new(&self, warning: &'static str, host: &str) -> bool {
        let mut given = self.once.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hosts = given.iter().filter(|(text, _)| *text == warning);
        let is_new = hosts.clone().count() < MOST_ONCE && hosts.all(|(_, known)| **known != *host);
        if is_new {
            given.push((warning, host.into()));
        }
        is_new
    }

    fn is_due(&self, place: (&'static str, String), now: Timestamp) -> bool {
        let mut given = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len() >= MOST {
            given.clear();
        }
        let is_due = given.get(&place).is_none_or(|last| last.saturating_add(PAUSE) <= now);
        if is_due {
            given.insert(place, now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_line(page: &str) -> String {
        page.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_guide_quotes_the_warnings_as_they_are() {
        let lost = one_line(include_str!("guide/cookie_not_kept.md"));
        for warning in [DROPPED_CHANGE, DROPPED_GUARD, PLAIN_HTTP] {
            assert!(lost.contains(warning), "not in the guide: {warning}");
        }
        let parallel = one_line(include_str!("guide/parallel_requests.md"));
        assert!(parallel.contains(REQUESTS_CONFLICT));
        let first = one_line(include_str!("guide/getting_started.md"));
        for warning in [DROPPED_CHANGE, DROPPED_GUARD, READ_WITHOUT_GUARD] {
            let start = warning.split_once([':', ',']).map_or(warning, |(start, _)| start);
            assert!(first.contains(start), "not in the guide: {start}");
        }
    }
}
