//! Store calls, each bounded in time and reported when it fails.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{task::unconstrained, time::sleep};

use crate::{
    clock::Timestamp,
    error::StoreError,
    event::{Events, SessionEvent},
    id::StoreKey,
    record::{Record, Version},
    store::{SaveOutcome, SessionStore, Write},
};

pub(super) struct Rows<'a> {
    pub(super) store: &'a Arc<dyn SessionStore>,
    pub(super) timeout: Duration,
    pub(super) events: &'a Events,
}

impl Rows<'_> {
    /// Looks past the `Arc`, which is a store too and would box every future once more.
    fn store(&self) -> &dyn SessionStore {
        self.store.as_ref()
    }

    pub(super) async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.bounded("load", self.store().load(key)).await
    }

    pub(super) async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write,
    ) -> Result<SaveOutcome, StoreError> {
        self.bounded("save", self.store().save(key, record, write)).await
    }

    pub(super) async fn touch(
        &self,
        key: &StoreKey,
        version: Version,
        expires_at: Timestamp,
    ) -> Result<SaveOutcome, StoreError> {
        self.bounded("touch", self.store().touch(key, version, expires_at)).await
    }

    pub(super) async fn destroy(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.bounded("destroy", self.store().destroy(key)).await
    }

    pub(super) async fn destroy_at(
        &self,
        key: &StoreKey,
        version: Version,
    ) -> Result<SaveOutcome, StoreError> {
        self.bounded("destroy", self.store().destroy_at(key, version)).await
    }

    /// A store that hangs is a store that is down.
    pub(super) async fn bounded<R>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<R, StoreError>>,
    ) -> Result<R, StoreError> {
        let mut call = pin!(call);
        let mut timer = None;
        let result = poll_fn(|context| {
            if let Poll::Ready(result) = call.as_mut().poll(context) {
                return Poll::Ready(result);
            }
            // Made only for a store that does not answer at once; fires even if the call uses up the
            // task's budget.
            let timer = timer.get_or_insert_with(|| Box::pin(unconstrained(sleep(self.timeout))));
            timer.as_mut().poll(context).map(|()| Err(StoreError::Timeout { after: self.timeout }))
        });
        let result = result.await;
        if let Err(error) = &result
            && !matches!(error, StoreError::Corrupt | StoreError::Newer)
        {
            self.events.alarm(&SessionEvent::StoreError { operation });
        }
        result
    }
}
