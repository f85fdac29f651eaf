//! The pages in a real Chromium.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::nginx::base_path;
use crate::common::wait::eventually;
use crate::common::{
    Application, Broker, Browser, Cursor, Kafka, NewRecord, Proxy, Topic, Weather, assert_same_set, on_every_broker,
    on_three_brokers,
};
use serde_json::{Value, json};

on_every_broker! {
    a_sent_form_appears_as_a_row_at_once,
    two_windows_see_each_others_events,
    nothing_is_lost_or_doubled_between_first_paint_and_stream,
    a_users_past_and_live_events_are_counted,
}

on_three_brokers! {
    nothing_is_lost_or_doubled_between_first_paint_and_stream,
}

fn place(receipt: &Value) -> String {
    format!("{}-{}", receipt["partition"], receipt["offset"])
}

fn event(user: &str, action: &str) -> Value {
    json!({"user": user, "action": action})
}

// --- The form --------------------------------------------------------------------------------------------------------

fn a_sent_form_appears_as_a_row_at_once(broker: Broker) {
    let app = Application::on(broker).start();
    let browser = Browser::start();
    browser.open_live(&app, "/");
    assert!(browser.text("#empty").is_some_and(|words| words.contains("Listening for events")));
    browser.fill("#details", r#"{"page": "/cart", "items": 3}"#);
    browser.send("Zoë <b>", "log in");
    browser.wait_for_rows(1);
    assert_eq!(browser.text("#rows .who").as_deref(), Some("Zoë <b>"));
    assert_eq!(browser.text("#rows .what").as_deref(), Some("log in"));
    assert!(browser.text("#rows .rest").is_some_and(|rest| rest.contains("page=/cart") && rest.contains("items=3")));
    assert!(browser.text("#empty").is_none());
    browser.wait_for_text("#receipt", "Saved to Kafka");
    // Ready for the next event: the user stays, the action is selected.
    assert_eq!((browser.value("#user"), browser.focused()), ("Zoë <b>".into(), "action".into()));
    let selected =
        "const { selectionStart: a, selectionEnd: b, value } = document.activeElement; return value.slice(a, b)";
    assert_eq!(browser.js(selected), "log in");
    browser.press("out");
    browser.press_enter();
    browser.wait_for_rows(2);
    assert_eq!(browser.texts("#rows .what"), ["out", "log in"]);
    assert_eq!(browser.complaints(), Vec::<String>::new());
    assert_eq!(app.topic().records().len(), 2);
}

#[test]
fn a_form_error_is_shown_at_its_field_and_the_input_stays() {
    let app = Application::on(Broker::Embedded).start();
    let browser = Browser::start();
    browser.open_live(&app, "/");
    browser.fill("#details", "{no json");
    browser.send("Ann", " ");
    browser.wait_for_text("#problem", "Not sent");
    assert!(browser.text("#action-error").is_some_and(|words| !words.is_empty()));
    assert!(browser.text("#details-error").is_some_and(|words| !words.is_empty()));
    assert!(browser.text("#user-error").is_none_or(|words| words.is_empty()));
    assert_eq!((browser.focused(), browser.value("#user")), ("action".into(), "Ann".into()));
    assert_eq!(browser.value("#details"), "{no json");
    // An error at the top leads to its field.
    browser.click("#problem a[href='#details']");
    assert_eq!(browser.focused(), "details");
    browser.fill("#details", "");
    browser.send("Ann", "login");
    browser.wait_for_rows(1);
    assert!(browser.text("#problem").is_none() && browser.count("[aria-invalid]") == 0);
}

#[test]
fn a_rejected_event_stays_in_the_form_with_the_reason() {
    let app = Application::at("127.0.0.1:9").start_without_waiting_for_kafka();
    let browser = Browser::start();
    browser.open_live(&app, "/");
    browser.wait_for_text("#broker-notice", "Kafka unreachable since");
    browser.wait_for_text("#connection", "Kafka unreachable");
    browser.send("Ann", "login");
    browser.wait_for_text("#problem", "Try again in");
    assert_eq!((browser.value("#user"), browser.value("#action")), ("Ann".into(), "login".into()));
    app.kill();
    browser.send("Ann", "login");
    // nginx answers for a server that is gone.
    browser.wait_for_text("#problem", if base_path().is_empty() { "Server unreachable" } else { "502" });
    assert_eq!(browser.value("#user"), "Ann");
}

#[test]
fn a_slow_form_shows_sending_and_a_second_send_writes_one_event() {
    let kafka = Kafka::start();
    // Long enough to see what the form says until then, also on a busy machine.
    let app = Application::at(kafka.servers()).env("FOOTFALL_INGEST__DEADLINE", "5s").start();
    let browser = Browser::start();
    browser.open_live(&app, "/");
    browser.send("Ann", "before");
    browser.wait_for_rows(1);
    let frozen = kafka.freeze(1);
    browser.send("Ann", "order");
    browser.wait_for_text("#event-form button", "Sending…");
    browser.wait_for_text("#problem", "it may or may not be written");
    assert_eq!(browser.text("#event-form button").as_deref(), Some("Send"));
    drop(frozen);
    browser.wait_for("a receipt", || {
        browser.send("Ann", "order");
        browser.wait_for("an answer", || browser.count("[aria-busy]") == 0);
        browser.text("#receipt").is_some_and(|words| words.contains("Saved to Kafka"))
    });
    browser.wait_for_rows(2);
    assert_eq!(app.topic().records().len(), 2);
    browser.click("#receipt a");
    browser.wait_for_text("#fields", "\"action\": \"order\"");
}

/// The three pictures of the README.
#[test]
fn a_killed_broker_is_told_the_form_keeps_the_event_and_nothing_is_lost() {
    let kafka = Kafka::start();
    let app = Application::at(kafka.servers())
        .topic(&Topic::named(kafka.servers(), "user_activity"))
        .env("FOOTFALL_INGEST__DEADLINE", "2s")
        .start();
    let browser = Browser::start();
    browser.resize(1200, 560);
    let picture = |name: &str| {
        let Some(folder) = std::env::var_os("FOOTFALL_TEST_PICTURES") else { return };
        for scheme in ["light", "dark"] {
            browser.prefer(scheme);
            let file = std::path::Path::new(&folder).join(format!("{name}-{scheme}.png"));
            std::fs::write(file, browser.picture()).expect("the picture can be written");
        }
    };
    browser.open_live(&app, "/");
    let before = plausible();
    for event in &before {
        app.accept(event);
    }
    browser.send("Ann", "order");
    browser.wait_for_text("#receipt", "Saved to Kafka");
    browser.wait_for_rows(before.len() + 1);
    picture("outage-1");

    kafka.kill(1);
    browser.wait_for_text("#broker-notice", "Kafka unreachable since");
    assert_eq!(browser.js("return document.title"), "⚠ Kafka unreachable · Live · Footfall");
    browser.fill("#details", "{\"total\": 31.5}");
    browser.send("Ann", "payment");
    browser.wait_for_text("#problem", "Try again in");
    assert_eq!(browser.value("#details"), "{\"total\": 31.5}");
    picture("outage-2");

    kafka.restart(1);
    browser.wait_for("the notice is gone", || browser.count("#broker-notice:not([hidden])") == 0);
    browser.wait_for("a receipt", || {
        browser.send("Ann", "payment");
        browser.wait_for("an answer", || browser.count("[aria-busy]") == 0);
        browser.text("#receipt").is_some_and(|words| words.contains("Saved to Kafka"))
    });
    browser.wait_for_rows(before.len() + 2);
    picture("outage-3");
    assert_eq!(app.topic().records().len(), before.len() + 2);
}

/// Whether the browser restored the page from its cache or loaded it again.
#[test]
fn after_back_the_fields_show_the_filters_of_the_page() {
    let app = Application::on(Broker::Embedded).start();
    for user in ["Ann", "Bob"] {
        app.accept(&event(user, "login"));
    }
    let browser = Browser::start();
    let field = "#filters input[name=user_prefix]";
    browser.open_live(&app, "/");
    // Bob's filter is applied while it is typed, and Enter comes later.
    for (text, user, pause) in [("an", "Ann", false), ("bo", "Bob", true)] {
        let address = || browser.location().ends_with(&format!("?user_prefix={text}"));
        browser.fill(field, text);
        if pause {
            browser.wait_for("the filter is applied", || address() && browser.texts("#rows .who") == [user]);
        }
        browser.press_enter();
        browser.wait_for("the address", address);
    }
    for (text, rows) in [("an", &["Ann"][..]), ("", &["Bob", "Ann"])] {
        browser.back();
        browser.wait_for("the filter of before", || browser.value(field) == text);
        browser.wait_for("its rows", || browser.texts("#rows .who") == rows);
    }

    browser.open(&app, "/history?user_prefix=an");
    browser.fill(field, "bo");
    browser.press_enter();
    browser.wait_for("the address", || browser.location().contains("user_prefix=bo"));
    browser.back();
    browser.wait_for("the page of before", || browser.location().contains("user_prefix=an"));
    browser.wait_for("its filter", || browser.value(field) == "an");
}

#[test]
fn contains_finds_what_the_rows_show_and_aa_makes_it_exact() {
    let app = Application::on(Broker::Embedded).start();
    app.topic().produce(&NewRecord::new().value(r#"{"user":"Ann","action":"Checkout","note":"\ud83d\udd25"}"#));
    app.accept(&event("Bob", "login"));
    let browser = Browser::start();
    browser.open_live(&app, "/");
    browser.wait_for_rows(2);
    for text in ["checkOUT", "🔥"] {
        browser.fill("#filters [name=q]", text);
        browser.wait_for("one row", || browser.texts("#rows .who") == ["Ann"]);
    }
    browser.fill("#filters [name=q]", "checkout");
    browser.wait_for("one row", || browser.location().ends_with("?q=checkout"));
    browser.click("#filters .case");
    browser.wait_for("no row", || {
        browser.location().ends_with("?q=checkout&case=exact") && browser.count("#rows > li") == 0
    });
    app.accept(&event("Cy", "checkout"));
    app.accept(&event("Di", "Checkout"));
    browser.wait_for("a new row", || browser.texts("#rows .who") == ["Cy"]);
    browser.click("#filters .case");
    browser.wait_for("all three", || browser.texts("#rows .who") == ["Di", "Cy", "Ann"]);
    assert!(browser.location().ends_with("?q=checkout"));
    browser.open_live(&app, "/?q=checkout&case=exact");
    browser.click("#clear");
    browser.wait_for("no filters", || browser.count("#filters input:checked") == 0 && browser.count("#rows > li") == 4);
    browser.open(&app, "/history?q=checkout&case=exact");
    browser.wait_for("one row", || browser.texts("#rows .who") == ["Cy"]);
    assert_eq!(browser.js("return document.querySelector('#filters [name=case]').checked"), true);
}

#[test]
fn the_latest_users_and_actions_are_suggested() {
    let app = Application::on(Broker::Embedded).start();
    app.accept(&event("before", "old"));
    let browser = Browser::start();
    browser.open_live(&app, "/");
    let offered = |list: &str| -> HashSet<String> {
        let script = "return [...document.getElementById(arguments[0]).options].map((option) => option.value)";
        serde_json::from_value(browser.js_with(script, list.into())).expect("values")
    };
    browser.wait_for("the one before", || offered("users") == HashSet::from(["before".into()]));
    app.accept(&event("later", "new"));
    browser.wait_for_rows(2);
    browser.wait_for("both users", || offered("users") == HashSet::from(["before".into(), "later".into()]));
    browser.wait_for("both actions", || offered("actions") == HashSet::from(["old".into(), "new".into()]));
}

#[test]
fn the_empty_page_shows_programs_and_turns_into_the_first_event() {
    let app = Application::on(Broker::Embedded).start();
    let browser = Browser::start();
    browser.open_live(&app, "/");
    let command = || browser.text("input:checked + label + .way pre").unwrap_or_default();
    let place = format!("http://{}{}", browser.host(&app), base_path());
    assert!(command().ends_with(&format!("{place}/api/v1/events")), "{}", command());
    browser.click("label[for=way-python]");
    assert!(command().contains("urllib.request") && command().contains(&place), "{}", command());
    // The tabs are radio buttons: the arrow keys choose.
    browser.js("document.getElementById('way-python').focus()");
    browser.press_right();
    assert!(command().contains("package main"), "{}", command());
    browser.click(".way button[data-copy=code-go]");
    browser.wait_for_text(".way button[data-copy=code-go]", "Copied");
    let receipt = app.accept(&event("Ann", "login"));
    browser.wait_for_rows(1);
    let words = format!("partition {}, offset {}", receipt["partition"], receipt["offset"]);
    browser.wait_for_text("#first", &words);
    assert_eq!(browser.text("#empty"), None);
    browser.click("#first a");
    browser.wait_for("the record", || browser.location().starts_with("/events/"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

// --- The feed --------------------------------------------------------------------------------------------------------

#[test]
fn a_beacon_of_the_page_is_an_event() {
    let app = Application::on(Broker::Embedded).start();
    let browser = Browser::start();
    browser.open_live(&app, "/");
    let queued =
        browser.js("return navigator.sendBeacon('./api/v1/events', JSON.stringify({user: 'Ann', action: 'left'}));");
    assert_eq!(queued, true);
    browser.wait_for_text("#rows .who", "Ann");
}

fn two_windows_see_each_others_events(broker: Broker) {
    let app = Application::on(broker).start();
    let (one, other) = (Browser::start(), Browser::start());
    one.open_live(&app, "/");
    other.open_live(&app, "/");
    one.send("Ann", "hello");
    other.wait_for_text("#rows .who", "Ann");
    other.send("Bob", "hello yourself");
    assert_eq!(one.wait_for_rows(2), other.wait_for_rows(2));
}

fn nothing_is_lost_or_doubled_between_first_paint_and_stream(broker: Broker) {
    let app = Application::on(broker).start();
    let browser = Browser::start();
    let mut sent: Vec<String> = Vec::new();
    for round in 0..5 {
        // Slow enough that every row is shown, fast enough that some events fall between first paint and stream.
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                (0..8)
                    .map(|n| {
                        std::thread::sleep(Duration::from_millis(30));
                        place(&app.accept(&event("u", &format!("{round} {n}"))))
                    })
                    .collect::<Vec<_>>()
            });
            browser.open(&app, "/");
            sent.extend(writer.join().expect("all accepted"));
        });
        browser.wait_for("all rows", || browser.rows().len() >= sent.len());
        assert_same_set(sent.clone(), browser.rows());
    }
}

#[test]
fn many_events_at_once_are_counted_exactly_and_can_be_fetched() {
    let app = Application::on(Broker::Embedded).start();
    let browser = Browser::start();
    browser.open_live(&app, "/");
    let batch: Vec<Value> = (0..400).map(|n| event("crowd", &format!("step {n}"))).collect();
    app.post(&json!(batch)).expect(201);
    browser.wait_for_text("#count", "400 since you opened this page");
    let shown = || browser.count("#rows > li.event");
    let skipped = || -> usize {
        let rows = browser.texts("#rows > li.skip");
        rows.iter()
            .map(|row| row.split(' ').next().and_then(|n| n.replace(',', "").parse::<usize>().ok()).expect("a count"))
            .sum()
    };
    browser.wait_for("all are shown or counted", || shown() + skipped() == 400);
    assert!(skipped() > 0, "{}", shown());
    let rows = browser.texts("#rows > li.skip");
    assert!(rows[0].contains("not shown (too many to show)"), "{rows:?}");
    // The link shows exactly those.
    let count: usize = rows[0].split(' ').next().expect("a count").parse().expect("a number");
    browser.click("#rows > li.skip a");
    browser.wait_for("the history", || browser.location().starts_with("/history?from="));
    let mut found = browser.count("#rows > li.event");
    while browser.count("a[rel=next]") > 0 {
        let before = browser.location();
        browser.click("a[rel=next]");
        browser.wait_for("the next page", || browser.location() != before);
        found += browser.count("#rows > li.event");
    }
    assert_eq!(found, count);
}

/// 2,000 events a second: the page counts each of them, shows a readable part, and neither stalls nor grows. With
/// FOOTFALL_TEST_MINUTES it runs for that long, and the page may have no task over 50 ms and no more memory than with a
/// full list, which a machine that is busy with other tests cannot promise.
#[test]
fn the_page_stays_responsive_at_2000_events_a_second() {
    let minutes: Option<f64> = std::env::var("FOOTFALL_TEST_MINUTES").ok().map(|text| text.parse().expect("minutes"));
    let time = Duration::from_secs_f64(minutes.map_or(6.0, |minutes| minutes * 60.0));
    let app = Application::on(Broker::Kafka).start();
    let browser = Browser::start();
    browser.open_live(&app, "/");
    // The script's start does not count.
    browser.js("window.tasks = []; new PerformanceObserver((list) => tasks.push(...list.getEntries().map((task) => [task.startTime, task.duration]))) \
        .observe({ type: 'longtask' })");
    let memory = || -> [u64; 2] {
        browser.devtools("HeapProfiler.collectGarbage", json!({}));
        let heap = browser.js("return performance.memory.usedJSHeapSize").as_u64().expect("bytes");
        let nodes = browser.devtools("Memory.getDOMCounters", json!({}))["nodes"].as_u64().expect("a number");
        [heap, nodes]
    };
    let started = Instant::now();
    let (mut written, mut first) = (0, None);
    while started.elapsed() < time {
        let due = (started.elapsed().as_secs_f64() * 2000.0) as usize;
        let records: Vec<_> =
            (written..due).map(|n| NewRecord::event(&format!("user-{}", n % 97), &format!("step-{}", n % 7))).collect();
        app.topic().produce_all(&records);
        written = due;
        // When the list has its largest size.
        if started.elapsed() > time / 3 && first.is_none() {
            first = Some(memory());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let count = format!("{} since you opened this page", thousands(written));
    browser.wait_for("all are counted", || browser.text("#count").as_deref() == Some(count.as_str()));
    let rows = browser.count("#rows > li");
    assert!((100..=500).contains(&rows), "{rows} rows");
    let tasks: Vec<[f64; 2]> = serde_json::from_value(browser.js("return tasks")).expect("beginnings and milliseconds");
    let longest = tasks.iter().map(|[_, ms]| *ms).fold(0.0, f64::max);
    let (before, after) = (first.expect("it was asked"), memory());
    println!(
        "{written} events; {} long tasks, the longest {longest} ms; heap and nodes {before:?} to {after:?}",
        tasks.len()
    );
    if minutes.is_some() {
        assert!(after[0] < before[0] + 1_000_000 && after[1] < before[1] * 5 / 4, "{before:?} to {after:?}");
        assert!(tasks.is_empty(), "{tasks:?}");
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// The account of the page: its numbers by name. It adds up whenever it is read.
fn account(browser: &Browser) -> HashMap<String, i64> {
    let words = browser.text("#account").expect("the account");
    let numbers = words.split(' ').collect::<Vec<_>>();
    let number = |text: &str| text.replace(',', "").parse::<i64>().ok();
    let named = numbers.windows(2).filter_map(|pair| Some((pair[1].to_owned(), number(pair[0])?)));
    let account: HashMap<String, i64> = named.collect();
    let sum: i64 = account.iter().filter(|(name, _)| *name != "arrived").map(|(_, count)| count).sum();
    assert_eq!(account["arrived"], sum, "{words}");
    account
}

#[test]
fn the_account_adds_up_under_load_with_a_filter_a_pause_a_hidden_tab_and_a_lost_broker() {
    let kafka = Kafka::start();
    let app = Application::at(kafka.servers()).env("FOOTFALL_INGEST__DEADLINE", "2s").start();
    let browser = Browser::start();
    app.accept(&event("before", "step-1"));
    app.wait_for_the_feed();
    browser.open_live(&app, "/?action=step-1");
    assert_eq!(browser.text("#account").as_deref(), Some("0 arrived = 0 shown · 0 lost"));
    let start = Cursor::parse(&app.topic().end());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also after a failure, or the scope would not end.
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let batch: Vec<Value> = (0..100).map(|n| event("crowd", &format!("step-{}", n % 7))).collect();
            while !stop.load(Ordering::Relaxed) {
                // Refused while the broker is away.
                app.post(&json!(batch));
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        browser.wait_for("some are left out", || account(&browser).get("left").is_some_and(|count| *count > 100));
        assert!(account(&browser)["filtered"] > 100);
        browser.click("#pause");
        browser.wait_for("some wait", || account(&browser).get("waiting").is_some_and(|count| *count > 50));
        assert!(icon(&browser).ends_with("/favicon-waiting.svg"));
        browser.click("#pause");
        browser.new_tab();
        // After 5 s a hidden page closes its stream.
        std::thread::sleep(Duration::from_secs(7));
        browser.go_to_tab(0);
        let before = account(&browser)["arrived"];
        browser.wait_for("it goes on", || account(&browser)["arrived"] > before + 1000);
        kafka.kill(1);
        browser.wait_for_text("#broker-notice", "Kafka unreachable since");
        assert!(icon(&browser).ends_with("/favicon-away.svg"));
        kafka.restart(1);
        browser.wait_for("the notice is gone", || browser.count("#broker-notice:not([hidden])") == 0);
        let before = account(&browser)["arrived"];
        browser.wait_for("it goes on", || account(&browser)["arrived"] > before + 1000);
    });
    let arrived = start.distance(&Cursor::parse(&app.topic().end()));
    browser.wait_for("all have arrived", || account(&browser)["arrived"] == arrived);
    assert_eq!(account(&browser)["lost"], 0);
    browser.wait_for("the icon is live", || icon(&browser).ends_with("/favicon-live.svg"));
    for state in ["away", "live", "waiting"] {
        let icon = app.get(&format!("/static/favicon-{state}.svg")).expect(200);
        assert_eq!(icon.header("content-type"), Some("image/svg+xml"));
    }
    // Without the filter it counts anew, and nothing is filtered.
    browser.click("#chips a");
    browser.wait_for("a new account", || account(&browser)["arrived"] == 0);
    app.post(&json!((0..400).map(|n| event("crowd", &format!("{n}"))).collect::<Vec<_>>())).expect(201);
    browser.wait_for("all have arrived", || account(&browser)["arrived"] == 400);
    assert!(!account(&browser).contains_key("filtered"));
}

/// Stops the writer when it is dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The address of the tab's icon.
fn icon(browser: &Browser) -> String {
    browser.js("return document.querySelector('link[rel=icon]').href").as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_gap_is_lost_in_the_account() {
    let app = Application::on(Broker::Kafka).start();
    let port = app.address.port().to_string();
    let browser = Browser::start();
    app.accept(&event("before", "x"));
    app.wait_for_the_feed();
    browser.open_live(&app, "/");
    app.kill();
    browser.wait_for_text("#connection", "reconnecting");
    app.topic().produce_all(&(0..30).map(|n| NewRecord::event("gone", &n.to_string())).collect::<Vec<_>>());
    for place in app.topic().end().split('.') {
        let (partition, end) = place.split_once('-').expect("a cursor");
        app.topic().delete_before(partition.parse().expect("a partition"), end.parse().expect("an offset"));
    }
    let again = app.replica().env("ROCKET_PORT", &port).start();
    browser.wait_for("the loss", || account(&browser).get("lost") == Some(&30));
    again.accept(&event("after", "x"));
    browser.wait_for("the next one", || account(&browser)["arrived"] == 31);
    assert_eq!(account(&browser)["shown"], 1);
}

#[test]
fn a_page_whose_stream_is_late_says_how_far_it_is_behind() {
    let app = Application::on(Broker::Embedded).start();
    let browser = Browser::start();
    let proxy = Proxy::to(browser.host(&app));
    browser.open_at(proxy.address(), "/");
    browser.wait_for_text("#connection", "live");
    app.accept(&event("Ann", "login"));
    browser.wait_for_rows(1);
    // The strip arrives, and says where the server is.
    proxy.set(Weather::Buffer(1 << 20));
    app.accept(&event("Ann", "logout"));
    browser.wait_for_text("#connection", " s behind");
    assert_eq!((browser.count("#dot.warn"), browser.rows().len()), (1, 1));
    proxy.set(Weather::Refuse);
    proxy.restore();
    browser.wait_for_rows(2);
    browser.wait_for("it has caught up", || browser.text("#connection").as_deref() == Some("live"));
}

#[test]
fn the_strip_shows_the_last_minutes_by_action_and_its_legend_filters() {
    let app = Application::on(Broker::Embedded).start();
    let browser = Browser::start();
    for action in ["login", "login", "login", "view", "view"] {
        app.accept(&event("Ann", action));
    }
    app.wait_for_the_feed();
    browser.open_live(&app, "/");
    let words = || {
        browser.js("return document.querySelector('#strip .plot').ariaLabel").as_str().unwrap_or_default().to_owned()
    };
    let names = || browser.texts("#strip .legend bdi");
    assert!(words().starts_with("Events by action, last 5 minutes: 5 events"), "{}", words());
    assert_eq!(names(), ["login", "view"]);
    // It is updated, and follows the filters.
    app.accept(&event("Ann", "view"));
    browser.wait_for("the next event", || words().contains(": 6 events"));
    browser.click("#strip .legend li:first-child .without");
    browser.wait_for("the filter", || browser.location() == "/?not_action=login");
    browser.wait_for("the strip of the filter", || names() == ["view"] && words().contains(": 3 events"));
    app.accept(&event("Ann", "login"));
    app.accept(&event("Bob", "view"));
    browser.wait_for("the next match", || words().contains(": 4 events"));
    browser.click("#strip .legend li a");
    browser.wait_for("the other filter", || browser.location() == "/?action=view");
    // A column leads to the history of its time.
    browser.js(
        "document.querySelector('#strip svg a:last-of-type').dispatchEvent(new MouseEvent('click', { bubbles: true }))",
    );
    browser.wait_for("the history", || browser.location().starts_with("/history?action=view&since="));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).expect("digits")).collect();
    groups.join(",")
}

#[test]
fn pause_counts_waiting_events_and_resume_shows_them() {
    let app = Application::on(Broker::Embedded).start();
    let browser = Browser::start();
    app.accept(&event("before", "x"));
    browser.open_live(&app, "/");
    browser.wait_for_rows(1);
    browser.click("#pause");
    assert_eq!(browser.text("#connection").as_deref(), Some("paused"));
    for n in 0..12 {
        app.accept(&event("during", &n.to_string()));
    }
    browser.wait_for_text("#pause", "Resume (+12 new)");
    assert_eq!(browser.js("return document.title"), "(+12) Live · Footfall");
    assert_eq!(browser.rows().len(), 1);
    // A filter that is typed while paused is applied; the waiting events match it.
    browser.click("#pause");
    browser.wait_for_rows(13);
    assert_eq!(browser.text("#pause").as_deref(), Some("Pause"));
    assert_eq!(browser.js("return document.title"), "Live · Footfall");
    app.accept(&event("after", "x"));
    browser.wait_for_rows(14);
}

#[test]
fn the_rate_is_right_from_the_start_and_after_a_filter() {
    let app = Application::on(Broker::Embedded).start();
    let browser = Browser::start();
    for n in 0..20 {
        app.accept(&event("Ann", if n % 4 == 0 { "review" } else { "login" }));
    }
    app.wait_for_the_feed();
    browser.open_live(&app, "/");
    // The rate is of the last 5 seconds, also of those before the page was opened.
    let rate = || {
        browser.wait_for("a rate", || browser.text("#rate").is_some_and(|rate| rate != "–"));
        assert_eq!(browser.text("#count").as_deref(), Some("0 since you opened this page"));
        browser.text("#rate").and_then(|rate| rate.trim_end_matches("/s").parse::<f64>().ok()).expect("a number")
    };
    assert!(rate() <= 4.0);
    browser.open_live(&app, "/?action=review");
    assert!(rate() <= 1.0);
    app.accept(&event("Ann", "review"));
    browser.wait_for_text("#count", "1 since you opened this page");
    browser.click("#chips a");
    browser.wait_for_text("#count", "0 since you changed the filters");
}

#[test]
fn the_list_does_not_move_under_pointer_or_keyboard() {
    let app = Application::on(Broker::Embedded).start();
    let browser = Browser::start();
    app.accept(&event("before", "x"));
    browser.open_live(&app, "/");
    browser.wait_for_rows(1);
    browser.press("j");
    assert_eq!(browser.js("return document.activeElement.closest('#rows > li') !== null"), true);
    app.accept(&event("while", "reading"));
    browser.wait_for_text("#held", "+1 new");
    assert_eq!(browser.rows().len(), 1);
    browser.click("#held");
    browser.wait_for_rows(2);
    assert!(browser.text("#held").is_none());
}

#[test]
fn filters_are_in_the_address_and_survive_a_reload() {
    let app = Application::on(Broker::Embedded).start();
    let browser = Browser::start();
    app.accept(&event("Ann", "login"));
    app.accept(&event("Bob", "login"));
    browser.open_live(&app, "/");
    browser.wait_for_rows(2);
    browser.fill("#filters [name=user_prefix]", "aN");
    browser.wait_for("the filter", || browser.location() == "/?user_prefix=aN");
    browser.wait_for_rows(1);
    // A whole name becomes a chip.
    browser.fill("#filters [name=user_prefix]", "Ann");
    browser.press_enter();
    browser.wait_for("the filter", || browser.location() == "/?user=Ann");
    browser.wait_for_text(".chip", "user is Ann");
    assert_eq!(browser.value("#filters [name=user_prefix]"), "");
    browser.wait_for_rows(1);
    app.accept(&event("Bob", "hidden"));
    app.accept(&event("Ann", "shown"));
    browser.wait_for_rows(2);
    assert_eq!(browser.texts("#rows .who"), ["Ann", "Ann"]);
    browser.reload();
    assert_eq!((browser.location(), browser.texts(".chip b")), ("/?user=Ann".into(), vec!["Ann".into()]));
    browser.wait_for_rows(2);
    browser.fill("#filters [name=q]", "nothing like that");
    browser.press_enter();
    browser.wait_for_text("#empty", "Nothing matches yet");
    browser.click("#clear");
    browser.wait_for("no filter", || browser.location() == "/");
    browser.wait_for_rows(4);
    assert_eq!(browser.js("return document.activeElement.name"), "user_prefix");
    browser.back();
    browser.wait_for("the filters of before", || browser.location().contains("user=Ann"));
    browser.wait_for("none", || browser.rows().is_empty());
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

fn payment(user: &str, kind: &str, page: &str) -> Value {
    json!({"user": user, "action": "pay", "card": {"kind": kind}, "page": page})
}

#[test]
fn fields_of_rows_become_filters_and_columns() {
    let app = Application::on(Broker::Embedded).start();
    app.accept(&payment("Ann", "visa", "/cart"));
    app.accept(&payment("Bob", "amex", "/"));
    let browser = Browser::start();
    browser.open_live(&app, "/");
    browser.wait_for_rows(2);
    let cells_of = |browser: &Browser| -> Vec<String> {
        browser.texts("#rows .cell").iter().map(|cell| cell.trim_start_matches("page=").to_owned()).collect()
    };
    let cells = || cells_of(&browser);
    // Under the pointer.
    browser.js("[...document.querySelectorAll('#rows bdi')].find(({ textContent }) => textContent === 'page=/cart') \
            .dispatchEvent(new PointerEvent('pointerover', { bubbles: true, pointerType: 'mouse' }))");
    browser.wait_for("its links", || browser.texts("#rows .like a") == ["⊕", "⊖", "▥"]);
    // Without the pointer, under which the list would not move.
    browser.js("document.querySelector('#rows .like a:last-child').click()");
    browser.wait_for("a column", || cells() == ["/", "/cart"]);
    assert_eq!(browser.location(), "/?col=%2Fpage");
    assert_eq!(browser.texts("#head .cell bdi"), ["page"]);
    app.accept(&payment("Cy", "visa", "/live"));
    browser.wait_for("its live row", || cells() == ["/live", "/", "/cart"]);
    // In the open row, for the keyboard.
    browser.click("#rows li:last-child .rest");
    browser.wait_for_text("#rows .json", "\"kind\": ");
    browser.click("#rows .json [aria-label^='Only card.kind']");
    browser.wait_for("only visa", || browser.texts("#rows .who") == ["Cy", "Ann"]);
    browser.wait_for_text(".chip", "card.kind = visa");
    let narrowed = "?f=%2Fcard%2Fkind%3Aeq%3Avisa&col=%2Fpage";
    assert_eq!(browser.location(), format!("/{narrowed}"));
    app.accept(&payment("Di", "amex", "/no"));
    app.accept(&payment("Ed", "visa", "/yes"));
    browser.wait_for("the one that matches", || {
        // The pointer may be over the list.
        browser.js("document.getElementById('held').click()");
        cells() == ["/yes", "/live", "/cart"]
    });
    browser.open(&app, &format!("/history{narrowed}"));
    assert_eq!(cells(), ["/yes", "/live", "/cart"]);
    // A condition of the form.
    browser.click("#by-field > summary");
    browser.fill("#by-field [name=field]", "page");
    browser.fill("#by-field [name=value]", "/yes");
    browser.press_enter();
    browser.wait_for("the address", || browser.location().contains("f=%2Fpage%3Aeq%3A%2Fyes"));
    assert_eq!(cells(), ["/yes"]);
    assert_eq!(browser.complaints(), Vec::<String>::new());

    let plain = Browser::without_scripts();
    plain.open(&app, &format!("/{narrowed}&not_user=Cy"));
    assert_eq!(cells_of(&plain), ["/yes", "/cart"]);
    plain.click(".chip a[aria-label='Remove the filter user is not Cy']");
    assert_eq!(plain.wait_for_rows(3).len(), 3);
    plain.click("#by-field > summary");
    plain.fill("#by-field [name=field]", "/page");
    plain.fill("#by-field [name=value]", "/live");
    plain.click("#by-field button");
    plain.wait_for("one row", || plain.texts("#rows .who") == ["Cy"]);
    plain.click("#head .cell a");
    plain.wait_for("no column", || plain.texts("#rows .cell").is_empty() && plain.count("#rows > li") == 1);
    plain.click("#rows li .rest");
    plain.click("#rows .to.action");
    plain.wait_for("one more filter", || plain.location().ends_with("action=pay"));
    plain.click("#rows li .rest");
    plain.click("#rows a.whole");
    plain.click("#fields [aria-label^='Without user']");
    plain.wait_for("the history", || {
        plain.location().starts_with("/history?") && plain.location().contains("not_user=Cy")
    });
    assert_eq!(plain.count("#rows > li"), 0);
}

#[test]
fn the_full_record_is_shown_on_demand() {
    let app = Application::on(Broker::Kafka).start();
    let browser = Browser::start();
    browser.open_live(&app, "/");
    app.post(&json!({"user": "Ann", "action": "pay", "basket": {"items": [1, 2]}})).expect(201);
    browser.wait_for_rows(1);
    browser.click("#rows summary");
    browser.wait_for_text("#rows details", "\"basket\": {");
    let shown = browser.text("#rows details").expect("the record");
    for part in ["partition", "offset", "Copy"] {
        assert!(shown.to_lowercase().contains(&part.to_lowercase()), "{part} in {shown}");
    }
    // Records that are not ours are rows too.
    browser.click("#rows summary");
    app.topic().produce(&NewRecord::new().key("their-key").value("not json at all"));
    app.topic().produce(&NewRecord::new().key("their-key"));
    app.topic().produce(&NewRecord::new().value(vec![0, 159, 146, 150]));
    browser.press_escape();
    browser.js("document.activeElement.blur()");
    browser.wait_for("all rows", || {
        // The pointer may be over the list.
        browser.js("document.querySelector('#held').click()");
        browser.rows().len() == 4
    });
    let rest = browser.texts("#rows .rest").join("|");
    for words in ["not JSON", "tombstone", "binary"] {
        assert!(rest.contains(words), "{words} in {rest}");
    }
}

#[test]
fn a_search_continues_by_itself_and_can_be_stopped() {
    let app = Application::on(Broker::Kafka).start();
    let mut records: Vec<_> = (0..120_000).map(|n| NewRecord::event("crowd", &n.to_string())).collect();
    let hour_ago = (time::OffsetDateTime::now_utc() - time::Duration::hours(1)).unix_timestamp() * 1000;
    records[0] = NewRecord::event("needle", "first").timestamp(hour_ago);
    for chunk in records.chunks(20_000) {
        app.topic().produce_all(chunk);
    }
    let browser = Browser::start();
    browser.open(&app, "/history?user=needle");
    browser.wait_for_text("#search-words", "Searched all 120,000 records; 1 found.");
    assert_eq!(browser.texts("#rows .who"), ["needle"]);
    assert_eq!(browser.count("#next:not([hidden])"), 0);
    browser.wait_for_text("#summary", "1 event");
    assert_eq!(browser.texts("#exported"), ["1"]);
    // The histogram counts the match among all records.
    let sums = "return [0, 1].map((series) => [...document.querySelectorAll('#histogram svg a')] \
                .reduce((sum, { dataset }) => sum + Number(dataset.n.split(',')[series]), 0))";
    browser.wait_for("the match in the histogram", || browser.js(sums) == json!([1, 119_999]));
    assert_eq!(browser.js("return document.querySelector('#histogram .searched').style.left"), "0%");
    // Its columns are ranges of the page, and so are the periods.
    browser.js("const svg = document.querySelector('#histogram svg'); \
         const { left, width, top } = svg.getBoundingClientRect(); \
         const go = (type, part) => svg.dispatchEvent(new PointerEvent(type, \
             { bubbles: true, button: 0, clientX: left + width * part, clientY: top + 5 })); \
         go('pointerdown', 0.001); go('pointermove', 0.1); go('pointerup', 0.1);");
    browser.wait_for("the range", || {
        ["user=needle", "since=2", "until=2"].iter().all(|part| browser.location().contains(part))
    });
    browser.wait_for("the match", || browser.texts("#rows .who") == ["needle"]);
    browser.click(".periods a");
    browser
        .wait_for("the period", || browser.location().contains("since=-5m") && !browser.location().contains("until"));
    assert_eq!(browser.texts(".periods [aria-current]"), ["5m"]);
    browser.wait_for("the search", || browser.texts("#search-words").iter().all(|words| words.contains("0 found.")));
    browser.open(&app, "/history?user=needle");
    browser.wait_for_rows(1);
    // The row is like any other.
    browser.click("#rows summary");
    browser.wait_for_text("#rows details", "Copy");
    browser.open(&app, "/history?user=nobody");
    browser.js("document.getElementById('stop').click()");
    browser.wait_for_text("#search-words", "found.");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

// --- A user ----------------------------------------------------------------------------------------------------------

/// `login 1`, as on the page.
fn actions(browser: &Browser) -> Vec<String> {
    let (names, counts) = (browser.texts("#counted tbody th"), browser.texts("#counted tbody td:nth-child(2)"));
    names.iter().zip(&counts).map(|(name, count)| format!("{name} {count}")).collect()
}

fn a_users_past_and_live_events_are_counted(broker: Broker) {
    let app = Application::on(broker).start();
    app.accept(&event("نورا / 1", "login"));
    app.accept(&event("Ann", "login"));
    app.accept(&event("نورا / 1", "page_view"));
    let browser = Browser::start();
    browser.open_live(&app, "/?user=%D9%86%D9%88%D8%B1%D8%A7%20%2F%201");
    browser.click("#rows summary");
    browser.wait_for_text("#rows .user", "نورا / 1’s events");
    browser.click("#rows .user");
    browser.wait_for_text("#title", "نورا / 1");
    browser.wait_for_text("#connection", "live");
    assert_eq!(browser.wait_for_rows(2).len(), 2);
    let sums = || (browser.text("#events"), actions(&browser));
    assert_eq!(sums(), (Some("2".into()), vec!["login 1".into(), "page_view 1".into()]));
    let last = browser.text("#last-seen").expect("a time");
    for action in ["page_view", "<i>", "page_view"] {
        app.accept(&event("نورا / 1", action));
        app.accept(&event("Ann", "not hers"));
    }
    browser.wait_for_rows(5);
    let expected = vec!["page_view 3".to_owned(), "<i> 1".into(), "login 1".into()];
    // The order does not change while the pointer is on the table.
    browser.wait_for("the sums", || sums().0.as_deref() == Some("5") && sums().1.len() == 3);
    assert_same_set(expected.clone(), sums().1);
    assert!(browser.text("#last-seen").expect("a time") > last);
    let address = browser.js("return document.querySelector('[data-action=\"<i>\"] a').search");
    assert!(address.as_str().is_some_and(|query| query.ends_with("action=%3Ci%3E")), "{address}");
    // The same after a reload, and without script.
    browser.reload();
    browser.wait_for("the same sums", || sums() == (Some("5".into()), expected.clone()));
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let plain = Browser::without_scripts();
    plain.open(&app, "/users/%D9%86%D9%88%D8%B1%D8%A7%20%2F%201");
    assert_eq!((plain.text("#events"), actions(&plain)), (Some("5".into()), expected));
    assert_eq!(plain.wait_for_rows(5), browser.rows());
}

#[test]
fn a_users_live_events_have_the_time_since_the_one_before_and_wait_while_paused() {
    let app = Application::on(Broker::Kafka).start();
    let at = |time: &str, action: &str| json!({"user": "Ann", "action": action, "time": format!("2026-11-23T{time}Z")});
    app.accept(&at("12:00:00", "login"));
    let browser = Browser::start();
    browser.open_live(&app, "/users/Ann");
    browser.wait_for_text("#connection", "live");
    app.accept(&at("12:00:19", "view"));
    browser.wait_for_rows(2);
    app.accept(&at("13:41:19", "buy"));
    browser.wait_for_rows(3);
    let lines = "return [...document.querySelectorAll('#rows > li')].map((li) => (li.querySelector('.what') ?? li).textContent + ' ' + (li.querySelector('.since')?.textContent ?? ''))";
    browser.wait_for("the times", || {
        browser.js(lines) == json!(["buy +101 min", "101 min pause ", "view +19 s", "login "])
    });
    browser.click("#pause");
    app.accept(&at("13:41:20", "wait"));
    browser.wait_for_text("#pause", "Resume (+1 new)");
    assert_eq!(browser.rows().len(), 3);
    browser.click("#pause");
    browser.wait_for_rows(4);
    browser.click("#counted [data-action=view] a");
    browser.wait_for("the filter", || browser.location() == "/users/Ann?action=view");
    browser.wait_for_text("#connection", "live");
    assert_eq!((browser.wait_for_rows(1).len(), browser.text("#events").as_deref()), (1, Some("1")));
    app.accept(&at("13:41:21", "other"));
    app.accept(&at("13:41:22", "view"));
    browser.wait_for_text("#events", "2");
    assert_eq!(browser.texts("#rows .what"), ["view", "view"]);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn skipped_events_of_a_user_are_counted() {
    let app = Application::on(Broker::Embedded).start();
    let browser = Browser::start();
    browser.open_live(&app, "/users/crowd");
    browser.wait_for_text("#empty", "No events from this user. New ones will appear here.");
    let batch: Vec<Value> = (0..400).map(|_| event("crowd", "step")).collect();
    app.post(&json!(batch)).expect(201);
    browser.wait_for_text("#events", "400");
    browser.wait_for_text("#rows > li.skip", "not shown (too many to show)");
    let number =
        |text: Option<String>| text.and_then(|text| text.replace(',', "").parse::<u64>().ok()).expect("a number");
    let steps = number(browser.text("[data-action=step] .n"));
    assert_eq!(steps + number(browser.text("#other .n")), 400, "which actions the others were is not known");
    assert_eq!((browser.text("#empty"), browser.text("#uncounted")), (None, None));
}

#[test]
fn a_users_count_continues_by_itself_and_can_be_stopped() {
    let app = Application::on(Broker::Kafka).start();
    let partition = app.accept(&event("rare", "first"))["partition"].as_i64().expect("a number") as i32;
    let record = |_| NewRecord::event("crowd", "pass").partition(partition);
    for _ in 0..6 {
        app.topic().produce_all(&(0..20_000).map(record).collect::<Vec<_>>());
    }
    let browser = Browser::start();
    browser.open_live(&app, "/users/rare");
    browser.wait_for_text("#search-words", &format!("Counted all 120,001 records in partition {partition}; 1 event."));
    assert_eq!(browser.texts("#rows .what"), ["first"]);
    assert_eq!((browser.text("#events"), actions(&browser)), (Some("1".into()), vec!["first 1".into()]));
    assert_eq!((browser.text("#so-far"), browser.text("#empty")), (None, None));
    app.accept(&event("rare", "second"));
    browser.wait_for_text("#events", "2");
    assert_eq!(browser.texts("#rows .what"), ["second", "first"]);
    browser.open(&app, "/users/rare");
    browser.js("document.getElementById('stop').click()");
    browser.wait_for_text("#search-words", "event");
    // It may have finished before the button was pressed.
    browser.js("document.getElementById('on').hidden || document.getElementById('on').click()");
    browser.wait_for_text("#search-words", "Counted all 120,002");
    browser.wait_for_text("#events", "2");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

// --- Unreachable and back ---------------------------------------------------------------------------------------------------

#[test]
fn a_lost_server_is_shown_and_the_feed_resumes() {
    let app = Application::on(Broker::Kafka).start();
    let port = app.address.port().to_string();
    let browser = Browser::start();
    browser.open_live(&app, "/");
    let mut sent: Vec<String> = (0..5).map(|n| place(&app.accept(&event("before", &n.to_string())))).collect();
    browser.wait_for_rows(5);
    app.kill();
    browser.wait_for_text("#connection", "reconnecting");
    let other = app.replica().start();
    sent.extend((0..5).map(|n| place(&other.accept(&event("meanwhile", &n.to_string())))));
    let again = app.replica().env("ROCKET_PORT", &port).start();
    assert_eq!(again.address.port().to_string(), port);
    sent.extend((0..5).map(|n| place(&again.accept(&event("after", &n.to_string())))));
    browser.wait_for_text("#connection", "live");
    browser.wait_for_rows(15);
    assert_same_set(sent, browser.rows());
}

#[test]
fn a_proxy_that_buffers_the_stream_is_shown_until_it_does_not() {
    let app = Application::on(Broker::Embedded)
        .env("FOOTFALL_FEED__HEARTBEAT", "300ms")
        .env("FOOTFALL_FEED__RETRY", "100ms")
        .start();
    let browser = Browser::start();
    let proxy = Proxy::to(browser.host(&app));
    // The first events pass; then about eight heartbeats are a clump.
    proxy.set(Weather::Buffer(700));
    browser.open_at(proxy.address(), "/");
    browser.wait_for_text("#connection", "live");
    browser.wait_for_text("#proxy-notice", "A proxy buffers this stream");
    browser.wait_for_text("#proxy-notice", &format!("{}/stream", base_path()));
    assert_eq!(browser.count("#dot.warn"), 1);
    proxy.set(Weather::Refuse);
    browser.wait_for_text("#connection", "reconnecting");
    proxy.restore();
    browser.wait_for("no notice", || browser.text("#proxy-notice").is_none());
    assert_eq!(browser.count("#dot.good"), 1);
    // Nothing of the stream arrives.
    proxy.set(Weather::Buffer(1 << 20));
    browser.open_at(proxy.address(), "/");
    browser.wait_for_text("#proxy-notice", "A proxy buffers this stream");
}

#[test]
fn a_gap_is_a_row_that_says_what_is_missing() {
    let app = Application::on(Broker::Kafka).start();
    let port = app.address.port().to_string();
    let browser = Browser::start();
    browser.open_live(&app, "/");
    app.accept(&event("before", "x"));
    browser.wait_for_rows(1);
    app.kill();
    browser.wait_for_text("#connection", "reconnecting");
    let records: Vec<_> = (0..30).map(|n| NewRecord::event("gone", &n.to_string())).collect();
    app.topic().produce_all(&records);
    // The effect of retention.
    for place in app.topic().end().split('.') {
        let (partition, end) = place.split_once('-').expect("a cursor");
        app.topic().delete_before(partition.parse().expect("a partition"), end.parse().expect("an offset"));
    }
    let _again = app.replica().env("ROCKET_PORT", &port).start();
    browser.wait_for_text("#rows li.skip", "30 events not shown (Kafka no longer keeps them)");
    assert_eq!(browser.count("#rows li.skip a"), 0, "nothing is left to be fetched");
}

#[test]
fn ten_tabs_share_the_browsers_connections() {
    let app = Application::on(Broker::Embedded).start();
    let browser = Browser::start();
    browser.open_live(&app, "/");
    for _ in 1..10 {
        browser.new_tab();
        browser.open_live(&app, "/");
    }
    browser.send("Ann", "from the tenth");
    browser.wait_for_rows(1);
    for tab in 0..10 {
        browser.go_to_tab(tab);
        browser.wait_for_text("#connection", "live");
        browser.wait_for_rows(1);
    }
}

// --- Without a script, with the keyboard, narrow, and read aloud -----------------------------------------------------

#[test]
fn the_page_works_without_javascript() {
    let app = Application::on(Broker::Embedded).start();
    let browser = Browser::without_scripts();
    browser.open(&app, "/");
    assert_eq!(browser.count("html.scripted"), 0);
    browser.send("Ann", "plain");
    browser.wait_for_text("#receipt", "Saved to Kafka");
    browser.wait_for_rows(1);
    assert_eq!((browser.text("#rows .who"), browser.text("#rows .what")), (Some("Ann".into()), Some("plain".into())));
    browser.reload();
    browser.wait_for_rows(1);
    assert_eq!(app.topic().records().len(), 1, "a refresh sends nothing");
    browser.send("Bob", " ");
    browser.wait_for_text("#problem", "Not sent");
    assert_eq!(browser.value("#user"), "Bob");
    assert!(browser.text("#action-error").is_some_and(|words| !words.is_empty()));
    // The row opens, and links to the full record.
    browser.open(&app, "/?user=Ann");
    browser.click("#rows summary");
    browser.click("#rows a.whole");
    browser.wait_for("the record", || browser.location().starts_with("/events/"));
    browser.wait_for_text("#fields", "\"action\": \"plain\"");
    browser.click("#again");
    browser.wait_for_text("#title", "Send Ann · plain again?");
    assert_eq!(app.topic().records().len(), 1, "it asks first");
    browser.click(".again button");
    browser.wait_for_text("#receipt", "Saved to Kafka");
    assert_eq!(app.topic().records().len(), 2, "sent again");
}

#[test]
fn the_form_is_open_until_there_are_events_and_then_as_it_was_left() {
    let app = Application::on(Broker::Embedded).start();
    let browser = Browser::start();
    let is_open = || browser.js("return document.getElementById('event-form').checkVisibility()") == true;
    browser.open_live(&app, "/");
    assert!(is_open(), "nothing is there but the form");
    app.accept(&event("Ann", "login"));
    browser.wait_for_rows(1);
    assert!(is_open(), "it does not close by itself");
    browser.open_live(&app, "/");
    assert!(!is_open(), "there are events");
    browser.click("#to-form");
    assert!(is_open());
    assert_eq!(browser.focused(), "user");
    browser.open_live(&app, "/");
    assert!(is_open(), "it was left open");
    browser.click("#send .close");
    assert!(!is_open());
    assert_eq!(browser.focused(), "to-form");
    browser.press("n");
    assert!(is_open());
    assert_eq!(browser.focused(), "user");
    browser.press_escape();
    assert!(!is_open());
    browser.open_live(&app, "/#send");
    assert!(is_open(), "the address asks for it");

    let browser = Browser::without_scripts();
    let is_open = || browser.js("return document.getElementById('event-form').checkVisibility()") == true;
    browser.open(&app, "/");
    assert!(!is_open());
    browser.click("#to-form");
    assert!(is_open());
    browser.click("#send .close");
    assert!(!is_open());
}

#[test]
fn filters_are_folded_where_there_is_no_room() {
    let app = Application::on(Broker::Kafka).start();
    app.accept(&event("Ann", "login"));
    let browser = Browser::start();
    browser.resize(390, 844);
    browser.open_live(&app, "/?user=Ann&not_action=logout");
    browser.wait_for_rows(1);
    let top = browser.js("return document.querySelector('#rows .event').getBoundingClientRect().top");
    assert!(top.as_f64() <= Some(155.0), "the first row is at {top}");
    assert_eq!(browser.text("#unfold-label").as_deref(), Some("2 filters"));
    let are_shown = || browser.js("return document.querySelector('#filters .chip').checkVisibility()") == true;
    assert!(!are_shown());
    browser.click("#unfold-label");
    assert!(are_shown());
    browser.click("#chips .chip a");
    browser.wait_for_text("#unfold-label", "1 filter");
    browser.open(&app, "/?user=Ann&partition=x");
    assert!(are_shown(), "one is wrong");
}

#[test]
fn a_wide_window_shows_the_opened_record_beside_the_list() {
    let app = Application::on(Broker::Embedded).start();
    for n in 0..5 {
        app.accept(&event("Ann", &n.to_string()));
    }
    let browser = Browser::start();
    browser.resize(1700, 900);
    browser.open_live(&app, "/");
    browser.wait_for_rows(5);
    let tops = || {
        browser
            .js("return [...document.querySelectorAll('#rows .event')].map((row) => row.getBoundingClientRect().top)")
    };
    let before = tops();
    for n in [1, 3] {
        browser.js(&format!("document.querySelectorAll('#rows summary')[{n}].click()"));
        browser.wait_for_text("#rows details[open] .detail", "Event time");
        assert_eq!(tops(), before, "no row moves");
        assert_eq!(browser.count("#rows details[open]"), 1, "one record at a time");
        let edges = "return ['#rows details[open] .detail', '#rows details[open] summary'].map((it) => document.querySelector(it).getBoundingClientRect())
            .map(({ left, right }) => [left, right]).flat()";
        let edges = browser.js(edges);
        assert!(edges[0].as_f64() >= edges[3].as_f64(), "beside the list: {edges}");
    }
    let opened = || browser.js("return [...document.querySelectorAll('#rows details')].findIndex((row) => row.open)");
    browser.js("document.querySelectorAll('#rows summary')[3].focus()");
    browser.press("j");
    assert_eq!(opened(), 4, "it follows the focus");
    browser.press("]");
    assert_eq!(opened(), -1);
    browser.js("document.querySelectorAll('#rows summary')[3].click()");
    browser.resize(1400, 900);
    browser.js("document.querySelector('#rows summary').click()");
    assert_eq!(browser.count("#rows details[open]"), 2);
}

#[test]
fn everything_can_be_done_with_the_keyboard() {
    let app = Application::on(Broker::Embedded).start();
    for n in 0..3 {
        app.accept(&event("u", &n.to_string()));
    }
    let browser = Browser::start();
    browser.open_live(&app, "/");
    browser.press("/");
    assert_eq!(browser.js("return document.activeElement.name"), "q");
    browser.press("p");
    assert_eq!(browser.text("#pause").as_deref(), Some("Pause"), "no key while typing");
    browser.fill("#filters [name=q]", "");
    browser.press_escape();
    browser.press("p");
    browser.wait_for_text("#pause", "Resume");
    browser.press("p");
    browser.press("n");
    assert_eq!(browser.focused(), "user");
    browser.press_escape();
    let row = || {
        browser.js("return document.activeElement.closest('#rows > li')?.id ?? ''").as_str().unwrap_or("").to_owned()
    };
    let rows = browser.wait_for_rows(3);
    let stops = "return document.querySelectorAll('#rows summary:not([tabindex=\"-1\"])').length";
    assert_eq!(browser.js(stops), 1, "the list is one stop of the Tab key");
    browser.press("j");
    browser.press("j");
    assert_eq!(row(), format!("e-{}", rows[1]));
    assert_eq!(browser.js("return document.activeElement.tabIndex"), 0);
    browser.press("\u{e015}");
    assert_eq!(row(), format!("e-{}", rows[2]), "the arrow key moves too");
    browser.press("\u{e013}");
    // A filter that is typed and removed does not reload the list.
    std::thread::sleep(Duration::from_millis(400));
    browser.press("k");
    assert_eq!(row(), format!("e-{}", rows[0]));
    browser.press_enter();
    assert_eq!(browser.count("#rows details[open]"), 1);
    browser.press_escape();
    assert_eq!(browser.count("#rows details[open]"), 0);
    browser.press("?");
    assert_eq!(browser.js("return document.getElementById('keys').open"), true);
    // Each key also has a button.
    browser.click("#keys [data-key=n]");
    assert_eq!(browser.focused(), "user");
}

#[test]
fn rows_are_marked_compared_and_copied_with_keys_on_every_list() {
    let app = Application::on(Broker::Embedded).start();
    for n in 0..3 {
        app.accept(&json!({"user": "Ann", "action": "step", "n": n}));
    }
    let browser = Browser::start();
    browser.open(&app, "/history");
    browser.wait_for("the keys", || {
        browser.js("return document.getElementById('keys-button').offsetParent !== null") == true
    });
    browser.js("navigator.clipboard.writeText = async (text) => { window.copied = text }");
    let copied = || browser.js("return window.copied ?? ''").as_str().unwrap_or_default().to_owned();
    let rows = browser.wait_for_rows(3);
    browser.press("j ");
    browser.wait_for_text("#keys-said", "1 marked");
    assert_eq!((browser.count("#rows .marked"), browser.count("#rows details[open]")), (1, 0), "Space opens nothing");
    browser.press("y");
    browser.wait_for("the record", || copied().contains("\"n\":2"));
    browser.press("l");
    browser.wait_for("its link", || copied().ends_with(&format!("/events/{}", rows[0].replace('-', "/"))));
    browser.press("c");
    browser.wait_for_text("#keys-said", "Mark two rows");
    browser.press("jj ");
    browser.wait_for_text("#keys-said", "2 marked");
    browser.press("c");
    browser.wait_for("the comparison", || browser.location() == format!("/compare?a={}&b={}", rows[2], rows[0]));
    browser.wait_for_text("#compared .differs", "n");
    assert_eq!(browser.texts("#compared .differs td"), ["0", "2"]);
    // The list of keys has those of the page.
    browser.wait_for("the script has run", || browser.count("html.scripted") == 1);
    browser.press("?");
    browser.wait_for("the list", || browser.js("return document.getElementById('keys').open") == true);
    assert_eq!(browser.text("#keys [data-key=c]"), None);
    assert_eq!(browser.text("#keys [data-key='?']").as_deref(), Some("? This list"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_names_of_a_row_are_links_and_a_drag_over_them_opens_nothing() {
    let app = Application::on(Broker::Embedded).start();
    app.accept(&json!({"user": "Ann", "action": "step", "n": 1}));
    let browser = Browser::start();
    for path in ["/", "/history"] {
        browser.open(&app, path);
        browser.wait_for_rows(1);
        // What the pointer meets over the names, at several widths.
        for width in [760, 900, 1100, 1440] {
            browser.resize(width, 800);
            let place = |name: &str| {
                let script = format!(
                    "const {{ left, top, height }} = document.querySelector('#rows {name}').getBoundingClientRect(); return [left + 12, top + height / 2]"
                );
                let place = browser.js(&script);
                [0, 1].map(|index| place[index].as_f64().expect("a number"))
            };
            for (name, address) in [(".who", "/users/Ann"), (".what", "action=step")] {
                let [x, y] = place(name);
                browser.point([x, y]);
                let met = format!("return document.elementFromPoint({x}, {y})?.closest('a')?.href ?? ''");
                browser.wait_for("the link", || browser.js(&met).as_str().is_some_and(|href| href.ends_with(address)));
            }
        }
        let [x, y] = [0, 1].map(|index| {
            let place = browser.js("const { left, top } = document.querySelector('#rows .at').getBoundingClientRect(); return [left, top + 8]");
            place[index].as_f64().expect("a number")
        });
        browser.drag([x + 2.0, y], [x + 40.0, y]);
        assert_ne!(browser.js("return `${getSelection()}`"), "", "the drag selects");
        assert_eq!(browser.count("#rows details[open]"), 0, "and opens nothing");
    }
    browser.js("getSelection().removeAllRanges()");
    browser.click("#rows .rest");
    browser.wait_for_text("#rows a.to.user", "Ann’s events");
    browser.click("#rows a.to.user");
    browser.wait_for("the user's page", || browser.location() == "/users/Ann");
}

#[test]
fn new_events_are_announced_to_screen_readers_in_summary() {
    let app = Application::on(Broker::Embedded).start();
    let browser = Browser::start();
    browser.open_live(&app, "/");
    let tree = "return [...document.querySelectorAll('[role=log]')].map((log) => log.getAttribute('aria-live') + log.contains(document.getElementById('rows')))";
    assert_eq!(browser.js(tree), json!(["offtrue"]));
    browser.js("window.announced = []; new MutationObserver(() => announced.push(document.getElementById('said').textContent)) \
        .observe(document.getElementById('said'), { childList: true, characterData: true, subtree: true })");
    for n in 0..60 {
        app.accept(&event("u", &n.to_string()));
    }
    browser.wait_for("it is announced", || browser.js("return announced.length").as_u64() > Some(0));
    let announced = browser.js("return announced");
    let announced = announced.as_array().expect("a list");
    assert!(announced.len() < 4, "{announced:?}");
    assert!(announced[0].as_str().is_some_and(|words| words.ends_with("new events")), "{announced:?}");
}

/// Every state of the pages at every width: nothing is cut off or needs horizontal scrolling, and axe-core finds no
/// problem. With FOOTFALL_TEST_PICTURES, a folder, it saves a picture of each (`dev/screenshots`).
#[test]
fn every_page_state_fits_the_window_and_is_accessible() {
    // A broker of its own, so that the topic has the default name.
    let kafka = Kafka::start();
    let app = Application::at(kafka.servers()).topic(&Topic::named(kafka.servers(), "user_activity")).start();
    let port = app.address.port().to_string();
    let browser = Browser::start();
    browser.resize(1440, 900);

    browser.open_live(&app, "/");
    look(&browser, "empty");

    for event in plausible() {
        app.accept(&event);
    }
    browser.wait_for("all rows", || browser.rows().len() == plausible().len());
    browser.send("Ann", "checkout");
    browser.wait_for_text("#receipt", "Saved to Kafka");
    look(&browser, "live");

    browser.js("document.activeElement.blur(); document.querySelector('#rows summary').click()");
    browser.wait_for_text("#rows details[open]", "Copy");
    look(&browser, "open");
    browser.js("document.querySelector('#rows summary').click()");

    browser.click("#pause");
    for event in plausible() {
        app.accept(&event);
    }
    browser.wait_for_text("#pause", "new");
    look(&browser, "paused");
    browser.click("#pause");

    browser.fill("#details", "{no json");
    browser.send("", "login");
    browser.wait_for_text("#problem", "Not sent");
    look(&browser, "mistake");

    browser.open(&app, "/#send");
    look(&browser, "form");
    browser.open(&app, "/?user=Ann&user=John&action=login&q=nothing+like+that");
    look(&browser, "none-match");

    browser.open(&app, "/history?col=/page&col=/ms&not_user=nobody&f=/page:exists");
    browser.click("#by-field > summary");
    look(&browser, "columns");

    app.accept(&event(&"long-name-".repeat(20), &"endless".repeat(28)));
    app.accept(&json!({"user": "نورا", "action": "تسجيل الدخول", "text": "x".repeat(30_000)}));
    app.accept(&json!({"user": "Zoë 🦊", "action": "view", "nested": {"a": [1, {"b": null}]}, "url": "https://example.org/".repeat(9)}));
    app.topic().produce(&NewRecord::new().key("their-key").value("x".repeat(3000)));
    app.topic().produce(&NewRecord::new().key("their-key"));
    app.topic().produce(&NewRecord::new().value(vec![0, 159, 146, 150]));
    browser.open_live(&app, "/");
    look(&browser, "odd");
    browser.js("document.querySelectorAll('#rows summary').forEach((row, n) => n < 6 && row.click())");
    browser.wait_for("the records", || browser.count("#rows details[open] .record, #rows details[open] pre") > 3);
    look(&browser, "odd-open");

    let path = app.get("/api/v1/events?user=Ann&action=checkout&limit=1").expect(200).json()["events"][0].clone();
    let record = format!("/events/{}/{}", path["partition"], path["offset"]);
    browser.open(&app, &record);
    look(&browser, "record");
    browser.open(&app, &format!("{record}/again"));
    look(&browser, "again");
    let place = |record: &Value| format!("{}-{}", record["partition"], record["offset"]);
    browser.open(&app, &format!("/compare?a={0}&b={0}", place(&path)));
    look(&browser, "compare");
    let day = a_day_of_the_shop();
    app.topic().produce_all(&day);
    eventually("the day is counted", || {
        let counted = app.get("/api/v1/stats").expect(200).json()["last_24h"]["events"].as_u64();
        (counted >= Some(day.len() as u64)).then_some(())
    });
    app.request("POST", "/api/events").json(&json!({"user": "Ann"})).send().expect(404);
    let wrong =
        json!([{"user": "Ann", "action": "login"}, {"user": "Ann", "note": "x".repeat(1000), "n": vec![7; 200]}]);
    app.post(&wrong).expect(207);
    for path in ["/history", "/history?user=nobody", "/overview", "/rejects", "/kafka", "/nothing-there"] {
        browser.open(&app, path);
        look(&browser, &path[1..].replace(['?', '='], "-"));
    }
    browser.open_live(&app, "/users/Ann");
    look(&browser, "user");
    browser.open_live(&app, &format!("/users/{}", "long-name-".repeat(20)));
    look(&browser, "user-long");
    browser.open_live(&app, "/users/nobody");
    look(&browser, "user-empty");

    browser.open_live(&app, "/");
    app.kill();
    browser.wait_for_text("#connection", "reconnecting");
    look(&browser, "reconnecting");
    let burst: Vec<_> = (0..700).map(|n| NewRecord::event("crowd", &n.to_string())).collect();
    app.topic().produce_all(&burst);
    let _again = app.replica().env("ROCKET_PORT", &port).start();
    browser.wait_for_text("#rows li.skip", "not shown");
    look(&browser, "gap");

    let unreachable = Application::at("127.0.0.1:9").start_without_waiting_for_kafka();
    browser.open(&unreachable, "/");
    browser.wait_for_text("#broker-notice", "Kafka unreachable");
    browser.wait_for_text("#connection", "connected, Kafka unreachable");
    look(&browser, "kafka-unreachable");
    browser.open(&unreachable, "/users/Ann");
    look(&browser, "user-unreachable");
    browser.open(&unreachable, "/users/Ann?partitions=2");
    look(&browser, "user-wrong");
}

#[track_caller]
fn look(browser: &Browser, state: &str) {
    for width in [320, 390, 768, 1440] {
        browser.resize(width, if width < 600 { 844 } else { 720 });
        // A narrow window grows with a page that is too wide for it.
        let sizes = browser.js("return [document.documentElement.scrollWidth, innerWidth]");
        assert!(sizes[0].as_u64() <= Some(width.into()) && sizes[1] == width, "{state} at {width}: {sizes}");
        let folder = std::env::var_os("FOOTFALL_TEST_PICTURES");
        for scheme in ["light", "dark"] {
            browser.prefer(scheme);
            if matches!(width, 390 | 1440) {
                assert_eq!(browser.barriers(scheme == "dark"), Vec::<String>::new(), "{state} at {width}, {scheme}");
            }
            let Some(folder) = &folder else { continue };
            let file = std::path::Path::new(folder).join(format!("{state}-{width}-{scheme}.png"));
            std::fs::write(file, browser.picture()).expect("the picture can be written");
        }
    }
}

/// More in some hours than in others, until now.
fn a_day_of_the_shop() -> Vec<NewRecord> {
    let now_ms = (time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000) as i64;
    let event = |minute: i64, n: i64| {
        let event = &plausible()[((minute * 7 + n * 5) % 16) as usize];
        NewRecord::new()
            .value(event.to_string())
            .timestamp(now_ms - minute * 60_000 - (minute * 13 + n * 17) % 60 * 1000)
    };
    let busy = |minute: i64| 1 + ((minute as f64 / 150.0).sin().abs() * 6.0) as i64;
    (0..23 * 60)
        .rev()
        .flat_map(|minute| (0..busy(minute)).map(move |n| (minute, n)))
        .map(|(minute, n)| event(minute, n))
        .collect()
}

/// Events of a shop.
fn plausible() -> Vec<Value> {
    vec![
        json!({"user": "John", "action": "login", "ip": "203.0.113.7", "agent": "Firefox"}),
        json!({"user": "Ann", "action": "page_view", "page": "/products/3", "ms": 41}),
        json!({"user": "user-4711", "action": "search", "q": "running shoes", "results": 38}),
        json!({"user": "John", "action": "page_view", "page": "/products/12", "ms": 38}),
        json!({"user": "Zoë", "action": "login", "ip": "198.51.100.20", "agent": "Safari"}),
        json!({"user": "Ann", "action": "add_to_cart", "product": 3, "quantity": 2}),
        json!({"user": "user-4711", "action": "page_view", "page": "/products/77", "ms": 52}),
        json!({"user": "mobile-19", "action": "push_opened", "campaign": "autumn", "platform": "android"}),
        json!({"user": "Ann", "action": "checkout", "total": 31.5, "items": 3, "currency": "EUR"}),
        json!({"user": "John", "action": "add_to_cart", "product": 12, "quantity": 1}),
        json!({"user": "Zoë", "action": "page_view", "page": "/account/orders", "ms": 29}),
        json!({"user": "user-4711", "action": "add_to_cart", "product": 77, "quantity": 1}),
        json!({"user": "John", "action": "checkout", "total": 119.9, "items": 1, "currency": "EUR"}),
        json!({"user": "mobile-19", "action": "page_view", "page": "/sale", "ms": 61}),
        json!({"user": "Zoë", "action": "logout"}),
        json!({"user": "Ann", "action": "payment", "method": "card", "approved": true}),
    ]
}

#[test]
fn every_page_is_small_and_stable_and_loads_nothing_from_third_parties() {
    let app = Application::on(Broker::Kafka).start();
    let events: Vec<Value> = (0..100)
        .map(|n| json!({"user": format!("user-{n}"), "action": "view", "page": "/products/3", "ms": n}))
        .collect();
    let mut feed = app.stream("");
    let first = app.post(&json!(events)).expect(201).json()["results"][0].clone();
    feed.records(events.len()); // later rows would move the others
    let record = format!("/events/{}/{}", first["partition"], first["offset"]);
    let browser = Browser::start();
    for path in [
        "/",
        "/history",
        &record,
        "/users/user-1",
        "/overview",
        "/rejects",
        "/kafka",
        "/?user=nobody",
        "/nothing-there",
    ] {
        browser.open(&app, path);
        // The script has started, and its requests are answered.
        browser.wait_for("the script has run", || browser.count("html.scripted") == 1);
        std::thread::sleep(Duration::from_millis(300));
        let sizes = "const entries = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]; \
            return entries.map((entry) => ({ name: entry.name, host: new URL(entry.name).host, sent: entry.encodedBodySize, plain: entry.decodedBodySize }))";
        let sizes = browser.js(sizes);
        let sizes = sizes.as_array().expect("a list");
        assert!(sizes.iter().all(|entry| entry["host"] == browser.host(&app).to_string()), "{path}: {sizes:?}");
        let scripts = sizes.iter().filter(|entry| entry["name"].as_str().is_some_and(|name| name.ends_with(".js")));
        let scripts: u64 = scripts.map(|entry| entry["sent"].as_u64().expect("a size")).sum();
        assert!(scripts > 0 && scripts < 30_000, "{path}: {scripts} bytes of scripts");
        let page = sizes[0]["plain"].as_u64().expect("a size");
        assert!(page > 1000 && page < 50_000, "{path}: {page} bytes of HTML");
        let shifts = "return new Promise((done) => { \
            new PerformanceObserver((list) => done(list.getEntries().map(({ value, sources }) => [value, sources.map(({ node, previousRect: was, currentRect: is }) => [node?.outerHTML, `${was.x} ${was.y} ${was.width} to ${is.x} ${is.y} ${is.width}`])]))) \
                .observe({ type: 'layout-shift', buffered: true }); \
            setTimeout(() => done([]), 100) })";
        let shifts = browser.js(shifts);
        let moved: f64 =
            shifts.as_array().expect("a list").iter().map(|shift| shift[0].as_f64().expect("a number")).sum();
        assert!(moved < 0.01, "{path}: its parts moved by {moved}: {shifts:#}");
        let complaints: Vec<String> = browser.complaints().into_iter().filter(|text| !text.contains("404")).collect();
        assert_eq!(complaints, Vec::<String>::new(), "{path}");
    }
}
