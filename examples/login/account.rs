//! The home page, and the pages of a user's account.

use axum::{
    Form,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use axum_extra::extract::{CookieJar, PrivateCookieJar};
use axum_typed_session::{Session, SessionError, SessionManager, StoreKey};
use serde::Deserialize;

use crate::{
    cookies::LastVisit,
    pages::{self, Device, Frame},
    session::{self, CurrentUser, Login},
    sign_in::{Csrf, Failure, password_problem},
    users::Users,
};

#[derive(Deserialize)]
pub struct Arrival {
    #[serde(default)]
    signed_out: bool,
}

pub async fn home(
    jar: CookieJar,
    private: PrivateCookieJar,
    mut session: Session<Login>,
    Query(arrival): Query<Arrival>,
) -> Result<Response, SessionError> {
    let frame = Frame::new(&mut session, &jar)?;
    if session.user.is_none() {
        return Ok(pages::welcome(&frame, arrival.signed_out).into_response());
    }
    let (last_visit, private) = LastVisit::exchange(private);
    Ok((private, pages::home(&frame, last_visit)).into_response())
}

pub async fn devices(
    CurrentUser(user): CurrentUser,
    State(sessions): State<SessionManager<Login>>,
    jar: CookieJar,
    mut session: Session<Login>,
) -> Result<impl IntoResponse, SessionError> {
    let this = session.key();
    let mut devices = sessions.sessions_of(&user).await?;
    devices.sort_by_key(|device| (Some(device.key()) != this, -*device.last_seen));
    let devices: Vec<Device> = devices
        .iter()
        .map(|device| Device {
            key: device.key().to_base64url(),
            is_this: Some(device.key()) == this,
            user_agent: device.user_agent.clone(),
            signed_in: device.created_at().unix_timestamp(),
            last_seen: *device.last_seen,
        })
        .collect();
    let frame = Frame::new(&mut session, &jar)?;
    Ok(pages::devices(&frame, &devices))
}

pub async fn sign_out_one(
    CurrentUser(user): CurrentUser,
    State(sessions): State<SessionManager<Login>>,
    mut session: Session<Login>,
    Path(key): Path<String>,
    Form(sent): Form<Csrf>,
) -> Result<Response, SessionError> {
    session.verify_csrf(&sent.csrf)?;
    let Ok(key) = key.parse::<StoreKey>() else {
        return Ok(pages::error(StatusCode::NOT_FOUND, "There is no such device.").into_response());
    };
    if session.key() == Some(key) {
        return Ok(session::sign_out(&mut session).into_response());
    }
    // Only sessions of this user are ended. A device that has signed out meanwhile is no error.
    sessions.destroy_of(&user, key).await?;
    *session.flash = Some("The device is signed out.".to_owned());
    Ok(Redirect::to("/account/devices").into_response())
}

pub async fn sign_out_others(
    CurrentUser(user): CurrentUser,
    State(sessions): State<SessionManager<Login>>,
    mut session: Session<Login>,
    Form(sent): Form<Csrf>,
) -> Result<Redirect, SessionError> {
    session.verify_csrf(&sent.csrf)?;
    if let Some(this) = session.key() {
        let ended = sessions.destroy_others_of(&user, this).await?;
        *session.flash = Some(match ended {
            1 => "One other device is signed out.".to_owned(),
            _ => format!("{ended} other devices are signed out."),
        });
    }
    Ok(Redirect::to("/account/devices"))
}

pub async fn sign_out_all(
    CurrentUser(user): CurrentUser,
    State(sessions): State<SessionManager<Login>>,
    mut session: Session<Login>,
    Form(sent): Form<Csrf>,
) -> Result<Redirect, SessionError> {
    session.verify_csrf(&sent.csrf)?;
    sessions.destroy_all_of(&user).await?;
    // This session has ended too. Now its cookie is removed.
    Ok(session::sign_out(&mut session))
}

pub async fn password_form(
    jar: CookieJar,
    mut session: Session<Login>,
) -> Result<impl IntoResponse, SessionError> {
    Ok(pages::password(&Frame::new(&mut session, &jar)?, ""))
}

#[derive(Deserialize)]
pub struct PasswordChange {
    old: String,
    new: String,
    csrf: String,
}

/// A password is changed because somebody else may know it, so the user's other sessions end.
pub async fn change_password(
    CurrentUser(user): CurrentUser,
    State(sessions): State<SessionManager<Login>>,
    State(users): State<Users>,
    jar: CookieJar,
    mut session: Session<Login>,
    Form(sent): Form<PasswordChange>,
) -> Result<Response, Failure> {
    session.verify_csrf(&sent.csrf)?;
    let problem = match password_problem(&sent.new) {
        Some(problem) => Some(problem),
        None if users.verify(&user, &sent.old).await? => None,
        // The first click of a double click has changed it, which the new password proves.
        None if users.verify(&user, &sent.new).await? => None,
        None => Some("The old password is wrong."),
    };
    if let Some(problem) = problem {
        let page = pages::password(&Frame::new(&mut session, &jar)?, problem);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    users.set_password(&user, &sent.new).await?;
    *session.flash = Some("The password is changed. Your other devices are signed out.".to_owned());
    session.regenerate();
    // Committed here, because the key of the new id is known only then.
    let guard = session.commit().await?;
    if let Some(this) = guard.key() {
        sessions.destroy_others_of(&user, this).await?;
    }
    Ok((guard, Redirect::to("/account/devices")).into_response())
}
