//! The three-way merge of session data: two requests loaded the same row, and both changed it.
//!
//! `base` is the data that both loaded, `theirs` is in the store now, and `ours` is about to be saved. Two
//! changes that cannot both hold are a conflict, never a mixture and never a loss. The [`Shape`] of the data says
//! how each place merges. The first line that fits decides:
//!
//! | place | changes | result |
//! |---|---|---|
//! | any | one side is as `base` | the other side, even if removed |
//! | members | both sides have some | merged key by key |
//! | `Once` | any | conflict |
//! | `Latest` | any | `ours` |
//! | any | both removed it | removed |
//! | any | the same, and no number or list item in it | that value |
//! | text | both are a text | `ours` |
//! | `Counter` | both are a 64-bit integer | `base` and both differences |
//! | `Set` | any | `base` without the items that either side removed, with those that either added |
//! | list | both only grew | `base`, the tail of `theirs`, the tail of `ours` |
//! | list | both have the same, without new items | that list |
//! | any | all others, such as an edit beside a removal | conflict |
//!
//! - **Order.** The order of a list is a change. But if the data is written in another order each time, as a
//!   `HashSet` is, a value that differs from `base` only in the order of lists counts as unchanged.
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

use serde_json::{Map, Value};

pub(crate) use self::shape::Shape;
use self::shape::{Kind, Members};
use crate::codec::is_exact;

type Object = Map<String, Value>;

/// The base, ours and theirs of one place. `None` is a member that is absent.
type Sides = [Option<Value>; 3];

/// A JSON pointer (RFC 6901) to the place where two changes cannot both hold.
///
/// It ends before the first key of a map, since that is data.
pub(crate) type Pointer = String;

/// The merge of two changes of one session, by the rules of this module.
pub(crate) struct Merger<F> {
    /// Tells whether the data is written in another order each time. Asked only where the order of a list matters.
    pub(crate) shuffles: F,
}

impl<F: Fn() -> bool> Merger<F> {
    /// Merges the base, ours and theirs.
    ///
    /// If the store's document changes once more, merge the same `base` and `ours` again. The result of the first
    /// merge already holds the tails of `theirs`.
    pub(crate) fn merge(&self, shape: &Shape, sides: [Value; 3]) -> Result<Value, Pointer> {
        if !sides.iter().all(is_exact) {
            return Err(Pointer::new());
        }
        // `None` would be a document that was removed.
        self.place(shape, sides.map(Some)).map(Option::unwrap_or_default)
    }

    /// Merges one place by the rules for all shapes, the first that fits, and then by those of its shape.
    fn place(&self, shape: &Shape, [base, ours, theirs]: Sides) -> Result<Option<Value>, Pointer> {
        let is_alike = |base: &_, side: &_| is_reordered(shape, base, side) && (self.shuffles)();
        match (shape, base, ours, theirs) {
            (_, base, ours, theirs) if theirs == base => Ok(ours),
            (_, base, ours, theirs) if ours == base => Ok(theirs),
            (
                Shape::Members(members),
                base @ (None | Some(Value::Object(_))),
                Some(Value::Object(ours)),
                Some(Value::Object(theirs)),
            ) => self.members(members, [object(base), ours, theirs]).map(Some),
            (_, Some(base), ours, Some(theirs)) if is_alike(&base, &theirs) => Ok(ours),
            (_, Some(base), Some(ours), theirs) if is_alike(&base, &ours) => Ok(theirs),
            (Shape::Once, ..) => Err(Pointer::new()),
            (Shape::Latest(_), _, ours, _) => Ok(ours),
            (_, _, ours, theirs) if ours == theirs && !ours.iter().any(adds_up) => Ok(ours),
            (shape, base, ours, theirs) => {
                self.changes(shape, [base, ours, theirs]).map(Some).ok_or_else(Pointer::new)
            }
        }
    }

    /// Merges two changes that may both hold; `None` is a conflict.
    fn changes(&self, shape: &Shape, [base, ours, theirs]: Sides) -> Option<Value> {
        match (shape, ours, theirs) {
            (Shape::Text, Some(ours @ Value::String(_)), Some(Value::String(_))) => Some(ours),
            (Shape::Counter, Some(ours), Some(theirs)) => {
                add_up(&base.unwrap_or_default(), &ours, &theirs)
            }
            (Shape::Set, ours, theirs) => {
                Some(unite([list(base).unwrap_or_default(), list(ours)?, list(theirs)?]))
            }
            (Shape::List, Some(Value::Array(ours)), Some(Value::Array(theirs))) => {
                let lists = [list(base)?, ours, theirs];
                let sorted = || (self.shuffles)().then(|| merge_lists(&lists, sorted_text))?;
                merge_lists(&lists, Value::to_string).or_else(sorted)
            }
            _ => None,
        }
    }

