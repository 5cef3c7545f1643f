use std::collections::HashSet;

use super::*;
use crate::keys::Key;

fn sealer(signed: bool) -> Sealer {
    Sealer::new(&KeyRing::new(Key::generate()), signed, true).unwrap()
}

#[test]
fn a_token_is_as_long_as_foretold_and_opens_to_what_was_sealed() {
    for signed in [false, true] {
        let sealer = sealer(signed);
        let context = sealer.context(["app", "kind", "cookie", "id"]);
        for len in 1..100 {
            let text = vec![b'x'; len];
            let mut token = String::new();
            let write = |into: &mut Vec<u8>| into.extend_from_slice(&text);
            sealer.seal(&context, len, &mut token, write).unwrap();
            assert_eq!(token.len(), sealer.token_len(len));
            let opened = sealer.open(&context, token.as_bytes()).unwrap();
            assert_eq!((&opened.plaintext[..], opened.former_key), (&text[..], false));
        }
    }
}

#[test]
fn lengths_and_contents_of_a_context_cannot_be_shifted_into_each_other() {
    let sealer = sealer(true);
    let context = sealer.context(["ab", "c", "cookie", "id"]);
    let mut token = String::new();
    sealer.seal(&context, 1, &mut token, |into| into.push(1)).unwrap();
    for context in [
        ["a", "bc", "cookie", "id"],
        ["abc", "", "cookie", "id"],
        ["ab", "ccookie", "", "id"],
        ["ab", "c", "cookiei", "d"],
    ] {
        let other = sealer.context(context);
        let opened = sealer.open(&other, token.as_bytes());
        assert_eq!(opened.err(), Some(BadToken::Forged), "{context:?}");
    }
}

fn nonces(count: usize) -> HashSet<[u8; NONCE_BYTES]> {
    let sealer = sealer(false);
    let context = sealer.context(["app", "kind", "cookie", "id"]);
    let nonce = |token: Vec<u8>| *token[HEADER_BYTES..].first_chunk().unwrap();
    (0..count).map(|_| nonce(sealer.seal_bytes(&context, 0, |_| {}).unwrap())).collect()
}

#[test]
fn no_two_tokens_have_one_nonce() {
    assert_eq!(nonces(20_000).len(), 20_000);
}

#[test]
#[ignore = "takes five seconds without optimization"]
fn no_two_of_a_million_tokens_have_one_nonce() {
    assert_eq!(nonces(1_000_000).len(), 1_000_000);
}
