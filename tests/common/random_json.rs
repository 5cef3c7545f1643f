//! Random data of sessions, which are the same in every run.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Map, Value, json};

/// Returns the data of so many sessions, each of which differs from all others. The first is short.
pub fn sessions(count: usize) -> Vec<Value> {
    let mut random = StdRng::seed_from_u64(7);
    (0..count)
        .map(|number| {
            let mut fields = Map::from_iter([("number".to_owned(), number.into())]);
            for _ in 0..random.random_range(0..6).min(number) {
                fields.insert(text(&mut random, 1), value(&mut random, 3));
            }
            Value::Object(fields)
        })
        .collect()
}

/// Characters that formats have to quote or to encode, and others.
const LETTERS: [&str; 22] = [
    "a",
    "Z",
    "0",
    "\"",
    "\\",
    "/",
    "+",
    "=",
    "%",
    ";",
    "<",
    ".",
    " ",
    "\0",
    "\n",
    "\u{7f}",
    "\u{2028}",
    "é",
    "e\u{301}",
    "日",
    "🙂",
    "\u{10ffff}",
];

fn text(random: &mut StdRng, at_least: usize) -> String {
    let letters = (0..random.random_range(at_least..12)).map(|_| *LETTERS.choose(random).unwrap());
    letters.collect()
}

fn value(random: &mut StdRng, levels: usize) -> Value {
    let kinds = if levels == 0 { 5 } else { 8 };
    match random.random_range(0..kinds) {
        0 => Value::Null,
        1 => random.random::<bool>().into(),
        // Integers that JavaScript has too.
        2 => random.random_range(-(1_i64 << 53)..1 << 53).into(),
        3 => fraction(random).into(),
        4 => text(random, 0).into(),
        5 => (0..random.random_range(0..4)).map(|_| value(random, levels - 1)).collect(),
        6 => {
            let fields = (0..random.random_range(0..4))
                .map(|_| (text(random, 0), value(random, levels - 1)));
            Value::Object(fields.collect())
        }
        _ => deep(random),
    }
}

/// A number that is no integer in any notation, near zero, near one or far away.
fn fraction(random: &mut StdRng) -> f64 {
    loop {
        let number = random.random_range(-1.0..1.0) * 10_f64.powi(random.random_range(-300..300));
        if number.fract() != 0.0 || number.abs() > 1e22 {
            return number;
        }
    }
}

/// Up to 50 levels around a text.
fn deep(random: &mut StdRng) -> Value {
    let innermost = Value::from(text(random, 0));
    (0..random.random_range(1..50)).fold(innermost, |inner, _| {
        if random.random::<bool>() { json!([inner]) } else { json!({"": inner}) }
    })
}
