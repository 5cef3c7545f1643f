use std::collections::BTreeSet;

use proptest::{collection, prelude::*};
use serde_json::{Value, json};

use super::{merge as merge_as_lists, pointers};
use crate::{
    merge::{MergeConflict, merge},
    sets::Sets,
};

/// Sets at `/roles`.
fn sets() -> Sets {
    let mut sets = Sets::default();
    let [one, other] = [json!({"roles": [1, 2]}), json!({"roles": [2, 1]})];
    sets.find(&one, [&other; 2], || Some(other.clone()));
    sets
}

fn merge_sets(base: &Value, ours: Value, theirs: Value) -> Result<Value, MergeConflict> {
    merge(base, ours, theirs, &[], &sets())
}

fn roles(value: &Value) -> BTreeSet<u64> {
    let items = value["roles"].as_array().into_iter().flatten();
    items.filter_map(Value::as_u64).collect()
}

/// Few numbers, in any order.
fn set() -> impl Strategy<Value = Vec<u64>> {
    collection::btree_set(0..8u64, 0..6).prop_map(Vec::from_iter).prop_shuffle()
}

#[test]
fn a_name_changed_beside_a_swapped_role_is_no_change_of_variant() {
    let merged = merge_sets(
        &json!({"name": "ann", "roles": [1, 2]}),
        json!({"name": "bob", "roles": [3, 2]}),
        json!({"name": "ann", "roles": [2, 4, 1]}),
    );
    assert_eq!(merged, Ok(json!({"name": "bob", "roles": [2, 3, 4]})));
}

#[test]
fn last_write_wins_does_not_take_a_set_for_edited_that_is_only_reordered() {
    let merged = merge(
        &json!({"roles": [1, 2]}),
        json!({"roles": [2, 1]}),
        json!({"roles": [3, 1]}),
        &pointers(["/roles"]),
        &sets(),
    );
    assert_eq!(merged, Ok(json!({"roles": [1, 3]})));
}

#[test]
fn removing_a_reordered_set_is_no_conflict() {
    let removed = json!({"n": 1});
    let base = json!({"n": 1, "roles": [1, 2]});
    let reordered = json!({"n": 1, "roles": [2, 1]});
    assert_eq!(merge_sets(&base, removed.clone(), reordered), Ok(removed));
}

proptest! {
    #[test]
    fn sets_keep_what_neither_side_removed_and_get_what_either_added(
        [base, ours, theirs] in [set(), set(), set()],
    ) {
        let [base, ours, theirs] = [base, ours, theirs].map(|roles| json!({"roles": roles}));
        let merged = merge_sets(&base, ours.clone(), theirs.clone()).map(|merged| roles(&merged));
        let [base, ours, theirs] = [base, ours, theirs].map(|side| roles(&side));
        let kept = base.iter().filter(|role| ours.contains(role) && theirs.contains(role));
        let added = ours.difference(&base).chain(theirs.difference(&base));
        prop_assert_eq!(merged, Ok(kept.chain(added).copied().collect()));
    }

    #[test]
    fn what_merges_as_lists_merges_alike_as_sets(
        [base, ours, theirs] in [set(), set(), set()],
        [n, m] in [0..2, 0..2],
    ) {
        let base = json!({"roles": base, "n": 0, "m": 0});
        let [ours, theirs] = [json!({"roles": ours, "n": n, "m": 0}), json!({"roles": theirs, "n": 0, "m": m})];
        if let Ok(lists) = merge_as_lists(&base, ours.clone(), theirs.clone(), &[]) {
            let sets = merge_sets(&base, ours, theirs).unwrap_or_default();
            prop_assert_eq!(roles(&lists), roles(&sets));
            prop_assert_eq!((&lists["n"], &lists["m"]), (&sets["n"], &sets["m"]));
        }
    }
}
