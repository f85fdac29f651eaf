//! The tracker: its route over HTTP, and its script in Chromium on pages of other sites.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::common::application::free_port;
use crate::common::http::Response;
use crate::common::nginx::base_path;
use crate::common::wait::eventually;
use crate::common::{Application, Broker, Browser, Builder};

// --- The route -------------------------------------------------------------------------------------------------------

fn track(app: &Application, body: &Value) -> Response {
    app.request("POST", "/track").json(body).send()
}

fn discarded(app: &Application, reason: &str) -> f64 {
    app.metric(&format!("footfall_tracker_discarded_total{{reason=\"{reason}\"}}")).unwrap_or_default()
}

#[test]
fn events_are_answered_as_those_of_an_array() {
    let app = Application::on(Broker::Embedded).start();
    let (good, bad) = (json!({"id": "e-1", "user": "Ann", "action": "login"}), json!({"user": "Ann"}));
    let first = track(&app, &json!({"id": "a", "events": [good]})).expect(201).json();
    assert_eq!((&first["results"][0]["id"], first["results"].as_array().map(Vec::len)), (&json!("e-1"), Some(1)));
    let both = track(&app, &json!({"id": "b", "events": [good, bad]})).expect(207).json();
    assert_eq!((&both["results"][0]["replayed"], &both["results"][1]["status"]), (&json!(true), &json!(422)));
    track(&app, &json!({"id": "c", "events": [bad]})).expect(422);
    assert_eq!(track(&app, &json!({"id": "d", "events": []})).expect(200).json(), json!({"results": []}));
    for (body, status, part) in [
        // Not 422: the tracker would take its events for counted.
        (json!([good]), 400, "`id`, `events`"),
        (json!({"events": [good]}), 400, "`id` must be"),
        (json!({"id": "e", "events": good}), 400, "must be an array"),
        (json!({"id": "e", "events": vec![&good; 501]}), 413, "501 events"),
        (json!({"id": "e", "events": [good], "discarded": [{"reason": "other", "quantity": -1}]}), 400, "quantity"),
        (json!({"id": "e", "events": [good], "discarded": [["other", 1]]}), 400, "is no object"),
    ] {
        let answer = track(&app, &body).expect(status);
        assert!(answer.text().contains(part), "{}", answer.text());
    }
    app.request("POST", "/track").body("text/plain", "{}").send().expect(415);
    app.get("/track").expect(405);
    assert_eq!(app.topic().records().len(), 1);
}

#[test]
fn losses_are_counted_once_for_each_report() {
    let app = Application::on(Broker::Embedded).start();
    let report = |id: &str, discarded: Value| json!({"id": id, "events": [], "discarded": discarded});
    let full = json!([{"reason": "queue_full", "quantity": 3}, {"reason": "phase of the moon", "quantity": 2}]);
    for _ in 0..3 {
        track(&app, &report("a", full.clone())).expect(200);
    }
    assert_eq!((discarded(&app, "queue_full"), discarded(&app, "other")), (3.0, 2.0));
    // The report counts, whatever becomes of the events.
    let with_events = json!({"id": "b", "events": [{"user": 1}], "discarded": [{"reason": "invalid", "quantity": 1}]});
    track(&app, &with_events).expect(422);
    let odd = json!([{"reason": "refused", "quantity": 0}, {"reason": "refused", "quantity": 1_000_001}]);
    track(&app, &report("odd", odd)).expect(200);
    assert_eq!(discarded(&app, "refused"), 1_000_000.0);
    track(&app, &report("c", json!([{"reason": "queue_full", "quantity": 4}]))).expect(200);
    track(&app, &report("d", json!([]))).expect(200);
    assert_eq!((discarded(&app, "queue_full"), discarded(&app, "invalid")), (7.0, 1.0));
    let text = app.get("/metrics").expect(200).text().to_owned();
    assert!(!text.contains("moon"), "{text}");
}

#[test]
fn a_report_counts_as_one_event_for_the_rate_limit() {
    let app = Application::on(Broker::Embedded)
        .env("FOOTFALL_INGEST__RATE_LIMIT", "1")
        .env("FOOTFALL_INGEST__MAX_BATCH", "2")
        .start();
    let report = |id: &str, events: Value| json!({"id": id, "events": events, "discarded": [{"reason": "other", "quantity": 1}]});
    let answers = || (0..100).map(|n| track(&app, &report(&format!("r-{n}"), json!([]))));
    let counted = answers().take_while(|answer| answer.status() == 200).count();
    assert!((2..100).contains(&counted), "{counted}");
    assert_eq!(discarded(&app, "other"), counted as f64);
    // A full batch has all of the allowance. Its report was counted with an earlier attempt.
    let event = |id: &str| json!({"id": id, "user": "Ann", "action": "login"});
    let full = report("full", json!([event("a"), event("b")]));
    eventually("the full batch is written", || (track(&app, &full).status() == 201).then_some(()));
    assert_eq!(discarded(&app, "other"), counted as f64 + 1.0);
}

