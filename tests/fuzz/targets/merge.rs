//! Two requests that change one session at once. The input makes the data that both loaded, and their changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use axum_typed_session::{
    Counter, Latest, Once, SessionError, SessionManager, Set,
    store::{Timestamp, Version},
    testing::{ManualClock, RecordBuilder},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::{
    NOW, block_on, committed,
    input::Input,
    row::{Row, RowBytes},
    session_with,
};

/// Input beyond this makes documents that no session has.
const MOST_BYTES: usize = 4096;

/// Every kind of field.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Fields {
    text: String,
    number: i64,
    visits: Counter,
    list: Vec<Value>,
    bytes: Vec<u8>,
    tags: Set<String>,
    map: BTreeMap<String, Value>,
    seen: Latest<u32>,
    trail: Latest<Vec<String>>,
    once: Once<String>,
    choice: Choice,
    maybe: Option<String>,
    pair: (u8, String),
    any: Value,
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
enum Choice {
    #[default]
    None,
    One(u8),
    Named {
        text: String,
    },
}

/// Members that a type takes in beside its own.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Flattened {
    list: Vec<Value>,
    visits: Counter,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

type Entries = BTreeMap<String, Value>;

const FIELDS: [&str; 14] = [
    "text", "number", "visits", "list", "bytes", "tags", "map", "seen", "trail", "once", "choice",
    "maybe", "pair", "any",
];
const FLATTENED: [&str; 5] = ["list", "visits", "a", "b", "c"];
const ENTRIES: [&str; 4] = ["a", "b", "c", "d"];

pub fn run(data: &[u8]) {
    let mut input = Input::new(&data[..data.len().min(MOST_BYTES)]);
    match input.byte() % 3 {
        0 => check::<Fields>(&mut input, &FIELDS, |name| name),
        1 => check::<Flattened>(&mut input, &FLATTENED, part_of_flattened),
        _ => check::<Entries>(&mut input, &ENTRIES, |name| name),
    }
}

/// The members that `#[serde(flatten)]` takes in are one value.
fn part_of_flattened(name: &str) -> &str {
    if name.len() == 1 { "rest" } else { name }
}

/// Makes three documents with members of these names, and merges them. `part` names the value that a member is in.
fn check<T: Data>(input: &mut Input<'_>, names: &[&'static str], part: fn(&str) -> &str) {
    let mut base = Map::new();
    for name in names {
        if !input.byte().is_multiple_of(4) {
            base.insert((*name).to_owned(), member(input, name));
        }
    }
    let (ours, our_parts) = changed(input, &base, names, part);
    let (theirs, their_parts) = changed(input, &base, names, part);
    // Their document with our changes in it.
    let mut both = theirs.clone();
    for name in names.iter().filter(|name| our_parts.contains(part(name))) {
        both.remove(*name);
        both.extend(ours.get(*name).map(|member| ((*name).to_owned(), member.clone())));
    }
    let expected = our_parts.is_disjoint(&their_parts).then_some(both);
    let is_exact =
        [&base, &ours, &theirs].into_iter().all(|document| document.values().all(is_exact));
    let [base, ours, theirs] = [base, ours, theirs].map(typed::<T>);

    let node = Node::new();
    let (merged, size) = node.merged(&base, &ours, &theirs);
    assert_eq!(node.merged(&base, &ours, &theirs), (merged.clone(), size), "once more");
    let (swapped, _) = node.merged(&base, &theirs, &ours);
    assert_eq!(swapped.is_some(), merged.is_some(), "the other way round");
    let len = |data: &T| serde_json::to_vec(data).unwrap().len();
    assert!(size <= len(&base) + len(&ours) + len(&theirs), "{size} bytes");
    if let Some(expected) = expected.filter(|_| is_exact) {
        assert_eq!(merged, Some(typed(expected)), "{base:?}\n{ours:?}\n{theirs:?}");
    }
    if let Some(merged) = merged.filter(|_| ours == base || theirs == base) {
        assert_eq!(merged, if ours == base { theirs } else { ours });
    }
}

trait Data:
    Debug + Default + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl Data for Fields {}
impl Data for Flattened {}
impl Data for Entries {}

fn typed<T: Data>(document: Map<String, Value>) -> T {
    serde_json::from_value(document.into()).unwrap()
}

