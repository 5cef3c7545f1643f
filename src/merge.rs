//! The three-way merge of session data: two requests loaded the same row, and both changed it.
//!
//! `base` is the data that both loaded, `theirs` is in the store now, and `ours` is about to be saved. Two
//! changes that cannot both hold are a [`MergeConflict`], never a mixture and never a loss. The [`Shape`] of
//! the data says how each place merges:
//!
//! | place | changes | result |
//! |---|---|---|
//! | any | one side is as `base` | the other side, even if removed |
//! | members | both sides have some | merged key by key |
//! | list | both only grew | `base`, the tail of `theirs`, the tail of `ours` |
//! | list | both lost the same items | that list |
//! | text | both are a text | `ours` |
//! | `Counter` | both are a 64-bit integer | `base` and both differences |
//! | `Latest` | any | `ours` |
//! | `Set` | any | `base` without the items that either side removed, with those that either added |
//! | `Once` | any | conflict |
//! | any | both removed it | removed |
//! | any | the same, and no number or list item in it | that value |
//! | any | all others, such as an edit beside a removal | conflict |
//!
//! - **Order.** A value that differs from `base` only in the order of lists counts as unchanged, since a
//!   `HashSet` is written in another order each time.
//! - **Absence.** A list, map or set that `base` lacks was empty, since `skip_serializing_if` leaves it out.
//!   `null` is an `Option` without a value, not an empty list.
//! - **Equal changes.** Two requests that count from 1 to 2 must not leave 2, and two that put the same article
//!   into a cart leave two of it.
//! - **Bytes.** A list that holds only numbers or only booleans may be bytes or a date, and merges as a value.
//! - **Flattened members.** They may be the fields of one enum, so all of them together are one value.
//! - **Large integers.** [`Value`] rounds integers beyond 64 bits, so a document that holds one does not merge.
//! - **Depth.** `serde_json` parses no more than 127 levels, which bounds the recursion.

mod shape;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Number, Value};

pub(crate) use self::shape::Shape;
use self::shape::{Kind, Members};
use crate::codec::is_exact;

type Object = Map<String, Value>;

/// Both sides changed the same place, and the two changes cannot both hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MergeConflict {
    /// A JSON pointer (RFC 6901) to the place. It ends before the first key of a map, since that is data.
    pub(crate) pointer: String,
}

impl MergeConflict {
    fn here() -> Self {
        Self { pointer: String::new() }
    }

    fn in_field(self, name: &str) -> Self {
        let name = name.replace('~', "~0").replace('/', "~1");
        Self { pointer: format!("/{name}{}", self.pointer) }
    }
}

/// Merges two changes of one session by the rules of this module.
///
/// If the store's document changes once more, merge the same `base` and `ours` again. The result of the first
/// merge already holds the tails of `theirs`.
pub(crate) fn merge(
    base: &Value,
    ours: Value,
    theirs: Value,
    shape: &Shape,
) -> Result<Value, MergeConflict> {
    if ![base, &ours, &theirs].into_iter().all(is_exact) {
        return Err(MergeConflict::here());
    }
    let merged = merge_place(Some(base), Some(ours), Some(theirs), shape)?;
    // `None` would be a document that was removed.
    Ok(merged.unwrap_or_default())
}

/// Merges one place. `None` stands for a member that is absent.
fn merge_place(
    base: Option<&Value>,
    ours: Option<Value>,
    theirs: Option<Value>,
    shape: &Shape,
) -> Result<Option<Value>, MergeConflict> {
    if theirs.as_ref() == base {
        return Ok(ours);
    }
    if ours.as_ref() == base {
        return Ok(theirs);
    }
    match (shape, base, ours, theirs) {
        (
            Shape::Members(members),
            None | Some(Value::Object(_)),
            Some(Value::Object(ours)),
            Some(Value::Object(theirs)),
        ) => {
            let base = base.and_then(Value::as_object);
            merge_members(base, ours, theirs, members).map(|merged| Some(merged.into()))
        }
        (_, Some(base), ours, Some(theirs)) if is_unchanged(base, &theirs, shape) => Ok(ours),
        (_, Some(base), Some(ours), theirs) if is_unchanged(base, &ours, shape) => Ok(theirs),
        (_, base, ours, theirs) => merge_changes(base, ours, theirs, shape),
    }
}

