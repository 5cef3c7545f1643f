//! Two processes of `examples/cart.rs` on one engine, visited over real sockets.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Barrier, LazyLock},
    thread,
};

use super::examples::program_of;

/// The key of all processes, drawn once.
const SESSION_KEY: &str = "f46f5232d876b2fd7576740aec1301e9f4a51e14834c9296a5fa0d6b083111b0\
                           a720400601eeea7291ddb903cd5f57d4a5b3d14afbb5aa6f3613ff6c802104da";

/// One process.
pub struct Shop {
    process: Child,
    address: String,
}

impl Shop {
    /// Starts the example.
    pub fn open(store: &str) -> Self {
        static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| program_of("cart"));
        let process = Command::new(&*PROGRAM)
            .env("SESSION_KEY", SESSION_KEY)
            .env("SESSION_STORE", store)
            .env("PORT", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut shop = Self { process, address: String::new() };
        let mut line = String::new();
        let mut output = BufReader::new(shop.process.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://");
        let address = address.expect("a shop that opens");
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
        let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: "));
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            cookie: cookie.map(|cookie| cookie.split(';').next().unwrap().to_owned()),
            body: body.trim_end().to_owned(),
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
    let shops = two_processes_without_an_index_lose_nothing(store);
    a_logout_everywhere_ends_what_began_anywhere(&shops);
}

/// What they must agree on if the engine does not find sessions by their owner.
pub fn two_processes_without_an_index_lose_nothing(store: &str) -> Shops {
    let shops = [Shop::open(store), Shop::open(store)];
    a_hundred_items_from_both_are_all_there(&shops);
    a_hundred_items_at_once_are_all_there(&shops);
    for _ in 0..10 {
        a_login_keeps_what_was_acknowledged_and_is_not_overwritten(&shops);
        no_request_undoes_a_logout(&shops);
    }
    shops
}

pub type Shops = [Shop; 2];

/// Sends requests at the same moment, in turns to one process and the other.
fn at_once(shops: &Shops, cookie: &str, requests: &[(&str, String)]) -> Vec<Answer> {
    let barrier = Barrier::new(requests.len());
    thread::scope(|scope| {
        let visitors = requests.iter().enumerate().map(|(number, (path, form))| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                shops[number % 2].visit("POST", path, cookie, form)
            })
        });
        let visitors: Vec<_> = visitors.collect();
        visitors.into_iter().map(|visitor| visitor.join().unwrap()).collect()
    })
}

fn add(sku: &str) -> (&'static str, String) {
    ("/items", format!("sku={sku}&qty=1"))
}

/// A session with one item.
fn enter(shop: &Shop) -> String {
    let start = shop.visit("POST", "/items", "", "sku=tea&qty=1");
    assert_eq!(start.status, 200, "{start:?}");
    start.cookie.unwrap()
}

fn log_in(shop: &Shop, cookie: &str, name: &str) -> String {
    let login = shop.visit("POST", "/login", cookie, &format!("name={name}"));
    assert_eq!(login.status, 200, "{login:?}");
    login.cookie.expect("a new id")
}

