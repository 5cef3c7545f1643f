//! `Session`s that are dropped uncommitted: their changes wait, and the layer commits them together.

use super::{Cell, Fate};
use crate::{
    error::SessionError,
    manager::{Basis, CONTENTION, Draft},
    warnings,
};

impl Cell {
    /// Takes the draft of a dropped `Session` back. `copies` counts the copies of the request at its extraction.
    pub(crate) fn take_back(&self, copies: u32, mut draft: Box<Draft>, is_read: bool) {
        if self.fate.is(Fate::POISONED) {
            return;
        }
        let is_changed = draft.is_touched()
            && (draft.intents.any()
                || self.core.change(&mut draft).map_or(true, |change| change.is_some()));
        if !is_changed {
            if let Some(mut state) = self.state() {
                state.is_read |= is_read;
            }
            return self.give_back(draft);
        }
        let state = self.state().filter(|state| self.fate.is(Fate::LAYERED) && !state.is_over);
        let Some(mut state) = state else {
            // The handler may have failed, so no other `Session` may commit this change.
            if !self.fate.excuses() {
                self.warn(warnings::DROPPED_CHANGE, &draft.basis);
            }
            return;
        };
        state.waiting.push_back((copies, draft));
        drop(state);
        // A commit under way folds it in at its end.
        if let Ok(_turn) = self.turn.try_lock() {
            self.fold_waiting();
        }
    }

    /// Folds the changes of dropped `Session`s into the basis; the caller has the turn.
    pub(super) fn fold_waiting(&self) {
        self.forget_doubtful();
        loop {
            let next = self
                .state()
                .and_then(|mut state| Some((state.waiting.pop_front()?, state.basis.clone())));
            // Merging is the application's code, so it runs outside the lock.
            let Some(((copies, mut draft), current)) = next else {
                return;
            };
            let rebased = self.core.rebase(&current, &mut draft);
            let folded = rebased.and_then(|()| self.core.fold(&mut draft));
            if let Some(mut state) = self.state() {
                match folded {
                    Ok(folded) => {
                        if draft.intents.destroy {
                            // No retry takes an end back, and changes of a session that ends are not needed.
                            state.folded.clear();
                            state.refused.take_if(|_| current.ending.is_none());
                        } else if copies > 0 || !state.folded.is_empty() {
                            state.folded.push((copies, current));
                        }
                        state.set_basis(folded);
                    }
                    Err(error) => _ = state.refused.get_or_insert((copies, error)),
                }
            }
        }
    }

    /// Drops changes of dropped `Session`s that may be stored already, so that they are not committed twice.
    pub(super) fn forget_doubtful(&self) {
        let Some(mut state) = self.state().filter(|state| state.is_in_doubt) else {
            return;
        };
        state.is_in_doubt = false;
        let is_known = state.folded.first().is_some_and(|(_, before)| before.uncommitted.is_none());
        let oldest = state.folded.drain(..).map(|(copies, _)| copies).min().filter(|_| is_known);
        let basis = Basis { uncommitted: None, ..Basis::clone(&state.basis) };
        state.set_basis(basis);
        state.refused.get_or_insert((oldest.unwrap_or_default(), SessionError::Conflict));
    }

    /// Forgets the changes of dropped `Session`s that were extracted after a copy of the request was made. Commits,
    /// ends of the session and earlier changes stay.
    pub(crate) fn forget_since(&self, copy: u32) {
        // The changes in a commit under way stay too.
        let Ok(_turn) = self.turn.try_lock() else {
            return;
        };
        self.fold_waiting();
        let Some(mut state) = self.state() else {
            return;
        };
        let mut is_forgotten = state.refused.take_if(|(copies, _)| *copies >= copy).is_some();
        while let Some((_, before)) = state.folded.pop_if(|(copies, _)| *copies >= copy) {
            (state.basis, state.spare, is_forgotten) = (before, None, true);
        }
        if is_forgotten {
            let session = self.core.type_name;
            tracing::debug!(
                session,
                "a request is retried: uncommitted changes of the failed attempt are dropped"
            );
        }
    }

    /// Commits the changes of dropped `Session`s; if they are not `wanted`, only the ends of sessions.
    pub(crate) async fn commit_what_is_left(&self, wanted: bool) -> Result<(), SessionError> {
        // A commit that a spawned task began is waited for.
        let turn = tokio::time::timeout(CONTENTION, self.turn.lock()).await;
        let (mut touches, mut result) = (wanted, Ok(()));
        loop {
            result = match self.next_left(wanted, touches) {
                Ok(None) => break,
                Ok(Some(draft)) if turn.is_ok() => self.commit_onto(draft).await,
                Ok(Some(_)) => Err(SessionError::Conflict),
                Err(error) => Err(error),
            };
            touches = false;
            if result.is_err() {
                self.fate.fail(&self.core);
                break;
            }
        }
        let refused = self.state().and_then(|mut state| {
            state.is_over = true;
            state.refused.take().map(|(_, error)| error)
        });
        result.and(refused.filter(|_| wanted).map_or(Ok(()), Err))
    }

    /// Returns the next draft that the layer has to commit. If there is none, `Session`s that are dropped from now
    /// on are too late.
    fn next_left(&self, wanted: bool, touches: bool) -> Result<Option<Box<Draft>>, SessionError> {
        loop {
            self.fold_waiting();
            let Some(mut state) = self.state() else {
                return Ok(None);
            };
            if !state.waiting.is_empty() {
                continue;
            }
            if state.basis.uncommitted.is_some() && (!wanted || state.refused.is_some()) {
                let basis = Basis { uncommitted: None, ..Basis::clone(&state.basis) };
                state.set_basis(basis);
            }
            let basis = state.basis.clone();
            if !basis.has_leftovers() && (!touches || self.core.rests(&basis)) {
                state.is_over = true;
                return Ok(None);
            }
            let spare = state.spare.take();
            drop(state);
            return spare.map_or_else(|| self.core.draft_of(basis), Ok).map(Some);
        }
    }
}
