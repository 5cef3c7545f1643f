//! What a session of a middling shop holds: 318 bytes of JSON, of which each line of the cart is about 60.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

/// The lines of the cart. A measurement of growth sets other numbers.
pub static LINES: AtomicUsize = AtomicUsize::new(3);
/// The bytes by which the address is longer.
pub static TEXT: AtomicUsize = AtomicUsize::new(0);

#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Shopper {
    pub user: String,
    pub mail: String,
    pub roles: Vec<String>,
    pub cart: Vec<Line>,
    pub count: u32,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Line {
    sku: String,
    qty: u32,
    note: String,
}

impl Shopper {
    pub fn ann() -> Self {
        let line = |sku: &str| Line {
            sku: sku.to_owned(),
            qty: 2,
            note: "gift wrapped, please".to_owned(),
        };
        Self {
            user: "ann.example".to_owned(),
            mail: "ann.example@mail.example".to_owned() + &"x".repeat(TEXT.load(Ordering::Relaxed)),
            roles: ["customer", "reviewer", "newsletter", "beta tester", "early bird"]
                .map(str::to_owned)
                .to_vec(),
            cart: ["tea-0017", "jam-0203", "oil-4711"]
                .into_iter()
                .cycle()
                .take(LINES.load(Ordering::Relaxed))
                .map(line)
                .collect(),
            count: 0,
        }
    }
}
