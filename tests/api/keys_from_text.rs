//! Keys written as text, in a variable of the environment or elsewhere: what is read, and what is refused.

use std::{env, ffi::OsString, process::Command};

use axum_typed_session::{ConfigError, Key, KeyRing, testing::ManualClock};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use http::{Request, StatusCode, header};
use proptest::prelude::*;

use crate::{
    keys::{logged_in, node, roll_out},
    logins::{FRESH, expect_refusal, issue_cookie, without_keys},
    support::send,
};

const HOW: &str = "; make a key with `openssl rand -hex 64`";

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// 64 bytes, whose base64 differs between the alphabets.
fn bytes() -> Vec<u8> {
    [0xfb, 0xff, 0xfe].into_iter().chain(0..61).collect()
}

fn key() -> Key {
    Key::try_from(&*bytes()).unwrap()
}

#[test]
fn a_key_of_too_few_bytes_is_refused_and_no_key_shows_its_bytes() {
    let text = "a key has 63 bytes and needs 64 or more; make a key with `openssl rand -hex 64`";
    assert_eq!(Key::try_from(&bytes()[..63]).unwrap_err().to_string(), text);
    let longer = [bytes(), vec![1]].concat();
    assert_eq!(Key::try_from(&*longer).unwrap().as_bytes(), &*bytes());
    assert_eq!(format!("{:?}", key()), "Key { .. }");
}

fn from_hex(text: &str) -> KeyRing {
    KeyRing::from_hex(text).unwrap()
}

#[tokio::test]
async fn a_key_in_hex_is_the_key_of_these_bytes() {
    let clock = ManualClock::new();
    let digits = hex(&bytes());
    let more = format!("{digits}00ff");
    let texts = [
        digits.clone(),
        digits.to_uppercase(),
        format!("{}{}", &digits[..64], digits[64..].to_uppercase()),
        format!(" \t{digits}\r\n"),
        // Of a longer key the first 64 bytes count.
        more,
    ];
    let browser = logged_in(&node(&clock, key())).await;
    for text in texts {
        let mut browser = browser.at(&node(&clock, from_hex(&text)));
        browser.get("/").await.expect(StatusCode::OK, "mine");
        browser.post("/note?later").await;
        let mut browser = browser.at(&node(&clock, key()));
        browser.get("/").await.expect(StatusCode::OK, "later");
    }
    assert_eq!(format!("{:?}", from_hex(&digits)), "KeyRing { keys: 1, .. }");
}

#[tokio::test]
async fn the_first_of_a_list_seals_and_the_others_are_former_keys() {
    let clock = ManualClock::new();
    let keys = [(); 3].map(|()| Key::generate());
    let [first, second, third] = keys.each_ref().map(|key| hex(key.as_bytes()));
    let list = node(&clock, from_hex(&format!("{first}, {second} ,\n{third}\n")));
    for former in &keys[1..] {
        let mut browser = logged_in(&node(&clock, former.clone())).await.at(&list);
        browser.get("/").await.expect(StatusCode::OK, "mine");
        browser.post("/commit").await.set_cookie();
        browser.post("/commit").await.expect_no_cookie();
        let mut elsewhere = browser.at(&node(&clock, former.clone()));
        elsewhere.get("/").await.expect(StatusCode::OK, FRESH);
        let mut elsewhere = browser.at(&node(&clock, keys[0].clone()));
        elsewhere.get("/").await.expect(StatusCode::OK, "mine");
    }
}

#[tokio::test]
async fn a_rollout_that_only_changes_the_list_logs_nobody_out() {
    let clock = ManualClock::new();
    let [old, new] = [(); 2].map(|()| hex(Key::generate().as_bytes()));
    let lists = [old.clone(), format!("{old},{new}"), format!("{new},{old}"), new];
    roll_out(&lists.map(|list| node(&clock, from_hex(&list)))).await;
}

