//! Which lists of session data are sets, such as a `HashSet`, whose order means nothing.
//!
//! JSON does not tell, but the data type does: a set comes out in another order each time it goes through
//! the type, a list in its own. So the same data is encoded several times, and where two encodings hold
//! the same items in another order there is a set. A set of one item cannot show, and where sets are
//! within sets two explanations may hold; what is not certain stays a list.

use std::collections::BTreeMap;

use serde_json::Value;

#[cfg(test)]
mod tests;

/// The places of the sets in data of one type; all items of a list are one place.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    is_set: bool,
    members: BTreeMap<String, Self>,
    items: Option<Box<Self>>,
}

/// Where there are no sets.
static NONE: Sets = Sets { is_set: false, members: BTreeMap::new(), items: None };

/// So many times in two to this power a set passes for a list, since its order did not change by chance.
const CERTAINTY: usize = 20;

impl Sets {
    /// Looks for sets in `data`, which `again` takes through its type once more.
    ///
    /// A list that `others` hold as it is here is nobody's concern.
    pub(crate) fn find(
        &mut self,
        data: &Value,
        others: [&Value; 2],
        again: impl Fn() -> Option<Value>,
    ) {
        let mut rounds = 0;
        // The fewer the items, the likelier their order comes out as it was.
        while let Some(shortest) = self.shortest_list(data, others.map(Some))
            && rounds * (shortest - 1) < CERTAINTY
            && let Some(again) = again()
        {
            self.compare(data, &again);
            rounds += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == NONE
    }

    pub(crate) fn is_set(&self) -> bool {
        self.is_set
    }

    pub(crate) fn member(&self, key: &str) -> &Self {
        self.members.get(key).unwrap_or(&NONE)
    }

    /// Puts every set into one order, so that equal ones are equal values.
    pub(crate) fn sort(&self, data: &mut Value) {
        match data {
            Value::Array(items) => {
                if let Some(place) = &self.items {
                    for item in items.iter_mut() {
                        place.sort(item);
                    }
                }
                if self.is_set {
                    sort(items);
                }
            }
            Value::Object(members) => {
                for (key, place) in &self.members {
                    if let Some(member) = members.get_mut(key) {
                        place.sort(member);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Returns how short a list is that differs, might be a set and is not known for one.
    fn shortest_list(&self, data: &Value, others: [Option<&Value>; 2]) -> Option<usize> {
        if others == [Some(data); 2] {
            return None;
        }
        match data {
            Value::Array(items) => {
                let place = self.items.as_deref().unwrap_or(&NONE);
                let own = (items.len() > 1 && !self.is_set).then_some(items.len());
                let inner = items.iter().enumerate().filter_map(|(at, item)| {
                    place.shortest_list(item, others.map(|other| other?.get(at)))
                });
                own.into_iter().chain(inner).min()
            }
            Value::Object(members) => members
                .iter()
                .filter_map(|(key, member)| {
                    let others = others.map(|other| other?.get(key));
                    self.member(key).shortest_list(member, others)
                })
                .min(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        }
    }

    /// Notes the lists that two encodings of the same data hold in a different order.
    fn compare(&mut self, one: &Value, other: &Value) {
        match (one, other) {
            (Value::Array(one), Value::Array(other)) if one != other => {
                let pairs = || one.iter().zip(other);
                let items_differ_in_order =
                    one.len() == other.len() && pairs().all(|(one, other)| is_alike(one, other));
                match (is_reordered(one, other), items_differ_in_order) {
                    (true, false) => self.is_set = true,
                    (false, true) => {
                        let place = self.items.get_or_insert_default();
                        for (one, other) in pairs() {
                            place.compare(one, other);
                        }
                    }
                    (true, true) | (false, false) => {}
                }
            }
            (Value::Object(one), Value::Object(other)) if one != other => {
                for (key, one) in one {
                    if let Some(other) = other.get(key)
                        && one != other
                    {
                        self.members.entry(key.clone()).or_default().compare(one, other);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Says whether two values are the same but for the order of lists.
pub(crate) fn is_alike(one: &Value, other: &Value) -> bool {
    let [one, other] = [one, other].map(|value| {
        let mut value = value.clone();
        sort_all(&mut value);
        value
    });
    one == other
}

fn sort_all(data: &mut Value) {
    match data {
        Value::Array(items) => {
            items.iter_mut().for_each(sort_all);
            sort(items);
        }
        Value::Object(members) => members.values_mut().for_each(sort_all),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn sort(items: &mut [Value]) {
    items.sort_by_cached_key(Value::to_string);
}

/// Says whether two lists that differ hold the same items.
fn is_reordered(one: &[Value], other: &[Value]) -> bool {
    let [one, other] = [one, other].map(|items| {
        let mut items = items.to_vec();
        sort(&mut items);
        items
    });
    one == other
}
