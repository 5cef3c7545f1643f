//! The audience of sessions, and the cookie or header that carries them: fixed, or chosen for each request.

use std::{collections::BTreeSet, sync::Arc};

use base64_simd::URL_SAFE_NO_PAD;
use cookie::Cookie;
use http::request::Parts;
use sha2::{Digest as _, Sha256};

use super::core::{Core, Settings};
use crate::{
    cookies::CookieTemplate,
    error::{ConfigError, Result, SessionError},
    id::Scope,
    store::Record,
    transport::{Binding, Carrier, Transport},
};

/// The audience and the carrier that tokens and ids are bound to.
pub(crate) struct Tenant {
    pub(crate) scope: Arc<Scope>,
    pub(crate) carrier: Carrier,
    /// `true` for the tenant of a request, `false` outside of requests.
    pub(super) is_of_request: bool,
}

impl Settings {
    /// Makes the tenant of a request, or without `parts` the tenant outside of requests.
    pub(super) fn tenant(&self, parts: Option<&Parts>) -> Result<Tenant, ConfigError> {
        const LEAVE_OUT: &str = "give a name, or leave the option out";
        let (option, way_out, audience) = match (parts, &self.audience_for) {
            (Some(parts), Some(choose)) => {
                ("audience_for", "return a name for every request", choose(parts))
            }
            _ => ("audience", LEAVE_OUT, self.audience.clone()),
        };
        let kind = &*self.events.kind;
        let names = [(option, way_out, &*audience), ("kind", LEAVE_OUT, kind)];
        if let Some((option, way_out, _)) = names.iter().find(|(.., name)| name.is_empty()) {
            return Err(ConfigError::new(format!("`.{option}(..)`: the name is empty; {way_out}")));
        }
        let (template, formers) = self.cookies(parts)?;
        let bind = |transport: &str, carrier: &str| {
            let bound_to = [&*audience, kind, transport, carrier];
            let context = self.sealer.as_ref().map(|sealer| sealer.context(bound_to));
            Binding { context: context.unwrap_or_default(), suffix: suffix_of(carrier) }
        };
        let transport = self.transport.clone().unwrap_or(Transport::cookie());
        let carrier = Carrier::new(transport, template, formers, bind)?;
        Ok(Tenant { scope: Scope::new(&audience, kind), carrier, is_of_request: parts.is_some() })
    }

    /// Makes the current cookie, and the former cookies with `true`. Cookies of other libraries follow with `false`.
    fn cookies(
        &self,
        parts: Option<&Parts>,
    ) -> Result<(CookieTemplate, Vec<(CookieTemplate, bool)>), ConfigError> {
        let (option, cookie) = match (parts, &self.cookie_for) {
            (Some(parts), Some(choose)) => ("cookie_for", choose(parts)),
            _ => ("cookie", self.cookie.clone().unwrap_or(Cookie::new("__Host-session", ""))),
        };
        let mut formers = self.former_cookies.clone();
        if self.remove_unpartitioned {
            let mut unpartitioned = cookie.clone();
            unpartitioned.set_partitioned(false);
            formers.push(unpartitioned);
        }
        let lacks_partitioned = self.remove_unpartitioned && cookie.partitioned() != Some(true);
        let template = CookieTemplate::new(option, cookie, self.insecure_http)?;
        let former = |cookie| CookieTemplate::new("former_cookie", cookie, self.insecure_http);
        let mut formers: Vec<_> = formers.into_iter().map(former).collect::<Result<_, _>>()?;
        let (count, mut known) = (formers.len(), BTreeSet::from([template.identity.clone()]));
        formers.retain(|former| known.insert(former.identity.clone()));
        let is_known = formers.len() < count && self.cookie_for.is_none();
        let problem = if is_known && lacks_partitioned {
            "`.remove_unpartitioned(..)` needs a `.cookie(..)` with the attribute Partitioned"
        } else if is_known && !self.insecure_http {
            "`.former_cookie(..)` has the name, Domain, Path and Partitioned of the current cookie or of another \
             former cookie; remove it"
        } else {
            // `insecure_http` takes away the prefix by which two names may differ.
            let mut formers: Vec<_> = formers.into_iter().map(|former| (former, true)).collect();
            for cookie in self.imports.iter().flat_map(|import| &import.cookies) {
                let old = CookieTemplate::foreign(cookie.clone())?;
                if old.identity == template.identity {
                    return Err(ConfigError::new(format!(
                        "`.import(..)` would remove the session cookie, since the old cookie is called {:?} too; give \
                         the session another name with `.cookie(..)`",
                        old.name
                    )));
                }
                if known.insert(old.identity.clone()) {
                    formers.push((old, false));
                }
            }
            return Ok((template, formers));
        };
        Err(ConfigError::new(problem))
    }
}

impl Core {
    /// Returns `false` for the record of another application or session type. Records of 0.1 do not tell, and without a
    /// tenant the application is not known.
    pub(super) fn is_of_this_kind(&self, record: &Record) -> bool {
        [0, self.tenant.scope.kind].contains(&record.kind) || self.check_tenant("").is_err()
    }

    /// Refuses an operation that needs a tenant if no tenant was chosen.
    pub(super) fn check_tenant(&self, operation: &'static str) -> Result<()> {
        if self.audience_for.is_none() || self.tenant.is_of_request {
            return Ok(());
        }
        Err(SessionError::Config(ConfigError::new(format!(
            "`{operation}` needs a tenant, since `.audience_for(..)` is set; call it on \
             `manager.for_request(..)`"
        ))))
    }
}

/// Returns the text that follows a plain id: a hash of the cookie's Domain, Path and Partitioned, or nothing if these
/// are the defaults.
fn suffix_of(identity: &str) -> String {
    identity.split_once(';').map_or_else(String::new, |(_, attributes)| {
        let hash: [u8; 32] = Sha256::digest(attributes).into();
        format!(".{}", URL_SAFE_NO_PAD.encode_to_string(hash.split_at(6).0))
    })
}