/// Merges members one by one, but for those that `#[serde(flatten)]` takes in: they are one value.
fn merge_members(
    base: Option<&Object>,
    ours: Object,
    theirs: Object,
    members: &Members,
) -> Result<Object, MergeConflict> {
    if members.kind != Kind::Flattening {
        return merge_keys(base, ours, theirs, members);
    }
    let split = |object: Object| -> (Object, Object) {
        object.into_iter().partition(|(key, _)| members.is_field(key))
    };
    let (base, base_rest) = split(base.cloned().unwrap_or_default());
    let (ours, our_rest) = split(ours);
    let (theirs, their_rest) = split(theirs);
    let [base_rest, our_rest, their_rest] = [base_rest, our_rest, their_rest].map(Value::Object);

    let rest = merge_place(Some(&base_rest), Some(our_rest), Some(their_rest), &Shape::Value)?;
    let mut merged = merge_keys(Some(&base), ours, theirs, members)?;
    if let Some(Value::Object(rest)) = rest {
        merged.extend(rest);
    }
    Ok(merged)
}

fn merge_keys(
    base: Option<&Object>,
    mut ours: Object,
    mut theirs: Object,
    members: &Members,
) -> Result<Object, MergeConflict> {
    let base_keys = base.into_iter().flat_map(Object::keys);
    let keys: BTreeSet<_> = base_keys.chain(ours.keys()).chain(theirs.keys()).cloned().collect();
    let mut merged = Object::new();
    for key in keys {
        let base = base.and_then(|base| base.get(&key));
        let shape = members.shapes.get(&key).unwrap_or(&Shape::Unknown);
        let member = merge_place(base, ours.remove(&key), theirs.remove(&key), shape);
        let member = member.map_err(|conflict| match members.kind {
            Kind::Map => MergeConflict::here(),
            Kind::Struct | Kind::Flattening => conflict.in_field(&key),
        })?;
        if let Some(member) = member {
            merged.insert(key, member);
        }
    }
    Ok(merged)
}

/// Merges a place that both sides changed.
fn merge_changes(
    base: Option<&Value>,
    ours: Option<Value>,
    theirs: Option<Value>,
    shape: &Shape,
) -> Result<Option<Value>, MergeConflict> {
    let merged = match (shape, ours, theirs) {
        (Shape::Once, ..) => None,
        (Shape::Latest, ours, _) => return Ok(ours),
        (_, None, None) => return Ok(None),
        (Shape::Text, Some(ours @ Value::String(_)), Some(Value::String(_))) => Some(ours),
        (Shape::Counter, Some(Value::Number(ours)), Some(Value::Number(theirs))) => {
            add_up(base, &ours, &theirs)
        }
        (
            Shape::Set,
            ours @ (None | Some(Value::Array(_))),
            theirs @ (None | Some(Value::Array(_))),
        ) => Some(unite(base, ours, theirs)),
        (Shape::List, Some(Value::Array(ours)), Some(Value::Array(theirs))) => {
            merge_lists(base, ours, theirs)
        }
        (_, Some(ours), Some(theirs)) => agreed(ours, &theirs),
        (_, None, _) | (_, _, None) => None,
    };
    merged.ok_or_else(MergeConflict::here).map(Some)
}

/// Adds to the base what each side added; `None` beyond 64 bits.
fn add_up(base: Option<&Value>, ours: &Number, theirs: &Number) -> Option<Value> {
    let base = match base {
        None | Some(Value::Null) => 0,
        Some(base) => base.as_i64()?,
    };
    let sum = i128::from(ours.as_i64()?) + i128::from(theirs.as_i64()?) - i128::from(base);
    i64::try_from(sum).ok().map(Value::from)
}

