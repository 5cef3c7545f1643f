use std::{collections::BTreeMap, ops::Range};

use proptest::{
    collection, option,
    prelude::*,
    sample::{select, subsequence},
};
use serde_json::json;

use super::{super::*, merge, pointers};

const KEYS: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

fn key() -> impl Strategy<Value = String> {
    select(&KEYS).prop_map(str::to_owned)
}

fn plain_scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..4).prop_map(Value::from),
    ]
}

fn plain_text() -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), text(),]
}

fn text() -> impl Strategy<Value = Value> {
    key().prop_map(Value::from)
}

fn nested(leaf: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    leaf.prop_recursive(3, 16, 4, |inner| {
        let list = collection::vec(inner.clone(), 0..4).prop_map(Value::Array);
        prop_oneof![list, object(inner, 0..4)]
    })
}

fn object(
    member: impl Strategy<Value = Value>,
    size: Range<usize>,
) -> impl Strategy<Value = Value> {
    let members = collection::vec(member, size.end);
    (subsequence(KEYS.to_vec(), size), members).prop_map(|(keys, members)| {
        Value::Object(keys.into_iter().map(str::to_owned).zip(members).collect())
    })
}

fn value() -> impl Strategy<Value = Value> {
    nested(prop_oneof![plain_scalar(), text()])
}

#[derive(Debug, Clone)]
enum Edit {
    Set(Value),
    Insert(String, Value),
    Push(Value),
    Remove(usize),
}

fn edit() -> impl Strategy<Value = (Vec<usize>, Edit)> {
    let edit = prop_oneof![
        value().prop_map(Edit::Set),
        (key(), value()).prop_map(|(key, value)| Edit::Insert(key, value)),
        plain_scalar().prop_map(Edit::Push),
        (0..8usize).prop_map(Edit::Remove),
    ];
    (collection::vec(0..8usize, 1..4), edit)
}

/// Follows `path` as far as it leads, then edits what is there.
fn apply(target: &mut Value, path: &[usize], edit: &Edit) {
    if let Some((&step, rest)) = path.split_first()
        && let Some(child) = pick(children(target).into_iter(), step)
    {
        return apply(child, rest, edit);
    }
    match (edit, target) {
        (Edit::Set(value), target) => *target = value.clone(),
        (Edit::Insert(key, value), Value::Object(members)) => {
            members.insert(key.clone(), value.clone());
        }
        (Edit::Push(value), Value::Array(items)) => items.push(value.clone()),
        (Edit::Remove(at), Value::Object(members)) => {
            if let Some(key) = pick(members.keys(), *at).cloned() {
                members.remove(&key);
            }
        }
        (Edit::Remove(at), Value::Array(items)) if *at < items.len() => {
            items.remove(*at);
        }
        _ => {}
    }
}

fn children(value: &mut Value) -> Vec<&mut Value> {
    if let Value::Object(members) = value {
        members.values_mut().collect()
    } else if let Value::Array(items) = value {
        items.iter_mut().collect()
    } else {
        Vec::new()
    }
}

fn pick<T>(mut from: impl ExactSizeIterator<Item = T>, at: usize) -> Option<T> {
    let len = from.len().max(1);
    from.nth(at % len)
}

#[derive(Debug, Clone)]
struct Sides {
    base: Value,
    ours: Value,
    theirs: Value,
}

impl Sides {
    fn merge(&self) -> Result<Value, MergeConflict> {
        self.merge_with(&[])
    }

    fn merge_with(&self, last_write_wins: &[Pointer]) -> Result<Value, MergeConflict> {
        merge(&self.base, self.ours.clone(), self.theirs.clone(), last_write_wins)
    }

    fn map(self, change: impl Fn(Value) -> Value) -> Self {
        let [base, ours, theirs] = [self.base, self.ours, self.theirs].map(change);
        Self { base, ours, theirs }
    }
}

/// Copies of one base with the same and with different edits, so that a good part of them merges.
fn edited_copies() -> impl Strategy<Value = Sides> {
    let edits = || collection::vec(edit(), 1..4);
    let same = prop_oneof![3 => Just(Vec::new()), 2 => edits()];
    (object(value(), 4..7), same, edits(), edits()).prop_map(|(base, same, ours, theirs)| {
        let edited = |edits: Vec<(Vec<usize>, Edit)>| {
            let mut copy = base.clone();
            for (path, edit) in same.iter().chain(&edits) {
                apply(&mut copy, path, edit);
            }
            copy
        };
        let (ours, theirs) = (edited(ours), edited(theirs));
        Sides { base, ours, theirs }
    })
}

