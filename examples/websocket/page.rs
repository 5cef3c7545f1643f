//! The HTML, and the script of the chat.

use axum::{http::header, response::IntoResponse};
use maud::{DOCTYPE, Markup, html};

use crate::{LONGEST_LINE, LONGEST_NAME, Login};

pub(crate) async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript")], include_str!("chat.js"))
}

pub(crate) fn index(login: &Login) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Chat" }
                style { (STYLE) }
            }
            body {
                @match &login.user {
                    Some(user) => (chat(user, login.sent)),
                    None => (sign_in()),
                }
            }
        }
    }
}

fn sign_in() -> Markup {
    html! {
        main.narrow {
            h1 { "Chat" }
            form.row method="post" action="/sign-in" {
                input name="name" placeholder="Your name" aria-label="Your name" maxlength=(LONGEST_NAME)
                    autocomplete="username" required autofocus;
                button id="sign-in" { "Sign in" }
            }
        }
    }
}

fn chat(user: &str, sent: u32) -> Markup {
    html! {
        main {
            header {
                h1 id="user" { (user) }
                span { output id="sent" { (sent) } " sent" }
                form method="post" action="/sign-out" { button.plain id="sign-out" { "Sign out" } }
            }
            ul id="lines" aria-live="polite" {}
            p id="status" role="status" { "Connecting" }
            // Four bytes are the most that a character takes.
            form.row id="say" {
                input name="text" placeholder="Write a line" aria-label="Write a line" maxlength=(LONGEST_LINE / 4)
                    autocomplete="off" required autofocus;
                button disabled { "Send" }
            }
        }
        script src="/chat.js" {}
    }
}

const STYLE: &str = "
    :root { color-scheme: light dark; --accent: light-dark(#2457c5, #8fb0ff); --line: light-dark(#dfe3ea, #333842) }
    * { box-sizing: border-box }
    body { margin: 0; min-height: 100vh; display: grid; place-items: center; font: 1.05rem/1.5 system-ui, sans-serif;
        background: light-dark(#f6f7f9, #14161a) }
    main { width: min(34rem, 94vw); background: light-dark(#fff, #1d2026); border: 1px solid var(--line);
        border-radius: .75rem; padding: 1rem 1.2rem 1.2rem }
    main.narrow { width: min(22rem, 94vw) }
    header { display: flex; align-items: center; gap: 1rem }
    h1 { font-size: 1.4rem; margin: 0 auto 0 0; overflow-wrap: anywhere }
    main.narrow h1 { margin-bottom: .8rem }
    ul { list-style: none; margin: 1rem 0; padding: 1rem 0; height: min(20rem, 50vh); overflow-y: auto;
        border-block: 1px solid var(--line) }
    li { overflow-wrap: anywhere }
    #status { margin: 0 0 .6rem; min-height: 1.5em; font-size: .9rem; opacity: .7 }
    .row { display: flex; gap: .6rem }
    .row input { flex: 1; min-width: 0 }
    input, button { font: inherit; padding: .5rem .9rem; border: 1px solid var(--line); border-radius: .5rem;
        background: none; color: inherit }
    button { border-color: var(--accent); background: var(--accent); color: light-dark(#fff, #10182b); cursor: pointer }
    button:disabled { opacity: .5; cursor: default }
    button.plain { background: none; color: var(--accent); padding-block: .3rem }
";
