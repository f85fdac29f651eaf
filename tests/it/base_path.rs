//! Footfall under a path of a server that has other applications: `http.base_path`.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::json;

use crate::common::{Application, Broker, application};

const BASE: &str = "/tools/footfall";

fn under_a_path() -> Application {
    Application::on(Broker::Embedded).env("FOOTFALL_BASE_PATH", "/tools/footfall/").start()
}

/// The addresses in a page's links, forms and assets, as they are after HTML's escapes.
fn addresses(html: &str) -> Vec<String> {
    let attribute = Regex::new(r#" (?:href|src|action)="([^"]*)""#).expect("an expression");
    let all = attribute.captures_iter(html).map(|found| found[1].replace("&amp;", "&").replace("&#38;", "&"));
    all.filter(|address| !address.is_empty() && !address.starts_with('#')).collect()
}

#[test]
fn every_address_of_every_page_is_under_the_base_path_and_leads_somewhere() {
    let app = under_a_path();
    let receipt = app.accept(&json!({"user": "Ann", "action": "log in"}));
    app.post_events(300);
    app.wait_for_the_feed();
    app.request("POST", "/nowhere").send().expect(404); // so that pages link to the rejects
    let record = format!("{BASE}/events/{}/{}", receipt["partition"], receipt["offset"]);
    let first = [
        "",
        "/",
        "/history?limit=50",
        "/history?user=nobody",
        "/overview",
        "/rejects",
        "/kafka",
        "/users/Ann",
        "/?user=Ann",
        "/no",
    ];
    let mut open: Vec<String> = first.iter().map(|path| format!("{BASE}{path}")).chain([record]).collect();
    let mut seen: BTreeSet<String> = open.iter().cloned().collect();
    let mut pages = 0;
    while let Some(target) = open.pop() {
        let answer = app.request("GET", &target).header("Accept", "text/html").send();
        let expected = if target.ends_with("/no") { 404 } else { 200 };
        let answer = answer.expect(expected);
        if !answer.header("Content-Type").is_some_and(|kind| kind.starts_with("text/html")) {
            continue;
        }
        pages += 1;
        assert!(answer.text().contains(&format!("<link rel=\"stylesheet\" href=\"{BASE}/static/app.")), "{target}");
        for address in addresses(answer.text()) {
            assert!(address.starts_with(&format!("{BASE}/")), "{target} leads to {address}");
            // Forms are only posted.
            let is_read = !["/footfall/events", "/footfall/zone"].iter().any(|form| address.ends_with(form));
            if is_read && pages < 40 && seen.insert(address.clone()) {
                open.push(address);
            }
        }
    }
    assert!(pages >= 15, "{pages} pages");
    for part in ["/api/v1/events.csv", "/static/app.", "/users/"] {
        assert!(seen.iter().any(|address| address.contains(part)), "{part} is not in {seen:?}");
    }
    assert!(
        app.get(&format!("{BASE}/"))
            .expect(200)
            .text()
            .contains(&format!("{}{BASE}</span>/api/v1/events", app.address))
    );
}

#[test]
fn requests_are_served_with_the_base_path_and_without_it() {
    let app = under_a_path();
    let event = json!({"user": "Ann", "action": "login"});
    for base in [BASE, ""] {
        let answer = app.request("POST", &format!("{base}/api/v1/events")).json(&event).send().expect(201);
        let location = answer.header("Location").expect("a location").to_owned();
        assert!(location.starts_with("/tools/footfall/api/v1/events/"), "{location}");
        assert_eq!(app.get(&location).expect(200).json()["value"]["user"], "Ann");
        app.get(&format!("{base}/readyz")).expect(200);
        app.get(&format!("{base}/static/app.css")).expect(200);
        let description = app.get(&format!("{base}/api/openapi.json")).expect(200).json();
        assert_eq!(description["servers"], json!([{"url": BASE}]));
        let form = app.request("POST", &format!("{base}/events")).header("Accept", "text/html");
        let form = form.form(&[("user", "Ann"), ("action", "login")]).send().expect(303);
        let next = form.header("Location").expect("a location").to_owned();
        assert!(next.starts_with("/tools/footfall/?sent="), "{next}");
        app.get(&next).expect(200);
    }
    let mut feed = crate::common::Subscription::open(app.address, "/tools/footfall/api/v1/stream?last=1");
    assert_eq!(feed.records(1).len(), 1);
    for other in ["/tools/footfallx/history", "/tools/history", "/tools", "/tools/footfall/tools/footfall/history"] {
        app.get(other).expect(404);
    }
}

#[test]
fn a_base_path_that_is_none_stops_the_start_with_one_line() {
    for text in ["footfall", "/a//b", "/a b", "/../x", "https://example.com/footfall"] {
        let folder = tempfile::tempdir().expect("a folder");
        let check = application::command(folder.path()).arg("check").env("FOOTFALL_BASE_PATH", text).output();
        let check = check.expect("the binary can be run");
        let errors = String::from_utf8_lossy(&check.stderr).into_owned();
        assert_eq!((check.status.code(), errors.lines().count()), (Some(2), 1), "{errors}");
        assert!(errors.contains("FOOTFALL_BASE_PATH") && errors.contains("expected one such as /footfall"), "{errors}");
    }
}
