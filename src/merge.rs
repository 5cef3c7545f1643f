//! The three-way merge of session data: two requests loaded the same row, both changed it.
//!
//! Changes that cannot stand side by side are a [`MergeConflict`], never a mixture and never a
//! loss. What happens to one value depends on what each side made of it, compared with `==`:
//!
//! | one side | other side | result |
//! |---|---|---|
//! | unchanged | anything, even removed | the other side |
//! | removed | removed | removed |
//! | removed | edited | conflict |
//! | edited object | edited object | member by member |
//! | list that grew | list that grew | the base, their tail, our tail |
//! | list that only lost items | an equal list | that list |
//! | edited set | edited set | the base without what either removed, and what either added |
//! | scalar or new object | an equal one | that value, if it holds neither numbers nor list items |
//! | anything else | anything else | conflict |
//!
//! **Lists.** An item that both sides added was added twice: two requests that put the same
//! article into a cart leave two of it. So equal tails are both kept, and where that is impossible
//! (beside edits and removals, or inside a value where there was none) even equal lists conflict.
//! An absent list is an empty one, since `skip_serializing_if = "Vec::is_empty"` writes it so;
//! `null` is not, since an `Option` that two sides filled did not grow. Items are never merged.
//!
//! **Sets.** Lists that are known to be [`Sets`] never conflict. An edited item is one removed and one
//! added, so that of two edits both stay. Where `T` calls equal what is written differently, `T` keeps one.
//!
//! **Numbers.** Two requests that count from 1 to 2 must not leave 2, and nothing tells them from two
//! that set a page number. So a number that both changed is a conflict even if equal; counters belong
//! into `update`, and what may be overwritten into `last_write_wins`.
//!
//! **Enums.** JSON does not tell an enum from a map, so two patterns count as a change of variant.
//! In maps and structs they are rare, and there they conflict without need:
//!
//! - Both sides removed the same key and added some, as from `{"A": ..}` to `{"B": ..}`: what they
//!   added must be equal.
//! - One side removed a key, added a key and changed a string, as from `{"type": "a", "x": 1}` to
//!   `{"type": "b", "y": 1}`, or did that to the keys of `c` in `{"t": "a", "c": {..}}`: the other
//!   side must have left this object alone, or made the same of it.
//!
//! No rule can see every change of variant. One that keeps all keys, or only adds or only removes
//! some, looks like a struct with a string field: if the other side edits a field that both variants
//! have, the new variant gets that edit. An untagged enum looks like a struct, a tuple or a
//! `Vec<u8>` like a list. So the caller still has to decode and validate the result.
//!
//! **Depth.** Recursion follows members that all sides have, and what the store held was parsed by
//! `serde_json`, which refuses more than 127 levels.

use std::{collections::BTreeMap, str::FromStr};

use serde_json::{Map, Value};

use crate::sets::{Sets, is_alike};

#[cfg(test)]
mod tests;

type Object = Map<String, Value>;

/// Both sides changed the same thing, and the two changes cannot both hold.
///
/// Carries nothing of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MergeConflict;

/// Merges two changes of one session: what was loaded, what this request made of it, what the
/// store holds now.
///
/// Under `last_write_wins`, ours is taken whenever ours changed the value, otherwise theirs.
/// When theirs changes once more, merge the same `base` and `ours` again, not the previous result:
/// it already holds their tails.
///
/// # Errors
///
/// [`MergeConflict`], by the rules of this module.
pub(crate) fn merge(
    base: &Value,
    mut ours: Value,
    mut theirs: Value,
    last_write_wins: &[Pointer],
    sets: &Sets,
) -> Result<Value, MergeConflict> {
    if last_write_wins.is_empty() && sets.is_empty() {
        return merge_value(base, ours, theirs, sets);
    }
    let mut base = base.clone();
    for side in [&mut base, &mut ours, &mut theirs] {
        sets.sort(side);
    }
    let mut widest_first: Vec<_> = last_write_wins.iter().collect();
    widest_first.sort_by_key(|pointer| pointer.keys.len());
    for pointer in widest_first {
        pointer.settle([&mut base, &mut ours, &mut theirs]);
    }
    merge_value(&base, ours, theirs, sets)
}

