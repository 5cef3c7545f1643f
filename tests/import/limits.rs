//! What is too long or too deep is not read.

use std::time::Duration;

use axum::response::IntoResponse as _;
use axum_extra::extract::SignedCookieJar;
use axum_typed_session::{
    StoreError,
    cookie::{Cookie, Key},
    import::{JarCookies, OldRow, OldRows, TowerSessions},
    time::OffsetDateTime,
};
use http::{HeaderMap, header};
use serde_json::{Value, json};

use crate::site::{Moved, Site, all};

/// A store with one row.
struct OneRow(Vec<u8>);

#[async_trait::async_trait]
impl OldRows for OneRow {
    async fn row(&self, _: &str) -> Result<Option<OldRow>, StoreError> {
        Ok(Some(OldRow::new(self.0.clone())))
    }
}

/// A row of tower-sessions with this value in it.
fn row(value: &Value) -> Vec<u8> {
    let end = OffsetDateTime::now_utc() + Duration::from_secs(600);
    let record = tower_sessions::session::Record {
        id: tower_sessions::session::Id(7),
        data: [("field".to_owned(), value.clone())].into(),
        expiry_date: end,
    };
    rmp_serde::to_vec(&record).unwrap()
}

/// A row with a value of so many levels, which is too deep to be made as a [`Value`].
fn nested(levels: usize) -> Vec<u8> {
    let whole = row(&json!("MARK"));
    let mark = whole.windows(5).position(|bytes| bytes == b"\xa4MARK").unwrap();
    let arrays = vec![0x91; levels - 1];
    [&whole[..mark], &arrays, &[1], &whole[mark + 5..]].concat()
}

async fn moves(row: Vec<u8>) -> bool {
    let id = tower_sessions::session::Id(7);
    let site = Site::new(TowerSessions::new(OneRow(row), all));
    site.moved(format!("id={id}")).await.is_some()
}

#[tokio::test]
async fn data_of_more_than_64_levels_is_not_read() {
    // The object around the field is the first level.
    assert!(moves(nested(63)).await);
    for levels in [64, 65, 66, 67, 100, 1000, 50_000] {
        assert!(!moves(nested(levels)).await, "{levels}");
    }
}

#[tokio::test]
async fn a_row_of_more_than_64_kib_is_not_read() {
    assert!(moves(row(&json!("a".repeat(60_000)))).await);
    assert!(!moves(row(&json!("a".repeat(64 * 1024)))).await);
}

#[tokio::test]
async fn a_damaged_row_is_not_read() {
    let whole = row(&json!("a"));
    assert!(moves(whole.clone()).await);
    for len in 0..whole.len() {
        assert!(!moves(whole[..len].to_vec()).await, "{len}");
    }
    for bytes in [vec![0xff; 100], vec![0x93; 100], vec![0xdd, 0xff, 0xff, 0xff, 0xff]] {
        assert!(!moves(bytes).await);
    }
}

#[tokio::test]
async fn a_cookie_of_more_than_4_kib_is_not_read() {
    let key = Key::generate();
    for (len, is_read) in [(4096 - 44, true), (4096 - 43, false)] {
        let jar = SignedCookieJar::from_headers(&HeaderMap::new(), key.clone());
        let jar = jar.add(Cookie::new("old", "a".repeat(len)));
        let cookie = jar.into_response().headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
        let cookie = cookie.replace("%3D", "=").replace("%2B", "+").replace("%2F", "/");
        let reader = JarCookies::signed(key.clone(), Cookie::new("old", ""), |text| {
            Some(Moved(Some(text.len().into())))
        });
        let moved = Site::new(reader).moved(&*cookie).await;
        assert_eq!(moved, is_read.then(|| len.into()));
    }
}