fn any_sides() -> impl Strategy<Value = Sides> {
    let unrelated =
        (value(), value(), value()).prop_map(|(base, ours, theirs)| Sides { base, ours, theirs });
    prop_oneof![4 => edited_copies(), 1 => unrelated]
}

/// One fact a value states: that a member is there, that it is a scalar, or that its list has an item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Fact {
    Member(String),
    Scalar(String, String),
    Item(String, String),
}

fn facts(value: &Value) -> BTreeMap<Fact, usize> {
    fn collect(value: &Value, path: &str, facts: &mut BTreeMap<Fact, usize>) {
        if let Value::Object(members) = value {
            for (key, member) in members {
                let path = format!("{path}/{key}");
                collect(member, &path, facts);
                facts.insert(Fact::Member(path), 1);
            }
        } else if let Value::Array(items) = value {
            for item in items {
                let fact = Fact::Item(path.to_owned(), canonical(item));
                *facts.entry(fact).or_default() += 1;
            }
        } else {
            facts.insert(Fact::Scalar(path.to_owned(), value.to_string()), 1);
        }
    }
    let mut facts = BTreeMap::new();
    collect(value, "", &mut facts);
    facts
}

/// A text that is the same for equal values, whatever the order of their keys.
fn canonical(value: &Value) -> String {
    if let Value::Object(members) = value {
        let sorted: BTreeMap<_, _> =
            members.iter().map(|(key, value)| (key, canonical(value))).collect();
        format!("{sorted:?}")
    } else if let Value::Array(items) = value {
        format!("{:?}", items.iter().map(canonical).collect::<Vec<_>>())
    } else {
        value.to_string()
    }
}

fn sorted_lists(value: Value) -> Value {
    match value {
        Value::Array(mut items) => {
            items.sort_by_key(canonical);
            Value::Array(items)
        }
        Value::Object(members) => {
            let sorted = members.into_iter().map(|(key, value)| (key, sorted_lists(value)));
            Value::Object(sorted.collect())
        }
        scalar @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => scalar,
    }
}

/// Wraps a value into objects that nobody changed, the innermost with a neighbour.
fn within(path: &[String], value: Value) -> Value {
    path.iter().rev().fold(value, |value, key| json!({ key: value, "neighbour": [1] }))
}

fn path() -> impl Strategy<Value = Vec<String>> {
    collection::vec(key(), 0..4)
}

/// A member of the base, of one side that changed it or of none, and what it was changed to.
#[derive(Debug, Clone)]
struct Slot {
    base: Option<Value>,
    owner: usize,
    new: Option<Value>,
}

type Slots = BTreeMap<(String, String), Slot>;

/// Two levels of members, each of which at most one side changes.
fn slots(
    base: impl Strategy<Value = Option<Value>>,
    new: impl Strategy<Value = Option<Value>>,
) -> impl Strategy<Value = Slots> {
    let slot = (base, 0..3usize, new).prop_map(|(base, owner, new)| Slot { base, owner, new });
    collection::btree_map((select(&["x", "y", "z"]).prop_map(str::to_owned), key()), slot, 0..20)
}

/// The value with the changes of these owners.
fn with_changes_of(slots: &Slots, owners: &[usize]) -> Value {
    let mut maps = json!({ "x": {}, "y": {}, "z": {} });
    for ((map, key), slot) in slots {
        let value = if owners.contains(&slot.owner) { &slot.new } else { &slot.base };
        if let (Some(value), Some(Value::Object(map))) = (value, maps.get_mut(map)) {
            map.insert(key.clone(), value.clone());
        }
    }
    maps
}

