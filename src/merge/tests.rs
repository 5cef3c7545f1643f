mod properties;

use super::*;

/// Parses JSON that is written with `'` for `"`; `-` is a field that is not there.
fn field(text: &str) -> Option<Value> {
    let text = text.replace('\'', "\"");
    (text != "-").then(|| text.parse().unwrap_or_else(|error| unreachable!("{error}: {text}")))
}

/// Merges a struct whose field `k` has a shape, beside one that both sides leave alone.
fn merged(shape: Shape, sides: [&str; 3], shuffles: bool) -> Result<Option<Value>, Pointer> {
    let [base, ours, theirs] = sides.map(|side| {
        let fields = [("k", field(side)), ("other", Some(true.into()))];
        let present = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
        present.collect::<Value>()
    });
    let fields = Members { kind: Kind::Struct, shapes: [("k".to_owned(), shape)].into() };
    let merged =
        Merger { shuffles: || shuffles }.merge(&Shape::Members(fields), [base, ours, theirs])?;
    assert_eq!(merged.get("other"), Some(&true.into()));
    Ok(merged.get("k").cloned())
}

/// Cases of base, ours, theirs and what they come to.
#[track_caller]
fn check_if(shuffles: bool, shape: impl Fn() -> Shape, cases: &[[&str; 4]]) {
    for [base, ours, theirs, expected] in cases {
        let merged = merged(shape(), [base, ours, theirs], shuffles);
        let expected = if *expected == "!" { Err("/k".to_owned()) } else { Ok(field(expected)) };
        assert_eq!(merged, expected, "{base}, {ours}, {theirs}");
    }
}

/// Like [`check_if`], for cases whose result is the same whether the data is written in one order or not.
#[track_caller]
fn check(shape: impl Fn() -> Shape, cases: &[[&str; 4]]) {
    check_if(false, &shape, cases);
    check_if(true, shape, cases);
}

/// Like [`check`], for cases whose sides may be exchanged.
#[track_caller]
fn check_both_ways(shape: impl Fn() -> Shape, cases: &[[&str; 4]]) {
    check_both_ways_if(false, &shape, cases);
    check_both_ways_if(true, shape, cases);
}

#[track_caller]
fn check_both_ways_if(shuffles: bool, shape: impl Fn() -> Shape, cases: &[[&str; 4]]) {
    check_if(shuffles, &shape, cases);
    let exchanged =
        cases.iter().map(|[base, ours, theirs, expected]| [*base, *theirs, *ours, *expected]);
    check_if(shuffles, shape, &exchanged.collect::<Vec<_>>());
}

fn map(of: fn() -> Shape) -> impl Fn() -> Shape {
    move || {
        let shapes = ["a", "b", "c"].map(|key| (key.to_owned(), of()));
        Shape::Members(Members { kind: Kind::Map, shapes: shapes.into() })
    }
}

#[test]
fn a_place_that_one_side_left_alone_is_as_the_other_side_has_it() {
    let shapes: [fn() -> Shape; 8] = [
        || Shape::Unknown,
        || Shape::Value,
        || Shape::Text,
        || Shape::List,
        || Shape::Counter,
        || Shape::Latest(Box::new(Shape::Value)),
        || Shape::Set,
        || Shape::Once,
    ];
    for shape in shapes {
        check_both_ways(
            shape,
            &[
                ["1", "1", "2", "2"],
                ["-", "-", "2", "2"],
                ["1", "1", "-", "-"],
                ["null", "null", "[1, 2]", "[1, 2]"],
            ],
        );
        if matches!(shape(), Shape::Value | Shape::Latest(_)) {
            // A tuple, whose items are not interchangeable.
            check_both_ways(|| Shape::Value, &[["[1, 2]", "[2, 1]", "[1, 3]", "!"]]);
            continue;
        }
        check_both_ways_if(
            true,
            shape,
            &[
                ["[1, 2]", "[2, 1]", "[1, 3]", "[1, 3]"],
                ["[1, 2, 3]", "[2, 1, 3]", "-", "-"],
                ["[[1, 2], [3, 4]]", "[[4, 3], [1, 2]]", "{}", "{}"],
                ["{'a': [1, 2], 'b': 1}", "{'a': [2, 1], 'b': 1}", "'x'", "'x'"],
            ],
        );
        // A list that a handler sorted is kept where nothing else was done to it.
        check_both_ways(shape, &[["[2, 1]", "[1, 2]", "[2, 1]", "[1, 2]"]]);
        check_if(true, shape, &[["[1, 2, 3]", "[2, 1, 3]", "[3, 1, 2]", "[2, 1, 3]"]]);
    }
}

