use std::{collections::BTreeSet, vec};

use proptest::{collection, option, prelude::*, sample::subsequence};

use super::super::*;

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// A base and two changes of it.
#[derive(Debug)]
struct Sides {
    shape: Shape,
    /// The data is written in another order each time.
    shuffles: bool,
    base: Value,
    ours: Value,
    theirs: Value,
}

impl Sides {
    fn merge(&self) -> Result<Value, Pointer> {
        Merger { shuffles: || self.shuffles }
            .merge(&self.shape, [self.base.clone(), self.ours.clone(), self.theirs.clone()])
    }
}

fn leaf() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Unknown),
        Just(Shape::Untyped),
        Just(Shape::Value),
        Just(Shape::Enum("Enum")),
        Just(Shape::Text),
        Just(Shape::List),
        Just(Shape::Counter),
        Just(Shape::Latest(Box::new(Shape::Value))),
        Just(Shape::Latest(Box::new(Shape::List))),
        Just(Shape::Set),
        Just(Shape::Once),
    ]
}

fn members(of: impl Strategy<Value = Shape> + 'static) -> impl Strategy<Value = Shape> {
    let kind = prop_oneof![Just(Kind::Struct), Just(Kind::Map), Just(Kind::Flattening)];
    (kind, collection::vec(of, KEYS.len())).prop_map(|(kind, shapes)| {
        let shapes = KEYS.iter().map(|key| (*key).to_owned()).zip(shapes).collect();
        Shape::Members(Members { kind, shapes })
    })
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![1 => leaf(), 4 => members(prop_oneof![3 => leaf(), 1 => members(leaf())])]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..4).prop_map(Value::from),
        text(),
    ]
}

fn text() -> impl Strategy<Value = Value> {
    "[a-d]".prop_map(Value::from)
}

fn list_of(of: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    collection::vec(of, 0..4).prop_map(Value::from)
}

fn object_of(of: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    (subsequence(KEYS.to_vec(), 0..4), collection::vec(of, KEYS.len()))
        .prop_map(|(keys, members)| keys.into_iter().zip(members).collect())
}

fn any_value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(2, 12, 4, |inner| prop_oneof![list_of(inner.clone()), object_of(inner)])
}

/// Mostly what a type of this shape would write.
fn value_of(shape: &Shape) -> BoxedStrategy<Value> {
    let typical = match shape {
        Shape::Text => text().boxed(),
        Shape::List => list_of(any_value()).boxed(),
        Shape::Counter => (0..9).prop_map(Value::from).boxed(),
        Shape::Set => list_of(scalar()).prop_map(|list| without_repetition(&list)).boxed(),
        Shape::Once => prop_oneof![Just(Value::Null), text()].boxed(),
        Shape::Members(members) => {
            let values =
                KEYS.iter().map(|key| option::weighted(0.8, value_of(&members.shapes[*key])));
            let values = values.collect::<Vec<_>>();
            let present = |values: Vec<Option<Value>>| {
                KEYS.iter().zip(values).filter_map(|(key, value)| Some((*key, value?))).collect()
            };
            values.prop_map(present).boxed()
        }
        Shape::Latest(shape) => value_of(shape),
        Shape::Unknown | Shape::Untyped | Shape::Value | Shape::Enum(_) => any_value().boxed(),
    };
    prop_oneof![9 => typical, 1 => any_value()].boxed()
}

fn without_repetition(list: &Value) -> Value {
    let mut seen = BTreeSet::new();
    let items = list.as_array().into_iter().flatten().cloned();
    items.filter(|item| seen.insert(item.to_string())).collect()
}

/// Returns the base with some of its places as they are in `new`, and others re-ordered, shortened or grown.
fn edited(base: &Value, new: &Value, decide: &mut vec::IntoIter<u8>) -> Value {
    let decision = decide.next().unwrap_or_default() % 8;
    match (base, new) {
        (Value::Object(base), Value::Object(new)) if decision < 6 => {
            let keys: BTreeSet<_> = base.keys().chain(new.keys()).collect();
            let members = keys.into_iter().filter_map(|key| {
                let member = match (base.get(key), new.get(key)) {
                    (Some(base), Some(new)) => edited(base, new, decide),
                    (base, new) if decide.next().unwrap_or_default().is_multiple_of(2) => {
                        base.or(new)?.clone()
                    }
                    (base, _) => base?.clone(),
                };
                Some((key.clone(), member))
            });
            members.collect()
        }
        (Value::Array(base), Value::Array(new)) if decision < 3 => {
            base.iter().chain(new).cloned().collect()
        }
        (Value::Array(base), _) if decision == 3 => base.iter().skip(1).cloned().collect(),
        (base, _) if decision == 4 => reordered(base),
        (base, _) if decision < 6 => base.clone(),
        (_, new) => new.clone(),
    }
}

