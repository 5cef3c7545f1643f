//! A record comes back as it was stored, and bytes stay bytes.

use std::time::Duration;

use super::{
    StoreUnderTest, any_key, any_owner,
    expect::{answered, conflict, saved, update},
    random,
};
use crate::{
    clock::Timestamp,
    expiry::IdleTimeout,
    id::StoreKey,
    store::{Record, Write},
};

/// The last millisecond of the year 9999.
const FAR_FUTURE: Timestamp = Timestamp::from_unix_millis(253_402_300_799_999);

/// Every field of a record comes back to the millisecond: from `load`, in a conflict, after a create
/// and after an update.
pub async fn every_field_comes_back(store: &StoreUnderTest) {
    let week = Duration::from_secs(168 * 60 * 60);
    let records = [
        ("a plain record", store.record()),
        ("an owner", store.record().owner(any_owner())),
        ("a persistent idle timeout", store.record().idle_timeout(IdleTimeout::Persistent(week))),
        (
            "a idle timeout of a browser session",
            store.record().idle_timeout(IdleTimeout::BrowserSession(week)),
        ),
        (
            "a idle timeout of one millisecond",
            store.record().idle_timeout(Duration::from_millis(1)),
        ),
        ("a tombstone", store.record().tombstone()),
        ("a schema version", store.record().schema(u32::MAX)),
        ("a codec tag", store.record().codec_tag(u8::MAX)),
        ("the year 9999", store.record().expires_at(FAR_FUTURE)),
        ("the year 1970", store.record().created_at(Timestamp::from_unix_millis(0))),
        ("an absolute end after the expiry", store.record().absolute_end(FAR_FUTURE)),
    ];
    for (what, record) in records {
        comes_back(store, &record.build(), what).await;
    }
}

/// A payload of any bytes, up to 64 KiB, comes back unchanged.
pub async fn payloads_are_opaque_bytes(store: &StoreUnderTest) {
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let payloads: [(&str, Vec<u8>); 6] = [
        ("an empty payload", Vec::new()),
        ("a payload of one zero byte", vec![0]),
        ("a payload of every byte", every_byte.clone()),
        ("a payload of invalid UTF-8", vec![0xff, 0xfe, 0xc3, 0x28, 0x80]),
        ("a payload of JSON with quotes", br#"{"a":"it's \"quoted\" \\ \u0000"}"#.to_vec()),
        ("a payload of 64 KiB", every_byte.repeat(256)),
    ];
    for (what, payload) in payloads {
        comes_back(store, &store.record().payload(payload).build(), what).await;
    }
}

async fn comes_back(store: &StoreUnderTest, record: &Record, what: &str) {
    let created = store.created(record).await;
    store.holds(&created, record, &format!("loading {what}")).await;
    let other = store.record().payload("other").build();
    let create = store.save(&created, &other, Write::Create).await;
    conflict(create, record, &format!("creating over {what}"));

    let updated = store.created(&other).await;
    let update_to = store.save(&updated, record, update(&other)).await;
    saved(update_to, &format!("updating to {what}"));
    let again = store.save(&updated, record, update(&other)).await;
    saved(again, &format!("repeating an update to {what}"));
    store.holds(&updated, record, &format!("loading an update to {what}")).await;
    let next = store.record().payload("next").build();
    let update_of = store.save(&updated, &next, update(record)).await;
    saved(update_of, &format!("updating {what}"));
    store.holds(&updated, &next, &format!("loading an update of {what}")).await;
}

/// Keys are 32 bytes: no text, no letter case, no padding, and no end at a zero byte.
pub async fn keys_are_compared_byte_by_byte(store: &StoreUnderTest) {
    let base: [u8; 32] = *any_key().as_bytes();
    let ending = |end: [u8; 4]| {
        let mut bytes = base;
        if let Some(tail) = bytes.last_chunk_mut() {
            *tail = end;
        }
        StoreKey::from_bytes(bytes)
    };
    let tails = [
        ("one bit", *b"aaaa", *b"aaac"),
        ("the case of a letter", *b"aaaa", *b"aaaA"),
        ("a space at the end", *b"aa\0 ", *b"aa\0\0"),
        ("a byte after a zero byte", *b"a\0ab", *b"a\0ac"),
        ("a byte that is no UTF-8", [b'a', 0xff, 0xfe, 0x80], [b'a', 0xff, 0xfe, 0x81]),
        ("the accent of a letter", [b'a', b'a', 0xc3, 0xa9], [b'a', b'a', 0xc3, 0xa8]),
        ("a quote", *b"aa'a", *b"aa\"a"),
        ("a wildcard", *b"aa%a", *b"aa_a"),
    ];
    for (what, one, other) in tails {
        are_two_rows(store, ending(one), ending(other), what).await;
    }
    let mut flipped = base;
    let [first, ..] = &mut flipped;
    *first ^= 0x80;
    let (base, flipped) = (StoreKey::from_bytes(base), StoreKey::from_bytes(flipped));
    are_two_rows(store, base, flipped, "the first bit").await;
    // Random in the middle, so that no other run on the same server has these keys.
    let mut zeros = [0; 32];
    let (_, middle) = zeros.split_at_mut(8);
    if let Some(middle) = middle.first_chunk_mut::<16>() {
        *middle = random();
    }
    let (zeros, ones) =
        (StoreKey::from_bytes(zeros), StoreKey::from_bytes(zeros.map(|byte| !byte)));
    are_two_rows(store, zeros, ones, "every bit").await;
}

async fn are_two_rows(store: &StoreUnderTest, one: StoreKey, other: StoreKey, what: &str) {
    let doing = format!("with two keys that differ in {what}");
    let (first, second) =
        (store.record().payload("1").build(), store.record().payload("2").build());
    for key in [&one, &other] {
        answered(store.destroy(key).await, &doing);
    }
    saved(store.save(&one, &first, Write::Create).await, &doing);
    store.absent(&other, &doing).await;
    saved(store.save(&other, &second, Write::Create).await, &doing);
    store.holds(&one, &first, &doing).await;
    store.holds(&other, &second, &doing).await;
    answered(store.destroy(&one).await, &doing);
    store.absent(&one, &doing).await;
    store.holds(&other, &second, &doing).await;
    answered(store.destroy(&other).await, &doing);
}