/// Here and below, sets are sorted, so that equal ones are equal lists.
fn merge_value(
    base: &Value,
    ours: Value,
    theirs: Value,
    sets: &Sets,
) -> Result<Value, MergeConflict> {
    if theirs == *base {
        return Ok(ours);
    }
    if ours == *base {
        return Ok(theirs);
    }
    match (base, ours, theirs) {
        (Value::Object(base), Value::Object(ours), Value::Object(theirs)) => {
            merge_objects(base, ours, theirs, sets).map(Value::Object)
        }
        (Value::Array(base), Value::Array(ours), Value::Array(theirs)) => {
            merge_lists(base, ours, theirs, sets).map(Value::Array)
        }
        (_, ours, theirs) => agreed(ours, &theirs),
    }
}

fn merge_objects(
    base: &Object,
    mut ours: Object,
    theirs: Object,
    sets: &Sets,
) -> Result<Object, MergeConflict> {
    if ours != theirs && (changes_variant(base, &ours) || changes_variant(base, &theirs)) {
        return Err(MergeConflict);
    }
    let replaced_by_both = adds_key(base, &ours)
        && adds_key(base, &theirs)
        && base.keys().any(|key| !ours.contains_key(key) && !theirs.contains_key(key));
    let merge_member = |key: &str, ours, theirs| match (base.get(key), ours, theirs) {
        (None, Some(ours), Some(theirs)) if replaced_by_both => agreed(ours, &theirs).map(Some),
        (None, ..) if replaced_by_both => Err(MergeConflict),
        (base, ours, theirs) => merge_optional(base, ours, theirs, sets.member(key)),
    };

    let mut merged = Object::new();
    for (key, theirs) in theirs {
        let ours = ours.remove(&key);
        if let Some(value) = merge_member(&key, ours, Some(theirs))? {
            merged.insert(key, value);
        }
    }
    for (key, ours) in ours {
        if let Some(value) = merge_member(&key, Some(ours), None)? {
            merged.insert(key, value);
        }
    }
    Ok(merged)
}

fn merge_optional(
    base: Option<&Value>,
    ours: Option<Value>,
    theirs: Option<Value>,
    sets: &Sets,
) -> Result<Option<Value>, MergeConflict> {
    match (base, ours, theirs) {
        (Some(base), Some(ours), Some(theirs)) => merge_value(base, ours, theirs, sets).map(Some),
        (Some(base), Some(left), None) | (Some(base), None, Some(left)) if left != *base => {
            Err(MergeConflict)
        }
        (Some(_), ..) => Ok(None),
        (None, added, None) | (None, None, added) => Ok(added),
        (None, Some(Value::Array(ours)), Some(Value::Array(theirs))) => {
            merge_lists(&[], ours, theirs, sets).map(|list| Some(Value::Array(list)))
        }
        (None, Some(ours), Some(theirs)) => agreed(ours, &theirs).map(Some),
    }
}

fn merge_lists(
    base: &[Value],
    ours: Vec<Value>,
    mut theirs: Vec<Value>,
    sets: &Sets,
) -> Result<Vec<Value>, MergeConflict> {
    if sets.is_set() {
        Ok(merge_sets(base, ours, theirs))
    } else if ours.starts_with(base) && theirs.starts_with(base) {
        theirs.extend(ours.into_iter().skip(base.len()));
        Ok(theirs)
    } else if ours == theirs && only_removes(base, &ours) {
        Ok(ours)
    } else {
        Err(MergeConflict)
    }
}

fn merge_sets(base: &[Value], ours: Vec<Value>, theirs: Vec<Value>) -> Vec<Value> {
    let by_text = |items: Vec<Value>| -> BTreeMap<_, _> {
        let keyed = items.into_iter().map(|item| (item.to_string(), item));
        keyed.collect()
    };
    let [base, ours, mut merged] = [base.to_vec(), ours, theirs].map(by_text);
    merged.retain(|text, _| ours.contains_key(text) || !base.contains_key(text));
    let added = ours.into_iter().filter(|(text, _)| !base.contains_key(text));
    merged.extend(added);
    merged.into_values().collect()
}

