//! The record of a session in a store, and its byte form.

use std::{fmt, time::Duration};

use bytes::{Buf as _, BufMut, Bytes};

use crate::{
    clock::Timestamp,
    error::StoreError,
    expiry::{IdleTimeout, Lifetime},
    id::{OwnerKey, bytes_for_stores, unique},
};

/// The record format this release writes, and the newest it reads. Format 1 had no epoch, format 2 no kind and no
/// sealed payload. All three before this one had times of 8 bytes.
const FORMAT: u8 = 4;

/// The last number for a format. Bytes that begin with a higher number, as every text does, are not a record.
const LAST_FORMAT: u8 = 31;

bytes_for_stores! {
    /// The version of a stored session: a unique 128-bit value that each write draws.
    ///
    /// An update names the version that it replaces. A writer that finds its own version in the row knows that its
    /// write took effect, so it can safely repeat a write.
    Version(16)
}

impl Version {
    /// Returns a version that no other write has. It need not be secret, so it costs no system call.
    pub(crate) fn unique() -> Self {
        let (process, count) = unique();
        Self((u128::from(process) << 64 | u128::from(count)).to_be_bytes())
    }
}

/// A stored session, as a [`SessionStore`](crate::SessionStore) sees it.
///
/// A store keeps [`version`](Self::version) and [`expires_at`](Self::expires_at) in columns of their own, to
/// compare and change them. A store that indexes owners does the same with [`owner`](Self::owner). Everything else
/// is in the bytes of [`to_bytes`](Self::to_bytes), which a store does not read.
///
/// # Example
///
/// ```
/// # use axum_typed_session::{StoreError, store::{Record, Timestamp, Version}};
/// struct Row { version: [u8; 16], expires_at: u64, data: Vec<u8> }
///
/// fn row(record: &Record) -> Row {
///     let (version, expires_at) = (record.version(), record.expires_at());
///     Row {
///         version: *version.as_bytes(),
///         expires_at: expires_at.as_unix_millis(),
///         data: record.to_bytes(),
///     }
/// }
/// ```
///
/// In tests, [`RecordBuilder`](crate::testing::RecordBuilder) makes records.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    pub(crate) version: Version,
    pub(crate) schema: u32,
    pub(crate) codec: u8,
    pub(crate) owner: Option<OwnerKey>,
    pub(crate) lifetime: Lifetime,
    /// The number of the identity that the data belongs to. A new number is drawn when the user of the session may
    /// change, so that no change reaches the data of another user. Zero until then.
    pub(crate) epoch: u64,
    /// Tells the sessions of one manager from others in the same store. Zero in tokens and tombstones.
    pub(crate) kind: u32,
    pub(crate) tombstone: bool,
    /// The payload is encrypted, as [`encrypt_rows`](crate::SessionManagerBuilder::encrypt_rows) makes it for stores.
    pub(crate) is_sealed: bool,
    pub(crate) payload: Bytes,
    /// The parts that the store has in another form than this record.
    pub(crate) opened_from: Option<Box<OpenedFrom>>,
}

/// The parts of a stored record that keys have sealed or hashed, as the store has them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct OpenedFrom {
    pub(crate) payload: Bytes,
    pub(crate) is_sealed: bool,
    pub(crate) owner: Option<OwnerKey>,
    /// A former key sealed the payload or hashed the owner, so the next commit has to save the record.
    pub(crate) is_outdated: bool,
}

impl Record {
    /// Returns the version that the write of this record drew.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns a hash of the session's owner. Returns `None` if the session has no owner, or if the application
    /// sets no [`owner`](crate::SessionManagerBuilder::owner).
    pub fn owner(&self) -> Option<OwnerKey> {
        self.owner
    }

    /// Returns when the session began. A change of the owner begins the session again.
    pub fn created_at(&self) -> Timestamp {
        self.lifetime.created_at
    }

    /// Returns the moment from which on the session counts as absent.
    pub fn expires_at(&self) -> Timestamp {
        self.lifetime.expires_at
    }

    /// Returns the end that no save extends, except a save that gives the session another [absolute
    /// timeout](crate::Session::set_absolute_timeout).
    pub fn absolute_end(&self) -> Timestamp {
        self.lifetime.absolute_end
    }

    /// Returns the idle timeout that [`Session::set_idle_timeout`](crate::Session::set_idle_timeout) set. Returns
    /// `None` if the session follows [`idle_timeout`](crate::SessionManagerBuilder::idle_timeout).
    pub fn idle_timeout(&self) -> Option<IdleTimeout> {
        self.lifetime.idle_timeout
    }

    /// Returns the [`schema_version`](crate::SessionManagerBuilder::schema_version) of the payload.
    pub fn schema(&self) -> u32 {
        self.schema
    }