#[test]
fn the_script_is_small_and_any_site_may_load_it() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_INGEST__ORIGINS", "https://shop.example").start();
    let load = |headers: &[(&str, &str)]| {
        let request = app.request("GET", "/track.js").header("Accept-Encoding", "gzip");
        headers.iter().fold(request, |request, (name, value)| request.header(name, value)).send()
    };
    let of_a_site = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "script")];
    let answer = load(&of_a_site).expect(200);
    assert!(answer.body.len() < 2000, "{} bytes", answer.body.len());
    assert_eq!(answer.header("Content-Encoding"), Some("gzip"));
    assert_eq!(answer.header("Content-Type"), Some("text/javascript"));
    assert_eq!(answer.header("Cache-Control"), Some("public, max-age=3600"));
    assert_eq!(answer.header("Cross-Origin-Resource-Policy"), Some("cross-origin"));
    assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
    let tag = answer.header("ETag").expect("a tag").to_owned();
    load(&[("If-None-Match", &tag)]).expect(304);
    // With `crossorigin`, the origin must be listed.
    for (origin, allowed) in [("https://shop.example", Some("https://shop.example")), ("https://evil.example", None)] {
        let answer = load(&[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "cors"), ("Origin", origin)]);
        assert_eq!(answer.expect(200).header("Access-Control-Allow-Origin"), allowed);
    }
    assert_eq!(app.request("GET", "/track.js").header("Host", "evil.example").send().status(), 421);
}

#[test]
fn the_script_and_its_route_may_have_another_name() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_INGEST__TRACKER", "/pebbles.js").start();
    app.get("/pebbles.js").expect(200);
    app.get("/track.js").expect(404);
    let body = json!({"id": "a", "events": [{"user": "Ann", "action": "login"}]});
    app.request("POST", "/pebbles").json(&body).send().expect(201);
    track(&app, &body).expect(404);
    let description = app.get("/api/openapi.json").expect(200).json();
    assert!(description["paths"]["/pebbles"]["post"].is_object() && description["paths"]["/track"].is_null());
}

// --- In a browser ----------------------------------------------------------------------------------------------------

/// A site of its own: it answers every path with the same page.
struct Site {
    address: SocketAddr,
    html: Arc<Mutex<String>>,
}

impl Site {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let site = Site { address: listener.local_addr().expect("an address"), html: Arc::default() };
        let html = site.html.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let html = html.clone();
                // A browser opens connections in advance, and may never use them.
                std::thread::spawn(move || answer(client, &html));
            }
        });
        site
    }

    /// Its origins: those of two sites.
    fn origins(&self) -> [String; 2] {
        ["localhost", "127.0.0.1"].map(|host| format!("http://{host}:{}", self.address.port()))
    }

    /// An application that lists its origins.
    fn listed_by(&self, app: Builder) -> Builder {
        app.env("FOOTFALL_INGEST__ORIGINS", &self.origins().join(","))
    }

    /// Puts the tracker of an application, as the browser reaches it, into its page.
    fn includes(&self, server: SocketAddr, attributes: &str) {
        let source = format!("http://{server}{}/track.js", base_path());
        *self.html.lock().expect("the page") = format!(
            "<!doctype html><title>Shop</title><link rel=icon href=data:,>\
             <script src=\"{source}\" defer {attributes}></script>\
             <button data-track=signup data-track-plan=pro data-track-order-id=7 data-other=1><b>Sign up</b></button>"
        );
    }
}

/// Reads the head of a request and answers it with a page.
fn answer(mut client: TcpStream, html: &Mutex<String>) {
    let lines = BufReader::new(client.try_clone().expect("a socket")).lines().map_while(Result::ok);
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let html = html.lock().expect("the page").clone();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close";
    // The browser may have closed the connection.
    let _ = write!(client, "{head}\r\nContent-Length: {}\r\n\r\n{html}", html.len());
}

fn values(app: &Application) -> Vec<Value> {
    app.topic().records().iter().map(|record| record.json()).collect()
}