#[test]
fn values_agree_or_conflict() {
    for shape in [|| Shape::Value, || Shape::Unknown, || Shape::Untyped] {
        check_both_ways(
            shape,
            &[
                ["1", "2", "3", "!"],
                ["1", "2", "2", "!"],
                ["null", "1", "1", "!"],
                ["'a'", "'b'", "'c'", "!"],
                ["'a'", "'b'", "'b'", "'b'"],
                ["false", "true", "true", "true"],
                ["'a'", "null", "null", "null"],
                ["'a'", "-", "-", "-"],
                ["'a'", "-", "'b'", "!"],
                ["'a'", "-", "null", "!"],
                ["'a'", "null", "'b'", "!"],
                ["-", "'a'", "'b'", "!"],
                // The items of a tuple, and the fields of a nested struct.
                ["['a']", "['a', 'b']", "['a', 'c']", "!"],
                ["{'a': 'x'}", "{'a': 'y'}", "{'a': 'y'}", "{'a': 'y'}"],
                ["{'a': 'x'}", "{'a': 'y'}", "{'a': 'x', 'b': 'x'}", "!"],
                ["{'a': 'x'}", "{'a': []}", "{'a': []}", "{'a': []}"],
                ["{'a': 'x'}", "{'a': ['y']}", "{'a': ['y']}", "!"],
                ["{'a': 'x'}", "{'a': {'b': 1}}", "{'a': {'b': 1}}", "!"],
                // A change of variant, of an enum however tagged.
                ["'Cart'", "'Paid'", "'Cancelled'", "!"],
                ["{'Pay': {'sum': 1}}", "{'Done': {'sum': 1}}", "{'Pay': {'sum': 5}}", "!"],
                [
                    "{'t': 'Pay', 'sum': 1}",
                    "{'t': 'Done', 'sum': 1}",
                    "{'t': 'Pay', 'sum': 5}",
                    "!",
                ],
            ],
        );
    }
}

#[test]
fn of_two_texts_the_later_is_kept() {
    check(
        || Shape::Text,
        &[
            ["'a'", "'b'", "'c'", "'b'"],
            ["null", "'b'", "'c'", "'b'"],
            ["-", "'b'", "'c'", "'b'"],
            ["'a'", "'b'", "'b'", "'b'"],
        ],
    );
    check_both_ways(
        || Shape::Text,
        &[
            ["'a'", "null", "'c'", "!"],
            ["'a'", "-", "'c'", "!"],
            ["'a'", "null", "null", "null"],
            ["'a'", "-", "-", "-"],
            ["'a'", "1", "'c'", "!"],
        ],
    );
}

#[test]
fn lists_that_grew_keep_both_tails() {
    check(
        || Shape::List,
        &[
            ["['a']", "['a', 'b']", "['a', 'c', 'd']", "['a', 'c', 'd', 'b']"],
            ["['a']", "['a', 'b']", "['a', 'b']", "['a', 'b', 'b']"],
            ["[]", "['b']", "['c']", "['c', 'b']"],
            ["-", "['b']", "['c']", "['c', 'b']"],
            ["[[1]]", "[[1], [2]]", "[[1], [3]]", "[[1], [3], [2]]"],
        ],
    );
}

