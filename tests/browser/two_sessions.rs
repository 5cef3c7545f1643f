//! The example `two_sessions`.

use crate::{browser::Browser, program::Program};

const LOGIN: &str = "__Host-login";
const PREFERENCES: &str = "__Host-preferences";
const SPANISH: &str = "button[value=spanish]";

async fn sign_in(browser: &Browser, name: &str) {
    browser.fill("[name=name]", name).await;
    browser.click("#sign-in").await;
    browser.wait_for_text("#sign-out", "Sign out").await;
}

#[tokio::test]
async fn both_cookies_are_kept_on_this_machine_over_http_and_hidden_from_scripts() {
    let Some(browser) = Browser::start().await else { return };
    let program = Program::start("two_sessions");
    for host in ["localhost", "127.0.0.1"] {
        browser.goto(&program.url(host, "/")).await;
        sign_in(&browser, "ann").await;
        assert_eq!(browser.text("#hello").await, "Hello, ann");
        for name in [LOGIN, PREFERENCES] {
            let cookie = browser.cookie(name).await.expect("the cookie is kept");
            let hidden = (cookie.secure(), cookie.http_only());
            assert_eq!(hidden, (Some(true), Some(true)), "{name} on {host}");
            assert_eq!(cookie.expires().is_some(), name == PREFERENCES, "{name} on {host}");
        }
        assert_eq!(browser.cookies_of_scripts().await, "", "{host}");
    }
    browser.close().await;
}

#[tokio::test]
async fn a_sign_out_removes_one_cookie_and_keeps_the_other() {
    let Some(browser) = Browser::start().await else { return };
    let program = Program::start("two_sessions");
    browser.goto(&program.url("localhost", "/")).await;
    sign_in(&browser, "ann").await;
    browser.click(SPANISH).await;
    browser.wait_for_text("#hello", "Hola, ann").await;

    browser.click("#sign-out").await;
    browser.wait_for_text("#hello", "Hola").await;
    assert!(browser.cookie(LOGIN).await.is_none());
    assert!(browser.cookie(PREFERENCES).await.is_some());

    browser.back().await;
    browser.wait_for_text("#hello", "Hola").await;
    assert!(browser.has("#sign-in").await, "the page of the signed-in user is not shown again");
    browser.close().await;
}

#[tokio::test]
async fn the_login_ends_with_the_browser_and_the_preferences_do_not() {
    let Some(browser) = Browser::start().await else { return };
    let program = Program::start("two_sessions");
    browser.goto(&program.url("localhost", "/")).await;
    sign_in(&browser, "ann").await;
    browser.click(SPANISH).await;
    browser.wait_for_text("#hello", "Hola, ann").await;

    let browser = browser.restart().await;
    browser.goto(&program.url("localhost", "/")).await;
    assert_eq!(browser.text("#hello").await, "Hola");
    assert!(browser.cookie(LOGIN).await.is_none());
    assert!(browser.cookie(PREFERENCES).await.is_some());
    browser.close().await;
}

#[tokio::test]
async fn a_sign_out_in_one_tab_is_seen_by_the_other() {
    let Some(browser) = Browser::start().await else { return };
    let program = Program::start("two_sessions");
    browser.goto(&program.url("localhost", "/")).await;
    sign_in(&browser, "ann").await;
    let first = browser.tab().await;
    browser.new_tab().await;
    browser.goto(&program.url("localhost", "/")).await;
    assert_eq!(browser.text("#hello").await, "Hello, ann");
    browser.click("#sign-out").await;
    browser.wait_for_text("#hello", "Hello").await;

    browser.show(&first).await;
    browser.click(SPANISH).await;
    browser.wait_for_text("#hello", "Hola").await;
    browser.close().await;
}

#[tokio::test]
async fn a_double_click_on_any_form_ends_where_one_click_does() {
    let Some(browser) = Browser::start().await else { return };
    let program = Program::start("two_sessions");
    browser.goto(&program.url("localhost", "/")).await;
    browser.fill("[name=name]", "ann").await;
    browser.double_click("#sign-in").await;
    browser.wait_for_text("#hello", "Hello, ann").await;
    assert_shown(&browser, &program, "Hello, ann").await;

    browser.double_click(SPANISH).await;
    browser.wait_for_text("#hello", "Hola, ann").await;
    assert_shown(&browser, &program, "Hola, ann").await;

    browser.double_click("#sign-out").await;
    browser.wait_for_text("#hello", "Hola").await;
    assert_shown(&browser, &program, "Hola").await;
    browser.close().await;
}

/// Loads the page again, which shows what both requests have left.
async fn assert_shown(browser: &Browser, program: &Program, hello: &str) {
    browser.goto(&program.url("localhost", "/")).await;
    assert_eq!(browser.text("#hello").await, hello);
}
