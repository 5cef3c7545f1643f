mod properties;
mod sets;

use super::*;

/// A merge that knows of no sets.
fn merge(
    base: &Value,
    ours: Value,
    theirs: Value,
    last_write_wins: &[Pointer],
) -> Result<Value, MergeConflict> {
    super::merge(base, ours, theirs, last_write_wins, &Sets::default())
}

/// Parses JSON that is written with `'` for `"`.
fn json(text: &str) -> Value {
    serde_json::from_str(&text.replace('\'', "\""))
        .unwrap_or_else(|error| unreachable!("{error}: {text}"))
}

fn pointers<const N: usize>(texts: [&str; N]) -> Vec<Pointer> {
    let parsed: Vec<Pointer> = texts.into_iter().flat_map(str::parse).collect();
    assert_eq!(parsed.len(), N, "a pointer of this test does not parse");
    parsed
}

#[track_caller]
fn merges_with(last_write_wins: &[Pointer], [base, ours, theirs, expected]: [&str; 4]) {
    let merged = merge(&json(base), json(ours), json(theirs), last_write_wins);
    assert_eq!(merged, Ok(json(expected)));
}

#[track_caller]
fn merges(base: &str, ours: &str, theirs: &str, expected: &str) {
    merges_with(&[], [base, ours, theirs, expected]);
}

#[track_caller]
fn conflicts(base: &str, one: &str, other: &str) {
    for (ours, theirs) in [(one, other), (other, one)] {
        let merged = merge(&json(base), json(ours), json(theirs), &[]);
        assert_eq!(merged, Err(MergeConflict), "{ours} and {theirs}");
    }
}

#[test]
fn two_requests_that_fill_a_cart_both_fill_it() {
    merges(
        "{'cart': {'items': ['tea']}, 'theme': 'dark'}",
        "{'cart': {'items': ['tea', 'jam']}, 'theme': 'light'}",
        "{'cart': {'items': ['tea', 'rye', 'oil']}, 'theme': 'dark'}",
        "{'cart': {'items': ['tea', 'rye', 'oil', 'jam']}, 'theme': 'light'}",
    );
}

#[test]
fn an_item_added_by_both_is_there_twice() {
    let added = "{'id': 1, 'cart': {'items': ['tea']}}";
    let twice = "{'id': 1, 'cart': {'items': ['tea', 'tea']}}";
    merges("{'id': 1, 'cart': {'items': []}}", added, added, twice);
    merges("{'id': 1, 'cart': {}}", added, added, twice);
}

#[test]
fn an_item_added_by_both_is_a_conflict_where_two_cannot_be_kept() {
    for (base, both) in [
        ("{'cart': null}", "{'cart': ['tea']}"),
        ("{'cart': null}", "{'cart': {'items': ['tea']}}"),
        ("{'n': 1}", "{'n': 1, 'cart': {'items': ['tea']}}"),
        ("{'cart': ['jam']}", "{'cart': ['tea']}"),
        ("{'cart': ['jam', 'oil']}", "{'cart': ['oil', 'tea']}"),
        ("{'cart': ['jam', 'oil']}", "{'cart': ['oil', 'oil']}"),
        ("{'A': 1}", "{'B': ['tea']}"),
    ] {
        conflicts(base, both, both);
    }
}

#[test]
fn a_removed_role_stays_removed() {
    let base = "{'roles': ['user', 'admin', 'editor'], 'n': 1}";
    let fewer = "{'roles': ['user', 'editor'], 'n': 1}";
    let elsewhere = "{'roles': ['user', 'admin', 'editor'], 'n': 2}";
    merges(base, elsewhere, fewer, "{'roles': ['user', 'editor'], 'n': 2}");
    merges(base, fewer, fewer, fewer);
    for other in [
        "{'roles': ['user', 'admin', 'editor', 'owner'], 'n': 1}",
        "{'roles': ['user', 'admin'], 'n': 1}",
        "{'roles': [], 'n': 1}",
        "{'n': 1}",
    ] {
        conflicts(base, fewer, other);
    }
}

#[test]
fn items_are_not_merged_with_each_other() {
    let [tea, jam] = ["[{'tea': 2}, {'jam': 1}]", "[{'tea': 1}, {'jam': 2}]"];
    conflicts("[{'tea': 1}, {'jam': 1}]", tea, jam);
}

#[test]
fn a_counter_that_both_counted_is_a_conflict_even_to_the_same_number() {
    conflicts("{'n': 1}", "{'n': 2}", "{'n': 3}");
    conflicts("{'n': 1}", "{'n': 2}", "{'n': 2}");
    conflicts("{'cart': {}}", "{'cart': {'tea': 1}}", "{'cart': {'tea': 1}}");
    conflicts("{'n': null}", "{'n': 1}", "{'n': 1}");
    conflicts("{}", "{'cart': {'tea': {'n': 1}}}", "{'cart': {'tea': {'n': 1}}}");
}