    /// Returns the [`tag`](crate::Codec::tag) of the codec that wrote the payload.
    pub fn codec_tag(&self) -> u8 {
        self.codec
    }

    /// Returns `true` if the record is a tombstone: it has no data, and marks an id that was replaced or ended.
    pub fn is_tombstone(&self) -> bool {
        self.tombstone
    }

    /// Returns the session data, as the [`Codec`](crate::Codec) encoded it, or encrypted by
    /// [`encrypt_rows`](crate::SessionManagerBuilder::encrypt_rows).
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Returns the record with another expiry, for the [`touch`](crate::SessionStore::touch) of a store.
    pub fn with_expires_at(mut self, expires_at: Timestamp) -> Self {
        self.lifetime.expires_at = expires_at;
        self
    }

    /// Returns the record as bytes, without its version and its expiry.
    ///
    /// The layout, with big-endian integers:
    ///
    /// | bytes | content |
    /// |---|---|
    /// | 1 | format |
    /// | 1 | flags |
    /// | 1 | codec tag |
    /// | 4 | schema version |
    /// | 6 | creation, in Unix milliseconds |
    /// | 6 | absolute end, in Unix milliseconds |
    /// | 8, if flagged | idle timeout, in milliseconds |
    /// | 32, if flagged | owner |
    /// | 8, if flagged | epoch, which changes with the identity of the user |
    /// | 4, if flagged | kind, which tells the sessions of different managers apart |
    /// | rest | payload |
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_len());
        self.write_to(&mut bytes);
        bytes
    }

    /// The bytes of a record that has no data, no owner and no idle timeout of its own.
    pub(crate) const FIXED_BYTES: usize = 3 + 4 + 2 * TIME_BYTES;

    /// The most bytes that come before the payload: with idle timeout, owner, epoch and kind, in any format.
    #[cfg(feature = "redis")]
    pub(crate) const MOST_BYTES_OF_HEAD: usize = 3 + 4 + 2 * 8 + 8 + 32 + 8 + 4;

    /// Returns the record as the store has it.
    pub(crate) fn as_stored(&self) -> Self {
        let mut record = Self { opened_from: None, ..self.clone() };
        if let Some(from) = self.opened_from.as_deref().cloned() {
            (record.payload, record.is_sealed, record.owner) =
                (from.payload, from.is_sealed, from.owner);
        }
        record
    }

    /// Notes the stored form of a record of which a part is about to be replaced.
    pub(crate) fn opened_from(&mut self) -> &mut OpenedFrom {
        let (payload, is_sealed) = (&self.payload, self.is_sealed);
        self.opened_from.get_or_insert_with(|| {
            let payload = payload.clone();
            Box::new(OpenedFrom { payload, is_sealed, owner: self.owner, is_outdated: false })
        })
    }

    /// Returns `true` if a former key sealed or hashed a part of the record.
    pub(crate) fn is_outdated(&self) -> bool {
        self.opened_from.as_ref().is_some_and(|from| from.is_outdated)
    }

    pub(crate) fn encoded_len(&self) -> usize {
        let idle_timeout = if self.lifetime.idle_timeout.is_some() { 8 } else { 0 };
        let owner = if self.owner.is_some() { 32 } else { 0 };
        let epoch = if self.epoch == 0 { 0 } else { 8 };
        let kind = if self.kind == 0 { 0 } else { 4 };
        Self::FIXED_BYTES + idle_timeout + owner + epoch + kind + self.payload.len()
    }

    pub(crate) fn write_to(&self, bytes: &mut Vec<u8>) {
        let idle_timeout = self.lifetime.idle_timeout;
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(self.tombstone, TOMBSTONE)
            | flag(self.owner.is_some(), OWNER)
            | flag(idle_timeout.is_some(), IDLE_TIMEOUT)
            | flag(self.epoch != 0, EPOCH)
            | flag(idle_timeout.is_some_and(IdleTimeout::is_persistent), PERSISTENT)
            | flag(self.lifetime.has_own_end, OWN_END)
            | flag(self.is_sealed, SEALED)
            | flag(self.kind != 0, KIND);
        // Written at once: a vector looks at its room for each part.
        let mut fixed = [0; Self::FIXED_BYTES];
        let mut rest = fixed.as_mut_slice();
        rest.put_slice(&[FORMAT, flags, self.codec]);
        rest.put_u32(self.schema);
        put_time(&mut rest, self.lifetime.created_at);
        put_time(&mut rest, self.lifetime.absolute_end);
        bytes.extend_from_slice(&fixed);
        if let Some(idle_timeout) = idle_timeout {
            bytes.put_u64(u64::try_from(idle_timeout.duration().as_millis()).unwrap_or(u64::MAX));
        }
        if let Some(owner) = &self.owner {
            bytes.extend_from_slice(owner.as_bytes());
        }
        if self.epoch != 0 {
            bytes.put_u64(self.epoch);
        }
        if self.kind != 0 {
            bytes.put_u32(self.kind);
        }
        bytes.extend_from_slice(&self.payload);
    }

    /// Returns the owner that finds the record of these bytes, which this release wrote. A tombstone has none.
    pub(crate) fn owner_in(bytes: &[u8]) -> Option<OwnerKey> {
        let flags = *bytes.get(1)?;
        let start = Self::FIXED_BYTES + if flags & IDLE_TIMEOUT == 0 { 0 } else { 8 };
        let is_owned = flags & OWNER != 0 && flags & TOMBSTONE == 0;
        let owner = bytes.get(start..)?.first_chunk().filter(|_| is_owned)?;
        Some(OwnerKey::from_bytes(*owner))
    }

    /// Reads a record from the bytes of [`to_bytes`](Self::to_bytes) and from the version and the expiry that the
    /// store kept.
    ///
    /// # Errors
    ///
    /// A store returns both errors as they are.
    ///
    /// - [`StoreError::Newer`] if a later release of this crate wrote the bytes.
    /// - [`StoreError::Corrupt`] if the bytes are not a record for another reason.
    pub fn from_bytes(
        version: Version,
        expires_at: Timestamp,
        bytes: impl Into<Bytes>,
    ) -> Result<Self, StoreError> {
        let mut rest = bytes.into();
        let format = *rest.first().ok_or(StoreError::Corrupt)?;
        if (FORMAT + 1..=LAST_FORMAT).contains(&format) {
            return Err(StoreError::Newer);
        }
        Self::read(version, expires_at, &mut rest)
            .filter(|_| (1..=FORMAT).contains(&format))
            .ok_or(StoreError::Corrupt)
    }

    fn read(version: Version, expires_at: Timestamp, rest: &mut Bytes) -> Option<Self> {
        let [format, flags, codec] = take(rest)?;
        if format < 3 && flags & (SEALED | KIND) != 0 {
            return None;
        }
        let schema = u32::from_be_bytes(take(rest)?);
        let [created_at, absolute_end] = if format < 4 {
            [take(rest)?, take(rest)?].map(u64::from_be_bytes).map(Timestamp::from_unix_millis)
        } else {
            [take_time(rest)?, take_time(rest)?]
        };
        let idle_timeout = if flags & IDLE_TIMEOUT == 0 {
            None
        } else {
            let ttl = Duration::from_millis(u64::from_be_bytes(take(rest)?));
            Some(if flags & PERSISTENT == 0 {
                IdleTimeout::BrowserSession(ttl)
            } else {
                IdleTimeout::Persistent(ttl)
            })
        };
        let owner = if flags & OWNER == 0 { None } else { Some(OwnerKey::from_bytes(take(rest)?)) };
        let epoch = if flags & EPOCH == 0 { 0 } else { u64::from_be_bytes(take(rest)?) };
        let kind = if flags & KIND == 0 { 0 } else { u32::from_be_bytes(take(rest)?) };
        Some(Self {
            version,
            schema,
            codec,
            owner,
            lifetime: Lifetime {
                created_at,
                expires_at,
                absolute_end,
                has_own_end: flags & OWN_END != 0,
                idle_timeout,
            },
            epoch,
            kind,
            tombstone: flags & TOMBSTONE != 0,
            is_sealed: flags & SEALED != 0,
            payload: std::mem::take(rest),
            opened_from: None,
        })
    }
}

const TOMBSTONE: u8 = 1;
const OWNER: u8 = 2;
const IDLE_TIMEOUT: u8 = 4;
const PERSISTENT: u8 = 8;
const EPOCH: u8 = 16;
const OWN_END: u8 = 32;
const SEALED: u8 = 64;
const KIND: u8 = 128;

/// Takes the next bytes off the front; `None` if there are too few.
pub(crate) fn take<const N: usize>(rest: &mut Bytes) -> Option<[u8; N]> {
    let taken = *rest.first_chunk::<N>()?;
    rest.advance(N);
    Some(taken)
}

/// The bytes of a time: milliseconds until the year 10889.
pub(crate) const TIME_BYTES: usize = 6;

pub(crate) fn put_time(into: &mut impl BufMut, time: Timestamp) {
    into.put_uint(time.as_unix_millis().min((1 << (8 * TIME_BYTES)) - 1), TIME_BYTES);
}

pub(crate) fn take_time(rest: &mut Bytes) -> Option<Timestamp> {
    rest.try_get_uint(TIME_BYTES).ok().map(Timestamp::from_unix_millis)
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("version", &self.version)
            .field("schema", &self.schema)
            .field("lifetime", &self.lifetime)
            .field("tombstone", &self.tombstone)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}