/// The same in another order, in all lists.
fn reordered(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().rev().map(reordered).collect(),
        Value::Object(members) => {
            members.iter().map(|(key, member)| (key.clone(), reordered(member))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn sides() -> impl Strategy<Value = Sides> {
    shape().prop_flat_map(|shape| {
        let value = || value_of(&shape);
        let decisions = || collection::vec(any::<u8>(), 12).prop_map(Vec::into_iter);
        let all = (value(), value(), value(), decisions(), decisions(), any::<bool>());
        all.prop_map(move |(base, ours, theirs, mut our_own, mut their_own, shuffles)| Sides {
            shape: shape.clone(),
            shuffles,
            ours: edited(&base, &ours, &mut our_own),
            theirs: edited(&base, &theirs, &mut their_own),
            base,
        })
    })
}

/// Returns `true` if two values differ in nothing but the order of lists.
fn is_alike(one: &Value, other: &Value) -> bool {
    sorted_text(one) == sorted_text(other)
}

fn is_unchanged(base: Option<&Value>, side: Option<&Value>, shuffles: bool) -> bool {
    match (base, side) {
        (Some(base), Some(side)) if shuffles => is_alike(base, side),
        (base, side) => base == side,
    }
}

/// Returns `true` if a side did nothing to a place. A tuple, unlike a list, is changed by another order.
fn is_left_alone(
    shape: &Shape,
    base: Option<&Value>,
    side: Option<&Value>,
    shuffles: bool,
) -> bool {
    let is_tuple = base.is_some_and(Value::is_array) && is_one_value(shape);
    base == side || (!is_tuple && is_unchanged(base, side, shuffles))
}

/// Checks that a merged place, the last of the four, holds the changes of both sides and nothing else.
fn expect_both_changes(
    shape: &Shape,
    [base, ours, theirs, merged]: [Option<&Value>; 4],
    shuffles: bool,
) -> Result<(), TestCaseError> {
    if let Shape::Members(members) = shape
        && base.is_none_or(Value::is_object)
        && let (Some(our_members), Some(their_members)) = (object(ours), object(theirs))
    {
        let documents = [object(base), Some(our_members), Some(their_members), object(merged)];
        let keys: BTreeSet<_> = documents.into_iter().flatten().flat_map(Object::keys).collect();
        for key in keys {
            let shape = members.shapes.get(key).unwrap_or(&Shape::Unknown);
            let sides = [base, ours, theirs, merged].map(|side| side?.get(key));
            expect_both_changes(shape, sides, shuffles)?;
        }
    } else if is_left_alone(shape, base, ours, shuffles) {
        prop_assert!(is_unchanged(theirs, merged, shuffles));
    } else if is_left_alone(shape, base, theirs, shuffles) {
        prop_assert!(is_unchanged(ours, merged, shuffles));
    } else {
        let lists = [base, ours, theirs, merged].map(|side| items(side).unwrap_or_default());
        match shape {
            Shape::Counter if ours.is_some_and(Value::is_number) => {
                let [base, ours, theirs, merged] = [base, ours, theirs, merged]
                    .map(|side| side.and_then(Value::as_i64).unwrap_or_default());
                prop_assert_eq!(merged - base, ours - base + theirs - base);
            }
            Shape::Set if items(merged).is_some() => expect_union(lists)?,
            Shape::List if [ours, theirs] != [merged; 2] => expect_both_tails(lists, shuffles)?,
            Shape::Text | Shape::Latest(_) => prop_assert_eq!(merged, ours),
            Shape::Once => prop_assert!(false, "both changed it"),
            Shape::Unknown
            | Shape::Untyped
            | Shape::Value
            | Shape::Enum(_)
            | Shape::List
            | Shape::Counter
            | Shape::Set
            | Shape::Members(_) => prop_assert_eq!([ours, theirs], [merged; 2]),
        }
    }
    Ok(())
}

fn object(side: Option<&Value>) -> Option<&Object> {
    side?.as_object()
}

fn items(side: Option<&Value>) -> Option<&[Value]> {
    side?.as_array().map(Vec::as_slice)
}

fn expect_union([base, ours, theirs, merged]: [&[Value]; 4]) -> Result<(), TestCaseError> {
    for item in [base, ours, theirs, merged].concat() {
        let [base, ours, theirs, merged] =
            [base, ours, theirs, merged].map(|items| items.contains(&item));
        let expected = if base { ours && theirs } else { ours || theirs };
        prop_assert_eq!(merged, expected, "{}", item);
    }
    Ok(())
}

fn expect_both_tails(
    [base, ours, theirs, merged]: [&[Value]; 4],
    shuffles: bool,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(merged, [theirs, &ours[base.len()..]].concat());
    for (old, (one, other)) in base.iter().zip(ours.iter().zip(theirs)) {
        for new in [one, other] {
            prop_assert!(is_unchanged(Some(old), Some(new), shuffles));
        }
    }
    Ok(())
}

/// Returns `true` for the shape of a tuple, among other types.
fn is_one_value(shape: &Shape) -> bool {
    if let Shape::Latest(shape) = shape { is_one_value(shape) } else { *shape == Shape::Value }
}

/// Returns `true` if a list stands where the type has a tuple, whose items are not interchangeable.
fn holds_a_tuple(shape: &Shape, data: &Value) -> bool {
    let is_member = |(key, member): (&String, &Value)| {
        let Shape::Members(members) = shape else { return false };
        members.shapes.get(key).is_some_and(|shape| holds_a_tuple(shape, member))
    };
    (data.is_array() && is_one_value(shape))
        || data.as_object().is_some_and(|members| members.iter().any(is_member))
}

/// Returns `true` if the later of two changes is kept anywhere.
fn prefers_ours(shape: &Shape) -> bool {
    if let Shape::Members(members) = shape {
        return members.shapes.values().any(prefers_ours);
    }
    matches!(shape, Shape::Text | Shape::Latest(_))
}

proptest! {
    #[test]
    fn an_unchanged_side_takes_the_other(sides in sides()) {
        let Sides { shape, base, ours: changed, shuffles, .. } = sides;
        let as_ours = Merger { shuffles: || shuffles }.merge(&shape, [base.clone(), changed.clone(), base.clone()]);
        prop_assert_eq!(as_ours, Ok(changed.clone()));
        let as_theirs = Merger { shuffles: || shuffles }.merge(&shape, [base.clone(), base, changed.clone()]);
        prop_assert_eq!(as_theirs, Ok(changed));
    }

    #[test]
    fn a_side_that_is_only_reordered_never_conflicts_if_the_data_shuffles(sides in sides()) {
        let Sides { shape, base, ours: changed, .. } = sides;
        prop_assume!(!holds_a_tuple(&shape, &base));
        let reordered = reordered(&base);
        for (ours, theirs) in [(&changed, &reordered), (&reordered, &changed)] {
            let merged = Merger { shuffles: || true }.merge(&shape, [base.clone(), ours.clone(), theirs.clone()]);
            prop_assert!(merged.as_ref().is_ok_and(|merged| is_alike(merged, &changed)), "{merged:?}");
        }
    }

    #[test]
    fn both_changes_are_kept_and_nothing_is_invented(sides in sides()) {
        if let Ok(merged) = sides.merge() {
            let documents = [&sides.base, &sides.ours, &sides.theirs, &merged].map(Some);
            expect_both_changes(&sides.shape, documents, sides.shuffles)?;
        }
    }

    #[test]
    fn which_request_came_first_decides_only_the_order_of_lists_and_what_the_later_is_to_decide(
        sides in sides(),
    ) {
        let merged = sides.merge();
        let exchanged =
            Merger { shuffles: || sides.shuffles }.merge(&sides.shape, [sides.base, sides.theirs, sides.ours]);
        prop_assert_eq!(merged.is_ok(), exchanged.is_ok());
        if let (Ok(merged), Ok(exchanged)) = (merged, exchanged)
            && !prefers_ours(&sides.shape)
        {
            prop_assert!(is_alike(&merged, &exchanged), "{merged} and {exchanged}");
        }
    }
}