#[test]
fn a_switch_or_text_that_both_set_alike_is_kept() {
    merges("{'k': false}", "{'k': true}", "{'k': true}", "{'k': true}");
    merges("{'k': 'a'}", "{'k': 'b'}", "{'k': 'b'}", "{'k': 'b'}");
    merges("{'k': 'a'}", "{'k': null}", "{'k': null}", "{'k': null}");
}

#[test]
fn removal_against_edit_is_a_conflict() {
    let base = "{'user': {'name': 'ann'}, 'n': 1}";
    let edited = "{'user': {'name': 'bob'}, 'n': 1}";
    conflicts(base, "{'n': 1}", edited);
    conflicts(base, "{'user': null, 'n': 1}", edited);
    conflicts("{'list': [], 'n': 1}", "{'n': 1}", "{'list': [1], 'n': 1}");
}

#[test]
fn a_different_type_on_each_side_is_a_conflict() {
    let kinds = ["null", "true", "1", "'a'", "[]", "{}"].map(|kind| format!("{{'k': {kind}}}"));
    for (index, one) in kinds.iter().enumerate() {
        for other in kinds.iter().skip(index + 1) {
            conflicts("{'k': 'base'}", one, other);
            conflicts("{}", one, other);
        }
    }
}

#[test]
fn null_is_not_absence() {
    conflicts("{'k': 1}", "{'k': null}", "{}");
    conflicts("{'k': null}", "{'k': 1}", "{}");
    merges("{}", "{'k': null}", "{}", "{'k': null}");
}

#[test]
fn objects_created_by_both_are_not_mixed() {
    let ann = "{'user': {'id': 'a1', 'name': 'ann'}}";
    let mail = "{'user': {'id': 'a1', 'mail': 'a@b'}}";
    for base in ["{}", "{'user': null}"] {
        conflicts(base, ann, mail);
        merges(base, ann, ann, ann);
        let no_items = "{'user': {'id': 'a1', 'tags': []}}";
        merges(base, no_items, no_items, no_items);
    }
}

#[test]
fn maps_take_the_entries_of_both() {
    merges(
        "{'cart': {}}",
        "{'cart': {'tea': 1}}",
        "{'cart': {'jam': 2}}",
        "{'cart': {'tea': 1, 'jam': 2}}",
    );
    merges(
        "{'cart': {'tea': 1, 'oil': 1}}",
        "{'cart': {'oil': 1}}",
        "{'cart': {'tea': 1, 'oil': 1, 'jam': 2}}",
        "{'cart': {'oil': 1, 'jam': 2}}",
    );
}

#[test]
fn an_entry_swapped_for_another_leaves_room_for_a_third() {
    merges("{'tea': 1}", "{'jam': 1}", "{'tea': 1, 'oil': 1}", "{'jam': 1, 'oil': 1}");
}

#[test]
fn an_entry_swapped_for_different_ones_is_a_conflict() {
    let [base, jam, oil] = ["{'tea': 'x', 'n': 1}", "{'jam': 'x', 'n': 1}", "{'oil': 'x', 'n': 1}"];
    conflicts(base, jam, oil);
    merges(base, jam, "{'jam': 'x', 'n': 2}", "{'jam': 'x', 'n': 2}");
}

#[test]
fn optional_fields_that_come_and_go_are_no_change_of_variant() {
    merges(
        "{'oauth_state': 'x1', 'theme': 'dark'}",
        "{'user': 7, 'theme': 'dark'}",
        "{'oauth_state': 'x1', 'theme': 'light'}",
        "{'user': 7, 'theme': 'light'}",
    );
    merges(
        "{'page': 'cart', 'flash': 'saved', 'theme': 'dark'}",
        "{'page': 'pay', 'theme': 'dark'}",
        "{'page': 'cart', 'flash': 'saved', 'theme': 'light'}",
        "{'page': 'pay', 'theme': 'light'}",
    );
    merges(
        "{'page': 'cart', 'cart': {'tea': 1}, 'n': 1}",
        "{'page': 'pay', 'cart': {'jam': 1}, 'n': 1}",
        "{'page': 'cart', 'cart': {'tea': 1, 'oil': 1}, 'n': 1}",
        "{'page': 'pay', 'cart': {'jam': 1, 'oil': 1}, 'n': 1}",
    );
}

#[test]
fn two_variants_are_not_mixed() {
    let external = "{'Pay': {'sum': 1, 'card': 2}}";
    let done = "{'Done': {'sum': 1}}";
    conflicts(external, done, "{'Pay': {'sum': 5, 'card': 2}}");
    conflicts(external, done, "{'Failed': 'no funds'}");
    conflicts(external, done, "{'Done': {'sum': 2}}");
    conflicts(external, done, "'Idle'");
    conflicts(
        "{'type': 'pay', 'card': 2, 'sum': 1}",
        "{'type': 'done', 'receipt': 3, 'sum': 1}",
        "{'type': 'pay', 'card': 2, 'sum': 5}",
    );
    conflicts(
        "{'t': 'Pay', 'c': {'card': 2, 'sum': 1}}",
        "{'t': 'Done', 'c': {'receipt': 3, 'sum': 1}}",
        "{'t': 'Pay', 'c': {'card': 2, 'sum': 5}}",
    );
}

