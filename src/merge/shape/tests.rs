use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::*;
use crate::fields::{Counter, Latest, Once, Set};

fn shape_of<T: DeserializeOwned>(data: &Value) -> Shape {
    Shape::of::<T>([data; 3])
}

/// The shape of the one field of a struct, whose value this is.
fn field<V: DeserializeOwned>(value: &Value) -> Shape {
    #[derive(Deserialize)]
    struct One<V> {
        #[serde(rename = "k")]
        _k: V,
    }
    let mut fields = members(shape_of::<One<V>>(&json!({ "k": value })), Kind::Struct);
    fields.remove("k").unwrap_or_default()
}

#[track_caller]
fn members(shape: Shape, expected: Kind) -> HashMap<String, Shape> {
    let Shape::Members(Members { kind, shapes }) = shape else { panic!("{shape:?}") };
    assert_eq!(kind, expected);
    shapes
}

#[derive(Serialize, Deserialize)]
struct Name(String);

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Transparent(Vec<String>);

#[derive(Serialize, Deserialize)]
struct Point(i32, i32);

#[derive(Serialize, Deserialize)]
struct Nested {
    hits: Counter,
}

#[derive(Serialize, Deserialize)]
struct NestedFlattening {
    hits: Counter,
    #[serde(flatten)]
    more: HashMap<String, u32>,
}

#[derive(Serialize, Deserialize)]
enum External {
    Unit,
    Text(String),
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "t")]
enum Internal {
    Text { text: String },
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    Text(String),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Text(String),
}

#[derive(PartialEq, Eq, Hash, Deserialize)]
enum Variant {
    A,
}

#[derive(PartialEq, Eq, Hash, Deserialize)]
struct Number(u16);

fn latest(shape: Shape) -> Shape {
    Shape::Latest(Box::new(shape))
}

#[test]
fn a_field_is_what_its_type_asks_for() {
    let texts = json!(["a", "b"]);
    for (shape, expected) in [
        (field::<String>(&json!("a")), Shape::Text),
        (field::<char>(&json!("a")), Shape::Text),
        (field::<Option<String>>(&json!("a")), Shape::Text),
        (field::<Option<String>>(&json!(null)), Shape::Unknown),
        (field::<Box<Name>>(&json!("a")), Shape::Text),
        (field::<Vec<String>>(&texts), Shape::List),
        (field::<HashSet<String>>(&texts), Shape::List),
        (field::<Option<Transparent>>(&texts), Shape::List),
        (field::<Counter>(&json!(5)), Shape::Counter),
        (field::<Option<Counter>>(&json!(5)), Shape::Counter),
        (field::<Latest<u32>>(&json!(5)), latest(Shape::Value)),
        (field::<Latest<HashSet<String>>>(&texts), latest(Shape::List)),
        (field::<Latest<Option<(u32, u32)>>>(&json!([1, 2])), latest(Shape::Value)),
        (field::<Latest<Vec<Counter>>>(&json!([1])), latest(Shape::List)),
        (field::<Set<String>>(&texts), Shape::Set),
        (field::<Once<String>>(&json!("a")), Shape::Once),
        (field::<Once<String>>(&json!(null)), Shape::Once),
        (field::<Once<Vec<Counter>>>(&json!([1])), Shape::Once),
        (field::<u32>(&json!(5)), Shape::Value),
        (field::<u128>(&json!(5)), Shape::Value),
        (field::<Option<f64>>(&json!(0.5)), Shape::Value),
        (field::<bool>(&json!(true)), Shape::Value),
        (field::<()>(&json!(null)), Shape::Value),
        (field::<[u32; 2]>(&json!([1, 2])), Shape::Value),
        (field::<(String, u32)>(&json!(["a", 2])), Shape::Value),
        (field::<Point>(&json!([1, 2])), Shape::Value),
        (field::<Nested>(&json!({ "hits": 5 })), Shape::Value),
        (field::<Nested>(&json!([5])), Shape::Value),
        (field::<NestedFlattening>(&json!({ "hits": 5, "a": 1 })), Shape::Value),
        (field::<External>(&json!("Unit")), Shape::Enum("External")),
        (field::<External>(&json!({ "Text": "a" })), Shape::Enum("External")),
        (field::<Adjacent>(&json!({ "t": "Text", "c": "a" })), Shape::Value),
        (field::<Internal>(&json!({ "t": "Text", "text": "a" })), Shape::Untyped),
        (field::<Untagged>(&json!("a")), Shape::Untyped),
        (field::<Value>(&json!({ "a": 1 })), Shape::Untyped),
    ] {
        assert_eq!(shape, expected);
    }
}

#[test]
fn in_a_latest_a_struct_is_one_value_also_where_the_latest_is_the_type_itself() {
    assert_eq!(shape_of::<Latest<Nested>>(&json!({ "hits": 5 })), latest(Shape::Value));
}

