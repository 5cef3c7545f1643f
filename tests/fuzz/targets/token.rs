//! Tokens that arrive: a session comes only of a token that a server sealed for this cookie, byte by byte.
//!
//! The input chooses a mode and a token that was sealed, and edits it. Or it is the token.

use axum_typed_session::{Key, KeyRing, MemoryStore, SessionManager, testing::ManualClock};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{Login, block_on, builder, committed, header_bytes, input::Input, key, session_with};

const MODES: usize = 3;

/// A server of one mode, and the tokens that it sealed, each with the number of visits in its session.
struct Node {
    sessions: SessionManager<Login>,
    tokens: Vec<String>,
}

pub fn run(data: &[u8]) {
    thread_local!(static NODES: [Node; MODES] = block_on(nodes()));
    NODES.with(|nodes| {
        let mut input = Input::new(data);
        let node = &nodes[usize::from(input.byte()) % MODES];
        let token = header_bytes(chosen(&mut input, nodes));
        let token: Vec<_> = token.into_iter().filter(|byte| *byte != b';').collect();
        block_on(check(node, &token));
    });
}

async fn nodes() -> [Node; MODES] {
    let former = Key::from(*b"60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752");
    let store = MemoryStore::builder().clock(ManualClock::new()).build();
    let ring = KeyRing::new(key()).accept_former(former.clone());
    let [mut encrypted, mut signed, mut stored] = [(); MODES].map(|()| Vec::new());
    let of = |keys: KeyRing| {
        [
            builder().keys(keys.clone()).build().unwrap(),
            builder().keys(keys.clone()).signed(true).build().unwrap(),
            builder().keys(keys).store(store.clone()).build().unwrap(),
        ]
    };
    for (visits, keys) in (1..).zip([former.into(), ring.clone(), ring.clone()]) {
        let tokens = [&mut encrypted, &mut signed, &mut stored];
        for (sessions, tokens) in of(keys).into_iter().zip(tokens) {
            tokens.push(sealed(&sessions, visits).await);
        }
    }
    let mut tokens = [encrypted, signed, stored].into_iter();
    of(ring).map(|sessions| Node { sessions, tokens: tokens.next().unwrap() })
}

async fn sealed(sessions: &SessionManager<Login>, visits: u32) -> String {
    let mut session = session_with(sessions, b"").await.unwrap();
    session.visits = visits;
    super::token_in(&committed(session).await.unwrap()).unwrap()
}

/// Returns the token that the input chooses.
fn chosen(input: &mut Input<'_>, nodes: &[Node; MODES]) -> Vec<u8> {
    let any = |input: &mut Input<'_>| {
        let tokens = &nodes[usize::from(input.byte()) % MODES].tokens;
        tokens[usize::from(input.byte()) % tokens.len()].clone().into_bytes()
    };
    if input.byte() == 255 {
        return input.rest().to_vec();
    }
    let mut token = any(input);
    while !input.is_empty() {
        let (edit, at) = (input.byte() % 7, input.below(token.len()));
        match edit {
            0 if !token.is_empty() => token[at] = input.byte(),
            1 if !token.is_empty() => token[at] ^= 1 << (input.byte() % 8),
            2 => token.truncate(at),
            3 => token.insert(at, input.byte()),
            4 if !token.is_empty() => _ = token.remove(at),
            5 => token = [&token[..at], any(input).get(at..).unwrap_or_default()].concat(),
            _ => {
                // A bit of what the text stands for.
                if let Ok(mut bytes) = URL_SAFE_NO_PAD.decode(&token)
                    && let Some(byte) = bytes.get_mut(at * 3 / 4)
                {
                    *byte ^= 1 << (input.byte() % 8);
                    token = URL_SAFE_NO_PAD.encode(bytes).into_bytes();
                }
            }
        }
    }
    token
}

async fn check(node: &Node, token: &[u8]) {
    // The reader of the header takes away spaces and a pair of quotes.
    let token = token.trim_ascii();
    let quoted = token.strip_prefix(b"\"").and_then(|token| token.strip_suffix(b"\""));
    let text = quoted.unwrap_or(token);
    let known = node.tokens.iter().position(|known| known.as_bytes() == text);

    let session = session_with(&node.sessions, token).await.unwrap();
    assert_eq!(session.is_new(), known.is_none(), "{:?}", String::from_utf8_lossy(token));
    let visits = known.map_or(0, |known| u32::try_from(known).unwrap() + 1);
    assert_eq!((session.visits, session.user.as_deref()), (visits, None));
    let again = super::token_in(&committed(session).await.unwrap());
    // The first token is sealed with the former key, so the answer has a new one.
    assert_eq!(again.is_some(), known == Some(0));
    if let Some(again) = again {
        let session = session_with(&node.sessions, again.as_bytes()).await.unwrap();
        assert_eq!((session.is_new(), session.visits), (false, visits));
        session.discard();
    }
}
