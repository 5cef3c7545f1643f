use proptest::{collection, prelude::*, sample::select};

use super::*;

fn template(name: &'static str) -> CookieTemplate {
    CookieTemplate::new("cookie", Cookie::new(name, ""), false).unwrap()
}

fn visited(template: &CookieTemplate, headers: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut map = HeaderMap::new();
    for header in headers {
        map.append(header::COOKIE, HeaderValue::from_bytes(header).unwrap());
    }
    let mut values = Vec::new();
    template.visit_values(&map, |value| values.push(value.to_vec()));
    values
}

/// Reads the values in the plain way, by splitting at every semicolon.
fn split(name: &str, headers: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let pairs = headers.iter().flat_map(|header| header.split(|byte| *byte == b';'));
    let values = pairs.filter_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(unquote(value.trim_ascii()).to_vec())
    });
    values.collect()
}

/// Headers of pieces that matter to a reader, and of all bytes that may stand in a header.
fn headers() -> impl Strategy<Value = (&'static str, Vec<Vec<u8>>)> {
    let names = select(vec!["id", "aa", "a", "__Host-session"]);
    names.prop_flat_map(|name| {
        let texts = [";", "; ", " ", "\t", "\"", "=", name, name.split_at(1).0];
        let pieces = prop_oneof![
            3 => Just(format!("{name}=").into_bytes()),
            5 => select(texts.map(|text| text.as_bytes().to_vec()).to_vec()),
            1 => (b' '..=255).prop_filter("DEL", |byte| *byte != 127).prop_map(|byte| vec![byte]),
        ];
        let header = collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat());
        (Just(name), collection::vec(header, 1..4))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn a_search_for_the_name_finds_what_a_look_at_every_cookie_finds((name, headers) in headers()) {
        prop_assert_eq!(visited(&template(name), &headers), split(name, &headers));
    }
}

#[test]
fn identities_hold_what_browsers_tell_cookies_apart_by() {
    let identity = |cookie: cookie::CookieBuilder<'static>| {
        CookieTemplate::new("cookie", cookie.build(), false).unwrap().identity
    };
    let named = Cookie::build;
    let cases = [
        (named("id"), "id"),
        (named("ID").path("/").partitioned(false), "ID"),
        (named("id").secure(false).http_only(false).same_site(SameSite::Strict), "id"),
        (named("id").path("/Shop"), "id;path=/Shop"),
        (named("id").path("/Shop/"), "id;path=/Shop/"),
        (named("id").domain(".Example.com"), "id;domain=example.com"),
        (named("id").partitioned(true), "id;partitioned"),
        (named("id").path("/a").domain("b").partitioned(true), "id;domain=b;path=/a;partitioned"),
    ];
    for (cookie, expected) in cases {
        assert_eq!(identity(cookie), expected);
    }
}

#[test]
fn the_removal_of_a_cookie_that_needs_secure_has_it() {
    for (cookie, needs_secure) in [
        (Cookie::build("old").build(), false),
        (Cookie::build("old").secure(true).build(), true),
        (Cookie::build("old").same_site(SameSite::None).build(), true),
        (Cookie::build("old").partitioned(true).build(), true),
        (Cookie::build("__Secure-old").build(), true),
    ] {
        let shown = cookie.to_string();
        let template = CookieTemplate::foreign(cookie).unwrap();
        let removal = template.removal.to_str().unwrap();
        assert_eq!(removal.contains("; Secure"), needs_secure, "{shown}: {removal}");
    }
}
