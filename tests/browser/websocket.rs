//! The example `websocket`.

use crate::{browser::Browser, program::Program};

const SESSION: &str = "__Host-session";

async fn sign_in(browser: &Browser, name: &str) {
    browser.fill("[name=name]", name).await;
    browser.click("#sign-in").await;
    wait_for_socket(browser).await;
}

/// Returns once the page can send.
async fn wait_for_socket(browser: &Browser) {
    browser.wait_for_text("#say button:enabled", "Send").await;
}

async fn say(browser: &Browser, text: &str) {
    browser.fill("[name=text]", text).await;
    browser.click("#say button").await;
}

#[tokio::test]
async fn the_socket_comes_with_the_cookie_that_is_hidden_from_scripts() {
    let Some(browser) = Browser::start().await else { return };
    let program = Program::start("websocket");
    for host in ["localhost", "127.0.0.1"] {
        browser.goto(&program.url(host, "/")).await;
        sign_in(&browser, "ann").await;
        let cookie = browser.cookie(SESSION).await.expect("the cookie is kept");
        assert_eq!((cookie.secure(), cookie.http_only()), (Some(true), Some(true)), "{host}");
        assert!(cookie.expires().is_none(), "it ends with the browser");
        assert_eq!(browser.cookies_of_scripts().await, "", "{host}");

        say(&browser, "<i>hello</i>").await;
        browser.wait_for_text("#lines li:last-child", "ann <i>hello</i>").await;
        browser.wait_for_text("#sent", "1").await;
    }
    browser.close().await;
}

#[tokio::test]
async fn a_sign_out_in_one_tab_ends_the_chat_of_the_other() {
    let Some(browser) = Browser::start().await else { return };
    let program = Program::start("websocket");
    browser.goto(&program.url("localhost", "/")).await;
    sign_in(&browser, "ann").await;
    let first = browser.tab().await;
    let second = browser.new_tab().await;
    browser.goto(&program.url("localhost", "/")).await;
    wait_for_socket(&browser).await;
    say(&browser, "from the second tab").await;
    browser.wait_for_text("#sent", "1").await;

    browser.show(&first).await;
    browser.wait_for_text("#lines li:last-child", "ann from the second tab").await;
    browser.wait_for_text("#sent", "1").await;
    browser.click("#sign-out").await;
    browser.wait_for_text("#sign-in", "Sign in").await;
    assert!(browser.cookie(SESSION).await.is_none());

    // Nobody touches this tab: its socket is closed.
    browser.show(&second).await;
    browser.wait_for_text("#sign-in", "Sign in").await;

    browser.show(&first).await;
    browser.back().await;
    browser.wait_for_text("#sign-in", "Sign in").await;
    browser.close().await;
}

#[tokio::test]
async fn the_login_ends_with_the_browser() {
    let Some(browser) = Browser::start().await else { return };
    let program = Program::start("websocket");
    browser.goto(&program.url("localhost", "/")).await;
    sign_in(&browser, "ann").await;
    let browser = browser.restart().await;
    browser.goto(&program.url("localhost", "/")).await;
    assert_eq!(browser.text("#sign-in").await, "Sign in");
    browser.close().await;
}

#[tokio::test]
async fn a_double_click_on_any_form_ends_where_one_click_does() {
    let Some(browser) = Browser::start().await else { return };
    let program = Program::start("websocket");
    browser.goto(&program.url("localhost", "/")).await;
    browser.fill("[name=name]", "ann").await;
    browser.double_click("#sign-in").await;
    browser.wait_for_text("#user", "ann").await;
    browser.goto(&program.url("localhost", "/")).await;
    wait_for_socket(&browser).await;

    browser.fill("[name=text]", "once").await;
    browser.double_click("#say button").await;
    browser.wait_for_text("#lines li:last-child", "ann once").await;
    // The socket keeps the order, so a second line would have come before this one.
    say(&browser, "twice").await;
    browser.wait_for_text("#lines", "ann once\nann twice").await;
    browser.wait_for_text("#sent", "2").await;

    browser.double_click("#sign-out").await;
    browser.wait_for_text("#sign-in", "Sign in").await;
    browser.goto(&program.url("localhost", "/")).await;
    assert_eq!(browser.text("#sign-in").await, "Sign in");
    browser.close().await;
}
