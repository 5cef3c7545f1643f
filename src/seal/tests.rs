use cookie::Key;

use super::*;

fn sealer(signed: bool) -> Sealer {
    let ring = KeyRing::new(Key::generate());
    Sealer::new(&ring, signed, true, ["app", "kind", "cookie", "id"]).unwrap()
}

#[test]
fn a_token_is_as_long_as_foretold_and_opens_to_what_was_sealed() {
    for signed in [false, true] {
        let sealer = sealer(signed);
        for len in 1..100 {
            let text = vec![b'x'; len];
            let token = sealer.seal(len, |into| into.extend_from_slice(&text)).unwrap();
            assert_eq!(token.len(), sealer.token_len(len));
            let mut to_open = 4;
            let opened = sealer.open(token.as_bytes(), &mut to_open).unwrap();
            assert_eq!(to_open, 3);
            assert_eq!((&opened.plaintext[..], opened.former_key), (&text[..], false));
        }
    }
}

#[test]
fn lengths_and_contents_of_a_context_cannot_be_shifted_into_each_other() {
    let ring = KeyRing::new(Key::generate());
    let sealer = |context| Sealer::new(&ring, true, true, context).unwrap();
    let token = sealer(["ab", "c", "cookie", "id"]).seal(1, |into| into.push(1)).unwrap();
    for context in [
        ["a", "bc", "cookie", "id"],
        ["abc", "", "cookie", "id"],
        ["ab", "ccookie", "", "id"],
        ["ab", "c", "cookiei", "d"],
    ] {
        let other = sealer(context);
        let opened = other.open(token.as_bytes(), &mut 4);
        assert_eq!(opened.err(), Some(BadToken::Malformed), "{context:?}");
    }
}