    /// Merges members one by one, but for those that `#[serde(flatten)]` takes in: they are one value.
    fn members(&self, members: &Members, sides: [Object; 3]) -> Result<Value, Pointer> {
        let split = |side: Object| -> (Object, Object) {
            side.into_iter().partition(|(key, _)| members.is_separate(key))
        };
        let [(base, base_rest), (ours, our_rest), (theirs, their_rest)] = sides.map(split);
        let rest = [base_rest, our_rest, their_rest].map(|rest| Some(rest.into()));
        let mut merged = object(self.place(&Shape::Value, rest)?);

        let mut sides = [base, ours, theirs];
        let keys: BTreeSet<_> = sides.iter().flat_map(Object::keys).cloned().collect();
        for key in keys {
            let shape = members.shapes.get(&key).unwrap_or(&Shape::Unknown);
            let member = self.place(shape, sides.each_mut().map(|side| side.remove(&key)));
            let member = member.map_err(|pointer| match members.kind {
                Kind::Map => Pointer::new(),
                Kind::Struct | Kind::Flattening => {
                    format!("/{}{pointer}", key.replace('~', "~0").replace('/', "~1"))
                }
            })?;
            merged.extend(member.map(|member| (key, member)));
        }
        Ok(merged.into())
    }
}

fn object(side: Option<Value>) -> Object {
    match side {
        Some(Value::Object(members)) => members,
        _ => Object::new(),
    }
}

/// Returns the items of a list, which is empty where it is absent; `None` if this is no list.
fn list(side: Option<Value>) -> Option<Vec<Value>> {
    match side {
        None => Some(Vec::new()),
        Some(Value::Array(items)) => Some(items),
        Some(_) => None,
    }
}

/// Adds to the base what each side added; `None` beyond 64 bits.
fn add_up(base: &Value, ours: &Value, theirs: &Value) -> Option<Value> {
    let base = if base.is_null() { 0 } else { base.as_i64()? };
    let sum = i128::from(ours.as_i64()?) + i128::from(theirs.as_i64()?) - i128::from(base);
    i64::try_from(sum).ok().map(Value::from)
}

fn unite(lists: [Vec<Value>; 3]) -> Value {
    let by_text = |items: Vec<Value>| -> BTreeMap<String, Value> {
        items.into_iter().map(|item| (item.to_string(), item)).collect()
    };
    let [base, ours, mut merged] = lists.map(by_text);
    merged.retain(|text, _| ours.contains_key(text) || !base.contains_key(text));
    merged.extend(ours.into_iter().filter(|(text, _)| !base.contains_key(text)));
    merged.into_values().collect()
}

/// Merges two changes of a list, whose items are equal if they have the same `text`.
fn merge_lists(lists: &[Vec<Value>; 3], text: fn(&Value) -> String) -> Option<Value> {
    if lists.iter().any(|list| is_data(list)) {
        return None;
    }
    let texts = |items: &Vec<Value>| items.iter().map(text).collect::<Vec<_>>();
    let [base, our_texts, their_texts] = lists.each_ref().map(texts);
    let [_, ours, theirs] = lists;
    if our_texts.starts_with(&base) && their_texts.starts_with(&base) {
        return Some(theirs.iter().chain(ours.iter().skip(base.len())).cloned().collect());
    }
    (our_texts == their_texts && only_removes(base, our_texts)).then(|| ours.clone().into())
}

/// Returns `true` if a list has items, and all are numbers or booleans.
fn is_data(list: &[Value]) -> bool {
    !list.is_empty() && list.iter().all(|item| item.is_number() || item.is_boolean())
}

/// Returns `true` if `list` is `base` without some items, in any order.
fn only_removes(mut base: Vec<String>, mut list: Vec<String>) -> bool {
    base.sort_unstable();
    list.sort_unstable();
    let mut rest = base.iter();
    list.iter().all(|item| rest.any(|kept| kept == item))
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
fn is_reordered(shape: &Shape, base: &Value, side: &Value) -> bool {
    let shape = if let Shape::Latest(shape) = shape { shape } else { shape };
    let is_tuple = base.is_array() && *shape == Shape::Value;
    !is_tuple && sorted_text(base) == sorted_text(side)
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
