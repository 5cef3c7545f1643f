//! Chromium under the control of chromedriver.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use fantoccini::{
    Client, ClientBuilder, Locator,
    cookies::Cookie,
    wd::{Capabilities, WindowHandle},
};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

const CHROMIUM: [&str; 3] =
    ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const DRIVER: &str = "/usr/bin/chromedriver";

/// The browser's path; without one the test says so, and fails where the whole suite must run.
pub fn chromium() -> Option<&'static str> {
    let found = CHROMIUM.into_iter().find(|path| Path::new(path).exists());
    if found.is_none() {
        assert!(env::var("CI").is_err(), "no Chromium: install Debian's package `chromium`");
        eprintln!("SKIPPED: browser tests need Chromium; install Debian's package `chromium`");
    }
    found
}

/// A browser with a profile of its own, which outlives a restart.
pub struct Browser {
    client: Client,
    driver: Driver,
    profile: Profile,
}

impl Browser {
    /// Starts a browser with a new profile; `None` where there is none and the whole suite need not run.
    pub async fn start() -> Option<Self> {
        Self::start_as("").await
    }

    /// Starts a browser that gives itself another name, so that it looks like another device.
    pub async fn start_as(user_agent: &'static str) -> Option<Self> {
        let chromium = chromium()?;
        if !Path::new(DRIVER).exists() {
            let missing = "no chromedriver: install Debian's package `chromium-driver`";
            assert!(env::var("CI").is_err(), "{missing}");
            eprintln!("SKIPPED: {missing}");
            return None;
        }
        let (driver, profile) = (Driver::start().await, Profile::new(user_agent));
        let client = connect(&driver, &profile, chromium).await;
        Some(Self { client, driver, profile })
    }

    /// Closes the browser and opens it again, as a user does.
    pub async fn restart(self) -> Self {
        let Self { client, driver, profile } = self;
        client.close().await.unwrap();
        let client = connect(&driver, &profile, chromium().unwrap()).await;
        Self { client, driver, profile }
    }

    pub async fn close(self) {
        self.client.close().await.unwrap();
    }

    pub async fn goto(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    pub async fn path(&self) -> String {
        self.client.current_url().await.unwrap().path().to_owned()
    }

    pub async fn back(&self) {
        self.client.back().await.unwrap();
    }

    pub async fn reload(&self) {
        self.client.refresh().await.unwrap();
    }

    /// The text of the first element that a CSS selector finds, as it is rendered.
    pub async fn text(&self, css: &str) -> String {
        let found = self.client.find(Locator::Css(css)).await;
        found.unwrap_or_else(|error| panic!("{css}: {error}")).text().await.unwrap()
    }

    /// Returns once an element has this text.
    pub async fn wait_for_text(&self, css: &str, text: &str) {
        for _ in 0..500 {
            // The page may change in between.
            if let Ok(element) = self.client.find(Locator::Css(css)).await
                && element.text().await.is_ok_and(|found| found == text)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{css} is not `{text}`: {}", self.page().await);
    }

    pub async fn has(&self, css: &str) -> bool {
        !self.client.find_all(Locator::Css(css)).await.unwrap().is_empty()
    }

    /// The text of the whole page.
    pub async fn page(&self) -> String {
        self.text("body").await
    }

    /// Clicks, and waits for the page that follows.
    pub async fn click(&self, css: &str) {
        let found = self.client.find(Locator::Css(css)).await;
        found.unwrap_or_else(|error| panic!("{css}: {error}")).click().await.unwrap();
    }

    /// Clicks twice so fast that the second request is sent while the first one is on its way.
    pub async fn double_click(&self, css: &str) {
        let clicks =
            "const button = document.querySelector(arguments[0]); button.click(); button.click()";
        self.script(clicks, css).await;
        // The driver waits for the page of the last click.
        self.client.wait().for_element(Locator::Css("body")).await.unwrap();
    }

    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.client.find(Locator::Css(css)).await.unwrap();
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    pub async fn script(&self, code: &str, argument: &str) -> Value {
        self.client.execute(code, vec![json!(argument)]).await.unwrap()
    }

    /// The cookies that the browser has for the page, with their attributes.
    pub async fn cookie(&self, name: &str) -> Option<Cookie<'static>> {
        let cookies = self.client.get_all_cookies().await.unwrap();
        cookies.into_iter().find(|cookie| cookie.name() == name)
    }

    /// The cookies that a script of the page sees.
    pub async fn cookies_of_scripts(&self) -> String {
        self.script("return document.cookie", "").await.as_str().unwrap().to_owned()
    }

    /// Opens a second tab and shows it.
    pub async fn new_tab(&self) -> WindowHandle {
        let tab = self.client.new_window(true).await.unwrap().handle;
        self.show(&tab).await;
        tab
    }

    pub async fn tab(&self) -> WindowHandle {
        self.client.window().await.unwrap()
    }

    pub async fn show(&self, tab: &WindowHandle) {
        self.client.switch_to_window(tab.clone()).await.unwrap();
    }

    pub async fn resize(&self, width: u32, height: u32) {
        self.client.set_window_size(width, height).await.unwrap();
    }

    /// Writes what the window shows to `docs/`, where `UPDATE_SCREENSHOTS` is set.
    pub async fn screenshot(&self, name: &str) {
        let png = self.client.screenshot().await.unwrap();
        assert!(png.len() < 100_000, "{name} has {} bytes", png.len());
        if env::var_os("UPDATE_SCREENSHOTS").is_some() {
            fs::write(format!("{}/docs/{name}.png", env!("CARGO_MANIFEST_DIR")), png).unwrap();
        }
    }
}

async fn connect(driver: &Driver, profile: &Profile, chromium: &str) -> Client {
    let mut capabilities = Capabilities::new();
    let mut arguments = vec![
        "--headless=new".to_owned(),
        "--no-sandbox".to_owned(),
        "--disable-gpu".to_owned(),
        "--disable-dev-shm-usage".to_owned(),
        "--no-first-run".to_owned(),
        "--disable-background-networking".to_owned(),
        "--disable-component-update".to_owned(),
        "--disable-sync".to_owned(),
        "--hide-scrollbars".to_owned(),
        "--window-size=1000,700".to_owned(),
        "--host-resolver-rules=MAP * 127.0.0.1".to_owned(),
        format!("--user-data-dir={}", profile.folder.display()),
    ];
    if !profile.user_agent.is_empty() {
        arguments.push(format!("--user-agent={}", profile.user_agent));
    }
    let options = json!({
        "binary": chromium,
        "args": arguments,
        // The browser's own question whether to keep a password would cover the page.
        "prefs": { "credentials_enable_service": false },
    });
    capabilities.insert("goog:chromeOptions".to_owned(), options);
    let mut builder = ClientBuilder::new(HttpConnector::new());
    let client = builder.capabilities(capabilities).connect(&driver.url()).await;
    client.expect("chromedriver starts Chromium")
}

/// The process that controls the browser.
struct Driver {
    process: Child,
    port: u16,
}

impl Driver {
    async fn start() -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let process = Command::new(DRIVER)
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let driver = Self { process, port };
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        driver
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Ends the browser too, if a test failed before it closed it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a browser keeps when it is closed: its folder with the cookies, and the name that it gives itself.
struct Profile {
    folder: PathBuf,
    user_agent: &'static str,
}

impl Profile {
    fn new(user_agent: &'static str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("typed-session-profile-{}-{number}", std::process::id());
        Self { folder: env::temp_dir().join(name), user_agent }
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