/// Of one article and of five others.
fn a_hundred_items_from_both_are_all_there(shops: &Shops) {
    let cookie = enter(&shops[0]);
    for round in 0..5 {
        let other = format!("no{round}");
        let sku = |visitor: usize| ["jam", &other][visitor / 2 % 2];
        let requests: Vec<_> = (0..20).map(|visitor| add(sku(visitor))).collect();
        for answer in at_once(shops, &cookie, &requests) {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    let items = r#"{"jam":50,"no0":10,"no1":10,"no2":10,"no3":10,"no4":10,"tea":1}"#;
    for shop in shops {
        assert_eq!(shop.visit("GET", "/items", &cookie, "").body, items);
    }
}

/// All of one article, so that every request is in conflict with the others.
fn a_hundred_items_at_once_are_all_there(shops: &Shops) {
    let cookie = enter(&shops[0]);
    let requests: Vec<_> = (0..100).map(|_| add("tea")).collect();
    for answer in at_once(shops, &cookie, &requests) {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    for shop in shops {
        assert_eq!(shop.visit("GET", "/items", &cookie, "").body, r#"{"tea":101}"#);
    }
}

/// Five requests around a login: whatever order they come in, they end logged in, and the old id is
/// nobody's.
fn a_login_keeps_what_was_acknowledged_and_is_not_overwritten(shops: &Shops) {
    let old = enter(&shops[0]);
    let login = ("/login", "name=ann".to_owned());
    let mut answers = at_once(shops, &old, &[add("a"), add("b"), login, add("c"), add("d")]);
    let login = answers.remove(2);
    assert_eq!(login.status, 200, "{login:?}");
    let ann = login.cookie.expect("a new id");
    for shop in shops {
        assert_eq!(shop.visit("GET", "/me", &ann, "").body, "ann");
        assert_eq!(shop.visit("GET", "/me", &old, "").status, 401);
        let items = shop.visit("GET", "/items", &ann, "").body;
        for (sku, answer) in ["a", "b", "c", "d"].iter().zip(&answers) {
            match answer.status {
                // Acknowledged before the login, which therefore has it.
                200 => assert!(items.contains(&format!("\"{sku}\":1")), "{sku}: {items}"),
                status => assert_eq!((status, &answer.cookie), (409, &None)),
            }
        }
        let late = shop.visit("POST", "/items", &old, "sku=oil&qty=1");
        assert_eq!((late.status, late.cookie), (409, None));
    }
    end(shops, &ann);
}

/// Nor one that gives the session a new id, unless it was first.
fn no_request_undoes_a_logout(shops: &Shops) {
    let cookie = log_in(&shops[0], &enter(&shops[0]), "bob");
    let logout = ("/logout", String::new());
    let login = ("/login", "name=bob".to_owned());
    let requests = [add("a"), add("b"), logout, login, add("c")];
    let mut answers = at_once(shops, &cookie, &requests);
    let (logout, login) = (answers.remove(2), answers.remove(2));
    for shop in shops {
        assert_eq!(shop.visit("GET", "/me", &cookie, "").status, 401);
        assert_eq!(shop.visit("GET", "/items", &cookie, "").body, "{}");
    }
    assert_eq!(login.status == 409, login.cookie.is_none(), "{login:?}");
    match logout.status {
        // What came after it is another session, which never was bob's with all that was in it.
        200 => {}
        // The login was first: the session goes on under its new id, and the client was told.
        status => {
            assert_eq!(status, 409, "{logout:?}");
            assert_eq!(
                shops[0].visit("GET", "/me", &login.cookie.clone().unwrap(), "").body,
                "bob"
            );
        }
    }
    for answer in answers {
        assert!([200, 409].contains(&answer.status), "{answer:?}");
    }
    login.cookie.iter().for_each(|cookie| end(shops, cookie));
}

/// Items arrive while it happens, too late for some.
fn a_logout_everywhere_ends_what_began_anywhere(shops: &Shops) {
    let cookies = [0, 1].map(|shop| log_in(&shops[shop], &enter(&shops[1 - shop]), "eve"));
    let everywhere = ("/logout-everywhere", String::new());
    let answers = at_once(shops, &cookies[0], &[add("a"), everywhere, add("b"), add("c")]);
    assert_eq!(answers[1].body, "sessions ended: 2");
    for shop in shops {
        for cookie in &cookies {
            assert_eq!(shop.visit("GET", "/me", cookie, "").status, 401);
        }
    }
}

fn end(shops: &Shops, cookie: &str) {
    assert_eq!(shops[1].visit("POST", "/logout", cookie, "").status, 200);
    assert_eq!(shops[0].visit("GET", "/me", cookie, "").status, 401);
}
