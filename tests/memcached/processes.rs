//! Two processes of an application on one server.

use crate::{
    shops::two_processes_without_an_index_lose_nothing,
    support::{Memcached, or_skip},
};

#[test]
fn two_processes_on_one_server_lose_nothing() {
    let memcached = or_skip!(Memcached::start());
    two_processes_without_an_index_lose_nothing(&memcached.url());
}
