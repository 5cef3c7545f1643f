use std::cell::Cell;

use axum_typed_session::Session;

async fn index(session: Session<Cell<u32>>) {}

fn main() {}