/// Waits until the topic has this many events, and returns them.
#[track_caller]
fn wait_for_events(app: &Application, count: usize) -> Vec<Value> {
    eventually(&format!("{count} events are written"), || Some(values(app)).filter(|values| values.len() >= count))
}

#[test]
fn a_page_of_another_site_sends_views_clicks_and_its_own_events() {
    let site = Site::start();
    let app = site.listed_by(Application::on(Broker::Embedded)).start();
    let browser = Browser::of_a_visitor();
    let mut users = Vec::new();
    for origin in site.origins() {
        let host = origin.trim_start_matches("http://").to_owned();
        let of_the_site = || values(&app).into_iter().filter(|event| event["site"] == host.as_str());
        site.includes(browser.host(&app), "");
        browser.visit(&format!("{origin}/shop?secret=1#top"));
        browser.js("history.pushState({}, '', '/cart?step=1'); history.pushState({}, '', '/cart?step=2')");
        browser.click("b");
        browser.js("footfall.track('pay', {total: 31.5, page: '/own', user: 'Eve', id: 'x', time: 1}); \
             footfall.identify('Ann'); footfall.track('left'); \
             dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))");
        eventually("the site's events are written", || (of_the_site().count() >= 6).then_some(()));
        let mut events: Vec<Value> = of_the_site().collect();
        assert_eq!(events.len(), 6, "{events:?}");
        // Each user's events are in order.
        events.sort_by_key(|event| event["user"] == "Ann");
        let find = |action: &str| -> Vec<&Value> { events.iter().filter(|event| event["action"] == action).collect() };
        let pages: Vec<&Value> = find("page_view").iter().map(|event| &event["page"]).collect();
        assert_eq!(pages, ["/shop", "/cart", "/cart"]);
        let user = &find("page_view")[0]["user"];
        let signup = find("signup")[0];
        assert_eq!((&signup["plan"], &signup["orderId"], &signup["user"]), (&json!("pro"), &json!("7"), user));
        assert!(signup.get("other").is_none(), "{signup}");
        let pay = find("pay")[0];
        assert_eq!((&pay["total"], &pay["page"], &pay["user"]), (&json!(31.5), &json!("/own"), user));
        assert_eq!((&find("left")[0]["user"], &find("page_view")[2]["user"]), (&json!("Ann"), &json!("Ann")));
        assert!(!json!(events).to_string().contains("secret"), "{events:?}");
        users.push(user.clone());
        let stored = "const databases = await indexedDB.databases(); \
             return [document.cookie, localStorage.length, sessionStorage.length, databases.length]";
        assert_eq!(browser.js(&format!("return (async () => {{ {stored} }})()")), json!(["", 0, 0, 0]));
        assert_eq!(browser.complaints(), Vec::<String>::new());
    }
    assert_ne!(users[0], users[1]);
    site.includes(browser.host(&app), "data-user=Bob");
    browser.visit(&format!("{}/bob", site.origins()[0]));
    let bob =
        eventually("the user of the script's tag", || values(&app).into_iter().find(|event| event["page"] == "/bob"));
    assert_eq!(bob["user"], "Bob");
    // They came in batches.
    let posts = app.metric("footfall_requests_total{method=\"POST\",route=\"/track\",status=\"201\"}");
    assert!(posts.is_some_and(|posts| posts <= 8.0), "{posts:?}");
    // What a page tracks in its own listener of its end, after the tracker's.
    browser.js("addEventListener('pagehide', () => footfall.track('left', {from: 'pagehide'}))");
    browser.js("addEventListener('visibilitychange', () => footfall.track('left', {from: 'visibilitychange'}))");
    browser.visit(&format!("{}/next", site.origins()[1]));
    for from in ["pagehide", "visibilitychange"] {
        eventually("the last events of a page", || values(&app).into_iter().find(|event| event["from"] == from));
    }
}

#[test]
fn an_unlisted_site_sends_nothing_and_the_browser_says_why() {
    let site = Site::start();
    let app = Application::on(Broker::Embedded).env("FOOTFALL_INGEST__ORIGINS", "https://shop.example").start();
    let browser = Browser::of_a_visitor();
    site.includes(browser.host(&app), "");
    browser.visit(&format!("{}/", site.origins()[0]));
    let mut complaints = Vec::new();
    browser.wait_for("the browser complains", || {
        complaints.extend(browser.complaints());
        complaints.iter().any(|text| text.contains("CORS"))
    });
    assert_eq!(values(&app), Vec::<Value>::new());
}

