//! Warnings of mistakes that every request repeats: each once a minute.

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

/// When each warning was last given.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<HashMap<(&'static str, String), Timestamp>>);

const PAUSE: Duration = Duration::from_secs(60);

/// Clients choose methods, so the places are not all the application's.
const MOST: usize = 1000;

impl Warnings {
    /// Returns `true` if this warning was not given of this place within the last minute.
    pub(crate) fn is_due(&self, kind: &'static str, place: String, now: Timestamp) -> bool {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len() >= MOST {
            given.clear();
        }
        let key = (kind, place);
        let is_due = given.get(&key).is_none_or(|last| last.saturating_add(PAUSE) <= now);
        if is_due {
            given.insert(key, now);
        }
        is_due
    }
}
