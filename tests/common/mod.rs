//! What the suites over memory, Redis and SQL share.
#![allow(dead_code, reason = "each suite uses a part of it")]

pub mod browser;
pub mod cancellation;
pub mod concurrency;
pub mod examples;
pub mod formats;
pub mod logs;
pub mod model;
pub mod proxy;
pub mod servers;
pub mod shops;
pub mod world;

/// Asserts that a value is of a form, and shows the one that is not.
macro_rules! assert_matches {
    ($value:expr, $form:pat) => {
        crate::common::assert_matches!($value, $form, "")
    };
    ($value:expr, $form:pat, $($when:tt)+) => {
        match $value {
            $form => {}
            ref other => {
                let (form, when) = (stringify!($form), format!($($when)+));
                panic!("expected {form}, got {other:?} {when}");
            }
        }
    };
}
pub(crate) use assert_matches;