/// Returns a document with other members in some places, and the parts that these are in.
fn changed<'n>(
    input: &mut Input<'_>,
    base: &Map<String, Value>,
    names: &[&'n str],
    part: fn(&str) -> &str,
) -> (Map<String, Value>, BTreeSet<&'n str>) {
    let (mut document, mut parts) = (base.clone(), BTreeSet::new());
    for name in names {
        let choice = input.byte();
        if choice.is_multiple_of(2) {
            continue;
        }
        parts.insert(part(name));
        match document.get_mut(*name) {
            Some(Value::Array(items)) if choice % 8 == 3 && *name != "pair" => {
                let more = member(input, name);
                items.extend(more.as_array().into_iter().flatten().cloned());
            }
            Some(Value::Array(items)) if choice % 8 == 5 && *name != "pair" => {
                items.truncate(input.below(items.len()));
            }
            Some(_) if choice % 8 == 7 => _ = document.remove(*name),
            _ => _ = document.insert((*name).to_owned(), member(input, name)),
        }
    }
    (document, parts)
}

/// Makes a member that its type can read.
fn member(input: &mut Input<'_>, name: &str) -> Value {
    match name {
        "number" | "visits" => match input.byte() {
            255 => i64::MAX.into(),
            254 => i64::MIN.into(),
            byte => (byte % 8).into(),
        },
        "list" => many(input, |input| any(input, 3)),
        "bytes" => many(input, |input| input.byte().into()),
        "tags" | "trail" => many(input, text),
        "map" => {
            Value::Object((0..input.byte() % 4).map(|_| (key(input), any(input, 2))).collect())
        }
        "seen" => input.byte().into(),
        "once" | "maybe" if input.byte().is_multiple_of(2) => Value::Null,
        "text" | "once" | "maybe" => text(input),
        "choice" => match input.byte() % 3 {
            0 => json!("None"),
            1 => json!({"One": input.byte()}),
            _ => json!({"Named": {"text": text(input)}}),
        },
        "pair" => json!([input.byte(), text(input)]),
        _ => any(input, 4),
    }
}

fn many(input: &mut Input<'_>, one: impl Fn(&mut Input<'_>) -> Value) -> Value {
    (0..input.byte() % 5).map(|_| one(input)).collect()
}

fn key(input: &mut Input<'_>) -> String {
    ["a", "b", "c", "~/\""][input.below(4)].to_owned()
}

fn text(input: &mut Input<'_>) -> Value {
    let len = usize::from(input.byte() % 8);
    String::from_utf8_lossy(input.take(len)).into()
}

fn any(input: &mut Input<'_>, depth: u8) -> Value {
    match input.byte() % if depth == 0 { 8 } else { 12 } {
        0 => Value::Null,
        1 => input.byte().is_multiple_of(2).into(),
        2..5 => (input.byte() % 4).into(),
        5 => [json!(0.5), json!(-2.25), json!(1e300), json!(u64::MAX)][input.below(4)].clone(),
        6 | 7 => text(input),
        8 | 9 => many(input, |input| any(input, depth - 1)),
        10 => (0..input.byte() % 4).map(|_| (key(input), any(input, depth - 1))).collect(),
        _ => (0..input.byte() % 64).fold(Value::Null, |inner, _| json!([inner])),
    }
}

/// Returns `false` for a number that JSON may have rounded. No document that holds one is merged.
fn is_exact(value: &Value) -> bool {
    !value.to_string().contains("1e300") && !value.to_string().contains("1e+300")
}

/// A server with a store of one session.
struct Node<T: Data> {
    sessions: SessionManager<T>,
    row: Row,
}

impl<T: Data> Node<T> {
    fn new() -> Self {
        let row = Row::default();
        let builder = SessionManager::builder().clock(ManualClock::new());
        Self { sessions: builder.store(row.clone()).build().unwrap(), row }
    }

    /// Lets two requests load `base`, saves `theirs`, and commits `ours`. Returns what the store has then, and its
    /// size; `None` if the commit is a conflict.
    fn merged(&self, base: &T, ours: &T, theirs: &T) -> (Option<T>, usize) {
        block_on(async {
            self.row.set(row_of(1, base));
            let id = URL_SAFE_NO_PAD.encode([1; 32]);
            let mut session = session_with(&self.sessions, id.as_bytes()).await.unwrap();
            assert!(!session.is_new());
            ours.clone_into(&mut session);
            let saved = row_of(2, theirs);
            self.row.set(saved.clone());
            match committed(session).await {
                Ok(_) => {
                    let payload = self.row.get().unwrap().record().unwrap().payload().to_vec();
                    (serde_json::from_slice(&payload).unwrap(), payload.len())
                }
                Err(SessionError::Conflict) => {
                    assert_eq!(self.row.get(), Some(saved), "a conflict saves nothing");
                    (None, 0)
                }
                Err(error) => panic!("{error}"),
            }
        })
    }
}

fn row_of(version: u8, data: &impl Data) -> RowBytes {
    let at = Timestamp::from_unix_millis;
    let record = RecordBuilder::new()
        .version(Version::from_bytes([version; 16]))
        .created_at(at(NOW - 1000))
        .expires_at(at(NOW + 1000))
        .payload(serde_json::to_vec(data).unwrap());
    RowBytes::of(&record.build())
}