#[test]
fn lists_that_did_more_than_grow_conflict() {
    check_both_ways(
        || Shape::List,
        &[
            ["null", "['b']", "['c']", "!"],
            ["null", "[]", "[]", "[]"],
            ["['a', 'b']", "['a', 'b', 'c']", "['a']", "!"],
            ["['a', 'b']", "['a']", "['b']", "!"],
            ["['a', 'b']", "['a']", "['a']", "['a']"],
            ["['a', 'b']", "[]", "[]", "[]"],
            ["['a', 'b']", "[]", "-", "!"],
            ["['a', 'b']", "['a', 'c']", "['a', 'c']", "!"],
            ["['a', 'b']", "['b', 'b']", "['b', 'b']", "!"],
            ["['a', 'b']", "['c']", "['c']", "!"],
            ["[{'n': 1}, {'n': 2}]", "[{'n': 3}, {'n': 2}]", "[{'n': 1}, {'n': 4}]", "!"],
        ],
    );
}

#[test]
fn bytes_and_dates_are_no_lists() {
    check_both_ways(
        || Shape::List,
        &[
            ["[]", "[1, 2]", "[3, 4]", "!"],
            ["-", "[1, 2]", "[1, 2]", "!"],
            ["[7]", "[7, 1]", "[7, 2]", "!"],
            ["[true]", "[true, false]", "[true, true]", "!"],
            ["[]", "[1, 2]", "['a']", "!"],
            ["[1]", "[1, 'a']", "[1, 'b']", "!"],
            ["[1, 2]", "[1]", "[1]", "!"],
            ["[1, 2]", "[]", "[]", "[]"],
        ],
    );
}

#[test]
fn counters_add_up() {
    check_both_ways(
        || Shape::Counter,
        &[
            ["1", "2", "2", "3"],
            ["5", "0", "6", "1"],
            ["-", "1", "1", "2"],
            ["null", "1", "-2", "-1"],
            ["-9223372036854775808", "-1", "9223372036854775807", "!"],
            ["9223372036854775807", "-2", "0", "!"],
            ["0", "9223372036854775807", "1", "!"],
            ["0", "18446744073709551615", "1", "!"],
            ["0", "0.5", "1", "!"],
            ["0.5", "1", "2", "!"],
            ["1", "null", "2", "!"],
            ["1", "-", "2", "!"],
            ["1", "null", "null", "null"],
            ["1", "-", "-", "-"],
        ],
    );
}

#[test]
fn of_two_latest_values_the_later_is_kept() {
    check(
        || Shape::Latest(Box::new(Shape::Value)),
        &[
            ["1", "2", "3", "2"],
            ["1", "2", "2", "2"],
            ["1", "-", "3", "-"],
            ["1", "2", "-", "2"],
            ["{'a': 1, 'b': 1}", "{'a': 2, 'b': 1}", "{'a': 1, 'b': 2}", "{'a': 2, 'b': 1}"],
        ],
    );
}

#[test]
fn another_order_is_no_change_of_data_that_has_another_order_each_time() {
    check_if(
        true,
        || Shape::List,
        &[
            ["['a', 'b']", "['b', 'a']", "['a', 'b', 'c']", "['a', 'b', 'c']"],
            ["['a', 'b']", "['a', 'b', 'c']", "['b', 'a']", "['a', 'b', 'c']"],
            ["['a', 'b']", "['b', 'a']", "['a']", "['a']"],
            ["['a', 'b']", "['b', 'a', 'c']", "['a', 'b', 'd']", "!"],
            // Sets within items.
            ["[[1, 2]]", "[[2, 1], [3]]", "[[1, 2], [4]]", "[[1, 2], [4], [3]]"],
        ],
    );
    check_if(
        true,
        || Shape::Latest(Box::new(Shape::List)),
        &[
            ["['a', 'b']", "['b', 'a']", "['a', 'b', 'c']", "['a', 'b', 'c']"],
            ["['a', 'b']", "['a', 'b', 'c']", "['b', 'a']", "['a', 'b', 'c']"],
        ],
    );
}

