//! The page's form as a browser without JavaScript posts it.

use crate::common::http::Response;
use crate::common::{Application, Broker, on_every_broker};
use serde_json::json;

on_every_broker! {
    the_form_is_answered_303_and_the_page_shows_the_event,
    a_form_becomes_the_equivalent_object,
}

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// Posts the form as the page itself does.
fn submit(app: &Application, fields: &[(&str, &str)]) -> Response {
    submit_with(app, fields, &[("Sec-Fetch-Site", "same-origin"), ("Origin", &format!("http://{}", app.address))])
}

fn submit_with(app: &Application, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Response {
    let request = app.request("POST", "/events").form(fields).header("Accept", BROWSER);
    headers.iter().fold(request, |request, (name, value)| request.header(name, value)).send()
}

fn the_form_is_answered_303_and_the_page_shows_the_event(broker: Broker) {
    let app = Application::on(broker).start();
    let mut stream = app.stream("");
    let answer = submit(&app, &[("user", "Zoë"), ("action", "log in"), ("details", "")]).expect(303);
    let location = answer.header("Location").expect("a Location").to_owned();
    assert!(location == "/" || location.starts_with("/?"), "{location}");
    stream.record();
    // Twice, like a refresh: nothing is sent again.
    for _ in 0..2 {
        let page = app.request("GET", &location).header("Accept", BROWSER).send().expect(200);
        assert!(page.text().contains("Zoë") && page.text().contains("log in"), "{}", page.text());
    }
    assert_eq!(app.topic().records().len(), 1);
}

fn a_form_becomes_the_equivalent_object(broker: Broker) {
    let app = Application::on(broker).start();
    submit(&app, &[("user", "Zoë \"Z\""), ("action", "log+in & out"), ("details", r#"{"page": "/cart",  "n": 1.50}"#)])
        .expect(303);
    let record = app.topic().records().remove(0);
    assert_eq!(record.json(), json!({"user": "Zoë \"Z\"", "action": "log+in & out", "page": "/cart", "n": 1.5}));
    assert!(record.text().contains(r#""page": "/cart",  "n": 1.50"#), "details keep their bytes: {}", record.text());
    assert_eq!(record.key.as_deref(), Some("Zoë \"Z\"".as_bytes()));
}

#[test]
fn an_invalid_form_is_422_and_keeps_the_input() {
    let app = Application::on(Broker::Embedded).start();
    for (fields, wrong) in [
        (["", "checkout", "{\"page\": \"/typed\"}"], "user-error"),
        (["Ann-typed", " ", "{\"page\": \"/typed\"}"], "action-error"),
        (["Ann-typed", "checkout", "not json, typed"], "details-error"),
        (["Ann-typed", "checkout", "[\"typed\"]"], "details-error"),
        (["Ann-typed", "checkout", "{\"user\":\"typed\"}"], "details-error"),
        (["<b>\"typed\"</b>", "", "</textarea><script>typed()</script>"], "action-error"),
    ] {
        let answer = submit(&app, &[("user", fields[0]), ("action", fields[1]), ("details", fields[2])]).expect(422);
        assert_eq!(answer.header("Content-Type"), Some("text/html; charset=utf-8"));
        let page = answer.text();
        for typed in fields {
            assert!(unescaped(page).contains(typed), "{typed:?} is lost");
        }
        assert!(!page.contains("<b>\"typed\"") && !page.contains("<script>typed"), "what was typed is text");
        let message = page.split(&format!("id=\"{wrong}\">")).nth(1).and_then(|rest| rest.split('<').next());
        assert!(message.is_some_and(|text| !text.trim().is_empty()), "no words beside the field: {wrong}");
    }
    assert!(app.topic().records().is_empty());
}

/// The text of an HTML page: what askama escapes.
fn unescaped(html: &str) -> String {
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#60;", "<"),
        ("&#62;", ">"),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&amp;", "&"),
        ("&#38;", "&"),
    ]
    .iter()
    .fold(html.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[test]
fn the_form_keeps_the_filters_of_the_page() {
    let app = Application::on(Broker::Embedded).start();
    let page = app.request("GET", "/?user=Zo%C3%AB&q=cart").header("Accept", BROWSER).send().expect(200);
    let action = "/events?user=Zo%C3%AB&q=cart";
    assert!(unescaped(page.text()).contains(&format!("action=\"{action}\"")), "{}", page.text());
    let post = |user: &str| {
        app.request("POST", action).form(&[("user", user), ("action", "login")]).header("Accept", BROWSER).send()
    };
    let page = post("").expect(422);
    assert!(page.text().contains("<title>Not sent · Live"), "{}", page.text());
    assert!(unescaped(page.text()).contains(&format!("action=\"{action}\"")), "{}", page.text());
    let autofocus = page.text().split("autofocus").next().and_then(|before| before.rsplit('<').next());
    assert!(autofocus.is_some_and(|input| input.contains("id=\"user\"")), "{autofocus:?}");
    let location = post("Ann").expect(303).header("Location").expect("a Location").to_owned();
    assert!(location.starts_with("/?user=Zo%C3%AB&q=cart&sent="), "{location}");
    // RFC 3986, section 3.4: a query has no brackets.
    let location = post("a [b] & c").expect(303).header("Location").expect("a Location").to_owned();
    assert!(location.ends_with("&as=a%20%5Bb%5D%20%26%20c"), "{location}");
}

#[test]
fn a_form_that_is_sent_again_is_one_event_until_it_is_changed() {
    let app = Application::on(Broker::Embedded).start();
    let page = app.request("GET", "/").header("Accept", BROWSER).send().expect(200);
    let id = page.text().split("name=\"id\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an id");
    let send = |action: &str| {
        let answer = submit(&app, &[("user", "Ann"), ("action", action), ("id", id)]).expect(303);
        answer.header("Location").expect("a Location").to_owned()
    };
    assert_eq!(send("login"), send("login"));
    assert_ne!(send("login"), send("logout"));
    let ids: Vec<_> = app.topic().records().iter().map(|r| r.header("ce_id").map(str::to_owned)).collect();
    assert_eq!(ids.len(), 2);
    assert!(ids.contains(&Some(id.to_owned())), "{ids:?}");
}

#[test]
fn a_changed_form_counts_once_for_the_rate_limit() {
    let app = Application::on(Broker::Embedded)
        .env("FOOTFALL_INGEST__RATE_LIMIT", "1")
        .env("FOOTFALL_INGEST__MAX_BATCH", "2")
        .start();
    for action in ["login", "logout"] {
        submit(&app, &[("user", "Ann"), ("action", action), ("id", "of-the-form")]).expect(303);
    }
    assert_eq!(app.topic().records().len(), 2);
    let counted = app.get("/metrics").text().to_owned();
    assert!(counted.contains(r#"footfall_events_total{outcome="acknowledged"} 2"#), "{counted}");
    assert!(!counted.contains("id_reused"), "{counted}");
}

#[test]
fn an_event_of_the_largest_size_fits_into_the_form() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_INGEST__MAX_EVENT", "300KiB").start();
    let details = format!("{{\"x\":\"{}\"}}", "ü".repeat(140 * 1024));
    submit(&app, &[("user", "Ann"), ("action", "login"), ("details", &details)]).expect(303);
}

#[test]
fn a_missing_form_field_is_422() {
    let app = Application::on(Broker::Embedded).start();
    submit(&app, &[("user", "Ann")]).expect(422);
    submit(&app, &[]).expect(422);
    submit(&app, &[("user", "Ann"), ("action", "login")]).expect(303);
}

#[test]
fn a_form_of_another_site_is_403() {
    let app = Application::on(Broker::Embedded).start();
    let here = format!("http://{}", app.address);
    let fields = [("user", "Ann"), ("action", "login"), ("details", "")];
    let status = |headers: &[(&str, &str)]| submit_with(&app, &fields, headers).status();
    assert_eq!(status(&[("Sec-Fetch-Site", "cross-site")]), 403);
    assert_eq!(status(&[("Sec-Fetch-Site", "same-site")]), 403);
    assert_eq!(status(&[("Sec-Fetch-Site", "cross-site"), ("Origin", &here)]), 403);
    assert_eq!(status(&[("Origin", "http://evil.example")]), 403);
    assert_eq!(status(&[("Origin", "null")]), 403);
    assert_eq!(status(&[("Origin", &format!("http://{}.evil.example", app.address))]), 403);
    assert!(app.topic().records().is_empty());

    assert_eq!(status(&[("Sec-Fetch-Site", "same-origin")]), 303);
    assert_eq!(status(&[("Sec-Fetch-Site", "none")]), 303);
    assert_eq!(status(&[("Origin", &here)]), 303);
    // Behind a proxy that passes the Host on and ends TLS.
    assert_eq!(status(&[("Host", "feed.localhost"), ("Origin", "https://feed.localhost")]), 303);
    assert_eq!(status(&[]), 303, "curl sends neither");
    assert_eq!(app.topic().records().len(), 5);
}

/// nginx without `proxy_set_header Host` replaces it, and on a plain-http name no browser sends `Sec-Fetch-Site`.
#[test]
fn a_403_behind_a_proxy_that_changes_the_host_names_both_values_and_the_setting() {
    let fields = [("user", "Ann"), ("action", "login"), ("details", "")];
    let app = Application::on(Broker::Embedded).start();
    let changed = [("Host", "127.0.0.1:8000"), ("Origin", "http://intranet.test")];
    for accept in [BROWSER, "application/json"] {
        let request = app.request("POST", "/events").form(&fields).header("Accept", accept);
        let answer = changed.iter().fold(request, |request, (name, value)| request.header(name, value)).send();
        let text = unescaped(answer.expect(403).text());
        for words in ["http://intranet.test", "127.0.0.1:8000", "proxy_set_header Host", "http.hosts"] {
            assert!(text.contains(words), "no {words:?} in {text}");
        }
    }

    let app = Application::on(Broker::Embedded).env("FOOTFALL_HTTP__HOSTS", "intranet.test, *.apps.test").start();
    let status = |origin: &str| submit_with(&app, &fields, &[("Host", "127.0.0.1:8000"), ("Origin", origin)]).status();
    assert_eq!(status("http://intranet.test"), 303, "its own name");
    assert_eq!(status("https://INTRANET.test"), 303);
    assert_eq!(status("http://intranet.test:9000"), 403, "another server on the same machine");
    assert_eq!(status("http://evil.apps.test"), 403, "a neighbour is another site");
    assert_eq!(status("http://evil.example"), 403);
}

#[test]
fn the_curl_line_has_the_address_that_the_browser_used() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_HTTP__HOSTS", "feed.example").start();
    let shown = |headers: &[(&str, &str)]| {
        let request = app.request("GET", "/").header("Accept", BROWSER);
        let page =
            headers.iter().fold(request, |request, (name, value)| request.header(name, value)).send().expect(200);
        let base = page.text().split("class=\"base\">").nth(1).and_then(|rest| rest.split('<').next());
        base.expect("an address").to_owned()
    };
    let (host, local) = (("Host", "feed.example"), ("Host", "localhost:8000"));
    assert_eq!(shown(&[]), format!("http://{}", app.address));
    assert_eq!(shown(&[host]), "http://feed.example");
    assert_eq!(shown(&[host, ("X-Forwarded-Proto", "https")]), "https://feed.example");
    assert_eq!(shown(&[host, ("X-Forwarded-Proto", "HTTPS, http")]), "https://feed.example");
    assert_eq!(shown(&[host, ("X-Forwarded-Proto", "http"), ("Sec-Fetch-Site", "none")]), "http://feed.example");
    // A browser sends Fetch Metadata only over HTTPS and to its own machine.
    assert_eq!(shown(&[host, ("Sec-Fetch-Site", "none")]), "https://feed.example");
    assert_eq!(shown(&[local, ("Sec-Fetch-Site", "none")]), "http://localhost:8000");
    assert_eq!(shown(&[local, ("X-Forwarded-Proto", "javascript:")]), "http://localhost:8000");
}

#[test]
fn a_rejected_form_is_a_page_for_the_browser() {
    let app = Application::on(Broker::Embedded).start();
    let answer =
        submit_with(&app, &[("user", "Ann"), ("action", "login")], &[("Sec-Fetch-Site", "cross-site")]).expect(403);
    assert_eq!(answer.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(answer.text().contains("<h1"), "{}", answer.text());
}

#[test]
fn a_form_that_is_too_large_is_413() {
    let app = Application::on(Broker::Embedded).start();
    let details = format!("{{\"x\":\"{}\"}}", "x".repeat(600 * 1024));
    submit(&app, &[("user", "Ann"), ("action", "login"), ("details", &details)]).expect(413);
}

#[test]
fn the_form_posted_as_json_is_415_with_the_expected_type() {
    let app = Application::on(Broker::Embedded).start();
    let answer = app.request("POST", "/events").json(&json!({"user": "Ann", "action": "login"})).send();
    answer.expect(415).problem();
}
