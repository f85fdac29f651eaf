//! The statistics of the topic, in `/overview` and `/api/v1/stats`.

use std::time::Duration;

use crate::common::wait::{eventually, within};
use crate::common::{
    Application, Broker, Browser, Kafka, NewRecord, Subscription, Topic, now_ms, on_every_broker, on_three_brokers,
};
use serde_json::{Value, json};

on_every_broker! {
    events_are_counted_by_time_user_and_action,
    the_page_shows_the_numbers_and_a_table_beside_each_chart,
}

on_three_brokers! {
    events_are_counted_by_time_user_and_action,
}

const HOUR: i64 = 3_600_000;

/// `events` events of `users` users: every third is a login.
fn post(app: &Application, events: usize, users: usize) {
    let event = |n: usize| {
        let action = if n.is_multiple_of(3) { "login" } else { "view" };
        json!({"user": format!("user-{}", n % users), "action": action})
    };
    app.post(&json!((0..events).map(event).collect::<Vec<_>>())).expect(201);
}

/// Waits until the statistics have counted this many events of the last day.
#[track_caller]
fn stats(app: &Application, events: u64) -> Value {
    eventually("all events are counted", || {
        let answer = app.get("/api/v1/stats").expect(200);
        assert_eq!(answer.header("Cache-Control"), Some("no-store"));
        let stats = answer.json();
        (stats["last_24h"]["events"] == events && stats["filling"] == false).then_some(stats)
    })
}

fn events_are_counted_by_time_user_and_action(broker: Broker) {
    let app = Application::on(broker).start();
    let nothing = stats(&app, 0);
    assert_eq!(
        nothing["last_15m"],
        json!({"events": 0, "users": {"estimate": 0, "low": 0, "high": 0}, "top_actions": [], "top_users": []})
    );
    post(&app, 30, 4);
    let stats = stats(&app, 30);
    for stretch in ["last_15m", "last_24h"] {
        let stretch = &stats[stretch];
        assert_eq!(stretch["events"], 30);
        assert_eq!(stretch["users"], json!({"estimate": 4, "low": 4, "high": 4}));
        assert_eq!(
            stretch["top_actions"],
            json!([{"name": "view", "count": 20, "error": 0}, {"name": "login", "count": 10, "error": 0}])
        );
        assert_eq!(stretch["top_users"].as_array().map(Vec::len), Some(4));
        assert_eq!(stretch["top_users"][0], json!({"name": "user-0", "count": 8, "error": 0}));
    }
    assert_eq!(stats["users_now"]["estimate"], 4);
    assert_eq!((&stats["line_15m"]["step_s"], &stats["line_24h"]["step_s"]), (&json!(5), &json!(300)));
    assert_eq!(stats["line_24h"]["counts"].as_array().map(Vec::len), Some(288));
    // Only complete steps.
    within(Duration::from_secs(30), "the step is over", || {
        let stats = app.get("/api/v1/stats").expect(200).json();
        let counts = stats["line_15m"]["counts"].as_array().expect("counts").iter();
        let sum: u64 = counts.map(|count| count.as_u64().expect("a number")).sum();
        (sum == 30).then_some(())
    });
}

/// More than memory holds at the start: older records are counted separately, by time.
#[test]
fn the_day_before_the_start_is_counted_and_nothing_before_it() {
    let kafka = Kafka::start();
    let topic = Topic::named_by_chance(kafka.servers());
    topic.make(3);
    let at = |hours: i64, n: i64| {
        let event = json!({"user": format!("user-{}", n % 5000), "action": format!("hour-{hours}")});
        NewRecord::new().value(event.to_string()).partition((n % 3) as i32).timestamp(now_ms() - hours * HOUR)
    };
    for hours in [30, 5, 1] {
        topic.produce_all(&(0..8000).map(|n| at(hours, n)).collect::<Vec<_>>());
    }
    let app = Application::at(kafka.servers()).topic(&topic).start();
    let stats = stats(&app, 16_000);
    assert_eq!(stats["last_15m"]["events"], 0);
    let users = &stats["last_24h"]["users"];
    let estimate = users["estimate"].as_u64().expect("a number");
    assert!(estimate.abs_diff(5000) < 300, "{users}");
    assert!(users["low"].as_u64() < Some(estimate) && users["high"].as_u64() > Some(estimate), "{users}");
    let actions = stats["last_24h"]["top_actions"].as_array().expect("actions");
    assert_eq!(actions.len(), 2, "{actions:?}");
    let counted: u64 = stats["line_24h"]["counts"].as_array().expect("counts").iter().filter_map(Value::as_u64).sum();
    assert_eq!(counted, 16_000);
    let page = app.get("/overview").expect(200).text().to_owned();
    assert!(!page.contains("16,000"), "they are older than 15 minutes: {page}");
    let page = app.get("/overview?period=24h").expect(200).text().to_owned();
    assert!(page.contains("<dd>16,000") && (page.contains("<dd>≈ 5,0") || page.contains("<dd>≈ 4,9")), "{page}");
    assert!(!page.contains("≤"), "{page}");
    assert!(page.contains("no day before to compare with") && page.len() < 100_000, "{} bytes, {page}", page.len());
}

