//! Two processes of `examples/cart.rs` on one engine, visited over real sockets.

use std::{
    env,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Barrier,
    thread,
};

/// One process.
pub struct Shop {
    process: Child,
    address: String,
}

impl Shop {
    /// Starts the example, which `cargo test` has built beside this test.
    pub fn open(store: &str) -> Self {
        let tests = env::current_exe().unwrap();
        let program: PathBuf = tests.ancestors().nth(2).unwrap().join("examples/cart");
        assert!(
            program.is_file(),
            "run `cargo build --all-features --examples` first"
        );
        let process = Command::new(program)
            .env("SESSION_STORE", store)
            .env("PORT", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut shop = Self {
            process,
            address: String::new(),
        };
        let mut line = String::new();
        let mut output = BufReader::new(shop.process.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://");
        let address = address.expect("a shop that opens; is the example built anew?");
        address.clone_into(&mut shop.address);
        shop
    }

    /// Sends a request and returns status, `Set-Cookie` value and body.
    pub fn visit(&self, method: &str, path: &str, cookie: &str, form: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = form.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ncookie: {cookie}\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n\r\n{form}"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let cookie = head
            .lines()
            .find_map(|line| line.strip_prefix("set-cookie: "));
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            cookie: cookie.map(|cookie| cookie.split(';').next().unwrap().to_owned()),
            body: body.to_owned(),
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub cookie: Option<String>,
    pub body: String,
}

/// What two processes on one engine must agree on.
pub fn two_processes_lose_nothing(store: &str) {
    let shops = [Shop::open(store), Shop::open(store)];
    let start = shops[0].visit("POST", "/items", "", "sku=tea&qty=1");
    assert_eq!(start.status, 200, "{start:?}");
    let cookie = start.cookie.unwrap();

    // A hundred items of one article and of ten others, from both processes at once.
    let barrier = Barrier::new(20);
    thread::scope(|scope| {
        for visitor in 0..20 {
            let (shops, barrier, cookie) = (&shops, &barrier, &cookie);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..5 {
                    let shop = &shops[(visitor + round) % 2];
                    let form = format!(
                        "sku={}&qty=1",
                        ["jam".to_owned(), format!("no{round}")][visitor % 2]
                    );
                    let answer = shop.visit("POST", "/items", cookie, &form);
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
            });
        }
    });
    let items = r#"{"jam":50,"no0":10,"no1":10,"no2":10,"no3":10,"no4":10,"tea":1}"#;
    for shop in &shops {
        assert_eq!(shop.visit("GET", "/items", &cookie, "").body, items);
    }

    // A login in one process is one in both, and the old id is nobody in both.
    let login = shops[0].visit("POST", "/login", &cookie, "name=ann");
    let ann = login.cookie.expect("a new id");
    for shop in &shops {
        assert_eq!(shop.visit("GET", "/me", &ann, "").body, "ann");
        assert_eq!(shop.visit("GET", "/me", &cookie, "").status, 401);
        let late = shop.visit("POST", "/items", &cookie, "sku=oil&qty=1");
        assert!(
            late.cookie.is_none_or(|late| late != ann),
            "the login was overwritten"
        );
    }

    // A second login of the same person elsewhere; both end at once, everywhere.
    let elsewhere = shops[1].visit("POST", "/login", "", "name=ann").cookie;
    let elsewhere = elsewhere.unwrap_or_else(|| {
        let first = shops[1]
            .visit("POST", "/items", "", "sku=tea&qty=1")
            .cookie
            .unwrap();
        shops[1]
            .visit("POST", "/login", &first, "name=ann")
            .cookie
            .unwrap()
    });
    let everywhere = shops[1].visit("POST", "/logout-everywhere", &ann, "");
    assert_eq!(everywhere.body, "2 sessions ended");
    for shop in &shops {
        for cookie in [&ann, &elsewhere] {
            assert_eq!(shop.visit("GET", "/me", cookie, "").status, 401);
        }
    }
}
