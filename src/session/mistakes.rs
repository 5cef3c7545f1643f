//! Uses and methods that a session does not have, so that the compiler can name the right ones.
//!
//! Each item stands behind a bound that no type meets, and the compiler fails with the text of that bound. Nothing
//! here can be called. Nothing hides a method of `T`, since the compiler passes by a method whose bound is not met.
#![allow(unnameable_types, missing_docs, reason = "only the compiler names them")]

use std::convert::Infallible;

use axum::response::{IntoResponse, IntoResponseParts, Response, ResponseParts};
use tower_layer::Layer;

use super::Session;
use crate::manager::SessionManager;

/// Declares methods of other session libraries, each behind a bound whose name and texts say what to call.
macro_rules! missing_methods {
    ($($bound:ident: $($method:ident)+ => $message:literal, $fix:literal;)+) => {$(
        #[diagnostic::on_unimplemented(
            message = $message,
            note = $fix,
            note = "for other methods, see `axum_typed_session::guide::does_not_compile`"
        )]
        pub trait $bound {}

        #[doc(hidden)]
        impl<T: Send + Sync + 'static> Session<T>
        where
            Self: $bound,
        {
            $(pub fn $method(&self) {})+
        }
    )+};
}

missing_methods! {
    UseFieldsOfData: insert insert_value get get_value set remove remove_value contains_key is_empty =>
        "a session has no keys: its data is a value of your own type",
        "read and write the fields of that type, as in `session.count += 1`";
    UseCommit: save =>
        "a session is saved by `commit`, at the end of the handler",
        "return its guard, as in `Ok((session.commit().await?, body))`";
    UseDestroy: flush purge delete =>
        "a session is ended by `destroy`",
        "call `session.destroy()`, and return `session.commit().await?`";
    UseRegenerate: cycle_id renew =>
        "a session gets a new id by `regenerate`",
        "call `session.regenerate()`, and return `session.commit().await?`";
    UseSetIdleTimeout: set_expiry set_max_age =>
        "the expiry of a session is set by `set_idle_timeout` and `set_absolute_timeout`",
        "call `session.set_idle_timeout(..)`, or `.idle_timeout(..)` of the builder for all sessions";
    UseClear: reset =>
        "a session is set back to the default by `clear`",
        "call `session.clear()`";
    UseHandle: clone =>
        "a session cannot be cloned",
        "give a task a clone of the fields it needs, or `session.handle()?`, which can change the session later";
}

#[diagnostic::on_unimplemented(
    message = "a session is not a response: commit it and return the guard",
    label = "`{Self}` is not committed",
    note = "write `session.commit().await?` in its place, as in `Ok((session.commit().await?, body))`"
)]
pub trait CommitFirst {}

#[doc(hidden)]
impl<T: Send + Sync + 'static> IntoResponse for Session<T>
where
    Self: CommitFirst,
{
    fn into_response(self) -> Response {
        ().into_response()
    }
}

#[doc(hidden)]
impl<T: Send + Sync + 'static> IntoResponseParts for Session<T>
where
    Self: CommitFirst,
{
    type Error = Infallible;

    fn into_response_parts(self, parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        Ok(parts)
    }
}

#[diagnostic::on_unimplemented(
    message = "a `SessionManager` is not a layer: it belongs in the router's state",
    label = "`{Self}` is not a layer",
    note = "call `.with_state(sessions)` after the routes instead of `.layer(sessions)`",
    note = "`.layer(AutoCommitLayer::new())` is the layer that commits for the handlers"
)]
pub trait UseWithState {}

#[doc(hidden)]
impl<S, T> Layer<S> for SessionManager<T>
where
    Self: UseWithState,
{
    type Service = S;

    fn layer(&self, inner: S) -> S {
        inner
    }
}
