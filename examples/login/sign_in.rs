//! Signing up, in and out.

use axum::{
    Form,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use axum_extra::extract::CookieJar;
use axum_typed_session::{Session, SessionError};
use serde::Deserialize;

use crate::{
    InternalError,
    pages::{self, Frame},
    session::{self, Login, local_path},
    users::{HashError, Users},
};

#[derive(Deserialize)]
pub struct Next {
    #[serde(default)]
    next: String,
    /// The form was sent with a token that is not of this session.
    #[serde(default)]
    refused: bool,
}

/// The form for signing in. A user who is signed in already is sent on.
pub async fn form(
    jar: CookieJar,
    mut session: Session<Login>,
    Query(Next { next, refused }): Query<Next>,
) -> Result<Response, SessionError> {
    let next = local_path(&next);
    if session.user.is_some() {
        return Ok(Redirect::to(next).into_response());
    }
    let problem = if refused {
        "The form was too old, or the browser keeps no cookies. Please try again."
    } else {
        ""
    };
    let frame = Frame::with_form(&mut session, &jar)?;
    Ok(pages::sign_in(&frame, next, problem).into_response())
}

#[derive(Deserialize)]
pub struct SignIn {
    name: String,
    password: String,
    #[serde(default)]
    keep: bool,
    #[serde(default)]
    next: String,
    csrf: String,
}

pub async fn sign_in(
    State(users): State<Users>,
    jar: CookieJar,
    headers: HeaderMap,
    mut session: Session<Login>,
    Form(sent): Form<SignIn>,
) -> Result<Response, Failure> {
    let next = local_path(&sent.next);
    // The second click of a double click comes with the id that the first one has replaced. It is led back to the form,
    // which sends a user who is signed in to the next page. Somebody else's form gets no further either.
    if session.user.is_some() || session.verify_csrf(&sent.csrf).is_err() {
        return Ok(back_to_form(next).into_response());
    }
    if !users.verify(&sent.name, &sent.password).await? {
        let frame = Frame::with_form(&mut session, &jar)?;
        let page = pages::sign_in(&frame, next, "The name or the password is wrong.");
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    *session.flash = Some(format!("Welcome, {}.", sent.name));
    session::sign_in(&mut session, sent.name, user_agent(&headers), sent.keep);
    Ok(Redirect::to(next).into_response())
}

pub async fn sign_up_form(
    jar: CookieJar,
    mut session: Session<Login>,
) -> Result<impl IntoResponse, SessionError> {
    let frame = Frame::with_form(&mut session, &jar)?;
    Ok(pages::sign_up(&frame, ""))
}

#[derive(Deserialize)]
pub struct SignUp {
    name: String,
    password: String,
    csrf: String,
}

pub async fn sign_up(
    State(users): State<Users>,
    jar: CookieJar,
    headers: HeaderMap,
    mut session: Session<Login>,
    Form(sent): Form<SignUp>,
) -> Result<Response, Failure> {
    if session.user.is_some() || session.verify_csrf(&sent.csrf).is_err() {
        return Ok(back_to_form("/").into_response());
    }
    let problem = if !is_name(&sent.name) {
        "A name has 1 to 30 letters and digits."
    } else if let Some(problem) = password_problem(&sent.password) {
        problem
    } else if !users.add(&sent.name, &sent.password).await?
        // The first click of a double click has added the user, whose password proves it.
        && !users.verify(&sent.name, &sent.password).await?
    {
        "This name is taken."
    } else {
        *session.flash = Some(format!("Welcome, {}.", sent.name));
        session::sign_in(&mut session, sent.name, user_agent(&headers), false);
        return Ok(Redirect::to("/").into_response());
    };
    let frame = Frame::with_form(&mut session, &jar)?;
    Ok((StatusCode::UNPROCESSABLE_ENTITY, pages::sign_up(&frame, problem)).into_response())
}

#[derive(Deserialize)]
pub struct Csrf {
    pub csrf: String,
}

pub async fn sign_out(
    mut session: Session<Login>,
    Form(sent): Form<Csrf>,
) -> Result<Redirect, SessionError> {
    // The second click of a double click may come when the session has ended.
    if session.user.is_some() {
        session.verify_csrf(&sent.csrf)?;
    }
    Ok(session::sign_out(&mut session))
}

fn back_to_form(next: &str) -> Redirect {
    let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
    Redirect::to(&format!("/sign-in?refused=true&next={next}"))
}

fn is_name(name: &str) -> bool {
    (1..=30).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// NIST SP 800-63B asks for a length, and not for digits or symbols.
pub fn password_problem(password: &str) -> Option<&'static str> {
    match password.chars().count() {
        0..8 => Some("A password has at least 8 characters."),
        8..=200 => None,
        _ => Some("A password has at most 200 characters."),
    }
}

/// The name that the browser gives itself, cut to a length that is fit for a list.
fn user_agent(headers: &HeaderMap) -> String {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let agent = agent.filter(|agent| !agent.is_empty()).unwrap_or("Unknown browser");
    agent.chars().take(120).collect()
}

/// Why a form could not be handled.
pub enum Failure {
    Session(SessionError),
    Hash(HashError),
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl From<HashError> for Failure {
    fn from(error: HashError) -> Self {
        Self::Hash(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            // `AutoCommitLayer` makes a page of it.
            Self::Session(error) => error.into_response(),
            Self::Hash(error) => {
                tracing::error!(%error);
                InternalError.into_response()
            }
        }
    }
}