/// Settles two values without a base that they could have been grown from.
fn agreed(ours: Value, theirs: &Value) -> Result<Value, MergeConflict> {
    if ours == *theirs && !accumulates(&ours) { Ok(ours) } else { Err(MergeConflict) }
}

/// Whether equal changes of both sides may be two that add up: a count, or items of a list.
fn accumulates(value: &Value) -> bool {
    match value {
        Value::Number(_) => true,
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => members.values().any(accumulates),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// Whether `list` is `base` without some items, the rest in their order.
fn only_removes(base: &[Value], list: &[Value]) -> bool {
    let mut rest = base.iter();
    list.iter().all(|item| rest.any(|kept| kept == item))
}

/// Whether one side looks like another variant of an internally or adjacently tagged enum.
fn changes_variant(base: &Object, side: &Object) -> bool {
    let swaps_keys = |base, side| adds_key(base, side) && adds_key(side, base);
    let changes_tag = base.iter().any(|(key, old)| {
        side.get(key).is_some_and(|new| old.is_string() && new.is_string() && old != new)
    });
    let swaps_keys_of_content = || {
        base.len() == 2
            && base.iter().any(|(key, old)| match (old, side.get(key)) {
                (Value::Object(old), Some(Value::Object(new))) => swaps_keys(old, new),
                _ => false,
            })
    };
    changes_tag && (swaps_keys(base, side) || swaps_keys_of_content())
}

fn adds_key(base: &Object, side: &Object) -> bool {
    side.keys().any(|key| !base.contains_key(key))
}

/// The path of an object member as a JSON pointer ([RFC 6901]), such as `/device/last_seen`.
///
/// It covers that member and all below it as one value. It does not enter lists, does not bring
/// back an object that theirs removed, and has no place inside an enum, where it could give a field
/// of one variant to another. The empty pointer, which is the whole document, is refused: that is
/// what `ConflictPolicy::Overwrite` is for.
///
/// [RFC 6901]: https://www.rfc-editor.org/rfc/rfc6901
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pointer {
    keys: Vec<String>,
}

/// The text does not start with `/`, or has a `~` that is not `~0` (for `~`) or `~1` (for `/`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidPointer;

impl FromStr for Pointer {
    type Err = InvalidPointer;

    fn from_str(text: &str) -> Result<Self, InvalidPointer> {
        let path = text.strip_prefix('/').ok_or(InvalidPointer)?;
        let keys = path.split('/').map(unescape).collect::<Result<_, _>>()?;
        Ok(Self { keys })
    }
}

fn unescape(token: &str) -> Result<String, InvalidPointer> {
    let mut key = String::with_capacity(token.len());
    let mut chars = token.chars();
    while let Some(char) = chars.next() {
        key.push(match char {
            '~' => match chars.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err(InvalidPointer),
            },
            other => other,
        });
    }
    Ok(key)
}

impl Pointer {
    /// Says whether what it covers differs between two documents, but for the order of lists does not.
    pub(crate) fn sees_reordered(&self, one: &Value, other: &Value) -> bool {
        let covered = |value| {
            let mut keys = self.keys.iter();
            keys.try_fold(value, |value: &Value, key| value.get(key))
        };
        match (covered(one), covered(other)) {
            (Some(one), Some(other)) => one != other && is_alike(one, other),
            (None, _) | (_, None) => false,
        }
    }

    /// Gives the winner to all three sides (base, ours, theirs), so that for the merge nobody
    /// changed it: it neither conflicts nor counts as a changed tag.
    fn settle(&self, sides: [&mut Value; 3]) {
        let Some((key, parents)) = self.keys.split_last() else {
            return;
        };
        let parents = sides.map(|side| {
            let parent = parents.iter().try_fold(side, |value, key| value.get_mut(key));
            parent.and_then(Value::as_object_mut)
        });
        let [base, ours, theirs] = parents.each_ref().map(|parent| parent.as_ref()?.get(key));
        let winner = if ours == base { theirs } else { ours }.cloned();
        for parent in parents.into_iter().flatten() {
            match &winner {
                Some(value) => parent.insert(key.clone(), value.clone()),
                None => parent.remove(key),
            };
        }
    }
}
