//! The crate and its examples in a real browser: Chromium, headless, over real sockets.
#![allow(unreachable_pub, reason = "`pub` there is what test modules share")]

mod browser;
mod cookies;
mod counter;
#[path = "../common/examples.rs"]
mod examples;
mod login;
#[path = "../common/logs.rs"]
mod logs;
mod program;
