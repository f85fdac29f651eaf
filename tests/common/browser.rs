//! A real headless Chromium, driven over WebDriver.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fantoccini::actions::{InputSource, KeyAction, KeyActions, MOUSE_BUTTON_LEFT, MouseActions, PointerAction};
use fantoccini::elements::Element;
use fantoccini::error::CmdError;
use fantoccini::key::Key;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand, WindowHandle};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::application::{Application, signal};
use super::nginx::{Nginx, base_path};
use super::wait::{PATIENCE, within};

/// A browser with one window. It ends with the test.
pub struct Browser {
    runtime: Runtime,
    client: Client,
    /// In the order of opening.
    tabs: RefCell<Vec<WindowHandle>>,
    /// In front of the applications, if the browser reaches them so.
    fronts: RefCell<HashMap<SocketAddr, Nginx>>,
    _driver: Driver,
}

/// The driver, which ends the browser.
struct Driver {
    child: Child,
    address: String,
}

impl Driver {
    #[track_caller]
    fn start() -> Self {
        // It uses a port that is free for one address family, and ends if the port is in use in the other.
        (0..5).find_map(|_| Driver::try_start()).expect("chromedriver finds a port")
    }

    #[track_caller]
    fn try_start() -> Option<Self> {
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver can be run; `dev/setup browser` installs it");
        let mut lines = BufReader::new(child.stdout.take().expect("its standard output")).lines().map_while(Result::ok);
        // "ChromeDriver was started successfully on port 41317."
        let port = lines.find_map(|line| {
            let (_, port) = line.split_once("successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });
        let driver = Driver { child, address: format!("http://127.0.0.1:{}", port?) };
        // Its output is discarded, so that a full pipe cannot block it.
        std::thread::spawn(move || lines.for_each(drop));
        Some(driver)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The browser ends with the driver.
        signal(self.child.id(), "TERM");
        let start = Instant::now();
        while self.child.try_wait().is_ok_and(|status| status.is_none()) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill(); // it may have ended already
        let _ = self.child.wait();
    }
}

/// What chromedriver adds to the WebDriver protocol.
#[derive(Debug)]
struct Vendor {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.expect("a session"), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

impl Browser {
    #[track_caller]
    pub fn start() -> Self {
        Browser::start_with(json!({}), &[])
    }

    /// One that does not tell pages that a program drives it (`navigator.webdriver`).
    #[track_caller]
    pub fn of_a_visitor() -> Self {
        Browser::start_with(json!({}), &["--disable-blink-features=AutomationControlled"])
    }

    #[track_caller]
    pub fn without_scripts() -> Self {
        Browser::start_with(json!({"profile.managed_default_content_settings.javascript": 2}), &[])
    }

    #[track_caller]
    fn start_with(preferences: Value, more: &[&str]) -> Self {
        let driver = Driver::start();
        let runtime = Runtime::new().expect("a runtime");
        let usual: &[&str] = &[
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1440,900",
            "--lang=en",
        ];
        let arguments = [usual, more].concat();
        let capabilities = json!({
            "goog:chromeOptions": {"args": arguments, "prefs": preferences},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let capabilities: Capabilities = serde_json::from_value(capabilities).expect("an object");
        let client = runtime
            .block_on(ClientBuilder::new(HttpConnector::new()).capabilities(capabilities).connect(&driver.address))
            .expect("a browser");
        let first = runtime.block_on(client.window()).expect("a window");
        Browser { runtime, client, tabs: RefCell::new(vec![first]), fronts: RefCell::default(), _driver: driver }
    }

    #[track_caller]
    fn run<T>(&self, command: impl Future<Output = Result<T, CmdError>>) -> T {
        self.runtime.block_on(command).expect("the browser does it")
    }

    #[track_caller]
    pub fn open(&self, app: &Application, path: &str) {
        self.open_at(self.host(app), path);
    }

    /// Opens a page at another address than the application's, such as a proxy's.
    #[track_caller]
    pub fn open_at(&self, host: SocketAddr, path: &str) {
        self.run(self.client.goto(&format!("http://{host}{}{path}", base_path())));
        self.wait_until_loaded();
    }

    /// Opens a page of another site, and waits until it is loaded.
    #[track_caller]
    pub fn visit(&self, address: &str) {
        self.run(self.client.goto(address));
        self.wait_until_loaded();
    }

    /// Runs a script in every page that is opened later, before its own scripts. Returns its identifier.
    #[track_caller]
    pub fn before_pages(&self, script: &str) -> Value {
        self.devtools("Page.addScriptToEvaluateOnNewDocument", json!({"source": script}))["identifier"].clone()
    }

    #[track_caller]
    pub fn no_longer_before_pages(&self, identifier: &Value) {
        self.devtools("Page.removeScriptToEvaluateOnNewDocument", json!({"identifier": identifier}));
    }

    /// The host and port at which the browser reaches an application.
    #[track_caller]
    pub fn host(&self, app: &Application) -> SocketAddr {
        let mut fronts = self.fronts.borrow_mut();
        if let Some(front) = fronts.get(&app.address) {
            return front.address;
        }
        let Some(front) = Nginx::in_front_of(app.address) else { return app.address };
        fronts.entry(app.address).or_insert(front).address
    }

    /// Waits until the event `load` is over. A form that is sent before that replaces the page's entry in the browser's
    /// history (HTML, "submit a form element"), and Back would then lead further back.
    #[track_caller]
    pub fn wait_until_loaded(&self) {
        let loaded = "return performance.getEntriesByType('navigation')[0]?.loadEventEnd > 0";
        self.wait_for("the page is loaded", || self.js(loaded) == true);
    }

    /// Opens the live page and waits until it is live.
    #[track_caller]
    pub fn open_live(&self, app: &Application, path: &str) {
        self.open(app, path);
        // On a narrow page the word is hidden.
        self.wait_for("the page is live", || {
            let state = self.texts("#connection").concat();
            state.starts_with("live") || state.starts_with("connected")
        });
    }

    #[track_caller]
    pub fn reload(&self) {
        self.run(self.client.refresh());
    }

    #[track_caller]
    pub fn back(&self) {
        self.run(self.client.back());
    }

    /// Path, query and fragment, without the base path.
    #[track_caller]
    pub fn location(&self) -> String {
        let whole = self.js("return location.pathname + location.search + location.hash");
        let whole = whole.as_str().expect("text");
        whole.strip_prefix(base_path()).unwrap_or_else(|| panic!("{whole} is not under the base path")).to_owned()
    }

    /// Returns the result of a script.
    #[track_caller]
    pub fn js(&self, script: &str) -> Value {
        self.run(self.client.execute(script, Vec::new()))
    }

    #[track_caller]
    pub fn js_with(&self, script: &str, argument: Value) -> Value {
        self.run(self.client.execute(script, vec![argument]))
    }

    #[track_caller]
    fn find(&self, selector: &str) -> Element {
        self.run(self.client.find(Locator::Css(selector)))
    }

    #[track_caller]
    pub fn click(&self, selector: &str) {
        let element = self.find(selector);
        // Out from under what sticks to the edge of the window.
        self.js_with("document.querySelector(arguments[0]).scrollIntoView({ block: 'nearest' })", json!(selector));
        self.run(element.click());
    }

    /// Replaces a field's text, key by key.
    #[track_caller]
    pub fn fill(&self, selector: &str, text: &str) {
        let field = self.find(selector);
        self.run(field.clear());
        self.run(field.send_keys(text));
    }

    /// Sends keys to the focused element, as a keyboard does.
    #[track_caller]
    pub fn press(&self, keys: &str) {
        let strokes = keys.chars().fold(KeyActions::new("keyboard".into()), |strokes, value| {
            strokes.then(KeyAction::Down { value }).then(KeyAction::Up { value })
        });
        self.run(self.client.perform_actions(strokes));
    }

    /// Moves the pointer to a place in the window, in pixels.
    #[track_caller]
    pub fn point(&self, [x, y]: [f64; 2]) {
        let actions = MouseActions::new("mouse".into()).then(PointerAction::MoveTo { duration: None, x, y });
        self.run(self.client.perform_actions(actions));
    }

    /// Presses the button of the pointer at a place, and releases it at another.
    #[track_caller]
    pub fn drag(&self, [x, y]: [f64; 2], to: [f64; 2]) {
        let actions = MouseActions::new("mouse".into())
            .then(PointerAction::MoveTo { duration: None, x, y })
            .then(PointerAction::Down { button: MOUSE_BUTTON_LEFT })
            .then(PointerAction::MoveTo { duration: None, x: to[0], y: to[1] })
            .then(PointerAction::Up { button: MOUSE_BUTTON_LEFT });
        self.run(self.client.perform_actions(actions));
    }

    #[track_caller]
    pub fn press_enter(&self) {
        self.press(&Key::Enter.to_string());
    }

    #[track_caller]
    pub fn press_right(&self) {
        self.press(&Key::Right.to_string());
    }

    #[track_caller]
    pub fn press_escape(&self) {
        self.press(&Key::Escape.to_string());
    }

    /// The visible text of an element, white space as in its text; `None` if it is missing or hidden.
    #[track_caller]
    pub fn text(&self, selector: &str) -> Option<String> {
        let script = "const e = document.querySelector(arguments[0]); \
            return e && e.checkVisibility() ? e.textContent.trim().replace(/\\s+/g, ' ') : null";
        self.js_with(script, selector.into()).as_str().map(str::to_owned)
    }

    #[track_caller]
    pub fn texts(&self, selector: &str) -> Vec<String> {
        let script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent.trim())";
        serde_json::from_value(self.js_with(script, selector.into())).expect("texts")
    }

    #[track_caller]
    pub fn value(&self, selector: &str) -> String {
        let value = self.js_with("return document.querySelector(arguments[0]).value", selector.into());
        value.as_str().expect("a value").to_owned()
    }

    #[track_caller]
    pub fn count(&self, selector: &str) -> usize {
        let count = self.js_with("return document.querySelectorAll(arguments[0]).length", selector.into());
        count.as_u64().expect("a number") as usize
    }

    /// Returns the id of the focused element.
    #[track_caller]
    pub fn focused(&self) -> String {
        self.js("return document.activeElement.id").as_str().expect("an id").to_owned()
    }

    #[track_caller]
    pub fn wait_for(&self, what: &str, mut condition: impl FnMut() -> bool) {
        within(PATIENCE, what, || condition().then_some(()));
    }

    #[track_caller]
    pub fn wait_for_text(&self, selector: &str, part: &str) {
        let start = Instant::now();
        loop {
            let text = self.text(selector);
            if text.as_deref().is_some_and(|text| text.contains(part)) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{selector} is {text:?} and not {part:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The positions of the rows, newest first: `1-812` is partition 1, offset 812.
    #[track_caller]
    pub fn rows(&self) -> Vec<String> {
        let rows = self.js("return [...document.querySelectorAll('#rows > li.event')].map((row) => row.id.slice(2))");
        serde_json::from_value(rows).expect("ids")
    }

    /// Waits until there are exactly this many rows.
    #[track_caller]
    pub fn wait_for_rows(&self, count: usize) -> Vec<String> {
        let start = Instant::now();
        loop {
            let rows = self.rows();
            if rows.len() == count {
                return rows;
            }
            assert!(start.elapsed() < PATIENCE, "{} rows and not {count}: {rows:?}", rows.len());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[track_caller]
    fn vendor(&self, path: &'static str, body: Value) -> Value {
        self.run(self.client.issue_cmd(Vendor { path, body }))
    }

    /// A command of the DevTools protocol.
    #[track_caller]
    pub fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.vendor("goog/cdp/execute", json!({"cmd": command, "params": parameters}))
    }

    /// Returns the console's warnings and errors since the last call.
    #[track_caller]
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.vendor("se/log", json!({"type": "browser"}));
        let entries = entries.as_array().expect("a list");
        let grave = entries.iter().filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        grave.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Sets the width of the page's layout, in CSS pixels.
    #[track_caller]
    pub fn resize(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Sets `light` or `dark`.
    #[track_caller]
    pub fn prefer(&self, scheme: &str) {
        let features = json!([
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Returns the findings of axe-core (WCAG 2.2, levels A and AA, and its best practices): the rules and the elements
    /// that break them. Checks all rules, or only those that concern colors.
    #[track_caller]
    pub fn barriers(&self, only_colors: bool) -> Vec<String> {
        // The page's content security policy does not apply to injected tools.
        self.js(axe());
        let script = "const done = arguments[arguments.length - 1]; \
            axe.run(document, { resultTypes: ['violations'], ...arguments[0] }).then(({ violations }) => done(violations.flatMap((rule) => \
            rule.nodes.map((node) => `${rule.id}: ${node.html.slice(0, 150)}: ${node.failureSummary}`))))";
        let rules = if only_colors { json!({"runOnly": {"type": "rule", "values": COLOR_RULES}}) } else { json!({}) };
        let found = self.run(self.client.execute_async(script, vec![rules]));
        serde_json::from_value(found).expect("texts")
    }

    /// A PNG of the window.
    #[track_caller]
    pub fn picture(&self) -> Vec<u8> {
        self.run(self.client.screenshot())
    }

    /// Opens a tab with this address.
    #[track_caller]
    pub fn new_tab(&self) {
        let tab = self.run(self.client.new_window(true));
        self.run(self.client.switch_to_window(tab.handle.clone()));
        self.tabs.borrow_mut().push(tab.handle);
    }

    /// Switches to a tab, counted from 0 in the order of opening.
    #[track_caller]
    pub fn go_to_tab(&self, tab: usize) {
        let tab = self.tabs.borrow()[tab].clone();
        self.run(self.client.switch_to_window(tab));
        // Switching does not bring the tab to the front.
        self.devtools("Page.bringToFront", json!({}));
    }

    /// Types an event into the form and sends it with Enter.
    #[track_caller]
    pub fn send(&self, user: &str, action: &str) {
        self.fill("#user", user);
        self.fill("#action", action);
        self.press_enter();
    }
}

/// Reads the script of axe-core from a Python package.
/// The rules of axe-core whose result depends on the color scheme.
const COLOR_RULES: [&str; 2] = ["color-contrast", "link-in-text-block"];

fn axe() -> &'static str {
    static SCRIPT: OnceLock<String> = OnceLock::new();
    SCRIPT.get_or_init(|| {
        let python = std::env::var("FOOTFALL_TEST_PYTHON").expect("FOOTFALL_TEST_PYTHON, as dev/test sets it");
        let code =
            "import importlib.util as u; print(u.find_spec('axe_playwright_python').submodule_search_locations[0])";
        let found = Command::new(python).args(["-c", code]).output().expect("Python can be run");
        let folder = String::from_utf8(found.stdout).expect("a path");
        std::fs::read_to_string(format!("{}/axe.min.js", folder.trim()))
            .expect("axe-core; `dev/setup python` installs it")
    })
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let shown = "return document.body.innerText.slice(0, 3000)";
            if let Ok(text) = self.runtime.block_on(self.client.execute(shown, Vec::new())) {
                eprintln!("--- the page:\n{}\n---", text.as_str().unwrap_or_default());
            }
        }
        let _ = self.runtime.block_on(self.client.clone().close()); // the driver ends the rest
    }
}