#[test]
fn who_does_not_want_to_be_tracked_and_programs_are_not() {
    let site = Site::start();
    let app = site.listed_by(Application::on(Broker::Embedded)).start();
    let origin = &site.origins()[0];
    let (program, visitor) = (Browser::start(), Browser::of_a_visitor());
    site.includes(visitor.host(&app), "");
    program.visit(&format!("{origin}/program"));
    for (name, value) in [("doNotTrack", "'1'"), ("globalPrivacyControl", "true")] {
        let wish = visitor.before_pages(&format!("Object.defineProperty(navigator, '{name}', {{value: {value}}})"));
        visitor.visit(&format!("{origin}/{name}"));
        // The page's own calls do not fail.
        visitor.js("footfall.identify('Ann'); footfall.track('wish'); dispatchEvent(new Event('pagehide'))");
        visitor.click("b");
        visitor.no_longer_before_pages(&wish);
    }
    // A page that the browser prepares is sent when somebody sees it.
    let prepared =
        visitor.before_pages("Object.defineProperty(document, 'prerendering', {value: true, configurable: true})");
    visitor.visit(&format!("{origin}/prepared"));
    visitor.js("footfall.track('prepared'); dispatchEvent(new Event('pagehide'))");
    visitor.visit(&format!("{origin}/seen"));
    visitor.js("dispatchEvent(new Event('pagehide'))");
    visitor.js("delete document.prerendering; document.dispatchEvent(new Event('prerenderingchange'))");
    visitor.no_longer_before_pages(&prepared);
    wait_for_events(&app, 1);
    program.visit(&format!("{origin}/program/2"));
    visitor.visit(&format!("{origin}/last"));
    let pages: Vec<Value> = wait_for_events(&app, 2).iter().map(|event| event["page"].clone()).collect();
    assert_eq!(pages.len(), 2, "{pages:?}");
    assert!(pages.contains(&json!("/seen")) && pages.contains(&json!("/last")), "{pages:?}");
}

/// What was tracked is kept once, or the server has refused it, or the tracker has reported it as lost: also if the
/// server is killed and comes back, and pages end in between.
#[test]
fn every_tracked_event_is_kept_or_refused_or_reported_as_lost() {
    let site = Site::start();
    let port = free_port().to_string();
    let configured = |app: Builder| site.listed_by(app).env("ROCKET_PORT", &port);
    let first = configured(Application::on(Broker::Kafka)).start();
    let browser = Browser::of_a_visitor();
    site.includes(browser.host(&first), "");
    let origin = &site.origins()[0];
    let track = "for (let n = 0; n < arguments[0]; n++) footfall.track('step', {n})";
    let mut sent = 0;
    // Pages that end at once.
    for page in 0..3 {
        browser.visit(&format!("{origin}/{page}"));
        browser.js_with(track, json!(50));
        sent += 51;
    }
    // This page sees the end of the server, with events in flight. More wait than its queue holds.
    browser.visit(&format!("{origin}/last"));
    browser.js_with(track, json!(100));
    sent += 101;
    browser.js("dispatchEvent(new Event('pagehide'))");
    first.kill();
    browser
        .js("footfall.track(''); footfall.track('loop', {n: 1n}); footfall.track('large', {text: 'x'.repeat(40000)})");
    sent += 3;
    browser.js_with(track, json!(600));
    sent += 600;
    let second = configured(first.replica()).start();
    let accounts = || {
        let ids: BTreeMap<String, usize> = second.topic().records().iter().fold(BTreeMap::new(), |mut ids, record| {
            *ids.entry(record.json()["id"].to_string()).or_default() += 1;
            ids
        });
        assert!(ids.values().all(|times| *times == 1), "twice: {ids:?}");
        let lost: Vec<f64> =
            ["queue_full", "too_large", "invalid", "refused", "other"].map(|it| discarded(&second, it)).into();
        let refused = second.metric("footfall_events_total{outcome=\"invalid\"}").unwrap_or_default();
        (ids.len(), refused, lost)
    };
    browser.wait_for("all are accounted for", || {
        let (kept, refused, lost) = accounts();
        kept as f64 + refused + lost.iter().sum::<f64>() >= f64::from(sent)
    });
    let (kept, refused, lost) = accounts();
    assert_eq!(kept as f64 + refused + lost.iter().sum::<f64>(), f64::from(sent), "{kept} {refused} {lost:?}");
    assert_eq!((refused, &lost[1..]), (1.0, &[1.0, 1.0, 0.0, 0.0][..]));
    assert!(lost[0] > 100.0 && kept > 500, "{kept} {lost:?}");
}