#[test]
fn another_order_is_a_change_of_data_that_keeps_its_order() {
    check_if(
        false,
        || Shape::List,
        &[
            ["['a', 'b']", "['b', 'a']", "['a', 'b', 'c']", "!"],
            ["['a', 'b']", "['a', 'b', 'c']", "['b', 'a']", "!"],
            ["['a', 'b']", "['b', 'a']", "['a']", "!"],
            ["['a', 'b']", "['b', 'a']", "['a', 'b']", "['b', 'a']"],
            ["['a', 'b', 'c']", "['c', 'b', 'a']", "['c', 'b', 'a']", "['c', 'b', 'a']"],
            ["[['a', 'b']]", "[['b', 'a'], ['c']]", "[['a', 'b'], ['d']]", "!"],
        ],
    );
    check_if(
        false,
        || Shape::Latest(Box::new(Shape::List)),
        &[
            ["['a', 'b']", "['b', 'a']", "['a', 'b', 'c']", "['b', 'a']"],
            ["['a', 'b']", "['a', 'b', 'c']", "['b', 'a']", "['a', 'b', 'c']"],
        ],
    );
    check_if(
        false,
        || Shape::Value,
        &[[
            "{'l': ['a', 'b'], 'n': 1}",
            "{'l': ['b', 'a'], 'n': 1}",
            "{'l': ['a', 'b'], 'n': 2}",
            "!",
        ]],
    );
}

#[test]
fn sets_unite() {
    check_both_ways(
        || Shape::Set,
        &[
            ["[1, 2]", "[1, 2, 3]", "[1, 2, 4]", "[1, 2, 3, 4]"],
            ["[1, 2]", "[1, 2, 3]", "[1, 2, 3]", "[1, 2, 3]"],
            ["[1, 2]", "[2, 3]", "[1]", "[3]"],
            ["[1, 2]", "[]", "[1, 2, 3]", "[3]"],
            ["[[1, 2]]", "[[1, 2], [2, 1]]", "[]", "[[2, 1]]"],
            ["-", "[1]", "[2]", "[1, 2]"],
            ["null", "[1]", "[2]", "[1, 2]"],
            ["[1]", "-", "[1, 2]", "[2]"],
            ["[1]", "-", "-", "-"],
            ["[1]", "null", "null", "null"],
            ["[1]", "null", "[1, 2]", "!"],
        ],
    );
}

#[test]
fn a_once_that_both_changed_is_a_conflict_even_if_both_did_the_same() {
    check_both_ways(
        || Shape::Once,
        &[
            ["'a'", "null", "null", "!"],
            ["'a'", "-", "-", "!"],
            ["null", "'a'", "'a'", "!"],
            ["null", "'a'", "'b'", "!"],
            ["'a'", "null", "'b'", "!"],
        ],
    );
}

#[test]
fn maps_merge_key_by_key() {
    let carts = [
        ["{}", "{'a': 1}", "{'b': 2}", "{'a': 1, 'b': 2}"],
        ["-", "{'a': 1}", "{'b': 2}", "{'a': 1, 'b': 2}"],
        ["{'a': 1, 'b': 1}", "{'b': 1}", "{'a': 1, 'b': 2}", "{'b': 2}"],
        ["{'a': 1}", "{}", "{}", "{}"],
        ["{'a': 1}", "{}", "{'a': 2}", "!"],
        ["{'a': 1}", "{'a': 2}", "{'a': 2}", "!"],
        ["{'a': 1}", "-", "-", "-"],
        ["{'a': 1}", "-", "{'a': 1, 'b': 1}", "!"],
        ["null", "{'a': 'x'}", "{'b': 'y'}", "!"],
    ];
    check_both_ways(map(|| Shape::Value), &carts);
    check_both_ways(map(|| Shape::Counter), &[["{'a': 1}", "{'a': 2}", "{'a': 3}", "{'a': 4}"]]);
    let nested = || map(|| Shape::Value)();
    check_both_ways(
        map(nested),
        &[["{'a': {}}", "{'a': {'a': 1}}", "{'a': {'b': 1}}", "{'a': {'a': 1, 'b': 1}}"]],
    );
    // A list that was sorted, beside another key that the other side changed.
    check_both_ways(
        map(|| Shape::List),
        &[["{'a': [2, 1]}", "{'a': [1, 2]}", "{'a': [2, 1], 'b': []}", "{'a': [1, 2], 'b': []}"]],
    );
}

