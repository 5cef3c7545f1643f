//! The state of a session within one request, and the copy of the data that a handler works on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderValue, request::Parts};

use super::{any_data::Data, core::Core, import::Imported};
use crate::{
    clock::Timestamp,
    decision::{Intents, Live, Origin},
    id::{ID_BYTES, OwnerKey, StoreKey},
    store::Record,
    warnings::Route,
};

/// The facts that came with a request. No commit changes them.
pub(crate) struct Incoming {
    /// A token of this name came with the request, valid or not.
    pub(crate) arrived: bool,
    /// A response that sets the token also removes former cookies.
    pub(crate) removes_formers: bool,
    /// It also removes the cookies of another library, whose session it imports.
    pub(crate) removes_old: bool,
    /// A session came in that only a newer node can read. This node can only end it.
    pub(crate) meets_newer: bool,
    pub(crate) opened_at: Timestamp,
    /// `extend_if` lets the request extend its session.
    pub(super) extends: bool,
    pub(crate) route: Route,
    /// The host, if the request came from a browser that drops the cookie there.
    pub(super) plain_http_host: Option<Box<str>>,
    /// Further sessions that a destroy ends too: valid or refused ones, and what replaced an old id.
    pub(super) others: Vec<(StoreKey, Option<Box<Record>>)>,
    /// The old session that the request's session was made from.
    pub(super) imported: Option<Imported>,
    /// The request for `id_generator`; kept only if there is one.
    pub(super) parts: Option<Arc<Parts>>,
    /// The id of the next new session, where a CSRF token needed it before the commit.
    pub(super) early_id: Mutex<Option<[u8; ID_BYTES]>>,
}

impl Incoming {
    pub(super) fn early_id(&self) -> MutexGuard<'_, Option<[u8; ID_BYTES]>> {
        self.early_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The start of a commit. Every commit that did something makes a new basis.
#[derive(Clone)]
pub(crate) struct Basis {
    pub(crate) incoming: Arc<Incoming>,
    pub(crate) origin: Origin,
    /// Changes of dropped `Session`s, which the layer will commit.
    pub(crate) uncommitted: Option<Box<Uncommitted>>,
    /// The basis of a session that a dropped `Session` asked to end. The layer will end it.
    pub(crate) ending: Option<Arc<Self>>,
    /// Counts the identities of this request; data of one is never carried into the next.
    pub(crate) identity: u32,
    /// The header value that sets or removes the client's token, if a response has to.
    pub(crate) told: Option<HeaderValue>,
}

/// The changes of dropped `Session`s, folded into one.
#[derive(Clone)]
pub(crate) struct Uncommitted {
    /// The encoded data before the first of these changes.
    pub(crate) before: Bytes,
    pub(crate) after: Bytes,
    pub(crate) intents: Intents,
    pub(crate) owner: Option<OwnerKey>,
}

impl Basis {
    /// Makes a basis without changes of dropped `Session`s.
    pub(super) fn new(
        incoming: Arc<Incoming>,
        identity: u32,
        origin: Origin,
        told: Option<HeaderValue>,
    ) -> Self {
        Self { incoming, origin, uncommitted: None, ending: None, identity, told }
    }

    /// Returns the basis after a dropped `Session` asked for the session's end.
    pub(crate) fn with_ending(self: &Arc<Self>) -> Self {
        let ending = Some(self.ending.clone().unwrap_or_else(|| self.clone()));
        let (incoming, told) = (self.incoming.clone(), self.told.clone());
        Self { ending, ..Self::new(incoming, self.identity + 1, Origin::New, told) }
    }

    pub(crate) fn live(&self) -> Option<&Live> {
        if let Origin::Loaded(live) = &self.origin { Some(live) } else { None }
    }

    /// Returns `true` if dropped `Session`s left something that the layer has to commit.
    pub(crate) fn has_leftovers(&self) -> bool {
        self.uncommitted.is_some() || self.ending.is_some()
    }

    /// Returns the intents of the dropped `Session`s and of this one together.
    pub(super) fn intents_with(&self, intents: Intents) -> Intents {
        let earlier = self.uncommitted.as_ref();
        earlier.map_or(intents, |earlier| earlier.intents.and(intents))
    }

    /// Returns the identity that data of `owner` belongs to, after a `Session` of this basis changed it.
    ///
    /// One request is one client in one order, so only a clear and the end of an owner's session are boundaries.
    pub(super) fn identity_after(&self, intents: &Intents, owner: Option<OwnerKey>) -> u32 {
        let before = match &self.uncommitted {
            Some(earlier) => earlier.owner,
            None => self.live().and_then(|live| live.record.owner),
        };
        let is_cleared = intents.clear && self.live().is_some();
        self.identity + u32::from(is_cleared || (before.is_some() && owner != before))
    }

    /// Returns the encoded data that a new `Session` gets, if it is known in the current schema.
    pub(super) fn handed_out(&self, core: &Core) -> Option<&Bytes> {
        match (&self.uncommitted, self.live()) {
            (Some(uncommitted), _) => Some(&uncommitted.after),
            (None, Some(live)) if live.record.schema == core.schema => Some(&live.record.payload),
            (None, _) => None,
        }
    }
}

/// The copy of the data in a `Session`, and the intents of its handler.
pub(crate) struct Draft {
    /// The basis that the data was copied from.
    pub(crate) basis: Arc<Basis>,
    pub(crate) data: Box<Data>,
    pub(crate) intents: Intents,
    /// The data was borrowed mutably.
    pub(super) is_lent: bool,
    /// The encoded data before that, where the basis did not hand it out.
    pub(super) base: Option<Bytes>,
    /// The data encoded as it is now, if it is known to differ from the base. So it is encoded and compared once.
    pub(super) encoded: Option<Bytes>,
}

impl Draft {
    pub(crate) fn new(basis: Arc<Basis>, data: Box<Data>) -> Self {
        let intents = Intents::default();
        Self { basis, data, intents, is_lent: false, base: None, encoded: None }
    }

    /// Returns the encoded data before its first mutable borrow, if there was one.
    pub(super) fn base(&self, core: &Core) -> Option<&Bytes> {
        let base = self.base.as_ref().or_else(|| self.basis.handed_out(core));
        base.filter(|_| self.is_lent)
    }

    /// Returns `true` if a commit might have something to do.
    pub(crate) fn is_touched(&self) -> bool {
        self.is_lent || self.intents.any()
    }

    /// Replaces the data by data that was not borrowed yet, and keeps the intents.
    pub(crate) fn restart(&mut self, basis: Arc<Basis>, data: Box<Data>) {
        *self = Self { intents: self.intents, ..Self::new(basis, data) };
    }
}
