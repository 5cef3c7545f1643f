//! `Session`s that are dropped uncommitted: their changes wait, and the layer commits them together.

use std::sync::{Arc, MutexGuard};

use super::{Cell, Fate, State, lock};
use crate::{
    error::{Result, SessionError},
    manager::{Basis, CONTENTION, Draft},
    warnings,
};

impl Cell {
    /// Takes the draft of a dropped `Session` back. `copies` counts the copies of the request at its extraction.
    pub(crate) fn take_back(&self, copies: u32, mut draft: Box<Draft>, is_read: bool) {
        if self.fate().is(Fate::POISONED) {
            return;
        }
        if !draft.intents.any() && matches!(self.core.is_changed(&mut draft), Ok(false)) {
            return self.give_back(draft, is_read);
        }
        let mut state = lock(&self.state);
        if self.fate().is(Fate::LAYERED) && !state.is_over {
            state.waiting.push_back((copies, draft));
            drop(state);
            // A commit under way folds it in at its end.
            if let Ok(_turn) = self.turn.try_lock() {
                drop(self.fold_waiting());
            }
        } else if !self.fate().excuses() {
            // The handler may have failed, so no other `Session` may commit this change.
            drop(state);
            self.warn(warnings::DROPPED_CHANGE, &draft.basis);
        }
    }

    /// Folds the changes of dropped `Session`s into the basis, until none waits; the caller has the turn.
    pub(super) fn fold_waiting(&self) -> MutexGuard<'_, State> {
        loop {
            let mut state = lock(&self.state);
            if state.has_nothing_to_fold() {
                return state;
            }
            state.forget_doubtful();
            // Merging is the application's code, so it runs outside the lock.
            if let Some((current, (copies, draft))) =
                state.basis.clone().zip(state.waiting.pop_front())
            {
                drop(state);
                self.fold(current, copies, draft);
            }
        }
    }

    fn fold(&self, current: Arc<Basis>, copies: u32, mut draft: Box<Draft>) {
        let rebased = self.core.rebase(&current, &mut draft);
        let folded = rebased.and_then(|()| self.core.fold(&mut draft));
        let mut state = lock(&self.state);
        match folded {
            Ok(folded) => {
                if draft.intents.destroy {
                    // No retry takes an end back, and changes of a session that ends are not needed.
                    state.folded.clear();
                    state.refused.take_if(|_| current.ending.is_none());
                } else if copies > 0 || !state.folded.is_empty() {
                    state.folded.push((copies, current));
                }
                state.set_basis(Arc::new(folded));
            }
            Err(error) => _ = state.refused.get_or_insert((copies, error)),
        }
    }

    /// Forgets the changes of dropped `Session`s that were extracted after a copy of the request was made. Commits,
    /// ends of the session and earlier changes stay.
    pub(crate) fn forget_since(&self, copy: u32) {
        // The changes in a commit under way stay too.
        let Ok(_turn) = self.turn.try_lock() else { return };
        let mut state = self.fold_waiting();
        let mut is_forgotten = state.refused.take_if(|(copies, _)| *copies >= copy).is_some();
        while let Some((_, before)) = state.folded.pop_if(|(copies, _)| *copies >= copy) {
            state.set_basis(before);
            is_forgotten = true;
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
    pub(crate) async fn commit_what_is_left(&self, wanted: bool) -> Result<()> {
        let result = self.commit_each(wanted).await.inspect_err(|_| self.fate().fail(&self.core));
        let mut state = lock(&self.state);
        state.is_over = true;
        match state.refused.take() {
            Some((_, error)) if wanted => result.and(Err(error)),
            _ => result,
        }
    }

    async fn commit_each(&self, wanted: bool) -> Result<()> {
        let turn = match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            // A spawned task still loads the session, so nothing is changed yet.
            Err(_) if self.ends_unloaded() => return Ok(()),
            // A commit that a spawned task began is waited for.
            Err(_) => Box::pin(tokio::time::timeout(CONTENTION, self.turn.lock())).await.ok(),
        };
        let (mut touches, mut result) = (wanted, Ok(()));
        while let Some(draft) = self.next_left(wanted, touches)? {
            turn.as_ref().ok_or(SessionError::Conflict)?;
            let has_both = draft.basis.ending.is_some() && draft.basis.uncommitted.is_some();
            let committed = Box::pin(self.commit_onto(draft)).await;
            if committed.is_err() && has_both {
                // The session ends although the data of the next one cannot be saved.
                lock(&self.state).forget_uncommitted();
                result = committed;
            } else {
                committed?;
            }
            touches = false;
        }
        result
    }

    /// Returns `true` if the session was not loaded yet. `Session`s that are dropped from now on are too late.
    fn ends_unloaded(&self) -> bool {
        let mut state = lock(&self.state);
        state.is_over |= state.basis.is_none();
        state.is_over
    }

    /// Returns the next draft that the layer has to commit. If there is none, `Session`s that are dropped from now
    /// on are too late.
    fn next_left(&self, wanted: bool, touches: bool) -> Result<Option<Box<Draft>>> {
        let mut state = self.fold_waiting();
        if !wanted || state.refused.is_some() {
            state.forget_uncommitted();
        }
        if let Some(basis) = state.basis.clone()
            && (basis.has_leftovers() || (touches && !self.core.rests(&basis)))
        {
            let spare = state.spare.take();
            drop(state);
            return spare.map_or_else(|| self.core.draft_of(basis), Ok).map(Some);
        }
        state.is_over = true;
        Ok(None)
    }
}
