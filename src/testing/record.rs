use time::OffsetDateTime;

use bytes::Bytes;

use super::random;
use crate::{
    clock::Timestamp,
    expiry::{IdleTimeout, Lifetime},
    id::OwnerKey,
    store::{Record, Version},
};

/// Makes a [`Record`] for the tests of a store.
///
/// # Example
///
/// ```
/// use axum_typed_session::{testing::RecordBuilder, store::OwnerKey};
///
/// let ada = OwnerKey::from_bytes([7; 32]);
/// let record = RecordBuilder::new().owner(ada).payload(b"{}").build();
/// assert_eq!(record.owner(), Some(ada));
/// ```
#[doc(alias("mock", "fixture"))]
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct RecordBuilder {
    version: Option<Version>,
    record: Record,
}

impl RecordBuilder {
    /// Starts a record without owner and data. It begins now, by the system's clock, and expires after one day.
    pub fn new() -> Self {
        let now = Timestamp::from(OffsetDateTime::now_utc());
        let end = now.saturating_add(std::time::Duration::from_secs(24 * 60 * 60));
        Self {
            version: None,
            record: Record {
                version: Version::from_bytes([0; 16]),
                schema: 1,
                codec: 1,
                owner: None,
                lifetime: Lifetime {
                    created_at: now,
                    expires_at: end,
                    absolute_end: end,
                    has_own_end: false,
                    idle_timeout: None,
                },
                epoch: 0,
                kind: 0,
                tombstone: false,
                is_sealed: false,
                opened_from: None,
                payload: Bytes::new(),
            },
        }
    }

    /// Sets the version. Default: a random version for each [`build`](Self::build).
    pub fn version(mut self, version: Version) -> Self {
        self.version = Some(version);
        self
    }

    /// Sets the owner. Default: none.
    pub fn owner(mut self, owner: OwnerKey) -> Self {
        self.record.owner = Some(owner);
        self
    }

    /// Sets when the session began. Default: the time of [`new`](Self::new).
    pub fn created_at(mut self, at: Timestamp) -> Self {
        self.record.lifetime.created_at = at;
        self
    }

    /// Sets when the session expires. If the absolute end is earlier, it moves to `at` too. Default: one day after
    /// [`new`](Self::new).
    pub fn expires_at(mut self, at: Timestamp) -> Self {
        let lifetime = &mut self.record.lifetime;
        lifetime.expires_at = at;
        lifetime.absolute_end = lifetime.absolute_end.max(at);
        self
    }

    /// Sets the absolute end of the session. Default: one day after [`new`](Self::new), or the expiry if that is later.
    pub fn absolute_end(mut self, at: Timestamp) -> Self {
        self.record.lifetime.absolute_end = at;
        self
    }

    /// Sets the idle timeout that the session has of its own. Default: none.
    pub fn idle_timeout(mut self, idle_timeout: impl Into<IdleTimeout>) -> Self {
        self.record.lifetime.idle_timeout = Some(idle_timeout.into());
        self
    }

    /// Sets the schema version of the payload. Default: 1.
    pub fn schema(mut self, version: u32) -> Self {
        self.record.schema = version;
        self
    }

    /// Sets the tag of the codec that encoded the payload. Default: 1, which is JSON.
    pub fn codec_tag(mut self, tag: u8) -> Self {
        self.record.codec = tag;
        self
    }

    /// Makes the record a tombstone, which marks an id that was replaced or ended. It removes owner and data.
    pub fn tombstone(mut self) -> Self {
        self.record.tombstone = true;
        self.record.owner = None;
        self.record.payload = Bytes::new();
        self
    }

    /// Sets the session data. Default: no bytes.
    pub fn payload(mut self, payload: impl AsRef<[u8]>) -> Self {
        self.record.payload = Bytes::copy_from_slice(payload.as_ref());
        self
    }

    /// Makes the record.
    ///
    /// # Panics
    ///
    /// Panics if the operating system has no random bytes for the version.
    pub fn build(&self) -> Record {
        Record {
            version: self.version.unwrap_or_else(|| Version::from_bytes(random())),
            ..self.record.clone()
        }
    }
}

impl Default for RecordBuilder {
    fn default() -> Self {
        Self::new()
    }
}