/// The limit that the module's documentation states.
#[test]
fn a_tag_that_changes_alone_is_a_field() {
    merges(
        "{'type': 'a', 'x': 1}",
        "{'type': 'b', 'x': 1}",
        "{'type': 'a', 'x': 2}",
        "{'type': 'b', 'x': 2}",
    );
}

#[test]
fn the_order_of_keys_does_not_matter() {
    merges(
        "{'a': {'x': 1, 'y': 2}, 'b': 1}",
        "{'b': 1, 'a': {'y': 2, 'x': 1}}",
        "{'b': 2, 'a': {'y': 2, 'x': 3}}",
        "{'a': {'x': 3, 'y': 2}, 'b': 2}",
    );
}

#[test]
fn the_deepest_value_that_parses_is_merged() {
    let deep = |leaf| format!("{}{leaf}{}", "{\"a\":".repeat(127), "}".repeat(127));
    let [one, two, three, too_deep] = ["1", "2", "3", "[]"].map(deep);
    assert!(serde_json::from_str::<Value>(&too_deep).is_err());
    merges(&one, &two, &one, &two);
    conflicts(&one, &two, &three);
}

#[test]
fn pointers_parse_as_rfc_6901_says() {
    for (text, keys) in [
        ("/last_seen", &["last_seen"][..]),
        ("/a/b", &["a", "b"]),
        ("/", &[""]),
        ("/a//b/", &["a", "", "b", ""]),
        ("/a~1b/m~0n", &["a/b", "m~n"]),
        ("/~01", &["~1"]),
        ("/0/é %", &["0", "é %"]),
    ] {
        let keys = keys.iter().map(|&key| key.to_owned()).collect();
        assert_eq!(text.parse(), Ok(Pointer { keys }), "{text}");
    }
    for text in ["", "a", "a/b", " /a", "#/a", "/~", "/a~", "/~2", "/a~/b", "/~~0"] {
        assert_eq!(text.parse::<Pointer>(), Err(InvalidPointer), "{text}");
    }
}

#[test]
fn last_write_wins_takes_ours_only_where_ours_changed_it() {
    let [base, ours, theirs] = ["1", "2", "3"].map(|n| format!("{{'device': {{'seen': {n}}}}}"));
    let seen = pointers(["/device/seen"]);
    merges_with(&seen, [&base, &ours, &theirs, &ours]);
    merges_with(&seen, [&base, &base, &theirs, &theirs]);
}

#[test]
fn last_write_wins_takes_the_whole_value() {
    let base = "{'device': {'list': [1], 'ip': 'x'}}";
    let ours = "{'device': {'list': [1, 2], 'ip': 'x'}}";
    let theirs = "{'device': {'list': [1, 3], 'ip': 'y'}}";
    for covered in [["/device", "/device/ip"], ["/device/ip", "/device"]] {
        merges_with(&pointers(covered), [base, ours, theirs, ours]);
    }
}

#[test]
fn last_write_wins_covers_removal_and_the_removal_around_it() {
    let [base, seen_again] = ["{'device': {'seen': 1}, 'n': 1}", "{'device': {'seen': 2}, 'n': 1}"];
    let [unseen, no_device] = ["{'device': {}, 'n': 1}", "{'n': 1}"];
    let seen = pointers(["/device/seen"]);
    merges_with(&seen, [base, unseen, seen_again, unseen]);
    merges_with(&seen, [base, no_device, seen_again, no_device]);
    merges_with(&seen, [base, seen_again, unseen, seen_again]);
    merges_with(&seen, [base, seen_again, no_device, no_device]);
}

#[test]
fn a_value_that_last_write_wins_covers_is_no_tag() {
    let base = "{'seen': 'monday', 'flash': 1, 'n': 1}";
    let ours = "{'seen': 'friday', 'user': 7, 'n': 1}";
    let theirs = "{'seen': 'sunday', 'flash': 1, 'n': 2}";
    let merged = "{'seen': 'friday', 'user': 7, 'n': 2}";
    merges_with(&pointers(["/seen"]), [base, ours, theirs, merged]);
}

#[test]
fn last_write_wins_does_not_enter_lists() {
    let [base, ours, theirs] = ["{'list': [1]}", "{'list': [2]}", "{'list': [3]}"].map(json);
    let items = pointers(["/list/0", "/list/-", "/list/x"]);
    assert_eq!(merge(&base, ours, theirs, &items), Err(MergeConflict));
}
