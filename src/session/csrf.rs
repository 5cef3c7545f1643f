//! Proof that a request comes from a page of this session.

use ctutils::CtEq as _;

use super::Session;
use crate::{error::SessionError, id::SessionId};

impl<T: Send + Sync + 'static> Session<T> {
    /// Returns the CSRF token of this session, for a hidden field of a form or a request header of a script.
    /// [`verify_csrf`](Self::verify_csrf) checks it.
    ///
    /// The token has 43 characters of base64url. It is derived from the session's id. So nothing is stored, all
    /// pages of a session have the same token, and the token is valid as long as the id. A fresh session has a
    /// token too: the call chooses its id, and the commit saves the session as after
    /// [`force_save`](Self::force_save). If a visitor without a session opens two pages at the same moment, the
    /// browser keeps one of the two sessions, and the form of the other page is rejected.
    ///
    /// If the handler also calls [`regenerate`](Self::regenerate), call that first. The token then belongs to the
    /// new id, which the client gets with this response. A token that was made before belongs to the old id, and is
    /// rejected. With [`revocations`](crate::SessionManagerBuilder::revocations), a commit that changes the idle timeout
    /// gives a new id too, as after `set_idle_timeout` or a sign-in with `anonymous_idle_timeout`: call `regenerate`
    /// first there as well.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::{Form, Router, response::{Html, IntoResponse}, routing::get};
    /// use axum_typed_session::{Session, SessionError, SessionManager};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Rename { name: String, csrf: String }
    ///
    /// async fn form(mut session: Session<Login>) -> Result<impl IntoResponse, SessionError> {
    ///     let csrf = session.csrf_token()?;
    ///     let page = Html(format!("<form method=post><input name=name>\
    ///         <input type=hidden name=csrf value={csrf}></form>"));
    ///     Ok((session.commit().await?, page))
    /// }
    ///
    /// async fn rename(
    ///     mut session: Session<Login>,
    ///     Form(form): Form<Rename>,
    /// ) -> Result<impl IntoResponse, SessionError> {
    ///     session.verify_csrf(&form.csrf)?;
    ///     session.user = Some(form.name);
    ///     session.commit().await
    /// }
    ///
    /// let app: Router<SessionManager<Login>> =
    ///     Router::new().route("/name", get(form).post(rename));
    /// ```
    ///
    /// [`guide::csrf`](crate::guide::csrf) has more examples.
    ///
    /// # Errors
    ///
    /// - [`SessionError::Gone`] if [`destroy`](Self::destroy) was called, or if another request gave this session a
    ///   new id. The client then has, or will have, a session whose token is not known here.
    /// - [`SessionError::Random`] if the operating system gives no random bytes for a new id.
    ///
    /// # Security
    ///
    /// `SameSite=Lax`, the default of the cookie, keeps some forged requests out. A token keeps out more of them
    /// (OWASP, Cross-Site Request Forgery Prevention Cheat Sheet):
    /// [a table](crate::guide::csrf#what-each-defence-covers) lists them.
    ///
    /// Chrome sends a cookie without `SameSite` with posts of other sites for two minutes. This crate always writes
    /// the attribute, so that exception does not apply.
    ///
    /// - **Login forms need a token too.** Otherwise another site can sign a visitor in as another user, who later
    ///   reads the data that the visitor entered. The token of the form saves an anonymous session.
    ///   [`anonymous_idle_timeout`](crate::SessionManagerBuilder::anonymous_idle_timeout) keeps its life short.
    /// - **Keep the prefix `__Host-`** of the cookie's name. Without it, another host of the site can give a
    ///   visitor a session cookie of its own, together with a token that fits.
    /// - **Never put the token into a URL.** URLs end up in logs, histories and the `Referer` of other sites. The
    ///   token belongs in a form field, or in a header such as `x-csrf-token`.
    /// - **Bearer tokens need no CSRF token.** No browser sends [`Transport::bearer`](crate::Transport::bearer) or
    ///   [`Transport::header`](crate::Transport::header) by itself.
    /// - **Do not compress pages that repeat text of the request.** The token is the same in every response. If
    ///   compressed pages repeat text of the request, an attacker who sees their sizes can guess the token
    ///   (BREACH).
    /// - **Scripts in the page** (XSS) can read the token. It does not protect from them.
    #[doc(alias("csrf", "xsrf"))]
    pub fn csrf_token(&mut self) -> Result<String, SessionError> {
        *self.is_read.get_mut() = true;
        let cell = self.cell.clone();
        cell.coming_id(self.draft_mut()).map(|id| id.csrf_token())
    }

    /// Returns an error unless `token` is the token of this session, as [`csrf_token`](Self::csrf_token) returned
    /// it.
    ///
    /// Call it first in every handler that changes something for a browser, before a `regenerate` is committed.
    /// [`AutoCommitLayer`](crate::AutoCommitLayer) drops the changes that a handler made before it if the handler
    /// returns the error. The comparison takes the same time wherever the token differs.
    ///
    /// A token is not used up. It stays valid until the session ends or gets a new id, so both clicks of a double
    /// click pass, and the handler runs twice. If the first click has given the session a new id by then, the second
    /// click is an error. [`guide::csrf`](crate::guide::csrf#sign-in-and-other-new-ids) has a table.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::{http::HeaderMap, response::IntoResponse};
    /// use axum_typed_session::{Session, SessionError};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// // A script sends the token in a header. `csrf_token` has an example with a form.
    /// async fn sign_out(
    ///     headers: HeaderMap,
    ///     mut session: Session<Login>,
    /// ) -> Result<impl IntoResponse, SessionError> {
    ///     let token = headers.get("x-csrf-token").and_then(|token| token.to_str().ok());
    ///     session.verify_csrf(token.unwrap_or_default())?;
    ///     session.destroy();
    ///     session.commit().await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SessionError::Csrf`], which is the status 403, for every other text. A fresh session accepts no token.
    #[doc(alias("csrf", "xsrf"))]
    pub fn verify_csrf(&self, token: &str) -> Result<(), SessionError> {
        let expected = self.id().map(SessionId::csrf_token);
        if expected.is_some_and(|expected| expected.as_bytes().ct_eq(token.as_bytes()).into()) {
            return Ok(());
        }
        self.cell.fate().fail(&self.cell.core);
        Err(SessionError::Csrf)
    }
}
