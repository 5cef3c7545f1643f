//! What nginx makes of the answers, as a proxy and as a shared cache in front of the application.
#![allow(unreachable_pub, reason = "`pub` in `servers` is what suites share")]

#[path = "../common/servers.rs"]
#[allow(dead_code, reason = "other suites use the rest")]
mod servers;

mod header_buffer;
mod readme;
mod shared_cache;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use axum::Router;
use servers::{Server, find, folder, free_port, wait_until};

/// The settings of a shared cache that keeps whatever it may.
const CACHE: &str = "proxy_cache pages; proxy_cache_valid 200 10m; proxy_cache_valid any 10m;";

/// nginx in front of an application.
struct Nginx {
    _server: Server,
    port: u16,
}

/// What came back for one request.
struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    body: String,
    /// The cookies it sets, as a browser sends them back.
    cookies: Vec<String>,
}

impl Nginx {
    /// Starts nginx in front of an application, with these settings beside `proxy_pass`.
    fn start(program: &str, application: u16, settings: &str) -> Self {
        let (folder, port) = (folder("nginx"), free_port(0));
        let config = format!(
            "daemon off; pid {folder}/pid; error_log stderr;
             events {{}}
             http {{
               access_log off;
               client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
               fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
               scgi_temp_path {folder}/scgi;
               proxy_cache_path {folder}/cache keys_zone=pages:1m;
               server {{
                 listen 127.0.0.1:{port};
                 location / {{
                   proxy_pass http://127.0.0.1:{application};
                   add_header x-cache $upstream_cache_status always;
                   {settings}
                 }}
               }}
             }}",
            folder = folder.display()
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, config).unwrap();
        let file = file.display().to_string();
        let server = Server::start(&folder, program, &["-c", &file, "-e", "stderr"]).unwrap();
        wait_until("nginx", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { _server: server, port }
    }

    /// Sends a request with cookies written by hand.
    fn send(&self, method: &str, path: &str, cookies: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let cookies =
            if cookies.is_empty() { String::new() } else { format!("cookie: {cookies}\r\n") };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n{cookies}\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let cookies = head.lines().filter_map(|line| line.strip_prefix("set-cookie: "));
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            cookies: cookies.map(|cookie| cookie.split(';').next().unwrap().to_owned()).collect(),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    fn get(&self, path: &str, cookies: &str) -> Answer {
        self.send("GET", path, cookies, "")
    }
}

/// Serves an application, and lets `visit` start nginx in front of it.
///
/// Without nginx it does nothing, and says so.
async fn with_nginx(app: Router, visit: impl FnOnce(&dyn Fn(&str) -> Nginx) + Send + 'static) {
    let Some(program) = find("nginx", "nginx") else { return };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let application = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let program = program.display().to_string();
    let visits = tokio::task::spawn_blocking(move || {
        visit(&|settings| Nginx::start(&program, application, settings));
    });
    visits.await.unwrap();
}