#[test]
fn maps_are_looked_into_and_their_keys_may_be_of_any_type() {
    type Counts<K> = HashMap<K, Counter>;
    let large = u128::MAX.to_string();
    let maps = [
        ("a", field::<Counts<String>>(&json!({ "a": 1 }))),
        ("7", field::<Counts<u64>>(&json!({ "7": 1 }))),
        ("-7", field::<Counts<i8>>(&json!({ "-7": 1 }))),
        ("true", field::<Counts<bool>>(&json!({ "true": 1 }))),
        ("x", field::<Counts<char>>(&json!({ "x": 1 }))),
        ("A", field::<Counts<Variant>>(&json!({ "A": 1 }))),
        ("9", field::<Counts<Number>>(&json!({ "9": 1 }))),
        ("a", field::<Counts<Option<String>>>(&json!({ "a": 1 }))),
        (&large, field::<Counts<u128>>(&json!({ &large: 1 }))),
        ("a", shape_of::<Option<BTreeMap<String, Counter>>>(&json!({ "a": 1 }))),
    ];
    for (key, shape) in maps {
        assert_eq!(members(shape, Kind::Map).remove(key), Some(Shape::Counter), "{key}");
    }
    let nested =
        field::<HashMap<u8, Option<HashMap<String, String>>>>(&json!({ "1": { "a": "b" } }));
    let inner = members(nested, Kind::Map).remove("1").unwrap();
    assert_eq!(members(inner, Kind::Map).remove("a"), Some(Shape::Text));
}

#[test]
fn the_type_itself_is_looked_at_through_newtypes() {
    #[derive(Deserialize)]
    struct Wrapper(#[allow(dead_code, reason = "decoded")] Nested);
    let wrapped = members(shape_of::<Wrapper>(&json!({ "hits": 5 })), Kind::Struct);
    assert_eq!(wrapped["hits"], Shape::Counter);
    assert_eq!(shape_of::<Option<Nested>>(&json!({ "hits": 5 })), Shape::Value);
    assert_eq!(shape_of::<Counter>(&json!(5)), Shape::Counter);
    assert_eq!(shape_of::<Internal>(&json!({ "t": "Text", "text": "a" })), Shape::Untyped);
    assert_eq!(shape_of::<External>(&json!("Unit")), Shape::Enum("External"));
    assert_eq!(shape_of::<Adjacent>(&json!({ "t": "Text", "c": "a" })), Shape::Value);
    assert_eq!(shape_of::<Adjacent>(&json!({ "c": "a", "t": "Text" })), Shape::Value);
}

#[test]
fn flattened_members_are_untyped_beside_typed_fields() {
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "decoded")]
    struct Visits {
        hits: Counter,
        name: Option<String>,
        #[serde(flatten)]
        payment: Internal,
        #[serde(flatten)]
        more: BTreeMap<String, Value>,
    }
    let data = json!({ "hits": 5, "name": null, "t": "Text", "text": "a", "x": [1] });
    let fields = members(shape_of::<Visits>(&data), Kind::Flattening);
    let expected = [
        ("hits", Shape::Counter),
        ("name", Shape::Unknown),
        ("t", Shape::Untyped),
        ("text", Shape::Untyped),
        ("x", Shape::Untyped),
    ];
    assert_eq!(fields, expected.map(|(key, shape)| (key.to_owned(), shape)).into());
}

#[test]
fn documents_complete_each_other_and_a_place_asked_for_in_two_ways_is_a_value() {
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "decoded")]
    struct Visits {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        pages: BTreeSet<String>,
        odd: Odd,
    }
    #[derive(Deserialize)]
    #[serde(try_from = "Value")]
    struct Odd;
    impl TryFrom<Value> for Odd {
        type Error = &'static str;

        fn try_from(_: Value) -> Result<Self, Self::Error> {
            Ok(Self)
        }
    }
    let documents = [
        json!({ "name": null, "odd": 1 }),
        json!({ "pages": ["a"], "odd": 1 }),
        json!({ "name": "ann", "odd": 1 }),
    ];
    let fields = members(Shape::of::<Visits>(documents.each_ref()), Kind::Struct);
    assert_eq!(fields["name"], Shape::Text);
    assert_eq!(fields["pages"], Shape::List);
    assert_eq!(fields["odd"], Shape::Untyped);

    let mut shape = Shape::Text;
    shape.note(Shape::List);
    assert_eq!(shape, Shape::Value);
    shape.note(Shape::Members(Members { kind: Kind::Map, shapes: HashMap::new() }));
    assert_eq!(shape, Shape::Value);
}

#[test]
fn data_that_does_not_decode_is_unknown() {
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "decoded")]
    struct Visits {
        a: String,
        b: u32,
        c: String,
    }
    let fields =
        members(shape_of::<Visits>(&json!({ "a": "x", "b": "x", "c": "x" })), Kind::Struct);
    assert_eq!(fields["a"], Shape::Text);
    assert_eq!(fields.get("c"), None);
    assert_eq!(shape_of::<Visits>(&json!(["x", 1, "x"])), Shape::Value);
    assert_eq!(shape_of::<Visits>(&json!(5)), Shape::Value);
    assert_eq!(field::<HashMap<String, u32>>(&json!([1])), Shape::Value);
}
