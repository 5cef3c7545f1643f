//! What the examples answer, without sessions: pages of the same size for the same requests.

use std::collections::BTreeMap;

use axum::{
    Form, Json, Router,
    response::{Html, Redirect},
    routing::{get, post},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Item {
    sku: String,
    qty: u32,
}

async fn add_item(Form(item): Form<Item>) -> Json<BTreeMap<String, u32>> {
    Json(BTreeMap::from([(item.sku, item.qty)]))
}

async fn items() -> Json<BTreeMap<String, u32>> {
    Json(BTreeMap::from([("tea".to_owned(), 1)]))
}

async fn login(body: String) -> &'static str {
    drop(body);
    "logged in\n"
}

pub async fn serve() {
    let page = "x".repeat(1100);
    let app = Router::new()
        .route("/", get(async move || Html(page)))
        .route("/count", post(async || Redirect::to("/")))
        .route("/sign-out", post(async || Redirect::to("/")))
        .route("/items", get(items).post(add_item))
        .route("/login", post(login))
        .route("/logout", post(async || "logged out\n"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("listening on http://{}", listener.local_addr().unwrap());
    axum::serve(listener, app).await.unwrap();
}
