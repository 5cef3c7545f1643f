//! A browser with one cookie, over a connection that it keeps for a while.

use std::time::Instant;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::Site;

/// After so many requests a client connects anew.
const REQUESTS_PER_CONNECTION: u64 = 1000;

/// Sums of what clients met.
#[derive(Debug, Default)]
pub struct Tally {
    /// Microseconds, of each request.
    pub latencies: Vec<u32>,
    pub server_errors: u64,
    pub other_errors: u64,
    /// Answers that do not show what this client did before.
    pub foreign: u64,
    pub broken: u64,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.server_errors += other.server_errors;
        self.other_errors += other.other_errors;
        self.foreign += other.foreign;
        self.broken += other.broken;
    }
}

pub struct Client {
    site: Site,
    port: u16,
    number: usize,
    has_sessions: bool,
    connection: Option<TcpStream>,
    cookie: Option<String>,
    /// What the session has counted.
    count: u64,
    /// Rounds of requests since the last sign-out.
    rounds: u64,
    requests: u64,
    tally: Tally,
}

impl Client {
    pub fn new(site: Site, port: u16, number: usize, has_sessions: bool) -> Self {
        Self {
            site,
            port,
            number,
            has_sessions,
            connection: None,
            cookie: None,
            count: 0,
            // Clients sign out at different times.
            rounds: number as u64,
            requests: 0,
            tally: Tally::default(),
        }
    }

    pub async fn run_until(&mut self, end: Instant) -> Tally {
        while Instant::now() < end {
            self.rounds += 1;
            match self.site {
                Site::Counter => self.count_once().await,
                Site::Cart => self.shop_once().await,
            }
        }
        std::mem::take(&mut self.tally)
    }

    /// Counts, reads the page, and signs out now and then.
    async fn count_once(&mut self) {
        self.ask("POST", "/count", "").await;
        self.count += 1;
        let page = self.ask("GET", "/", "").await;
        self.expect(&page, &format!("id=\"count\">{}<", self.count));
        if self.rounds.is_multiple_of(100) {
            self.ask("POST", "/sign-out", "").await;
            self.count = 0;
        }
    }

    /// Puts an article into the cart, reads the cart, and signs in and out now and then.
    async fn shop_once(&mut self) {
        self.ask("POST", "/items", "sku=tea&qty=1").await;
        self.count += 1;
        let items = self.ask("GET", "/items", "").await;
        self.expect(&items, &format!("{{\"tea\":{}}}", self.count));
        if self.rounds % 100 == 20 {
            let login = format!("name=visitor-{}", self.number);
            self.ask("POST", "/login", &login).await;
        }
        if self.rounds.is_multiple_of(100) {
            self.ask("POST", "/logout", "").await;
            self.count = 0;
        }
    }

    fn expect(&mut self, body: &str, part: &str) {
        if self.has_sessions && !body.contains(part) {
            self.tally.foreign += 1;
        }
    }

    /// Sends a request and returns the body of its answer, which is empty where the connection broke.
    async fn ask(&mut self, method: &str, path: &str, body: &str) -> String {
        self.requests += 1;
        if self.requests.is_multiple_of(REQUESTS_PER_CONNECTION) {
            self.connection = None;
        }
        let cookie = self.cookie.as_ref().map(|cookie| format!("cookie: {cookie}\r\n"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: {}\r\n{}\r\n{body}",
            body.len(),
            cookie.unwrap_or_default()
        );
        let start = Instant::now();
        match self.exchange(request.as_bytes()).await {
            Ok((head, body)) => {
                let micros = start.elapsed().as_micros();
                self.tally.latencies.push(u32::try_from(micros).unwrap_or(u32::MAX));
                self.take_in(&head);
                body
            }
            Err(_) => {
                self.connection = None;
                self.tally.broken += 1;
                String::new()
            }
        }
    }

    fn take_in(&mut self, head: &str) {
        match head.as_bytes().get(9) {
            Some(b'2' | b'3') => {}
            Some(b'5') => self.tally.server_errors += 1,
            _ => self.tally.other_errors += 1,
        }
        for line in head.lines() {
            let Some(cookie) = line.strip_prefix("set-cookie: ") else { continue };
            let pair = cookie.split(';').next().unwrap_or_default();
            self.cookie = (!cookie.contains("Max-Age=0")).then(|| pair.to_owned());
        }
    }

    async fn exchange(&mut self, request: &[u8]) -> std::io::Result<(String, String)> {
        if self.connection.is_none() {
            let connection = TcpStream::connect(("127.0.0.1", self.port)).await?;
            connection.set_nodelay(true)?;
            self.connection = Some(connection);
        }
        let connection = self.connection.as_mut().expect("it is connected");
        connection.write_all(request).await?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 8192]);
        loop {
            let length = connection.read(&mut buffer).await?;
            if length == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            answer.extend_from_slice(&buffer[..length]);
            let Some(end) = answer.windows(4).position(|part| part == b"\r\n\r\n") else {
                continue;
            };
            let head = String::from_utf8_lossy(&answer[..end]).into_owned();
            let lengths = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = lengths.and_then(|text| text.parse().ok()).unwrap_or(0);
            if answer.len() >= end + 4 + length {
                return Ok((head, String::from_utf8_lossy(&answer[end + 4..]).into_owned()));
            }
        }
    }
}
