//! Methods of the data are called through the session, even those that the compiler knows from other libraries.

use std::collections::BTreeMap;

use axum::extract::FromRequestParts;
use axum_typed_session::{Session, SessionManager, testing::ManualClock};
use http::Request;
use serde::{Deserialize, Serialize};

use crate::support::Mode;

/// Has methods of the names for which a session gives hints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Cart {
    items: Vec<String>,
}

impl Cart {
    fn insert(&mut self, item: &str) -> usize {
        self.items.push(item.to_owned());
        self.items.len()
    }

    fn get(&self, index: usize) -> Option<&str> {
        self.items.get(index).map(String::as_str)
    }

    fn flush(&mut self) -> Vec<String> {
        std::mem::take(&mut self.items)
    }

    fn save(&self) -> String {
        self.items.join(", ")
    }
}

async fn session<T>() -> Session<T>
where
    T: Default + Serialize + for<'de> Deserialize<'de> + Send + Sync + 'static,
{
    let sessions: SessionManager<T> = Mode::Cookie.builder(&ManualClock::new()).build().unwrap();
    let (mut parts, ()) = Request::new(()).into_parts();
    Session::from_request_parts(&mut parts, &sessions).await.unwrap()
}

#[tokio::test]
async fn a_method_of_the_data_is_called_instead_of_a_hint() {
    let mut cart: Session<Cart> = session().await;
    assert_eq!(cart.insert("tea"), 1);
    assert_eq!(cart.get(0), Some("tea"));
    assert_eq!(cart.save(), "tea");
    let copy: Cart = cart.clone();
    assert_eq!(cart.flush(), ["tea"]);
    assert_eq!(copy.items, ["tea"]);
    cart.discard();
}

#[tokio::test]
async fn a_session_of_a_map_is_used_like_the_map() {
    let mut map: Session<BTreeMap<String, u32>> = session().await;
    assert_eq!(map.insert("visits".to_owned(), 1), None);
    assert_eq!(map.get("visits"), Some(&1));
    assert!(map.contains_key("visits") && !map.is_empty());
    assert_eq!(map.remove("visits"), Some(1));
    map.discard();
}
