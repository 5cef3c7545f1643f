//! The example `login`.

use crate::{browser::Browser, program::Program};

async fn sign_in(browser: &Browser, program: &Program, keep: bool) {
    browser.goto(&program.url("localhost", "/sign-in")).await;
    browser.fill("[name=name]", "ann").await;
    browser.fill("[name=password]", "correct horse").await;
    if keep {
        browser.click("[name=keep]").await;
    }
    browser.click("#submit").await;
    browser.wait_for_text("#hello", "Hello, ann").await;
}
