//! The handlers of the README, word for word.

use axum::{
    extract::State,
    response::{IntoResponse, Redirect},
};
use axum_typed_session::{Session, SessionCommit, SessionError, SessionManager};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Visits {
    count: u32,
}

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Login {
    pub(crate) user: Option<String>,
}

pub async fn index(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    session.count += 1;
    let body = format!("{} visits", session.count);
    Ok((session.commit().await?, body))
}

pub async fn logout(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    session.destroy();
    Ok((session.commit().await?, Redirect::to("/")))
}

#[rustfmt::skip]
pub async fn login(mut session: Session<Login>, name: String) -> Result<SessionCommit, SessionError> {
    session.user = Some(name);
    session.regenerate();           // a new id at every change of rights
    session.commit().await
}

pub async fn me(
    State(sessions): State<SessionManager<Login>>,
    session: Option<Session<Login>>,
) -> Result<impl IntoResponse, SessionError> {
    let user = session.as_ref().and_then(|session| session.user.clone());
    let guard = match session {
        Some(session) => session.commit().await?,
        None => sessions.no_session(),
    };
    Ok((guard, user.map_or("who are you?".to_owned(), |user| format!("hello {user}"))))
}

/// Returns the handlers in a text, by name.
fn handlers(text: &str) -> Vec<(&str, &str)> {
    let starts = text.split("async fn ").skip(1);
    let handlers =
        starts.filter_map(|rest| Some((rest.split_once('(')?.0, rest.split_once("\n}")?.0)));
    handlers.collect()
}

#[test]
fn these_are_the_handlers_of_the_readme() {
    let mut taught = handlers(include_str!("../../README.md"));
    taught.retain(|(name, _)| *name != "main");
    let (here, _) = include_str!("readme.rs").split_once("/// Returns the handlers").unwrap();
    assert_eq!(taught, handlers(here));
}
