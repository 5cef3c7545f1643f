//! The texts of the errors, and the errors behind them.

use std::{
    error::Error,
    fmt::{Display, Formatter, Result},
};

use super::{ConfigError, SessionError, StoreError};

impl Display for StoreError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Unavailable(_) => f.write_str("the session store is unavailable"),
            Self::Timeout { after } => write!(
                f,
                "the session store did not answer within {after:?} (`.store_timeout(..)`); it is \
                 unknown whether a write took effect"
            ),
            Self::Full => f.write_str(
                "the session store is full; raise its capacity or shorten `anonymous_idle_timeout`",
            ),
            Self::Corrupt => {
                f.write_str("the stored session is damaged, or this crate did not write it")
            }
            Self::Newer => f.write_str(
                "a newer release of axum-typed-session wrote the stored session; upgrade this node",
            ),
            Self::Expired => f.write_str("the stored session has expired"),
            Self::Unsupported { operation } => {
                write!(f, "this session store does not implement `{operation}`")
            }
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if let Self::Unavailable(source) = self { Some(&**source) } else { None }
    }
}

impl Display for SessionError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Store(_) => f.write_str("the session could not be loaded or stored"),
            Self::Newer => f.write_str(
                "a newer version of the application or of axum-typed-session wrote the session; \
                 upgrade every node, or roll out `.accept_schema(..)` first",
            ),
            Self::DuplicateName { carrier } => write!(
                f,
                "two session managers in one request use the {carrier}; give one of them another \
                 `.cookie(..)`, `.former_cookie(..)` or `.transport(..)`"
            ),
            Self::Conflict => f.write_str(
                "another request changed the same session data; repeat the request, change the \
                 data with `session.update(..)`, or set `.on_conflict(..)`",
            ),
            Self::Gone => f.write_str(
                "the session has ended, or another request gave it a new id or another owner",
            ),
            Self::TooLarge { actual, limit } => write!(
                f,
                "the session takes {actual} bytes, and {limit} are allowed; keep less data in it, \
                 raise `.max_payload(..)`, or set `.store(..)` if the cookie is the limit \
                 (`.max_cookie_bytes(..)`, at most 4096)"
            ),
            Self::Encode(_) => f.write_str(
                "the session data could not be encoded with its `Serialize` or the `.codec(..)`",
            ),
            Self::Invalid => {
                f.write_str("`.validate_data(..)` rejects the session data, so it was not saved")
            }
            Self::Seal(_) => f.write_str(
                "the session token could not be encrypted, signed or written as a header",
            ),
            Self::Closed => f.write_str(
                "the response of this request is already made, so its session cannot be committed; \
                 commit earlier, or keep a `SessionHandle` (`session.handle()`) instead of the \
                 session",
            ),
            Self::NoStore { operation } => write!(
                f,
                "`{operation}` needs a session store; set one with `.store(..)`; if \
                 `.store_for(..)` is set, call it on `manager.for_request(..)` or \
                 `manager.with_store(..)`"
            ),
            Self::NotSaved => f.write_str(
                "the session is not stored; change it or call `force_save()`, and commit it first",
            ),
            Self::OtherType { asked, actual } => write!(
                f,
                "`handle::<{asked}>()` was called on the commit of a `Session<{actual}>`; call \
                 `handle::<{actual}>()`"
            ),
            Self::Csrf => f.write_str(
                "the CSRF token does not belong to this session; send the token that \
                 `csrf_token()` returned, and render the form again after a `regenerate()`",
            ),
            Self::Uncommitted => f.write_str(
                "the session has uncommitted changes; commit them before `session.update(..)`",
            ),
            Self::IdInUse => f.write_str(
                "all generated session ids are in use; `.id_generator(..)` must return random \
                 bytes",
            ),
            Self::Config(error) => error.fmt(f),
            Self::Random(_) => f.write_str("the operating system gave no random bytes"),
        }
    }
}

impl Error for SessionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if let Self::Store(source) = self {
            Some(source)
        } else if let Self::Encode(source) | Self::Seal(source) | Self::Random(source) = self {
            Some(&**source)
        } else {
            None
        }
    }
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(&self.0)
    }
}

impl Error for ConfigError {}
