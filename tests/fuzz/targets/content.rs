//! What an authentic token may hold. The input is the plaintext, which is signed with the key of the server.

use axum_typed_session::{
    SessionError, SessionManager,
    store::{Record, Timestamp, Version},
};

use super::{
    Login, NOW, block_on, builder, committed, forge::signed_token, key, session_with, token_in,
};

pub fn run(data: &[u8]) {
    thread_local! {
        static SESSIONS: SessionManager<Login> =
            builder().keys(key()).signed(true).build().unwrap();
    }
    SESSIONS.with(|sessions| block_on(check(sessions, data)));
}

fn time(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |time, byte| time << 8 | u64::from(*byte))
}

async fn check(sessions: &SessionManager<Login>, plaintext: &[u8]) {
    let mut session = match session_with(sessions, signed_token(&key(), plaintext).as_bytes()).await
    {
        Ok(session) => session,
        Err(SessionError::Newer) => return,
        Err(error) => panic!("{error}"),
    };
    if session.is_new() {
        assert_eq!(*session, Login::default());
        return session.discard();
    }
    // Sixteen bytes of an id, the time of issue and the expiry stand before the record.
    let (head, rest) = plaintext.split_at(28);
    let (issued_at, expires_at) = (time(&head[16..22]), time(&head[22..]));
    let at = Timestamp::from_unix_millis;
    let record =
        Record::from_bytes(Version::from_bytes([0; 16]), at(expires_at), rest.to_vec()).unwrap();
    assert!(issued_at <= NOW + 60_000);
    assert!(NOW < expires_at.min(record.absolute_end().as_unix_millis()));
    assert!(Timestamp::from(session.expires_at()) <= at(expires_at).min(record.absolute_end()));
    assert!(!record.is_tombstone());
    assert!(record.codec_tag() == 1 && record.schema() <= 1);
    let data: Login = serde_json::from_slice(record.payload()).unwrap();
    assert_eq!(*session, data);

    // What it holds is written again, and reads the same.
    session.visits ^= 1;
    let (changed, created_at) = (session.clone(), session.created_at());
    match committed(session).await {
        Ok(headers) => {
            let token = token_in(&headers).unwrap();
            let session = session_with(sessions, token.as_bytes()).await.unwrap();
            assert_eq!((session.is_new(), &*session), (false, &changed));
            assert_eq!(session.created_at(), created_at);
            session.discard();
        }
        Err(error) => assert!(matches!(error, SessionError::TooLarge { .. }), "{error}"),
    }
}
