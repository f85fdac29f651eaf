//! A user's page and counts.

use crate::common::http::encoded;
use crate::common::{Application, Broker, NewRecord, on_every_broker, on_three_brokers};
use serde_json::{Value, json};

on_every_broker! {
    a_users_actions_are_counted_with_first_and_last_seen,
    every_name_has_a_page,
    a_user_without_events_has_a_page,
    records_in_other_partitions_are_not_counted_and_the_page_says_so,
    a_count_continues_before_a_cursor,
    the_page_shows_sessions_pauses_and_the_usual_order,
    an_action_narrows_the_page_and_its_count,
    a_wrong_parameter_is_said_beside_its_field,
}

on_three_brokers! {
    a_users_actions_are_counted_with_first_and_last_seen,
    records_in_other_partitions_are_not_counted_and_the_page_says_so,
}

#[track_caller]
fn user(app: &Application, user: &str) -> Value {
    app.get(&format!("/api/v1/users/{}", encoded(user))).expect(200).json()
}

#[track_caller]
fn page(app: &Application, user: &str) -> String {
    app.get(&format!("/users/{}", encoded(user))).expect(200).text().to_owned()
}

fn event(user: &str, action: &str) -> Value {
    json!({"user": user, "action": action})
}

fn a_users_actions_are_counted_with_first_and_last_seen(broker: Broker) {
    let app = Application::on(broker).start();
    for n in 0..30 {
        app.accept(&event(&format!("other-{n}"), "login"));
    }
    let last = "2026-11-23T12:00:05.000Z";
    let times = ["2026-11-23T12:00:01.000Z", last, "2026-11-23T11:59:59.500Z"];
    for (action, time) in ["view", "view", "login"].iter().zip(times) {
        app.accept(&json!({"user": "John", "action": action, "time": time}));
    }
    let receipt = app.accept(&json!({"user": "John", "action": "<b>", "time": "2026-11-23T12:00:02Z"}));
    let found = user(&app, "John");
    let scanned = found["scanned"].as_u64().expect("a number");
    assert!((4..34).contains(&scanned), "only one partition is read: {found}");
    let actions =
        json!([{"action": "view", "events": 2}, {"action": "<b>", "events": 1}, {"action": "login", "events": 1}]);
    let expected = json!({
        "user": "John", "partition": receipt["partition"], "first_seen": "2026-11-23T11:59:59.500Z", "last_seen": last,
        "events": 4, "actions": actions, "other": 0, "scanned": scanned, "partitions": [receipt["partition"]],
        "complete": false, "next": null,
    });
    assert_eq!(found, expected);

    let page = page(&app, "John");
    for part in [
        "<bdi>John</bdi></h1>",
        r#"id="events" data-events="4">4<"#,
        r#"datetime="2026-11-23T11:59:59.500Z">2026-11-23 11:59:59.500 UTC<"#,
        r#"datetime="2026-11-23T12:00:05.000Z">2026-11-23 12:00:05.000 UTC<"#,
        r#"<bdi>view</bdi></a></th><td class="n">2</td>"#,
        "&#60;b&#62;",
        &format!("Counted all {scanned} records in partition {}", receipt["partition"]),
        &format!(r#"href="/history?user=John&#38;partition={}""#, receipt["partition"]),
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert_eq!(page.matches(r#"<li class="event""#).count(), 4);
    assert!(!page.contains("other-1"), "{page}");
}

fn every_name_has_a_page(broker: Broker) {
    let app = Application::on(broker).start();
    let long = "ü".repeat(200);
    let names =
        ["a/b", "../a", "100%", "%2F", "Zoë 🦊", "J. R.", "a?b#c&d=e+f;g", "نورا", "...", "\"'<i>", "\\", &long];
    for name in names {
        app.accept(&event(name, "exist"));
        let found = user(&app, name);
        assert_eq!((&found["user"], &found["events"]), (&json!(name), &json!(1)), "{name}");
        assert_eq!(page(&app, name).matches(r#"<li class="event""#).count(), 1, "{name}");
    }
    // The rows link there.
    let live = app.get("/").expect(200).text().to_owned();
    for name in names {
        let address = live
            .split("href=\"")
            .filter_map(|rest| rest.split('"').next())
            .find(|address| address.strip_prefix("/users/") == Some(&encoded(name)));
        assert!(address.is_some(), "{name} in {live}");
    }
    // A segment that is removed from every address has no page.
    for name in [".", ".."] {
        app.accept(&event(name, "exist"));
    }
    let history = app.get("/history?user=.&user=..").expect(200).text().to_owned();
    assert_eq!(history.matches(r#"<li class="event""#).count(), 2);
    assert!(!history.contains("/users/"), "{history}");
}

fn a_user_without_events_has_a_page(broker: Broker) {
    let app = Application::on(broker).start();
    app.accept(&event("Ann", "login"));
    let found = user(&app, "nobody");
    assert_eq!((&found["events"], &found["actions"], &found["other"]), (&json!(0), &json!([]), &json!(0)), "{found}");
    assert_eq!((&found["first_seen"], &found["last_seen"]), (&Value::Null, &Value::Null));
    // Other programs may have written to other partitions.
    assert_eq!((&found["complete"], &found["next"]), (&json!(false), &Value::Null));
    let found = app.get("/api/v1/users/nobody?partitions=all").expect(200).json();
    assert_eq!((&found["complete"], &found["next"]), (&json!(true), &Value::Null));
    let page = page(&app, "nobody");
    assert!(page.contains("No events from this user. New ones will appear here."), "{page}");
}

fn records_in_other_partitions_are_not_counted_and_the_page_says_so(broker: Broker) {
    let app = Application::on(broker).start();
    let receipt = app.accept(&event("J & J", "login"));
    let own = receipt["partition"].as_i64().expect("a number") as i32;
    let record = |partition| NewRecord::new().value(event("J & J", "imported").to_string()).partition(partition);
    app.topic().produce_all(&[record((own + 1) % 3), record(own), record((own + 2) % 3)]);
    let found = user(&app, "J & J");
    assert_eq!((&found["events"], &found["partition"]), (&json!(2), &json!(own)), "{found}");
    assert_eq!((&found["complete"], &found["partitions"]), (&json!(false), &json!([own])), "{found}");
    let all = app.get("/api/v1/users/J%20%26%20J?partitions=all").expect(200).json();
    assert_eq!((&all["events"], &all["scanned"], &all["complete"]), (&json!(4), &json!(4), &json!(true)), "{all}");
    assert_eq!(all["partitions"], json!([0, 1, 2]));
    app.get("/api/v1/users/J%20%26%20J?partitions=some").expect(400);
    let page = page(&app, "J & J");
    let part = "where this user’s key goes. <a href=\"/users/J%20%26%20J?partitions=all\">";
    assert!(page.contains(part), "{page}");
    let whole = app.get("/users/J%20%26%20J?partitions=all").expect(200).text().to_owned();
    assert!(whole.contains("Counted all 4 records in all 3 partitions.") && !whole.contains("key goes"), "{whole}");
    assert_eq!(whole.matches(r#"<li class="event""#).count(), 4);
    assert!(page.contains(r#"<a href="/history?user=J%20%26%20J">search all partitions</a>"#), "{page}");
    let everywhere = app.get("/history?user=J%20%26%20J").expect(200);
    assert_eq!(everywhere.text().matches(r#"<li class="event""#).count(), 4);
}

fn a_count_continues_before_a_cursor(broker: Broker) {
    let app = Application::on(broker).start();
    let partition = app.accept(&event("Ann", "first"))["partition"].as_i64().expect("a number");
    let place = app.accept(&event("Ann", "second"))["offset"].as_i64().expect("a number");
    let to: Vec<String> = (0..3).map(|n| format!("{n}-{}", if n == partition { place } else { 0 })).collect();
    let before = app.get(&format!("/api/v1/users/Ann?to={}", to.join("."))).expect(200).json();
    assert_eq!(before["actions"], json!([{"action": "first", "events": 1}]), "{before}");
    let problem = app.get("/api/v1/users/Ann?to=here").expect(400).problem();
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("to must be")), "{problem}");
}

fn the_page_shows_sessions_pauses_and_the_usual_order(broker: Broker) {
    let app = Application::on(broker).start();
    let visit = |hour: u32| {
        ["00", "19", "38"].iter().zip(["login", "page_view", "buy"]).map(move |(second, action)| {
            json!({"user": "Ann", "action": action, "time": format!("2026-11-23T{hour:02}:00:{second}Z")})
        })
    };
    for event in (9..12).flat_map(visit) {
        app.accept(&event);
    }
    let page = page(&app, "Ann");
    for part in [
        "<b id=\"events\" data-events=\"9\">9</b> events",
        ">4.5/h</span>",
        ">3 sessions</span>",
        "Usual order: <b><bdi>login → page_view → buy</bdi></b> <span class=\"quiet\">3 times</span>",
        "<span class=\"since\">+19 s</span>",
        "<li class=\"pause\">59 min pause <span class=\"quiet\">session 2: 3 events, 38 s</span></li>",
        "<li class=\"pause\">59 min pause <span class=\"quiet\">session 1: 3 events, 38 s</span></li>",
        "Events by action: 9 events, at most 3 in",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    // Each event but the oldest has the time since the one before it.
    assert_eq!(page.matches("class=\"since\"").count(), 8, "{page}");
    let rows = page.split("id=\"rows\"").nth(1).expect("the rows");
    let orders: Vec<usize> = ["+19 s", "59 min pause", "session 2"].iter().filter_map(|part| rows.find(part)).collect();
    assert!(orders.is_sorted(), "{orders:?}");
}

fn an_action_narrows_the_page_and_its_count(broker: Broker) {
    let app = Application::on(broker).start();
    for action in ["view", "<b>", "view", "buy"] {
        app.accept(&event("Ann", action));
    }
    let whole = page(&app, "Ann");
    assert!(whole.contains("<a href=\"/users/Ann?action=%3Cb%3E\"><bdi>&#60;b&#62;</bdi></a>"), "{whole}");
    assert!(whole.contains("<td class=\"n\">2</td><td class=\"n\">50 %</td>"), "{whole}");
    let narrow = app.get("/users/Ann?action=view").expect(200).text().to_owned();
    for part in [
        "data-events=\"2\">2</b>",
        "action is <b><bdi>view</bdi></b> <a href=\"/users/Ann\"",
        "name=\"action\" value=\"view\"",
        "/history?user=Ann&#38;action=view",
    ] {
        assert!(narrow.contains(part), "{part} in {narrow}");
    }
    assert_eq!(narrow.matches(r#"<li class="event""#).count(), 2, "{narrow}");
    let none = app.get("/users/Ann?action=fly&partitions=all").expect(200).text().to_owned();
    assert!(none.contains("No fly events from this user."), "{none}");
    assert!(none.contains("<a href=\"/users/Ann?partitions=all\" aria-label=\"Remove"), "{none}");
}

fn a_wrong_parameter_is_said_beside_its_field(broker: Broker) {
    let app = Application::on(broker).start();
    let html = |path: &str| app.request("GET", path).header("Accept", "text/html").send().expect(400).text().to_owned();
    let page = html("/users/J%20%26%20J?partitions=%3C2%3E&action=view");
    for part in [
        "<bdi>J &#38; J</bdi></h1>",
        "<option selected>&#60;2&#62;</option>",
        "name=\"action\" value=\"view\"",
        "aria-invalid=\"true\" aria-describedby=\"wrong-partitions\"",
        "id=\"wrong-partitions\">Partitions must be all",
        "Nothing was looked for",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    let many = html(&format!("/users/Ann?{}", "action=a&".repeat(11)));
    assert!(many.contains("id=\"wrong-action\">Action must have at most 10 values"), "{many}");
}

#[test]
fn looking_none_and_could_not_look_are_three_sentences() {
    let app = Application::on(Broker::Kafka).start();
    let (looking, none) =
        ("<p id=\"looking\">Looking further back: no events", "<p id=\"none\">No events from this user.");
    let unknown = "This user’s events can’t be loaded.";
    let before = page(&app, "nobody");
    assert!(before.contains(none) && !before.contains(looking) && !before.contains(unknown), "{before}");
    let partition = user(&app, "nobody")["partition"].as_i64().expect("a number") as i32;
    let record = |_| NewRecord::event("crowd", "pass").partition(partition);
    for _ in 0..6 {
        app.topic().produce_all(&(0..20_000).map(record).collect::<Vec<_>>());
    }
    let during = page(&app, "nobody");
    assert!(during.contains(looking) && !during.contains(none) && !during.contains(unknown), "{during}");
    let away = page(&Application::at("127.0.0.1:9").start_without_waiting_for_kafka(), "nobody");
    assert!(away.contains(unknown) && !away.contains("No events") && !away.contains("Looking"), "{away}");
}

#[test]
fn a_long_partition_is_counted_in_parts() {
    let app = Application::on(Broker::Kafka).start();
    let partition = app.accept(&event("rare", "first"))["partition"].as_i64().expect("a number") as i32;
    let record = |n| {
        let (user, action) = if n == 239_000 { ("rare", "last") } else { ("crowd", "pass") };
        NewRecord::event(user, action).partition(partition)
    };
    for chunk in (0..240_000).map(record).collect::<Vec<_>>().chunks(30_000) {
        app.topic().produce_all(chunk);
    }
    let newest = user(&app, "rare");
    assert_eq!((&newest["events"], &newest["complete"]), (&json!(1), &json!(false)), "{newest}");
    let scanned = newest["scanned"].as_u64().expect("a number");
    assert!((200_000..240_000).contains(&scanned), "{scanned}");
    let next = newest["next"].as_str().expect("a place");
    let rest = app.get(&format!("/api/v1/users/rare?to={next}")).expect(200).json();
    assert_eq!((&rest["events"], &rest["complete"], &rest["next"]), (&json!(1), &json!(false), &Value::Null), "{rest}");
    assert_eq!(scanned + rest["scanned"].as_u64().expect("a number"), 240_001);
    // The page reads less before it shows something.
    let page = page(&app, "rare");
    assert!(page.contains("of 240,001 records in partition"), "{page}");
    assert!(page.contains("1 event so far.") && page.contains(r#"id="so-far""#), "{page}");
}

#[test]
fn without_kafka_the_page_says_unreachable_and_the_api_is_503() {
    let app = Application::at("127.0.0.1:9").start_without_waiting_for_kafka();
    let page = page(&app, "Ann");
    assert!(page.contains("<bdi>Ann</bdi></h1>") && page.contains("can’t be loaded"), "{page}");
    let answer = app.get("/api/v1/users/Ann").expect(503);
    assert!(answer.header("Retry-After").is_some());
    // An invalid request is still 400.
    for target in
        ["/users/Ann?partitions=2", "/users/Ann/count?to=x", "/users/Ann/count?limit=x", "/api/v1/users/Ann?to=x"]
    {
        app.get(target).expect(400);
    }
}