#[test]
fn flattened_members_are_one_value() {
    let flattening = || {
        let shapes = [("text", Shape::Text), ("option", Shape::Unknown), ("pay", Shape::Untyped)];
        let shapes = shapes.map(|(key, shape)| (key.to_owned(), shape));
        Shape::Members(Members { kind: Kind::Flattening, shapes: shapes.into() })
    };
    check_both_ways(
        flattening,
        &[
            [
                "{'text': 'a', 'pay': 1}",
                "{'text': 'b', 'pay': 1}",
                "{'text': 'a', 'pay': 2}",
                "{'text': 'b', 'pay': 2}",
            ],
            ["{'option': 'a', 'pay': 1}", "{'pay': 1}", "{'option': 'a', 'pay': 2}", "{'pay': 2}"],
            [
                "{'pay': 1}",
                "{'done': 1}",
                "{'pay': 1, 'option': 'a'}",
                "{'done': 1, 'option': 'a'}",
            ],
            ["{'pay': 1}", "{'done': 1}", "{'pay': 2}", "!"],
            ["{'pay': 1, 'to': 'a'}", "{'pay': 1, 'to': 'b'}", "{'pay': 2, 'to': 'a'}", "!"],
        ],
    );
}

#[test]
fn a_conflict_is_named_by_fields_and_never_by_keys_of_maps() {
    let members = |kind, key: &str, shape| {
        Shape::Members(Members { kind, shapes: [(key.to_owned(), shape)].into() })
    };
    let cases = [
        (members(Kind::Struct, "a/b~c", Shape::Value), "a/b~c", "/a~1b~0c"),
        (members(Kind::Flattening, "a", Shape::Value), "a", "/a"),
        (members(Kind::Flattening, "a", Shape::Untyped), "a", ""),
        (members(Kind::Map, "a", Shape::Value), "a", ""),
        (Shape::Value, "a", ""),
    ];
    for (shape, key, pointer) in cases {
        let [base, ours, theirs] = [1, 2, 3].map(|value| Value::from_iter([(key, value)]));
        assert_eq!(
            Merger { shuffles: || false }.merge(&shape, [base, ours, theirs]).unwrap_err(),
            pointer,
            "{shape:?}"
        );
    }
    let cart = members(Kind::Struct, "cart", map(|| Shape::Value)());
    let [base, ours, theirs] =
        [1, 2, 3].map(|value| Value::from_iter([("cart", Value::from_iter([("a", value)]))]));
    assert_eq!(
        Merger { shuffles: || false }.merge(&cart, [base, ours, theirs]).unwrap_err(),
        "/cart"
    );
}

#[test]
fn a_document_with_a_rounded_number_does_not_merge() {
    let [base, changed] = ["{'n': 'x'}", "{'n': 'y'}"].map(|text| field(text).unwrap_or_default());
    let rounded = field("{'n': [100000000000000000000]}").unwrap_or_default();
    for (base, ours, theirs) in
        [(&base, &rounded, &base), (&base, &base, &rounded), (&rounded, &changed, &rounded)]
    {
        let merged = Merger { shuffles: || true }
            .merge(&Shape::Value, [base.clone(), ours.clone(), theirs.clone()]);
        assert_eq!(merged, Err(String::new()));
    }
}
