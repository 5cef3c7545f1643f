//! The session's part of the response, and the warnings about guards and changes that were not part of one.

use std::sync::PoisonError;

use http::HeaderMap;

use super::Cell;
use crate::{
    manager::Basis,
    request::{AnyCell as _, Fate},
    warnings::Mistake,
};

impl<T: Send + Sync + 'static> Cell<T> {
    /// Puts the latest outcome into a response, and marks the response as this visitor's own.
    pub(super) fn put_into(&self, headers: &mut HeaderMap) {
        let (told, is_sent) = self.state().map_or((None, false), |mut state| {
            state.is_delivered = true;
            state.is_sent |= state.basis.told.is_some();
            (state.basis.told.clone(), state.is_sent)
        });
        let carrier = &self.manager.core.carrier;
        if is_sent {
            carrier.put(told, headers);
        }
        carrier.mark(headers);
    }

    /// Notes that a `SessionCommit` was made for the latest outcome.
    pub(crate) fn promise(&self) {
        if let Some(mut state) = self.state() {
            (state.is_promised, state.is_read) = (true, false);
        }
    }

    pub(super) fn warn(&self, mistake: Mistake, basis: &Basis) {
        self.core().warn(mistake, Some(&basis.incoming.route), None);
    }
}

impl<T: Send + Sync + 'static> Drop for Cell<T> {
    /// The request is over: what nobody committed or sent is lost, which is worth a warning.
    fn drop(&mut self) {
        let Some(state) = self.state.get_mut() else {
            return;
        };
        let state = state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if self.fate.excuses() || state.is_delivered {
            return;
        }
        let (is_read, is_promised, basis) = (state.is_read, state.is_promised, state.basis.clone());
        if is_promised {
            self.warn(Mistake::DroppedGuard, &basis);
        } else if is_read && !self.fate.is(Fate::LAYERED) {
            self.warn(Mistake::ReadWithoutGuard, &basis);
        }
    }
}
