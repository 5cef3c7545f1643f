#![allow(clippy::wildcard_enum_match_arm, reason = "other messages are not expected")]

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use axum_typed_session::Key;
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};
use tower::ServiceExt;

use crate::{App, CHECK_EVERY, SIGNED_OUT};

/// More than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

type Socket = WebSocketStream<TcpStream>;

/// The application, on a port of its own.
struct Server {
    app: Router,
    address: SocketAddr,
}

impl Server {
    async fn start() -> Self {
        let app = App::new(Key::generate().into(), false).unwrap().router();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, app.clone()).into_future());
        Self { app, address }
    }

    /// Sends a request beside the sockets.
    async fn send(&self, request: Request<String>) -> Response<Body> {
        self.app.clone().oneshot(request.map(Body::from)).await.unwrap()
    }

    async fn get(&self, path: &str, cookie: &str) -> Response<Body> {
        let request = Request::get(path).header(header::COOKIE, cookie);
        self.send(request.body(String::new()).unwrap()).await
    }

    /// Signs a user in, and returns the cookie.
    async fn sign_in(&self, name: &str) -> String {
        let request = Request::post("/sign-in")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(format!("name={name}"));
        let response = self.send(request.unwrap()).await;
        let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
        cookie.split(';').next().unwrap().to_owned()
    }

    async fn sign_out(&self, cookie: &str) {
        let request = Request::post("/sign-out").header(header::COOKIE, cookie);
        let response = self.send(request.body(String::new()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
    }

    /// Opens a socket as a page of an origin does.
    async fn open(&self, origin: &str, cookie: &str) -> Result<Socket, StatusCode> {
        let mut request = format!("ws://{}/socket", self.address).into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert(header::COOKIE, cookie.parse().unwrap());
        if !origin.is_empty() {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        match client_async(request, stream).await {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(response)) => Err(response.status()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Opens a socket as the page does.
    async fn chat(&self, cookie: &str) -> Socket {
        self.open(&format!("http://{}", self.address), cookie).await.unwrap()
    }
}

async fn say(socket: &mut Socket, text: &str) {
    socket.send(Message::text(text)).await.unwrap();
}

async fn next(socket: &mut Socket) -> Message {
    let message = tokio::time::timeout(PATIENCE, socket.next()).await;
    message.expect("a message in time").expect("an open socket").unwrap()
}

async fn next_line(socket: &mut Socket) -> String {
    next(socket).await.into_text().unwrap().to_string()
}

/// The code with which the server closes the socket.
async fn close_code(socket: &mut Socket) -> u16 {
    match next(socket).await {
        Message::Close(Some(frame)) => frame.code.into(),
        message => panic!("not closed: {message:?}"),
    }
}

#[tokio::test]
async fn a_line_goes_to_every_socket_and_is_counted_in_the_session() {
    let server = Server::start().await;
    let (ann, bob) = (server.sign_in("ann").await, server.sign_in("bob").await);
    let (mut first, mut second) = (server.chat(&ann).await, server.chat(&ann).await);
    let mut other = server.chat(&bob).await;
    // A socket listens from the moment that it is served, so each one speaks first.
    for (socket, text) in [(&mut first, "one"), (&mut second, "two"), (&mut other, "three")] {
        say(socket, text).await;
        while !next_line(socket).await.contains(text) {}
    }
    say(&mut first, "  <b>hello</b> ").await;
    say(&mut first, " ").await;
    for socket in [&mut first, &mut second, &mut other] {
        let line = loop {
            let line = next_line(socket).await;
            if line.contains("hello") {
                break line;
            }
        };
        assert_eq!(line, r#"{"text":"<b>hello</b>","user":"ann"}"#);
    }
    let page = server.get("/", &ann).await.into_body().collect().await.unwrap().to_bytes();
    let page = String::from_utf8(page.to_vec()).unwrap();
    assert!(page.contains(r#"<output id="sent">3</output>"#), "{page}");
}

#[tokio::test]
async fn a_sign_out_closes_the_sockets_of_its_session_alone() {
    let server = Server::start().await;
    let (here, phone) = (server.sign_in("ann").await, server.sign_in("ann").await);
    let (mut first, mut second) = (server.chat(&here).await, server.chat(&here).await);
    let mut other = server.chat(&phone).await;
    say(&mut other, "before").await;
    assert!(next_line(&mut other).await.contains("before"));

    server.sign_out(&here).await;
    let signed_out = tokio::time::Instant::now();
    // This line comes too late, whether or not the socket has looked at its session yet.
    let _ = first.send(Message::text("too late")).await;
    for socket in [&mut first, &mut second] {
        let code = loop {
            match next(socket).await {
                Message::Close(Some(frame)) => break u16::from(frame.code),
                message => assert!(message.to_text().unwrap().contains("before"), "{message:?}"),
            }
        };
        assert_eq!(code, SIGNED_OUT);
    }
    assert!(signed_out.elapsed() < CHECK_EVERY + Duration::from_secs(5));

    say(&mut other, "after").await;
    assert!(next_line(&mut other).await.contains("after"));
}

#[tokio::test]
async fn a_new_sign_in_ends_the_socket_of_the_one_before() {
    let server = Server::start().await;
    let ann = server.sign_in("ann").await;
    let mut socket = server.chat(&ann).await;
    let request = Request::post("/sign-in")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::COOKIE, &ann)
        .body("name=bob".to_owned());
    assert_eq!(server.send(request.unwrap()).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(close_code(&mut socket).await, SIGNED_OUT);
}

#[tokio::test]
async fn a_page_of_another_origin_opens_no_socket() {
    let server = Server::start().await;
    let ann = server.sign_in("ann").await;
    let port = server.address.port();
    let other_port = format!("http://127.0.0.1:{}", port.wrapping_add(1));
    let longer = format!("http://{}.evil.example", server.address);
    for origin in ["https://evil.example", "null", "", &other_port, "http://127.0.0.1", &longer] {
        let refused = server.open(origin, &ann).await.err();
        assert_eq!(refused, Some(StatusCode::FORBIDDEN), "{origin}");
    }
}

#[tokio::test]
async fn without_a_session_there_is_neither_a_socket_nor_a_stream() {
    let server = Server::start().await;
    let ann = server.sign_in("ann").await;
    server.sign_out(&ann).await;
    let origin = format!("http://{}", server.address);
    for cookie in ["", "__Host-session=forged", &ann] {
        let refused = server.open(&origin, cookie).await.err();
        assert_eq!(refused, Some(StatusCode::UNAUTHORIZED), "{cookie}");
        assert_eq!(server.get("/sent", cookie).await.status(), StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_line_that_is_too_long_closes_the_socket_and_is_not_counted() {
    let server = Server::start().await;
    let ann = server.sign_in("ann").await;
    let mut socket = server.chat(&ann).await;
    say(&mut socket, &"n".repeat(crate::LONGEST_LINE + 1)).await;
    let end = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    assert!(!matches!(end, Some(Ok(Message::Text(_)))), "{end:?}");
    let mut events = server.get("/sent", &ann).await.into_body();
    assert_eq!(next_event(&mut events).await.as_deref(), Some("data: 0\n\n"));
}

/// The next event of a stream; `None` at its end.
async fn next_event(events: &mut Body) -> Option<String> {
    let frame = tokio::time::timeout(PATIENCE, events.frame()).await.expect("an event in time");
    let event = frame?.unwrap().into_data().unwrap();
    Some(String::from_utf8(event.to_vec()).unwrap())
}

#[tokio::test]
async fn the_stream_follows_the_session_and_ends_with_it() {
    let server = Server::start().await;
    let ann = server.sign_in("ann").await;
    let mut events = server.get("/sent", &ann).await.into_body();
    assert_eq!(next_event(&mut events).await.as_deref(), Some("data: 0\n\n"));

    let mut socket = server.chat(&ann).await;
    say(&mut socket, "hello").await;
    next_line(&mut socket).await;
    assert_eq!(next_event(&mut events).await.as_deref(), Some("data: 1\n\n"));

    server.sign_out(&ann).await;
    assert_eq!(next_event(&mut events).await, None);
}