fn unite(base: Option<&Value>, ours: Option<Value>, theirs: Option<Value>) -> Value {
    let [base, ours, mut merged] = [base.cloned(), ours, theirs].map(|side| match side {
        Some(Value::Array(items)) => {
            items.into_iter().map(|item| (item.to_string(), item)).collect()
        }
        _ => BTreeMap::new(),
    });
    merged.retain(|text, _| ours.contains_key(text) || !base.contains_key(text));
    merged.extend(ours.into_iter().filter(|(text, _)| !base.contains_key(text)));
    merged.into_values().collect()
}

fn merge_lists(base: Option<&Value>, ours: Vec<Value>, mut theirs: Vec<Value>) -> Option<Value> {
    let no_items = Vec::new();
    let base = base.map_or(Some(&no_items), Value::as_array);
    let is_list =
        |base: &&Vec<Value>| ![base, &ours, &theirs].into_iter().any(|list| is_data(list));
    let Some(base) = base.filter(is_list) else {
        return agreed(ours.into(), &theirs.into());
    };
    let texts = |items: &[Value]| items.iter().map(sorted_text).collect::<Vec<_>>();
    let [base, our_texts, their_texts] = [base, &ours, &theirs].map(|list| texts(list));
    if our_texts.starts_with(&base) && their_texts.starts_with(&base) {
        theirs.extend(ours.into_iter().skip(base.len()));
        Some(theirs.into())
    } else if our_texts == their_texts && only_removes(&base, &our_texts) {
        Some(ours.into())
    } else {
        None
    }
}

/// Returns `true` if a list has items, and all are numbers or booleans.
fn is_data(list: &[Value]) -> bool {
    !list.is_empty() && list.iter().all(|item| item.is_number() || item.is_boolean())
}

/// Returns `true` if `list` is `base` without some items, the rest in their order.
fn only_removes(base: &[String], list: &[String]) -> bool {
    let mut rest = base.iter();
    list.iter().all(|item| rest.any(|kept| kept == item))
}

/// Merges two changes of one value: they have to be the same, and must not be two that add up.
fn agreed(ours: Value, theirs: &Value) -> Option<Value> {
    (ours == *theirs && !adds_up(&ours)).then_some(ours)
}

/// Returns `true` if two changes to this value may be two that add up: a number, or a list with items.
fn adds_up(value: &Value) -> bool {
    match value {
        Value::Number(_) => true,
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => members.values().any(adds_up),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// Returns `true` if a side differs from the base in nothing but the order of lists. A tuple is no list.
fn is_unchanged(base: &Value, side: &Value, shape: &Shape) -> bool {
    let is_tuple = base.is_array() && matches!(shape, Shape::Value | Shape::Latest);
    base == side || (!is_tuple && is_alike(base, side))
}

/// Returns `true` if two values differ in nothing but the order of lists.
fn is_alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => is_alike_list(one, other),
        (Value::Object(one), Value::Object(other)) => {
            let is_in_other = |(key, member): (&String, &Value)| {
                other.get(key).is_some_and(|other| is_alike(member, other))
            };
            one.len() == other.len() && one.iter().all(is_in_other)
        }
        (one, other) => one == other,
    }
}

fn is_alike_list(one: &[Value], other: &[Value]) -> bool {
    let sorted = |items: &[Value]| {
        let mut texts: Vec<_> = items.iter().map(sorted_text).collect();
        texts.sort_unstable();
        texts
    };
    one.len() == other.len() && (one == other || sorted(one) == sorted(other))
}

/// Returns a text that two values share if they differ in nothing but the order of lists.
fn sorted_text(value: &Value) -> String {
    let sorted = |mut texts: Vec<String>| {
        texts.sort_unstable();
        texts.join(",")
    };
    match value {
        Value::Array(items) => format!("[{}]", sorted(items.iter().map(sorted_text).collect())),
        Value::Object(members) => {
            let text = |(key, member)| format!("{key:?}:{}", sorted_text(member));
            format!("{{{}}}", sorted(members.iter().map(text).collect()))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}
