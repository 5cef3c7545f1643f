//! The example `counter`.

use crate::{browser::Browser, program::Program};

const COUNT: &str = "form[action='/count'] button";
const SIGN_OUT: &str = "form[action='/sign-out'] button";

#[tokio::test]
async fn the_cookie_is_kept_on_this_machine_over_http_and_hidden_from_scripts() {
    let Some(browser) = Browser::start().await else { return };
    let program = Program::start("counter");
    for host in ["localhost", "127.0.0.1"] {
        browser.goto(&program.url(host, "/")).await;
        assert_eq!(browser.text("#count").await, "0");
        for count in ["1", "2"] {
            browser.click(COUNT).await;
            browser.wait_for_text("#count", count).await;
        }
        let cookie = browser.cookie("__Host-session").await.expect("the cookie is kept");
        assert_eq!((cookie.secure(), cookie.http_only()), (Some(true), Some(true)), "{host}");
        assert_eq!(browser.cookies_of_scripts().await, "", "{host}");

        browser.click(SIGN_OUT).await;
        browser.wait_for_text("#count", "0").await;
        assert!(browser.cookie("__Host-session").await.is_none(), "{host}");
    }
    browser.close().await;
}

#[tokio::test]
async fn a_persistent_cookie_is_kept_when_the_browser_is_closed() {
    let Some(browser) = Browser::start().await else { return };
    let program = Program::start("counter");
    browser.goto(&program.url("localhost", "/")).await;
    browser.click(COUNT).await;
    browser.wait_for_text("#count", "1").await;
    let browser = browser.restart().await;
    browser.goto(&program.url("localhost", "/")).await;
    assert_eq!(browser.text("#count").await, "1");
    browser.close().await;
}

#[tokio::test]
async fn two_tabs_share_the_session_and_its_end() {
    let Some(browser) = Browser::start().await else { return };
    let program = Program::start("counter");
    browser.goto(&program.url("localhost", "/")).await;
    let first = browser.tab().await;
    browser.click(COUNT).await;
    browser.wait_for_text("#count", "1").await;

    let second = browser.new_tab().await;
    browser.goto(&program.url("localhost", "/")).await;
    browser.click(COUNT).await;
    browser.wait_for_text("#count", "2").await;

    browser.show(&first).await;
    browser.click(SIGN_OUT).await;
    browser.wait_for_text("#count", "0").await;
    browser.show(&second).await;
    browser.reload().await;
    assert_eq!(browser.text("#count").await, "0");
    browser.close().await;
}

#[tokio::test]
async fn a_double_click_leads_to_a_page_and_loses_no_session() {
    let Some(browser) = Browser::start().await else { return };
    let program = Program::start("counter");
    browser.goto(&program.url("localhost", "/")).await;
    browser.double_click(COUNT).await;
    // A browser gives up the first request where it sends the second. A cookie holds what the last response says.
    browser.wait_for_text("#count", "1").await;
    browser.double_click(SIGN_OUT).await;
    browser.wait_for_text("#count", "0").await;
    browser.close().await;
}
