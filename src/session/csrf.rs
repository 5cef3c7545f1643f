//! Proof that a request comes from a page of this session.

use subtle::ConstantTimeEq as _;

use super::Session;
use crate::{error::SessionError, id::SessionId};

impl<T: Send + Sync + 'static> Session<T> {
    /// Returns the CSRF token of this session, for a hidden field of a form or a request header of a script.
    /// [`verify_csrf`](Self::verify_csrf) checks it.
    ///
    /// The token is 43 characters of base64url. It is derived from the session's id: nothing is stored, every page of
    /// a session has the same token, and it lasts as long as the id. A fresh session has one too: its id is drawn
    /// here, and the commit saves the session as after [`force_save`](Self::force_save). If a visitor without a session
    /// opens two pages at the same moment, the browser keeps one of the two sessions, and the form of the other page is
    /// refused.
    ///
    /// Call [`regenerate`](Self::regenerate) first where both are needed. The token is then of the new id, which the
    /// client gets with this response. A token that was made before is of the old id, and is refused.
    ///
    /// # Errors
    ///
    /// - [`SessionError::Gone`] if [`destroy`](Self::destroy) was called, or if another request gave this session a new
    ///   id: the client has, or will have, a session whose token is not known here.
    /// - [`SessionError::Random`] if the operating system gives no random bytes for a new id.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::{Form, Router, response::{Html, IntoResponse}, routing::get};
    /// use axum_typed_session::{Session, SessionError, SessionManager};
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct Rename { name: String, csrf: String }
    ///
    /// async fn form(mut name: Session<String>) -> Result<impl IntoResponse, SessionError> {
    ///     let csrf = name.csrf_token()?;
    ///     let page = Html(format!("<form method=post><input name=name>\
    ///         <input type=hidden name=csrf value={csrf}></form>"));
    ///     Ok((name.commit().await?, page))
    /// }
    ///
    /// async fn rename(
    ///     mut name: Session<String>,
    ///     Form(form): Form<Rename>,
    /// ) -> Result<impl IntoResponse, SessionError> {
    ///     name.verify_csrf(&form.csrf)?;
    ///     *name = form.name;
    ///     name.commit().await
    /// }
    ///
    /// let app: Router<SessionManager<String>> = Router::new().route("/name", get(form).post(rename));
    /// ```
    ///
    /// # Security
    ///
    /// `SameSite=Lax`, the cookie's default, keeps some forged requests out. A token keeps out more of them (OWASP,
    /// Cross-Site Request Forgery Prevention Cheat Sheet):
    ///
    /// | request | `SameSite=Lax` | token |
    /// |---|---|---|
    /// | a form or script of another site that posts | the browser sends no cookie | refused |
    /// | a link of another site, or anything else that opens a page with `GET` | **the cookie is sent** | not asked for: let `GET` change nothing |
    /// | a post from another host of the same site, such as `blog.example.com` to `shop.example.com` | **the cookie is sent** | refused |
    /// | a browser that does not know `SameSite` | **the cookie is sent** | refused |
    /// | any, where the application sets `SameSite=None` | **the cookie is sent** | refused |
    ///
    /// Chrome sends a cookie without `SameSite` with posts of other sites for two minutes. This crate always writes
    /// the attribute, so that exception does not apply.
    ///
    /// - **Login forms need a token too.** Otherwise another site can log a visitor in as somebody else, who later
    ///   reads what the visitor entered. The form's token saves an anonymous session.
    ///   [`anonymous_idle_timeout`](crate::SessionManagerBuilder::anonymous_idle_timeout) keeps it short.
    /// - **Keep the prefix `__Host-`** of the cookie's name. Without it another host of the site can give a visitor its
    ///   own session cookie, and with it a token that fits.
    /// - **Never in a URL.** URLs end up in logs, histories and the `Referer` of other sites. The token belongs in a
    ///   form field, or in a header such as `x-csrf-token`.
    /// - **Bearer tokens need none.** No browser sends [`Transport::bearer`](crate::Transport::bearer) or
    ///   [`Transport::header`](crate::Transport::header) by itself.
    /// - **Compression.** The token is the same in every response. If compressed pages repeat what the request said, an
    ///   attacker who sees their sizes can guess it (BREACH), so do not compress these pages.
    /// - **Scripts in the page** (XSS) can read the token. It is no protection from them.
    #[doc(alias = "xsrf")]
    pub fn csrf_token(&mut self) -> Result<String, SessionError> {
        *self.is_read.get_mut() = true;
        let cell = self.cell.clone();
        cell.coming_id(self.draft_mut()).map(|id| id.csrf_token())
    }

    /// Returns an error unless the client sent the token of this session, as [`csrf_token`](Self::csrf_token) made it.
    ///
    /// Call it first in every handler that changes something for a browser, before `regenerate` is committed. Under
    /// [`AutoCommitLayer`](crate::AutoCommitLayer) what was changed before the error is committed, as for every response
    /// below 500. The comparison takes the same time wherever the token differs.
    ///
    /// # Errors
    ///
    /// [`SessionError::Csrf`], which answers 403, for any other text and always for a fresh session.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::{http::HeaderMap, response::IntoResponse};
    /// use axum_typed_session::{Session, SessionError};
    ///
    /// // A script sends the token in a header, and a form as in the example of `csrf_token`.
    /// async fn logout(
    ///     headers: HeaderMap,
    ///     mut session: Session<String>,
    /// ) -> Result<impl IntoResponse, SessionError> {
    ///     let token = headers.get("x-csrf-token").and_then(|token| token.to_str().ok());
    ///     session.verify_csrf(token.unwrap_or_default())?;
    ///     session.destroy();
    ///     session.commit().await
    /// }
    /// ```
    pub fn verify_csrf(&self, token: &str) -> Result<(), SessionError> {
        let ours = self.id().map(SessionId::csrf_token);
        if ours.is_some_and(|ours| ours.as_bytes().ct_eq(token.as_bytes()).into()) {
            return Ok(());
        }
        self.cell.fate.fail(&self.cell.core);
        Err(SessionError::Csrf)
    }
}