#[test]
fn a_text_that_is_no_list_of_keys_in_hex_is_refused_without_being_shown() {
    const SOURCE: &str = "the text of `KeyRing::from_hex(..)`";
    let digits = hex(&bytes());
    let no_hex = "is not hex with an even number of digits";
    let too_short = |bytes| format!("has {bytes} bytes and needs 64 or more");
    let cases = [
        (1, digits[..64].to_owned(), too_short(32)),
        (1, digits[..126].to_owned(), too_short(63)),
        (1, digits[..127].to_owned(), no_hex.to_owned()),
        (1, digits.replace('0', "o"), no_hex.to_owned()),
        (1, format!("0x{digits}"), no_hex.to_owned()),
        (1, format!("+{}", &digits[1..]), no_hex.to_owned()),
        (1, format!("\"{digits}\""), no_hex.to_owned()),
        (1, format!("{digits} {digits}"), no_hex.to_owned()),
        (1, format!("{digits};{digits}"), no_hex.to_owned()),
        (1, "ü".repeat(64), no_hex.to_owned()),
        (1, STANDARD.encode(bytes()), no_hex.to_owned()),
        (1, format!(",{digits}"), too_short(0)),
        (2, format!("{digits},"), too_short(0)),
        (2, format!("{digits}, ,{digits}"), too_short(0)),
        (2, format!("{digits},{}", &digits[..32]), too_short(16)),
        (3, format!("{digits},{digits},changeme"), no_hex.to_owned()),
    ];
    for (number, text, problem) in cases {
        let error = KeyRing::from_hex(&text).unwrap_err().to_string();
        assert_eq!(error, format!("key {number} of {SOURCE} {problem}{HOW}"), "{text}");
    }
    for empty in ["", " ", "\n"] {
        let error = KeyRing::from_hex(empty).unwrap_err().to_string();
        assert_eq!(error, format!("{SOURCE} is empty{HOW}"));
    }
}

#[test]
fn weak_keys_and_keys_that_stand_twice_in_a_list_are_refused_by_build() {
    let (digits, zeros) = (hex(&bytes()), "00".repeat(64));
    let weak = "a key in `.keys(..)` is not random; make a key with `openssl rand -hex 64`";
    let twice = "`.keys(..)` contains a key twice; list each key once";
    let cases = [
        (zeros.clone(), weak),
        (format!("{digits},{zeros}"), weak),
        (format!("{digits},{}", digits.to_uppercase()), twice),
        // What follows the first 64 bytes does not make it another key.
        (format!("{digits},{digits}00"), twice),
    ];
    for (list, text) in cases {
        expect_refusal(without_keys(&ManualClock::new()).keys(from_hex(&list)), text);
    }
}

proptest! {
    #[test]
    fn no_text_makes_an_error_that_shows_more_than_numbers(text in "[ ,+/=_a-z0-9-]{0,200}|.{0,80}") {
        let Err(error) = KeyRing::from_hex(&text) else { return Ok(()) };
        let error = error.to_string().replace(|letter: char| letter.is_ascii_digit(), "");
        let source = "of the text of `KeyRing::from_hex(..)`";
        let how = "; make a key with `openssl rand -hex `";
        let texts = [
            format!("the text of `KeyRing::from_hex(..)` is empty{how}"),
            format!("key  {source} is not hex with an even number of digits{how}"),
            format!("key  {source} has  bytes and needs  or more{how}"),
        ];
        prop_assert!(texts.contains(&error), "{}", error);
    }
}

/// Names the cookie for the process that reads keys from its environment.
const COOKIE: &str = "COOKIE_OF_THE_TEST";

/// Starts a process with these values in `KEY_1`, `KEY_2` and so on. Returns what each of them is to it: the note in
/// the cookie, or an error.
fn read_in_a_process_of_its_own(cookie: &str, values: &[OsString]) -> Vec<String> {
    let mut process = Command::new(env::current_exe().unwrap());
    process.args([
        "--exact",
        "--ignored",
        "--nocapture",
        "keys_from_text::keys_of_the_environment",
    ]);
    process.env(COOKIE, cookie);
    for (number, value) in values.iter().enumerate() {
        process.env(format!("KEY_{}", number + 1), value);
    }
    let output = process.output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let lines = output.lines().filter_map(|line| Some(line.split_once("=> ")?.1.to_owned()));
    lines.collect()
}

#[tokio::test]
#[ignore = "run by the tests below, with an environment of its own"]
async fn keys_of_the_environment() {
    let Ok(cookie) = env::var(COOKIE) else { return };
    let variables = (1..).map(|number| format!("KEY_{number}"));
    for variable in variables.take_while(|variable| env::var_os(variable).is_some()) {
        match KeyRing::from_env(&variable) {
            Ok(ring) => {
                let app = node(&ManualClock::new(), ring);
                let answer = send(&app, Request::get("/").header(header::COOKIE, &cookie)).await;
                println!("=> {}", answer.body);
            }
            Err(error) => println!("=> {error}"),
        }
    }
}

