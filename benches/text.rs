//! How much of this crate's code a program has: bytes of text whose symbols name the crate.
//!
//! `scripts/text-per-type.sh` builds this program with one type of session and with six, and prints what each
//! further type adds. It needs `nm` of Debian's package `binutils`.

use std::{env, hint::black_box, process::Command};

use axum::{Router, response::IntoResponse, routing::get};
use axum_typed_session::{Key, MemoryStore, Session, SessionError, SessionManager};
use serde::{Deserialize, Serialize};

/// An application with a session of its own, which reads, changes, logs in and updates.
macro_rules! application {
    ($module:ident, $text:ident: $text_type:ty, $number:ident: $number_type:ty, $list:ident: $list_type:ty) => {
        mod $module {
            use super::*;

            #[derive(Default, Clone, Serialize, Deserialize)]
            pub struct Data {
                $text: $text_type,
                $number: $number_type,
                $list: $list_type,
            }

            async fn read(session: Session<Data>) -> Result<impl IntoResponse, SessionError> {
                let text = format!("{:?}", session.$text);
                Ok((session.commit().await?, text))
            }

            async fn login(mut session: Session<Data>) -> Result<impl IntoResponse, SessionError> {
                session.$number = Default::default();
                session.regenerate();
                session.commit().await
            }

            async fn update(mut session: Session<Data>) -> Result<impl IntoResponse, SessionError> {
                session.update(|data| data.$list = Default::default()).await?;
                session.commit().await
            }

            pub fn app() -> Router {
                let sessions = SessionManager::builder().store(MemoryStore::new());
                let sessions = sessions.keys(Key::generate()).kind(stringify!($module)).build();
                let routes = Router::new().route("/read", get(read)).route("/login", get(login));
                routes.route("/update", get(update)).with_state(sessions.unwrap())
            }
        }
    };
}

application!(one, user: Option<String>, count: u32, items: Vec<String>);

#[cfg(feature = "six-types")]
mod more {
    use super::*;

    application!(two, login: Option<u64>, theme: String, cart: Vec<u32>);
    application!(three, name: String, flag: bool, tags: Vec<u8>);
    application!(four, account: (u8, u16), note: Option<String>, total: i64);
    application!(five, wish: Vec<bool>, step: u16, basket: Option<Vec<u64>>);
    application!(six, route: Option<bool>, hits: u64, marks: Vec<i32>);

    pub fn apps() -> [Router; 5] {
        [two::app(), three::app(), four::app(), five::app(), six::app()]
    }
}

fn main() {
    drop(black_box(one::app()));
    #[cfg(feature = "six-types")]
    drop(black_box(more::apps()));
    let symbols = Command::new("nm")
        .args(["--print-size", "--demangle", "--radix=d"])
        .arg(env::current_exe().unwrap())
        .output()
        .expect("nm: install Debian's package `binutils`");
    let size_of = |line: &str| -> Option<u64> {
        let mut words = line.split_whitespace().skip(1);
        let (size, kind) = (words.next()?.parse().ok()?, words.next()?);
        ("tTwW".contains(kind) && line.contains("axum_typed_session")).then_some(size)
    };
    println!(
        "{}",
        String::from_utf8_lossy(&symbols.stdout).lines().filter_map(size_of).sum::<u64>()
    );
}
