use std::collections::{BTreeSet, HashMap, HashSet};

use proptest::{collection, prelude::*};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use super::*;

/// The sets that data turns out to have on its way through `T`, as paths.
fn found<T: Serialize + DeserializeOwned>(data: &Value) -> Vec<String> {
    let mut sets = Sets::default();
    sets.find(data, [&Value::Null; 2], || {
        let through: T = serde_json::from_value(data.clone()).ok()?;
        serde_json::to_value(&through).ok()
    });
    paths(&sets)
}

fn paths(sets: &Sets) -> Vec<String> {
    let own = sets.is_set.then(String::new);
    let members = sets.members.iter().map(|(key, place)| (key.as_str(), place));
    let items = sets.items.iter().map(|place| ("*", place.as_ref()));
    let below = members.chain(items).flat_map(|(step, place)| {
        let paths = paths(place).into_iter();
        paths.map(move |path| format!("/{step}{path}"))
    });
    own.into_iter().chain(below).collect()
}

#[derive(Serialize, Deserialize)]
struct Profile {
    roles: HashSet<u32>,
    list: Vec<u32>,
}

#[derive(PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Line {
    sku: String,
    sizes: Vec<u32>,
}

#[test]
fn sets_are_found_wherever_they_are() {
    let none = Vec::<&str>::new();
    assert_eq!(found::<HashSet<u32>>(&json!([1, 2])), [""]);
    assert_eq!(found::<Profile>(&json!({"roles": [1, 2, 3], "list": [1, 2, 3]})), ["/roles"]);
    assert_eq!(found::<Option<HashSet<u32>>>(&json!([1, 2])), [""]);
    assert_eq!(
        found::<HashMap<String, HashSet<u32>>>(&json!({"a": [1, 2], "b": [3], "c": [4, 5, 6]})),
        ["/a", "/c"]
    );
    for equal in [json!([[1, 2], [1, 2]]), json!([[1, 2], [2, 1], [3]])] {
        assert_eq!(found::<Vec<HashSet<u32>>>(&equal), ["/*"]);
    }
    assert_eq!(found::<Vec<Profile>>(&json!([{"roles": [1, 2], "list": [1, 2]}])), ["/*/roles"]);
    let lines = json!([{"sku": "tea", "sizes": [1, 2]}, {"sku": "jam", "sizes": [2, 1]}]);
    assert_eq!(found::<HashSet<Line>>(&lines), [""]);
    assert_eq!(found::<Vec<Line>>(&lines), none);
}

#[test]
fn what_keeps_its_order_is_no_set() {
    let none = Vec::<&str>::new();
    assert_eq!(found::<Vec<u32>>(&json!([2, 1, 2])), none);
    assert_eq!(found::<(u32, u32)>(&json!([2, 1])), none);
    assert_eq!(found::<BTreeSet<u32>>(&json!([1, 2])), none);
    assert_eq!(found::<HashMap<String, Vec<u32>>>(&json!({"a": [1, 2], "b": [2, 1]})), none);
    assert_eq!(found::<HashSet<u32>>(&json!([1])), none);
    assert_eq!(found::<HashSet<u32>>(&json!("no set")), none);
}

/// Equal but for order within as much as among them, so that both explanations always hold.
#[test]
fn what_could_be_a_set_or_hold_sets_stays_a_list() {
    assert_eq!(found::<HashSet<Vec<u32>>>(&json!([[1, 2], [2, 1]])), Vec::<&str>::new());
}

#[test]
fn nothing_is_tried_where_no_list_of_two_items_differs() {
    let one_item = json!({"a": [1], "b": {"c": [[2]], "d": []}});
    let two_items = json!({"a": [1, 2], "b": {"c": [[2, 3]]}, "n": 1});
    let elsewhere = json!({"a": [1, 2], "b": {"c": [[2, 3]]}, "n": 2});
    for (data, others) in [(&one_item, [&Value::Null; 2]), (&two_items, [&elsewhere, &two_items])] {
        Sets::default().find(data, others, || unreachable!("there is nothing to find"));
    }
}

proptest! {
    #[test]
    fn a_set_of_any_size_is_found(set in collection::hash_set(any::<u16>(), 2..40)) {
        prop_assert_eq!(found::<HashSet<u16>>(&json!(set)), [""]);
    }

    #[test]
    fn a_list_is_never_taken_for_a_set(list in collection::vec(collection::vec(0..3u8, 0..4), 0..5)) {
        prop_assert!(found::<Vec<Vec<u8>>>(&json!(list)).is_empty());
    }

    #[test]
    fn sorted_sets_are_equal_and_sorted_lists_untouched(
        roles in collection::hash_set(any::<u32>(), 0..20),
        list in collection::vec(any::<u32>(), 0..5),
    ) {
        let place = Sets { is_set: true, ..Sets::default() };
        let sets = Sets { members: [("roles".to_owned(), place)].into(), ..Sets::default() };
        let again: HashSet<_> = roles.iter().collect();
        let [mut one, mut other] = [json!({"roles": roles, "list": list}), json!({"roles": again, "list": list})];
        prop_assert!(is_alike(&one, &other));
        sets.sort(&mut one);
        sets.sort(&mut other);
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(&one["list"], &json!(list));
        let after: HashSet<u32> = serde_json::from_value(one["roles"].take()).unwrap_or_default();
        prop_assert_eq!(after, roles);
    }
}
