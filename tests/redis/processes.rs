//! Two processes of an application on one engine.

use crate::{
    shops::two_processes_lose_nothing,
    support::{Redis, or_skip, shared_cluster},
};

#[test]
fn two_processes_on_one_server_lose_nothing() {
    let redis = or_skip!(Redis::start());
    two_processes_lose_nothing(&redis.url());
}

#[test]
fn two_processes_on_one_cluster_lose_nothing() {
    let cluster = or_skip!(shared_cluster());
    let urls: Vec<_> = cluster.nodes().map(Redis::url).collect();
    two_processes_lose_nothing(&urls.join(","));
}
