//! What the tests share: random orders, and a clock that stands still.

use std::sync::{PoisonError, RwLock};

use axum_typed_session::{Clock, store::Timestamp, time::OffsetDateTime};
use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler},
};

/// A clock that stands still.
pub struct Still;

impl Clock for Still {
    fn now(&self) -> OffsetDateTime {
        Timestamp::from_unix_millis(1000).into()
    }
}

/// The orders that each test tries: `ORDERS`, or 2000.
fn orders() -> usize {
    std::env::var("ORDERS").map_or(2000, |orders| orders.parse().unwrap())
}

/// Tries a test in random orders, half of them with few changes between threads, which find other faults.
pub fn in_random_orders(test: impl Fn() + Send + Sync + Clone + 'static) {
    /// The crate has a lock in a static variable, and two runs of shuttle must not share one. This lock is not one of
    /// shuttle's.
    static ONE_AT_A_TIME: RwLock<()> = RwLock::new(());

    let _turn = ONE_AT_A_TIME.write().unwrap_or_else(PoisonError::into_inner);
    let mut config = Config::new();
    config.stack_size = 512 * 1024;
    Runner::new(RandomScheduler::new(orders() / 2), config.clone()).run(test.clone());
    Runner::new(PctScheduler::new(3, orders() / 2), config).run(test);
}