fn both_changes_survive(slots: &Slots) -> Result<(), TestCaseError> {
    let [base, ours, theirs, expected] =
        [&[][..], &[1], &[2], &[1, 2]].map(|owners| with_changes_of(slots, owners));
    prop_assert_eq!(merge(&base, ours, theirs, &[]), Ok(expected));
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Variant {
    name: &'static str,
    own: i64,
    shared: i64,
}

fn variant() -> impl Strategy<Value = Variant> {
    (select(&["Idle", "A", "B", "C"]), 0..3i64, 0..3i64).prop_map(|(name, own, shared)| Variant {
        name,
        own,
        shared,
    })
}

#[derive(Debug, Clone, Copy)]
enum Tagging {
    External,
    ExternalFlattened,
    Internal,
    Adjacent,
}

impl Tagging {
    /// What serde writes for a struct with a field `id` and this enum.
    fn encode(self, variant: Variant) -> Value {
        let Variant { name, own, shared } = variant;
        let idle = name == "Idle";
        let own_key = format!("only_{name}");
        match self {
            Self::External if idle => json!({ "id": 1, "step": "Idle" }),
            Self::External => {
                json!({ "id": 1, "step": { name: { own_key: own, "shared": shared } } })
            }
            Self::ExternalFlattened if idle => json!({ "id": 1, "Idle": null }),
            Self::ExternalFlattened => json!({ "id": 1, name: { own_key: own, "shared": shared } }),
            Self::Internal if idle => json!({ "id": 1, "type": "Idle" }),
            Self::Internal => json!({ "id": 1, "type": name, own_key: own, "shared": shared }),
            Self::Adjacent if idle => json!({ "id": 1, "step": { "t": "Idle" } }),
            Self::Adjacent => {
                json!({ "id": 1, "step": { "t": name, "c": { own_key: own, "shared": shared } } })
            }
        }
    }
}

proptest! {
    #[test]
    fn an_unchanged_side_takes_the_other(base in value(), changed in value(), covered in key()) {
        for covered in [vec![], pointers([&format!("/{covered}")])] {
            let ours = merge(&base, changed.clone(), base.clone(), &covered);
            prop_assert_eq!(ours, Ok(changed.clone()));
            let theirs = merge(&base, base.clone(), changed.clone(), &covered);
            prop_assert_eq!(theirs, Ok(changed.clone()));
        }
    }

    #[test]
    fn which_request_came_first_decides_only_the_order_of_tails(sides in any_sides()) {
        let swapped = Sides { ours: sides.theirs.clone(), theirs: sides.ours.clone(), ..sides.clone() };
        prop_assert_eq!(
            sides.merge().map(sorted_lists),
            swapped.merge().map(sorted_lists)
        );
    }

    #[test]
    fn every_change_of_either_side_is_in_the_result(sides in any_sides()) {
        let Ok(merged) = sides.merge() else { return Ok(()) };
        let all @ [base, ours, theirs, merged] =
            &[&sides.base, &sides.ours, &sides.theirs, &merged].map(facts);
        for fact in all.iter().flat_map(BTreeMap::keys) {
            let [base, ours, theirs, merged] =
                [base, ours, theirs, merged].map(|facts| facts.get(fact).copied().unwrap_or(0));
            let item = matches!(fact, Fact::Item(..));
            let expected = if ours == base {
                theirs
            } else if theirs == base {
                ours
            } else if item && ours > base && theirs > base {
                ours + theirs - base
            } else {
                prop_assert_eq!(ours, theirs, "changed differently: {:?}", fact);
                ours
            };
            prop_assert_eq!(merged, expected, "{:?}", fact);
        }
    }

    #[test]
    fn nothing_is_invented(sides in any_sides(), covered in key()) {
        for covered in [vec![], pointers([&format!("/{covered}")])] {
            let Ok(merged) = sides.merge_with(&covered) else { continue };
            let (ours, theirs) = (facts(&sides.ours), facts(&sides.theirs));
            for fact in facts(&merged).keys() {
                prop_assert!(ours.contains_key(fact) || theirs.contains_key(fact), "{fact:?}");
            }
        }
    }

    #[test]
    fn what_either_side_removed_stays_removed(sides in any_sides()) {
        let Ok(merged) = sides.merge() else { return Ok(()) };
        let [base, ours, theirs, merged] =
            [&sides.base, &sides.ours, &sides.theirs, &merged].map(facts);
        for fact in base.keys() {
            if !ours.contains_key(fact) || !theirs.contains_key(fact) {
                prop_assert!(!merged.contains_key(fact), "{fact:?}");
            }
        }
    }

    #[test]
    fn the_same_change_without_numbers_and_lists_is_kept(
        base in value(),
        both in plain_text().prop_recursive(3, 16, 4, |inner| object(inner, 0..4)),
    ) {
        prop_assert_eq!(merge(&base, both.clone(), both.clone(), &[]), Ok(both));
    }

    #[test]
    fn additions_edits_and_removals_of_different_members_all_survive(
        slots in slots(option::of(nested(plain_scalar())), option::of(nested(plain_scalar()))),
    ) {
        both_changes_survive(&slots)?;
    }

    #[test]
    fn additions_and_edits_of_different_texts_all_survive(
        slots in slots(option::of(text()), text().prop_map(Some)),
    ) {
        both_changes_survive(&slots)?;
    }

    #[test]
    fn lists_that_grew_keep_both_tails_in_order(
        path in path(),
        base in collection::vec(value(), 0..3),
        our_tail in collection::vec(value(), 1..4),
        their_tail in collection::vec(value(), 1..4),
    ) {
        let list = |tails: &[&[Value]]| within(&path, [&base, tails.concat().as_slice()].concat().into());
        prop_assert_eq!(
            merge(&list(&[]), list(&[&our_tail]), list(&[&their_tail]), &[]),
            Ok(list(&[&their_tail, &our_tail]))
        );
    }

    #[test]
    fn two_variants_are_never_mixed(
        tagging in select(&[
            Tagging::External,
            Tagging::ExternalFlattened,
            Tagging::Internal,
            Tagging::Adjacent,
        ]),
        [base, ours, theirs] in [variant(), variant(), variant()],
    ) {
        let sides = [base, ours, theirs].map(|variant| tagging.encode(variant));
        let [base_value, our_value, their_value] = sides.clone();
        let Ok(merged) = merge(&base_value, our_value, their_value, &[]) else { return Ok(()) };
        if base.name == ours.name && ours.name == theirs.name {
            let fields = [(ours, ours), (ours, theirs), (theirs, ours), (theirs, theirs)];
            let mut values = fields.map(|(one, other)| {
                tagging.encode(Variant { name: base.name, own: one.own, shared: other.shared })
            }).into_iter();
            prop_assert!(values.any(|value| value == merged), "{merged}");
        } else {
            prop_assert!(sides.contains(&merged), "{merged}");
        }
    }

    #[test]
    fn any_conflict_under_a_last_write_wins_pointer_is_ours(
        path in path(),
        key in key(),
        [base, ours, theirs] in [option::of(value()), option::of(value()), option::of(value())],
    ) {
        let pointer = Pointer { keys: path.iter().chain([&key]).cloned().collect() };
        let document = |value: &Option<Value>| {
            let mut parent = Map::from_iter([("neighbour".to_owned(), Value::from(1))]);
            parent.extend(value.clone().map(|value| (key.clone(), value)));
            within(&path, Value::Object(parent))
        };
        let winner = if ours == base { &theirs } else { &ours };
        prop_assert_eq!(
            merge(&document(&base), document(&ours), document(&theirs), &[pointer]),
            Ok(document(winner))
        );
    }

    #[test]
    fn what_last_write_wins_does_not_cover_merges_as_without_it(
        // Four members at least, so that it is no tag with content when one is taken out.
        sides in edited_copies(),
        key in key(),
    ) {
        let member = |value: &Value| value.get(&key).cloned();
        let [base, ours, theirs] = [&sides.base, &sides.ours, &sides.theirs];
        if ![base, ours, theirs].into_iter().all(Value::is_object) {
            return Ok(());
        }
        let winner = if member(ours) == member(base) { member(theirs) } else { member(ours) };
        let merged = sides.merge_with(&pointers([&format!("/{key}")]));
        let uncovered = sides.map(|mut side| {
            side.as_object_mut().map(|members| members.remove(&key));
            side
        });
        let expected = uncovered.merge().map(|mut merged| {
            if let (Some(members), Some(winner)) = (merged.as_object_mut(), winner) {
                members.insert(key, winner);
            }
            merged
        });
        prop_assert_eq!(merged, expected);
    }

    #[test]
    fn no_input_panics(
        sides in any_sides(),
        pointers in collection::vec(collection::vec(key(), 1..4), 0..4),
    ) {
        let pointers: Vec<_> = pointers.into_iter().map(|keys| Pointer { keys }).collect();
        let _ = sides.merge_with(&pointers);
    }

    #[test]
    fn every_escaped_key_parses_back(keys in collection::vec("[a/~01é]{0,4}", 1..4)) {
        let escaped = keys.iter().map(|key| key.replace('~', "~0").replace('/', "~1"));
        let text = format!("/{}", escaped.collect::<Vec<_>>().join("/"));
        prop_assert_eq!(text.parse(), Ok(Pointer { keys }));
    }

    #[test]
    fn no_text_makes_the_pointer_parser_panic(text in "\\PC{0,8}|/[~/01a]{0,6}") {
        let parsed = text.parse::<Pointer>();
        prop_assert!(parsed.is_err() || text.starts_with('/'));
    }
}