#[test]
fn a_recreated_topic_starts_empty() {
    let kafka = Kafka::start();
    let topic = Topic::named_by_chance(kafka.servers());
    topic.make(3);
    let app = Application::at(kafka.servers()).topic(&topic).start();
    post(&app, 9, 3);
    stats(&app, 9);
    topic.delete();
    topic.make(3);
    within(Duration::from_secs(60), "the new topic is counted", || {
        (app.get("/api/v1/stats").expect(200).json()["last_24h"]["events"] == 0).then_some(())
    });
}

fn the_page_shows_the_numbers_and_a_table_beside_each_chart(broker: Broker) {
    let app = Application::on(broker).start();
    let page = app.get("/overview").expect(200).text().to_owned();
    assert!(page.contains("no data") && page.contains("None."), "{page}");
    app.accept(&json!({"user": "<b>Ann</b> & Co", "action": "a/b?c=d"}));
    stats(&app, 1);
    // What is shown is up to a second old.
    let page = eventually("the event is shown", || {
        let page = app.get("/overview").expect(200).text().to_owned();
        (!page.contains("None.")).then_some(page)
    });
    assert!(page.contains(r#"aria-current="page">Overview</a>"#), "{page}");
    assert!(page.contains("<dt>Events</dt><dd>1</dd>") && page.contains("<dt>Users</dt><dd>1</dd>"), "{page}");
    assert!(page.contains("Events by action, last 15 minutes: 1 event, at most 1 in 15 s"), "{page}");
    assert!(page.contains("No comparison yet"), "{page}");
    assert_eq!(page.matches("<figure").count(), page.matches("As a table").count(), "{page}");
    assert!(page.contains(r#"href="/overview?period=15m&#38;action=a%2Fb%3Fc%3Dd""#), "{page}");
    assert!(!page.contains("<b>Ann") && page.contains("Ann"), "{page}");
    assert!(page.len() < 50_000, "{} bytes", page.len());
    // Each period, and one action.
    for (period, words) in [("15m", "15 minutes"), ("1h", "hour"), ("24h", "24 hours")] {
        let path = format!("/overview?period={period}&action=a%2Fb%3Fc%3Dd");
        let page = app.get(&path).expect(200).text().to_owned();
        assert!(page.contains(&format!("Events of the action a/b?c=d, last {words}: 1 event")), "{page}");
        assert!(page.contains("/history?action=a%2Fb%3Fc%3Dd&#38;since=20"), "{page}");
        assert!(page.contains("The statistics do not count users by action.") && !page.contains("Ann"), "{page}");
    }
    for path in ["/overview", "/stream/overview"] {
        let problem = app.get(&format!("{path}?period=2h")).expect(400).text().to_owned();
        assert!(problem.contains("15m, 1h or 24h"), "{problem}");
    }
    let moving = Subscription::open(app.address, "/stream/overview?period=1h").next();
    assert_eq!(moving.event, "message");
    assert!(moving.data.contains("Most frequent actions, last hour"), "{}", moving.data);
}

/// A point in the middle of the column that has events, or of one that many columns from it.
fn column(browser: &Browser, away: i64) -> (f64, f64) {
    let place = browser.js_with(
        "const columns = [...document.querySelectorAll('.plot svg a')];
         const index = columns.findIndex((column) => /[1-9]/.test(column.dataset.n)) + arguments[0];
         const { x, y, width, height } = columns[index].getBoundingClientRect();
         return [x + width / 2, y + height / 2];",
        json!(away),
    );
    (place[0].as_f64().expect("x"), place[1].as_f64().expect("y"))
}

fn pointer(browser: &Browser, kind: &str, (x, y): (f64, f64)) {
    let buttons = i32::from(kind != "mouseReleased");
    let button = if kind == "mouseMoved" { "none" } else { "left" };
    let event = json!({"type": kind, "x": x, "y": y, "button": button, "buttons": buttons, "clickCount": 1});
    browser.devtools("Input.dispatchMouseEvent", event);
}

fn press(browser: &Browser, key: &str, shift: bool) {
    for kind in ["keyDown", "keyUp"] {
        let modifiers = if shift { 8 } else { 0 };
        browser.devtools("Input.dispatchKeyEvent", json!({"type": kind, "key": key, "modifiers": modifiers}));
    }
}

#[test]
fn the_chart_is_updated_and_answers_pointer_and_keyboard() {
    let app = Application::on(Broker::Embedded).start();
    let browser = Browser::start();
    browser.open(&app, "/overview");
    browser.wait_for_text("#moving", "Live");
    browser.click("#table-events summary");
    post(&app, 12, 3);
    browser.wait_for_text("#overview .numbers", "12");
    browser.wait_for_text("#top-Action", "view");
    browser.wait_for("the column rises", || {
        browser.js("return /[1-9]/.test(document.querySelector('.bars').getAttribute('d'))") == true
    });
    assert_eq!(browser.count("#table-events[open]"), 1);
    // The tooltip stays when the chart beneath is updated.
    pointer(&browser, "mouseMoved", column(&browser, 0));
    browser.wait_for_text(".over .tip", "12 events");
    assert_eq!(browser.texts(".over .tip bdi"), ["view", "login"]);
    post(&app, 1, 1);
    browser.wait_for_text("#overview .numbers", "13");
    assert_eq!(browser.count(".over .tip"), 1);
    // The keyboard: to the left, a range, and out of it.
    browser.js("document.querySelector('.plot').focus()");
    press(&browser, "ArrowLeft", false);
    browser.wait_for_text(".over[aria-live=polite] .tip", "No data");
    press(&browser, "ArrowRight", true);
    browser.wait_for_text(".over .tip", "events");
    assert_eq!(browser.count(".over .range"), 1);
    press(&browser, "Escape", false);
    browser.wait_for("the range is left", || browser.count(".over .range") == 0);
    press(&browser, "Escape", false);
    browser.wait_for("the crosshair is left", || browser.count(".over .tip") == 0);
    assert_eq!(browser.complaints(), Vec::<String>::new());
    // A drag chooses three columns.
    pointer(&browser, "mousePressed", column(&browser, -2));
    pointer(&browser, "mouseMoved", column(&browser, -1));
    pointer(&browser, "mouseMoved", column(&browser, 0));
    pointer(&browser, "mouseReleased", column(&browser, 0));
    browser.wait_for("the history of the range", || browser.location().contains("/history?since="));
    let location = browser.location();
    let time = |name: &str| {
        let (_, rest) = location.split_once(&format!("{name}=")).expect("a time");
        let text = rest.split('&').next().expect("a value").replace("%3A", ":");
        footfall::event::time::parse_ms(&text).unwrap_or_else(|| panic!("{location}"))
    };
    assert_eq!(time("until") - time("since"), 45_000, "{location}");
    browser.open(&app, "/overview");
    browser.wait_for_text("#moving", "Live");
    app.kill();
    browser.wait_for_text("#moving", "Server unreachable. Showing data from");
}

#[test]
fn the_page_works_without_scripts() {
    let app = Application::on(Broker::Embedded).start();
    post(&app, 12, 3);
    stats(&app, 12);
    let browser = Browser::without_scripts();
    browser.open(&app, "/overview");
    let page = app.get("/overview").expect(200).text().to_owned();
    assert!(page.contains("no JavaScript") && page.contains("<dd>12</dd>"), "{page}");
    browser.click(".plot svg a");
    browser.wait_for("the history of the column", || browser.location().contains("/history?since="));
}
