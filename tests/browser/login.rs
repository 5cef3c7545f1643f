//! The example `login`.

use crate::{browser::Browser, program::Program};

const SESSION: &str = "__Host-session";

async fn sign_in(browser: &Browser, program: &Program, keep: bool) {
    browser.goto(&program.url("localhost", "/sign-in")).await;
    fill_in(browser, "correct horse", keep).await;
    browser.click("#submit").await;
    browser.wait_for_text("#hello", "Hello, ann").await;
}

async fn fill_in(browser: &Browser, password: &str, keep: bool) {
    browser.fill("[name=name]", "ann").await;
    browser.fill("[name=password]", password).await;
    if keep {
        browser.click("[name=keep]").await;
    }
}

#[tokio::test]
async fn a_visitor_signs_in_with_next_and_out() {
    let Some(browser) = Browser::start().await else { return };
    let program = Program::start("login");
    browser.goto(&program.url("localhost", "/account/devices")).await;
    assert_eq!(browser.path().await, "/sign-in");
    fill_in(&browser, "wrong", false).await;
    browser.click("#submit").await;
    browser.wait_for_text(".problem", "The name or the password is wrong.").await;

    fill_in(&browser, "correct horse", false).await;
    browser.click("#submit").await;
    browser.wait_for_text("h1", "Your devices").await;
    assert_eq!(browser.path().await, "/account/devices");
    assert_eq!(browser.text(".flash").await, "Welcome, ann.");
    browser.reload().await;
    assert!(!browser.has(".flash").await, "a message is shown once");

    let cookie = browser.cookie(SESSION).await.expect("the cookie is kept");
    assert_eq!((cookie.secure(), cookie.http_only()), (Some(true), Some(true)));
    assert!(cookie.expires().is_none(), "it ends with the browser");
    assert_eq!(browser.cookies_of_scripts().await, "");

    browser.click("#sign-out").await;
    browser.wait_for_text(".flash", "You have signed out.").await;
    // Nothing of the account is left to be seen.
    browser.back().await;
    browser.wait_for_text("h1", "Sign in").await;
    browser.close().await;
}

#[tokio::test]
async fn keep_me_signed_in_outlives_the_browser_and_nothing_else_does() {
    let Some(browser) = Browser::start().await else { return };
    let program = Program::start("login");
    sign_in(&browser, &program, false).await;
    let browser = browser.restart().await;
    browser.goto(&program.url("localhost", "/")).await;
    browser.wait_for_text("h1", "Welcome").await;

    sign_in(&browser, &program, true).await;
    assert!(browser.cookie(SESSION).await.unwrap().expires().is_some());
    let browser = browser.restart().await;
    browser.goto(&program.url("localhost", "/")).await;
    browser.wait_for_text("#hello", "Hello, ann").await;
    // The cookie of the last visit is another one.
    assert_eq!(browser.text("main p").await, "Your last visit with this browser was just now.");
    browser.close().await;
}

#[tokio::test]
async fn a_sign_out_in_one_tab_is_seen_by_the_other() {
    let Some(browser) = Browser::start().await else { return };
    let program = Program::start("login");
    sign_in(&browser, &program, false).await;
    let first = browser.tab().await;
    browser.new_tab().await;
    browser.goto(&program.url("localhost", "/account/password")).await;
    browser.click("#sign-out").await;
    browser.wait_for_text(".flash", "You have signed out.").await;

    browser.show(&first).await;
    browser.click("a[href='/account/devices']").await;
    browser.wait_for_text("h1", "Sign in").await;
    browser.close().await;
}

#[tokio::test]
async fn a_double_click_on_any_form_ends_where_one_click_does() {
    let Some(browser) = Browser::start().await else { return };
    let program = Program::start("login");
    browser.goto(&program.url("localhost", "/sign-in")).await;
    fill_in(&browser, "correct horse", false).await;
    browser.double_click("#submit").await;
    browser.wait_for_text("#hello", "Hello, ann").await;

    browser.goto(&program.url("localhost", "/account/devices")).await;
    browser.double_click("#sign-out-others").await;
    browser.wait_for_text(".flash", "0 other devices are signed out.").await;

    browser.goto(&program.url("localhost", "/account/password")).await;
    browser.fill("[name=old]", "correct horse").await;
    browser.fill("[name=new]", "battery staple").await;
    browser.double_click("#submit").await;
    // The second request comes with the old id, and is led back by way of the sign-in form, which sends a user who is
    // signed in to the home page.
    wait_for_one_of(&browser, &["Your devices", "Hello, ann"]).await;
    browser.goto(&program.url("localhost", "/")).await;
    browser.wait_for_text("#hello", "Hello, ann").await;

    browser.double_click("[name=theme][value=dark]").await;
    browser.wait_for_text("#hello", "Hello, ann").await;
    browser.double_click("#sign-out").await;
    browser.wait_for_text("h1", "Welcome").await;
    browser.close().await;
}

async fn wait_for_one_of(browser: &Browser, headings: &[&str]) {
    for _ in 0..500 {
        if browser.has("h1").await && headings.contains(&browser.text("h1").await.as_str()) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("none of {headings:?}: {}", browser.page().await);
}

#[tokio::test]
async fn devices_are_signed_out_and_the_pages_look_as_in_the_pictures() {
    let phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1";
    let office = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0";
    let Some(here) = Browser::start().await else { return };
    let Some(other) = Browser::start_as(phone).await else { return };
    let Some(third) = Browser::start_as(office).await else { return };
    let program = Program::start("login");
    here.goto(&program.url("localhost", "/sign-in?next=/account/devices")).await;
    here.screenshot("login-signed-out").await;
    sign_in(&other, &program, false).await;
    sign_in(&third, &program, true).await;
    sign_in(&here, &program, false).await;
    here.screenshot("login-signed-in").await;

    here.goto(&program.url("localhost", "/account/devices")).await;
    here.screenshot("login-devices").await;
    here.resize(390, 844).await;
    here.screenshot("login-phone").await;

    here.click("#sign-out-others").await;
    here.wait_for_text(".flash", "2 other devices are signed out.").await;
    for browser in [other, third] {
        browser.reload().await;
        browser.wait_for_text("h1", "Welcome").await;
        browser.close().await;
    }
    here.click("#sign-out-all").await;
    here.wait_for_text("h1", "Welcome").await;
    here.close().await;
}
