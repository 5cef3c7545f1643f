//! The texts of the errors, and the errors behind them.

use std::{error::Error, fmt};

use super::{ConfigError, SessionError, StoreError};

/// Implements `Display`: a text for each variant, in which the variant's fields may stand.
macro_rules! texts {
    ($error:ident: $($variant:ident $(($value:tt))? $({ $($field:ident),+ })? => $text:literal,)+) => {
        impl fmt::Display for $error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant $(($value))? $({ $($field),+ })? => write!(f, $text),)+
                }
            }
        }
    };
}

texts! {
    StoreError:
    Unavailable(_) => "the session store is unavailable",
    Timeout { after } =>
        "the session store did not answer within {after:?} (`.store_timeout(..)`); it is unknown \
         whether a write took effect",
    Full => "the session store is full; raise its capacity or shorten `anonymous_idle_timeout`",
    Corrupt => "the stored session is damaged, or this crate did not write it",
    Newer => "a newer release of axum-typed-session wrote the stored session; upgrade this node",
    Expired => "the stored session has expired",
    Unsupported { operation } => "this session store does not implement `{operation}`",
}

texts! {
    SessionError:
    Store(_) => "the session could not be loaded or stored",
    Newer =>
        "a newer version of the application or of axum-typed-session wrote the session; upgrade \
         every node, or roll out `.accept_schema(..)` first",
    DuplicateName { carrier } =>
        "two session managers in one request use the {carrier}; give one of them another \
         `.cookie(..)`, `.former_cookie(..)` or `.transport(..)`",
    Conflict =>
        "another request changed the same session data; repeat the request, change the data with \
         `session.update(..)`, or set `.on_conflict(..)`",
    Gone => "the session has ended, or has got a new id or another owner",
    TooLarge { actual, limit } =>
        "the session takes {actual} bytes, and {limit} are allowed; keep less data in it, raise \
         `.max_payload(..)`, or set `.store(..)` if the cookie is the limit \
         (`.max_cookie_bytes(..)`, at most 4096)",
    Encode(_) => "the session data could not be encoded with its `Serialize` or the `.codec(..)`",
    Invalid => "`.validate_data(..)` rejects the session data, so it was not saved",
    Seal(_) => "the session token could not be encrypted, signed or written as a header",
    Closed =>
        "the response of this request is already made, so its session cannot be committed; commit \
         earlier, or keep a `SessionHandle` (`session.handle()`) instead of the session",
    NoStore { operation } =>
        "`{operation}` needs a session store; set one with `.store(..)`; if `.store_for(..)` is \
         set, call it on `manager.for_request(..)` or `manager.with_store(..)`; for `destroy` and \
         `delete_expired` of sessions in a cookie, set `.revocations(..)`",
    NotSaved => "the session is not stored; change it or call `force_save()`, and commit it first",
    OtherType { asked, actual } =>
        "`handle::<{asked}>()` was called on the commit of a `Session<{actual}>`; call \
         `handle::<{actual}>()`",
    Csrf =>
        "the CSRF token does not belong to this session; send the token that `csrf_token()` \
         returned, and render the form again after a `regenerate()`",
    Uncommitted =>
        "the session has uncommitted changes; make them within `session.update(..)`, or after it",
    IdInUse => "all generated session ids are in use; `.id_generator(..)` must return random bytes",
    Config(error) => "{error}",
    Random(_) => "the operating system gave no random bytes",
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if let Self::Unavailable(source) = self { Some(&**source) } else { None }
    }
}

impl Error for SessionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if let Self::Encode(source) | Self::Seal(source) | Self::Random(source) = self {
            return Some(&**source);
        }
        if let Self::Store(source) = self { Some(source) } else { None }
    }
}

impl Error for ConfigError {}