#[tokio::test]
async fn a_variable_holds_keys_in_hex_or_in_base64_of_any_alphabet() {
    let [mine, other] = [bytes(), Key::generate().as_bytes().to_vec()];
    let cookie = issue_cookie(&node(&ManualClock::new(), key()), "mine").await;
    let longer = [&mine[..], b"more"].concat();
    let values = [
        hex(&mine),
        hex(&mine).to_uppercase(),
        hex(&longer),
        STANDARD.encode(&mine),
        STANDARD_NO_PAD.encode(&mine),
        URL_SAFE.encode(&mine),
        URL_SAFE_NO_PAD.encode(&mine),
        STANDARD.encode(&longer),
        format!("\t{}\n", STANDARD.encode(&mine)),
        format!("{}, {}", hex(&other), STANDARD.encode(&mine)),
        format!("{} ,{}", URL_SAFE_NO_PAD.encode(&mine), hex(&other)),
    ];
    assert!(values[3].starts_with("+//+") && values[3].ends_with("=="));
    let read = read_in_a_process_of_its_own(&cookie, &values.map(OsString::from));
    assert_eq!(read, ["mine"; 11]);
    let others = [hex(&other), STANDARD.encode(&other)].map(OsString::from);
    assert_eq!(read_in_a_process_of_its_own(&cookie, &others), [FRESH; 2]);
}

#[test]
fn a_variable_that_holds_no_keys_is_refused_without_being_shown() {
    let (digits, base64) = (hex(&bytes()), STANDARD.encode(bytes()));
    let neither = "is neither hex with an even number of digits nor base64 on one line";
    let too_short = |bytes| format!("has {bytes} bytes and needs 64 or more");
    let mut cases = vec![
        // The commonest mistake, 32 bytes in hex, is not taken for 48 bytes in base64; nor are 63 bytes for 94.
        (1, OsString::from(&digits[..64]), too_short(32)),
        (1, digits[..126].into(), too_short(63)),
        (1, digits[..127].into(), neither.to_owned()),
        (1, base64[..44].into(), too_short(33)),
        (1, STANDARD.encode(&bytes()[..63]).into(), too_short(63)),
        (1, "changeme".into(), too_short(6)),
        (1, base64.replace('/', "_").into(), neither.to_owned()),
        // As `openssl rand -base64 64` prints it.
        (1, format!("{}\n{}", &base64[..64], &base64[64..]).into(), neither.to_owned()),
        (1, format!("\"{digits}\"").into(), neither.to_owned()),
        (1, format!("{digits} {digits}").into(), neither.to_owned()),
        (1, "a pass phrase, however long".into(), neither.to_owned()),
        (2, format!("{digits},{}", &digits[..64]).into(), too_short(32)),
        (2, format!("{base64},").into(), too_short(0)),
    ];
    #[cfg(unix)]
    {
        let not_unicode = std::os::unix::ffi::OsStringExt::from_vec(vec![0xff; 64]);
        cases.push((1, not_unicode, neither.to_owned()));
    }
    let values: Vec<_> = cases.iter().map(|(_, value, _)| value.clone()).collect();
    let wanted = cases.iter().zip(1..).map(|((number, _, problem), case)| {
        format!("key {number} of the environment variable `KEY_{case}` {problem}{HOW}")
    });
    let wanted: Vec<_> = wanted.collect();
    assert_eq!(read_in_a_process_of_its_own("", &values), wanted);
}

#[test]
fn a_variable_that_is_empty_or_not_set_is_refused() {
    let empty = ["", "  "].map(OsString::from);
    let wanted =
        [1, 2].map(|number| format!("the environment variable `KEY_{number}` is empty{HOW}"));
    assert_eq!(read_in_a_process_of_its_own("", &empty), wanted);
    for variable in ["AXUM_TYPED_SESSION_NO_SUCH_KEY", "", "no=name", "no\0name"] {
        let error: ConfigError = KeyRing::from_env(variable).unwrap_err();
        let wanted = format!("the environment variable `{variable}` is not set{HOW}");
        assert_eq!(error.to_string(), wanted);
    }
}
