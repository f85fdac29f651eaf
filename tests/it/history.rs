//! Reading what is in the topic: bounded reads, page by page, and single records.

use crate::common::http::encoded;
use crate::common::{Application, Broker, Cursor, NewRecord, assert_same_set, on_every_broker, on_three_brokers};
use serde_json::{Value, json};

on_every_broker! {
    history_shows_the_newest_first,
    history_is_read_from_the_beginning_page_by_page,
    history_is_read_back_page_by_page,
    history_starts_at_a_cursor_and_stops_at_another,
    last_n_returns_the_newest_records,
    filters_select_the_records_across_pages,
    an_empty_topic_has_an_empty_history,
    a_cursor_of_a_gap_row_shows_what_was_not_shown,
    one_record_is_found_by_partition_and_offset,
    a_missing_record_is_404,
    the_page_shows_history_and_links_to_the_next_page,
    everything_that_matches_is_exported,
    a_search_streams_matches_and_progress,
    the_record_page_shows_the_full_record,
    the_record_page_tells_who_what_when_and_what_came_before_and_after,
    two_records_are_compared_field_by_field,
    history_is_between_two_times_or_from_an_offset,
    the_histogram_counts_what_reading_counts,
    the_page_says_how_many_and_marks_what_was_found,
}

on_three_brokers! {
    history_is_read_from_the_beginning_page_by_page,
    history_is_read_back_page_by_page,
    filters_select_the_records_across_pages,
    one_record_is_found_by_partition_and_offset,
    everything_that_matches_is_exported,
    a_search_streams_matches_and_progress,
}

fn event(n: i64) -> String {
    let action = ["even", "odd"][n as usize % 2];
    json!({"user": format!("user-{}", n % 7), "action": action, "n": n}).to_string()
}

/// Events with `n` from 0 up, a second apart. The embedded broker's timestamps are a constant, hence `ce_time`.
fn write_in_order(app: &Application, count: i64) {
    let start = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
    let record = |n: i64| {
        let time = start + time::Duration::seconds(n);
        NewRecord::new()
            .value(event(n))
            .partition((n * n % 3) as i32)
            .header("ce_time", time.format(&time::format_description::well_known::Rfc3339).expect("a time"))
            .timestamp((time.unix_timestamp_nanos() / 1_000_000) as i64)
    };
    app.topic().produce_all(&(0..count).map(record).collect::<Vec<_>>());
}

/// Many events at once, spread over the partitions.
fn write(app: &Application, count: i64) {
    let record = |n: i64| NewRecord::new().value(event(n)).partition((n % 3) as i32);
    app.topic().produce_all(&(0..count).map(record).collect::<Vec<_>>());
}

#[track_caller]
fn page(app: &Application, query: &str) -> (Vec<Value>, Option<String>) {
    let answer = app.get(&format!("/api/v1/events{query}")).expect(200).json();
    let members: Vec<&String> = answer.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["events", "next"]);
    let next = match &answer["next"] {
        Value::Null => None,
        Value::String(cursor) => Some(Cursor::parse(cursor).to_string()),
        other => panic!("next: {other}"),
    };
    (answer["events"].as_array().expect("events").clone(), next)
}

fn numbers(records: &[Value]) -> Vec<i64> {
    records.iter().map(|record| record["value"]["n"].as_i64().expect("n")).collect()
}

fn places(records: &[Value]) -> Vec<(i64, i64)> {
    records
        .iter()
        .map(|r| (r["partition"].as_i64().expect("a partition"), r["offset"].as_i64().expect("an offset")))
        .collect()
}

fn everything(app: &Application) -> Vec<(i64, i64)> {
    app.topic().records().iter().map(|record| (i64::from(record.partition), record.offset)).collect()
}

/// Whether the offsets of every partition only rise, or only fall.
#[track_caller]
fn assert_ordered(places: &[(i64, i64)], newest_first: bool) {
    for partition in 0..3 {
        let offsets: Vec<i64> = places.iter().filter(|(p, _)| *p == partition).map(|(_, offset)| *offset).collect();
        let in_order = offsets.windows(2).all(|pair| (pair[0] > pair[1]) == newest_first);
        assert!(in_order, "partition {partition}: {offsets:?}");
    }
}

fn history_shows_the_newest_first(broker: Broker) {
    let app = Application::on(broker).start();
    write_in_order(&app, 30);
    let (records, next) = page(&app, "");
    assert_eq!((records.len(), next), (30, None));
    assert_ordered(&places(&records), true);
    let (same, _) = page(&app, "?from=latest");
    assert_eq!(same, records);
    assert_eq!(numbers(&records), (0..30).rev().collect::<Vec<i64>>());
    let (oldest_first, _) = page(&app, "?order=oldest");
    assert_eq!(numbers(&oldest_first), (0..30).collect::<Vec<i64>>());
    let (newest_first, _) = page(&app, "?from=beginning&order=newest");
    assert_eq!(numbers(&newest_first), (0..30).rev().collect::<Vec<i64>>());
}

fn history_is_read_from_the_beginning_page_by_page(broker: Broker) {
    let app = Application::on(broker).start();
    write(&app, 1000);
    for limit in [7, 100, 999, 1000] {
        let (mut found, mut from) = (Vec::new(), "beginning".to_owned());
        loop {
            let (records, next) = page(&app, &format!("?from={from}&limit={limit}"));
            assert!(records.len() <= limit, "{} records", records.len());
            found.extend(places(&records));
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        assert_ordered(&found, false);
        assert_same_set(everything(&app), found);
    }
}

fn history_is_read_back_page_by_page(broker: Broker) {
    let app = Application::on(broker).start();
    write(&app, 500);
    let (mut found, mut to) = (Vec::new(), String::new());
    loop {
        let (records, next) = page(&app, &format!("?limit=60{to}"));
        found.extend(places(&records));
        match next {
            Some(next) => to = format!("&to={next}"),
            None => break,
        }
    }
    assert_ordered(&found, true);
    assert_same_set(everything(&app), found);
}

fn history_starts_at_a_cursor_and_stops_at_another(broker: Broker) {
    let app = Application::on(broker).start();
    write(&app, 90);
    let expected = |from: [i64; 3], to: [i64; 3]| -> Vec<(i64, i64)> {
        (0..3).flat_map(|p| (from[p]..to[p]).map(move |offset| (p as i64, offset))).collect()
    };
    let (records, next) = page(&app, "?from=0-28.1-30.2-5");
    assert_eq!(next, None);
    assert_ordered(&places(&records), false);
    assert_same_set(expected([28, 30, 5], [30, 30, 30]), places(&records));
    let (records, _) = page(&app, "?from=0-10.1-0.2-29&to=0-12.1-1.2-30");
    assert_same_set(expected([10, 0, 29], [12, 1, 30]), places(&records));
    let (records, next) = page(&app, "?from=0-20.1-20.2-20&to=0-20.1-10.2-20");
    assert_eq!((records.len(), next), (0, None));
    // A partition that the cursor does not name starts at 0; one that does not exist has no records.
    let (records, _) = page(&app, "?from=0-29");
    assert_same_set(expected([29, 0, 0], [30, 30, 30]), places(&records));
}

fn last_n_returns_the_newest_records(broker: Broker) {
    let app = Application::on(broker).start();
    write_in_order(&app, 20);
    let (records, _) = page(&app, "?last=3");
    assert_eq!(numbers(&records), [19, 18, 17]);
    let (records, _) = page(&app, "?last=3&order=oldest");
    assert_eq!(numbers(&records), [17, 18, 19]);
    let (records, _) = page(&app, "?last=2&action=even");
    assert_eq!(numbers(&records), [18, 16]);
    let (records, next) = page(&app, "?last=1000");
    assert_eq!((records.len(), next), (20, None));
}

fn filters_select_the_records_across_pages(broker: Broker) {
    let app = Application::on(broker).start();
    write(&app, 700);
    for (query, wanted) in [
        ("user=user-3", Box::new(|n: i64| n % 7 == 3) as Box<dyn Fn(i64) -> bool>),
        ("user=user-3&user=user-5", Box::new(|n| n % 7 == 3 || n % 7 == 5)),
        ("user=user-3&action=odd", Box::new(|n| n % 7 == 3 && n % 2 == 1)),
        ("partition=1", Box::new(|n| n % 3 == 1)),
        (&format!("q={}", encoded("\"n\":69")), Box::new(|n| n == 69 || n / 10 == 69)),
        ("user=nobody", Box::new(|_| false)),
    ] {
        let (mut found, mut from) = (Vec::new(), "beginning".to_owned());
        loop {
            let (records, next) = page(&app, &format!("?from={from}&limit=10&{query}"));
            found.extend(numbers(&records));
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        assert_same_set((0..700).filter(|n| wanted(*n)), found);
    }
}

fn an_empty_topic_has_an_empty_history(broker: Broker) {
    let app = Application::on(broker).start();
    for query in ["", "?from=beginning", "?last=10", "?from=0-0.1-0.2-0", "?user=John"] {
        assert_eq!(page(&app, query), (vec![], None), "{query}");
    }
}

/// The ranges in `dropped` and `gap`.
fn a_cursor_of_a_gap_row_shows_what_was_not_shown(broker: Broker) {
    let app = Application::on(broker).start();
    write(&app, 60);
    let html =
        app.request("GET", "/history?from=0-3.1-4.2-5&to=0-5.1-4.2-6").header("Accept", "text/html").send().expect(200);
    let mut rows: Vec<&str> = html.text().split("id=\"e-").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    rows.sort_unstable();
    assert_eq!(rows, ["0-3", "0-4", "2-5"]);
}

fn one_record_is_found_by_partition_and_offset(broker: Broker) {
    let app = Application::on(broker).start();
    write(&app, 10);
    let receipt = app.accept(&json!({"user": "John", "action": "login"}));
    let record = app.get(&format!("/api/v1/events/{}/{}", receipt["partition"], receipt["offset"])).expect(200).json();
    assert_eq!(record["value"], json!({"user": "John", "action": "login"}));
    assert_eq!((&record["id"], &record["time"], &record["key"]), (&receipt["id"], &receipt["time"], &json!("John")));
    // The same JSON in every output.
    let (records, _) = page(&app, "?user=John");
    assert_eq!(records, std::slice::from_ref(&record));
    assert_eq!(app.stream("?last=1&user=John").record(), record);
}

fn a_missing_record_is_404(broker: Broker) {
    let app = Application::on(broker).start();
    let receipt = app.accept(&json!({"user": "John", "action": "login"}));
    let (partition, next) = (&receipt["partition"], receipt["offset"].as_i64().expect("an offset") + 1);
    for path in [
        format!("{partition}/{next}"),
        format!("{partition}/9223372036854775807"),
        "3/0".into(),
        "99/0".into(),
        "x/0".into(),
        "0/x".into(),
        "-1/0".into(),
        "0/-1".into(),
        "0/99999999999999999999".into(),
        "99999999999/0".into(),
    ] {
        let problem = app.get(&format!("/api/v1/events/{path}")).expect(404).problem();
        assert_eq!(problem["retryable"], false, "{path}");
    }
}

#[test]
fn a_malformed_parameter_is_400() {
    let app = Application::on(Broker::Embedded).start();
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=x",
        "last=0",
        "last=1001",
        "last=x",
        "from=nonsense",
        "from=0-1.2-3",
        "to=x",
        "order=sideways",
        "since=noon",
        "since=-15",
        "partition=x",
        "f=approved:eq:false",
        "f=/a:is:1",
        "f=/a:in:[1",
        &format!("f=/a:in:{}1", "1,".repeat(50)),
    ] {
        let problem = app.get(&format!("/api/v1/events?{query}")).expect(400).problem();
        let name = query.split('=').next().expect("a name");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(name)), "{query}: {problem}");
    }
}

#[test]
fn without_kafka_the_pages_do_not_say_that_there_is_nothing() {
    let app = Application::at("127.0.0.1:9").start_without_waiting_for_kafka();
    let visible = |target: &str| {
        let page = app.get(target).expect(200).text().to_owned();
        let (start, end) = (page.find("<main").expect("it starts"), page.find("</main>").expect("it ends"));
        page[start..end].to_owned()
    };
    let history = visible("/history?user=Ann");
    assert!(history.contains("Could not search. Kafka is unreachable"), "{history}");
    assert!(history.contains(r#"<a href="/history?user=Ann">Try again</a>"#), "{history}");
    assert!(history.contains(r#"id="empty" hidden"#) && !history.contains("Export"), "{history}");
    let overview = visible("/overview");
    assert!(overview.contains("Nothing has been read from Kafka yet."), "{overview}");
    for unknown in ["Events", "Users", "Actions"] {
        assert!(overview.contains(&format!("<dt>{unknown}</dt><dd>–")), "{unknown}: {overview}");
    }
    let live = visible("/");
    assert!(
        live.contains("Events that it holds appear here when it is back.") && !live.contains("No events yet"),
        "{live}"
    );
}

#[test]
fn a_wrong_parameter_keeps_the_query() {
    let app = Application::on(Broker::Embedded).start();
    app.accept(&json!({"user": "John", "action": "login"}));
    let target =
        "/history?partition=abc&user=John&q=cart&since=noon&limit=100&col=/page&f=/a:eq:1&f=nonsense&f=/b:exists";
    let page =
        app.request("GET", target).header("Accept", "text/html").send().expect(400).text().replace("&#34;", "\"");
    for shown in [
        r#"Partition must be a number, not "abc"."#,
        r#"<li id="wrong-since">Since must be RFC 3339"#,
        r#"name="partition" value="abc""#,
        r#"aria-invalid="true" aria-describedby="wrong-partition""#,
        r#"type="text" value="noon""#,
        r#"name="q" type="search" value="cart""#,
        "<option selected>100",
        "Remove the filter user is John",
        "Remove the column page",
        "Remove the filter a = 1",
        "Remove the filter b exists",
        r#"<li id="wrong-f">"#,
    ] {
        assert!(page.contains(shown), "{shown} in {page}");
    }
    for absent in ["<li class=\"event\"", "No events", "Export", "data-histogram", "`"] {
        assert!(!page.contains(absent), "{absent} in {page}");
    }
    // The form has no field for it.
    let page = app.request("GET", "/history?from=x").header("Accept", "text/html").send().expect(400).text().to_owned();
    assert!(page.contains("From"), "{page}");
}

#[test]
fn a_wrong_parameter_of_live_and_overview_is_told_on_the_page() {
    let app = Application::on(Broker::Embedded).start();
    app.accept(&json!({"user": "John", "action": "login"}));
    let page = |target: &str| {
        let answer = app.request("GET", target).header("Accept", "text/html").send().expect(400);
        answer.text().replace("&#34;", "\"")
    };
    let live = page("/?partition=abc&user=John&f=/a:eq:1&f=nonsense&col=/page&q=cart");
    for shown in [
        r#"Partition must be a number, not "abc"."#,
        r#"name="q" type="search" value="cart""#,
        r#"aria-invalid="true" aria-describedby="wrong-f""#,
        r#"<li id="wrong-f">The condition on a field must "#,
        "Remove the filter user is John",
        "Remove the filter a = 1",
        "Remove the column page",
        "Nothing is shown, because a filter is wrong.",
        "Not updating, because a filter is wrong.",
        "Invalid filter · Live",
        r#"name="details""#,
    ] {
        assert!(live.contains(shown), "{shown} in {live}");
    }
    for absent in ["<li class=\"event\"", "data-cursor", "`", "Nothing matches yet"] {
        assert!(!live.contains(absent), "{absent} in {live}");
    }
    let overview = page("/overview?period=3d&action=login");
    for shown in [
        r#"Period must be 15m, 1h or 24h, not "3d". This is the last 15 minutes."#,
        "action is <b><bdi>login</bdi></b>",
        r#"data-query="period=15m&#38;action=login""#,
        "<dt>Share</dt>",
    ] {
        assert!(overview.contains(shown), "{shown} in {overview}");
    }
    // Programs get the problem.
    let problem = app.request("GET", "/?partition=abc").header("Accept", "application/json").send().expect(400).json();
    assert_eq!(problem["type"], "/problems/bad-parameter");
}

#[test]
fn history_starts_at_a_time() {
    let app = Application::on(Broker::Kafka).start();
    let now = time::OffsetDateTime::now_utc();
    let ms = |minutes: i64| ((now - time::Duration::minutes(minutes)).unix_timestamp_nanos() / 1_000_000) as i64;
    for (n, minutes) in [240, 120, 60, 30, 10, 1].into_iter().enumerate() {
        let value = json!({"user": "a", "action": "b", "n": n}).to_string();
        app.topic().produce(&NewRecord::new().value(value).timestamp(ms(minutes)).partition((n % 3) as i32));
    }
    let iso =
        (now - time::Duration::minutes(45)).format(&time::format_description::well_known::Rfc3339).expect("a time");
    for since in ["-45m".to_owned(), ms(45).to_string(), encoded(&iso)] {
        let (records, _) = page(&app, &format!("?since={since}"));
        assert_eq!(numbers(&records), [3, 4, 5], "{since}");
    }
    let (records, _) = page(&app, "?since=-3h&order=newest&limit=2");
    assert_eq!(numbers(&records), [5, 4]);
    assert_eq!(page(&app, "?since=-1s"), (vec![], None));
}

/// Deleted by retention: history starts at the oldest remaining record.
#[test]
fn history_starts_at_the_oldest_record() {
    let app = Application::on(Broker::Kafka).start();
    write(&app, 90);
    app.topic().delete_before(0, 25);
    for from in ["beginning", "0-0.1-29.2-29"] {
        let (records, _) = page(&app, &format!("?from={from}&partition=0"));
        assert_eq!(places(&records), (25..30).map(|offset| (0, offset)).collect::<Vec<_>>(), "{from}");
    }
    app.get("/api/v1/events/0/24").expect(404).problem();
    app.get("/api/v1/events/0/25").expect(200);
}

fn the_page_shows_history_and_links_to_the_next_page(broker: Broker) {
    let app = Application::on(broker).start();
    write(&app, 130);
    let (mut target, mut rows) = ("/history?limit=50".to_owned(), Vec::new());
    loop {
        let page = app.request("GET", &target).header("Accept", "text/html").send().expect(200);
        let ids = page.text().split("id=\"e-").skip(1).filter_map(|rest| rest.split('"').next());
        rows.extend(ids.map(str::to_owned));
        let next =
            page.text().split("rel=\"next\"").nth(1).and_then(|rest| rest.split("href=\"").nth(1)?.split('"').next());
        match next {
            Some(next) => target = next.replace("&amp;", "&").replace("&#38;", "&"),
            None => break,
        }
    }
    assert_same_set(everything(&app).iter().map(|(partition, offset)| format!("{partition}-{offset}")), rows);
}

// --- Searches and exports ----------------------------------------------------------------------------------------------

fn everything_that_matches_is_exported(broker: Broker) {
    let app = Application::on(broker).start();
    write(&app, 3000);
    app.topic().produce(&NewRecord::new().key("=1+1").value("@SUM(A1), \"quoted\"").partition(0));
    app.topic().produce(&NewRecord::new().value(vec![0, 159, 146]).partition(0));
    let all = app.get("/api/v1/events.ndjson?order=oldest").expect(200);
    assert_eq!(all.header("Content-Type"), Some("application/x-ndjson"));
    let name = format!("attachment; filename=\"{}.ndjson\"", app.topic().name());
    assert_eq!(all.header("Content-Disposition"), Some(name.as_str()));
    let records: Vec<Value> = all.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(records.len(), 3002);
    let (listed, _) = page(&app, "?from=beginning&limit=1000");
    assert_same_set(places(&records[..1000]), places(&listed));
    let some = app.get("/api/v1/events.ndjson?user=user-3&limit=7").expect(200);
    assert_eq!(some.text().lines().count(), 7);

    let odd = app.get("/api/v1/events.csv?order=oldest&partition=0&offset=1000").expect(200);
    let lines: Vec<&str> = odd.text().split("\r\n").collect();
    assert_eq!(lines[0], "time,timestamp,partition,offset,key,id,user,action,value,raw");
    // A spreadsheet must not run a formula from an event.
    assert!(lines[1].contains(",0,1000,\"'=1+1\",,,,\"'@SUM(A1), \"\"quoted\"\"\","), "{lines:?}");
    assert!(lines[2].ends_with(",0,1001,,,,,,AJ+S"), "{lines:?}");
    assert_eq!(lines[3..], [""]);
    app.get("/api/v1/events.csv?order=sideways").expect(400);
    // "These rows" are the rows of the page, even if others were written since.
    let shown = app.get("/history?user=user-3&limit=5").expect(200);
    let link =
        shown.text().split("These rows: <a href=\"").nth(1).expect("a link").split('"').next().expect("an address");
    app.topic().produce(&NewRecord::new().value(event(3)).partition(0));
    let exported = app.get(&link.replace("&amp;", "&").replace("&#38;", "&")).expect(200);
    for record in exported.text().lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")) {
        let row = format!("id=\"e-{}-{}\"", record["partition"], record["offset"]);
        assert!(shown.text().contains(&row), "{row} is not on the page");
    }
    assert_eq!(exported.text().lines().count(), 5);
}

fn a_search_streams_matches_and_progress(broker: Broker) {
    let app = Application::on(broker).start();
    write(&app, 30_000);
    let answer = app.get(&format!("/history/search?order=oldest&q={}", encoded("\"n\":29999,"))).expect(200);
    assert_eq!(answer.header("Content-Type"), Some("text/event-stream"));
    let rows = answer.text().matches("<li class=\"event\"").count();
    let done = answer.text().split("event: done\ndata: ").nth(1).expect("its end").lines().next().expect("data");
    let done: Value = serde_json::from_str(done).expect("JSON");
    assert_eq!(
        (rows, &done["found"], &done["scanned"], &done["total"]),
        (1, &json!(1), &json!(30_000), &json!(30_000))
    );
    assert_eq!(done["next"], Value::Null);
    // Enough matches: it ends there with `next`.
    let some = app.get("/history/search?order=oldest&limit=3&user=user-1").expect(200);
    let done = some.text().split("event: done\ndata: ").nth(1).expect("its end").lines().next().expect("data");
    let done: Value = serde_json::from_str(done).expect("JSON");
    let (rest, _) = page(&app, &format!("?from={}&user=user-1&limit=1", done["next"].as_str().expect("a cursor")));
    assert_eq!(rest.len(), 1);
    assert!(!some.text().contains(&format!("id=\"e-{}-{}\"", rest[0]["partition"], rest[0]["offset"])));
}

fn the_record_page_shows_the_full_record(broker: Broker) {
    let app = Application::on(broker).start();
    let big =
        r#"{"user":"Zo\u00eb <b>","action":"pay","id":"a-1","amount":12345678901234567890.10,"list":[1,{"x":null}]}"#;
    let record = NewRecord::new().key("k").value(big).partition(0).header("shop", "Köln").null_header("none");
    app.topic().produce_all(&[record.clone(), record]);
    let html = |path: &str| app.request("GET", path).header("Accept", "text/html").send();
    let page = html("/events/0/1").expect(200);
    for part in [
        "Zoë &#60;b&#62;",
        "12345678901234567890.10",
        "Köln",
        "rel=\"prev\" href=\"/events/0/0\"",
        "newest record",
        "Send again",
    ] {
        assert!(page.text().contains(part), "{part} in {}", page.text());
    }
    // Sent again without the id, it is another event. It asks first.
    assert!(!page.text().contains("name=\"details\""), "{}", page.text());
    let page = html("/events/0/1/again").expect(200);
    let value = page.text().split("name=\"details\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let details = value.expect("details").replace("&#34;", "\"");
    assert_eq!(details, r#"{"amount":12345678901234567890.10,"list":[1,{"x":null}]}"#);
    for path in ["/events/0/2", "/events/9/0", "/events/x/y", "/events/0/-1"] {
        assert!(html(path).expect(404).text().contains("There is no record"), "{path}");
    }
    app.topic().produce(&NewRecord::new().value(vec![0, 159, 146]).partition(0));
    let odd = html("/events/0/2").expect(200);
    assert!(odd.text().contains("000000  00 9f 92") && !odd.text().contains("Send again"), "{}", odd.text());
    assert!(odd.text().contains(">binary, 3 B<"), "the size once: {}", odd.text());
    html("/events/0/2/again").expect(404);
}

fn the_record_page_tells_who_what_when_and_what_came_before_and_after(broker: Broker) {
    let app = Application::on(broker).start();
    let noon = 1_795_435_200_000;
    let record = |user: &str, action: &str, total: i64, ms: i64| {
        let value = json!({"user": user, "action": action, "basket": {"total": total}});
        let id = format!("id-{ms}");
        NewRecord::new().value(value.to_string()).partition(0).timestamp(noon + ms).header("ce_id", id)
    };
    app.topic().produce_all(&[
        record("Ann", "login", 1, 0).header("ce_time", "2026-11-23T12:00:00.120Z"),
        record("Bob", "login", 1, 1),
        record("Ann", "pay", 2, 2_120).header("ce_time", "2026-11-23T12:00:01Z"),
        record("Bob", "login", 1, 3),
    ]);
    let html = |path: &str| app.request("GET", path).header("Accept", "text/html").send().expect(200).text().to_owned();
    let page = html("/events/0/2");
    for part in [
        "<title>Ann · pay · 12:00:01.000 · Footfall</title>",
        "event → written to Kafka <b>+1.1 s</b>",
        "\"<bdi>basket</bdi>\": ",
        "<a href=\"/events/0/0\"><bdi>login</bdi></a>",
        "No later event of this user.",
        "<bdi>basket.total</bdi></th><td><bdi>1</bdi></td><td><bdi>2</bdi></td>",
        "href=\"/compare?a=0-0&#38;b=0-2\"",
        "rel=\"prev\" href=\"/events/0/1\"",
        "/history?f=%2Fbasket%2Ftotal%3Aeq%3A2\" title=\"Only this value\"",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    // Once as a fact, and once in the record as JSON.
    assert_eq!(page.matches("id-2120").count(), 2, "{page}");
    let first = html("/events/0/0");
    assert!(first.contains("<b>−120 ms</b>") && first.contains("ahead of Kafka’s"), "{first}");
    assert!(first.contains("No earlier event of this user."), "{first}");
    // An event without a time of its own has Kafka's, so nothing is known of its way.
    assert!(!html("/events/0/1").contains("written to Kafka <b>"));
    // An opened row asks for less.
    assert!(!html("/events/0/2?alone=1").contains("of this user"));
}

#[test]
fn a_neighbour_that_is_far_away_is_looked_for_in_the_history() {
    let app = Application::on(Broker::Kafka).start();
    let event = |user: &str, action: &str| NewRecord::event(user, action).partition(0);
    let crowd: Vec<NewRecord> = (0..30_000).map(|_| event("crowd", "pass")).collect();
    app.topic().produce_all(&[event("Ann", "first")]);
    app.topic().produce_all(&crowd);
    app.topic().produce_all(&[event("Ann", "last")]);
    let html = |path: &str| app.request("GET", path).header("Accept", "text/html").send().expect(200).text().to_owned();
    let page = html("/events/0/30001");
    assert!(page.contains("None in the nearest ") && page.contains("No later event of this user."), "{page}");
    let link = page.split("href=\"").find(|rest| rest.starts_with("/history?user=Ann&#38;partition=0&#38;to="));
    let address = link.and_then(|rest| rest.split('"').next()).expect("a link").replace("&#38;", "&");
    let history = html(&address);
    assert!(history.contains("<bdi>first</bdi>") && !history.contains("<bdi>last</bdi>"), "{history}");
}

fn two_records_are_compared_field_by_field(broker: Broker) {
    let app = Application::on(broker).start();
    let value = |n: i64| json!({"user": "Ann", "action": "pay", "n": n, "same": [1, 2]}).to_string();
    app.topic().produce_all(&[1, 2].map(|n| NewRecord::new().value(value(n)).partition(0)));
    let html = |path: &str| app.request("GET", path).header("Accept", "text/html").send();
    let page = html("/compare?a=0-0&b=0-1").expect(200).text().to_owned();
    assert!(page.contains("1 of 5 fields differ.") && page.contains("href=\"/events/0/1\""), "{page}");
    let n = "<tr class=\"differs\"><th scope=\"row\"><bdi>n</bdi></th><td><bdi>1</bdi></td><td><bdi>2</bdi></td></tr>";
    let at = |part: &str| page.find(part).unwrap_or_else(|| panic!("{part} in {page}"));
    assert!(at(n) < at("<bdi>user</bdi></th>"), "what differs comes first");
    // What is wrong is said beside its field, and the form keeps what was typed.
    let wrong = html("/compare?a=x%22&b=0-1").expect(400).text().to_owned();
    for part in [
        "name=\"a\" value=\"x&#34;\"",
        "name=\"b\" value=\"0-1\"",
        "aria-invalid=\"true\" aria-describedby=\"wrong-a\"",
        "id=\"wrong-a\">First must be a partition and an offset",
    ] {
        assert!(wrong.contains(part), "{part} in {wrong}");
    }
    let missing = html("/compare?a=0-0&b=0-9").expect(404).text().to_owned();
    assert!(missing.contains("There is no record at partition 0, offset 9") && missing.contains("value=\"0-9\""));
    assert!(html("/compare").expect(200).text().contains("Compare two records"));
    assert_eq!(app.get("/compare?a=x&b=0-1").expect(400).problem()["detail"].as_str().map(|d| &d[..6]), Some("a must"));
}

fn history_is_between_two_times_or_from_an_offset(broker: Broker) {
    let app = Application::on(broker).start();
    write_in_order(&app, 100);
    let start = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
    let at = |seconds: i64| {
        let time = start + time::Duration::seconds(seconds);
        // As a user types it, without a zone: UTC.
        let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
        encoded(&time.format(&format).expect("a time"))
    };
    let (between, _) = page(&app, &format!("?since={}&until={}&limit=1000", at(20), at(40)));
    let between = numbers(&between);
    assert!((18..=22).contains(&between.len()), "{between:?}");
    let (from, _) = page(&app, "?partition=1&offset=5&limit=3");
    assert_eq!(places(&from), [(1, 5), (1, 6), (1, 7)]);
    let (back, _) = page(&app, "?partition=1&offset=5&limit=3&order=newest");
    assert_eq!(places(&back), [(1, 5), (1, 4), (1, 3)]);
    let problem = app.get("/api/v1/events?offset=5").expect(400).problem();
    assert!(problem["detail"].as_str().is_some_and(|words| words.contains("needs exactly one partition")), "{problem}");
}

// --- The histogram, and the words of the page --------------------------------------------------------------------------

/// The columns of a histogram: start, end, and the counts of its series.
fn columns(app: &Application, query: &str) -> Vec<(i64, i64, Vec<u64>)> {
    let fragment = app.get(&format!("/history/histogram?{query}")).expect(200);
    let attribute = |tag: &str, name: &str| {
        let value = tag.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
        value.unwrap_or_else(|| panic!("{name} in {tag}")).to_owned()
    };
    let number = |name| attribute(fragment.text(), name).parse::<i64>().expect("a number");
    let (start, step) = (number("data-start"), number("data-step"));
    let column = |(index, tag): (i64, &str)| {
        let counts = attribute(tag, "data-n").split(',').map(|count| count.parse().expect("a count")).collect();
        (start + index * step, start + (index + 1) * step, counts)
    };
    let links = fragment.text().split("<a href=").filter(|tag| tag.contains("data-n="));
    (0..).zip(links).map(column).collect()
}

fn the_histogram_counts_what_reading_counts(broker: Broker) {
    let app = Application::on(broker).start();
    assert!(app.get("/history/histogram").expect(200).text().contains("No records yet."));
    let start = time::OffsetDateTime::now_utc() - time::Duration::hours(2);
    // Unevenly spread over time and partitions, with half an hour without records.
    let at = |n: i64| start + time::Duration::milliseconds(n * n * 150 + i64::from(n > 100) * 1_800_000);
    let record = |n: i64| {
        NewRecord::new()
            .value(event(n))
            .partition([0, 0, 0, 1, 2, 0][n as usize % 6])
            .header("ce_time", at(n).format(&time::format_description::well_known::Rfc3339).expect("a time"))
            .timestamp((at(n).unix_timestamp_nanos() / 1_000_000) as i64)
    };
    app.topic().produce_all(&(0..180).map(record).collect::<Vec<_>>());
    let count = |from: i64, to: i64, wanted: &dyn Fn(i64) -> bool| {
        let time = |n: &i64| (at(*n).unix_timestamp_nanos() / 1_000_000) as i64;
        (0..180).filter(|n| wanted(*n) && (from..to).contains(&time(n))).count() as u64
    };
    for (query, wanted) in [
        ("since=-3h", Box::new(|_| true) as Box<dyn Fn(i64) -> bool>),
        ("", Box::new(|_| true)),
        ("since=-100m&until=-20m", Box::new(|_| true)),
        ("partition=1&partition=2", Box::new(|n| matches!(n % 6, 3 | 4))),
    ] {
        let columns = columns(&app, query);
        assert!((20..=61).contains(&columns.len()), "{query}: {} columns", columns.len());
        for (from, to, counts) in &columns {
            assert_eq!(*counts, [count(*from, *to, &wanted)], "{query}: {from} to {to}");
        }
        assert!(columns.windows(2).all(|pair| pair[0].1 == pair[1].0), "{query}");
        assert!(columns.iter().filter(|(.., counts)| counts[0] == 0).count() > 5, "{query}: {columns:?}");
    }
    // With filters the matches are counted by the page's script; the server counts the others.
    let filtered = columns(&app, "user=user-3");
    assert_eq!(filtered.iter().map(|(.., counts)| counts[0]).sum::<u64>(), 0);
    assert_eq!(filtered.iter().map(|(.., counts)| counts[1]).sum::<u64>(), 180);
    app.get("/history/histogram?since=noon").expect(400);
}

fn the_page_says_how_many_and_marks_what_was_found(broker: Broker) {
    let app = Application::on(broker).start();
    write_in_order(&app, 60);
    let page = |query: &str| {
        let page = app.request("GET", &format!("/history?{query}")).header("Accept", "text/html").send().expect(200);
        page.text().to_owned()
    };
    let some = page("limit=50");
    for words in ["50 shown, newest first; more below", "Export (<span id=\"exported\">≥ 50</span>)"] {
        assert!(some.contains(words), "{words} in {some}");
    }
    let all = page("since=-2h&limit=100");
    for words in ["60 events, newest first", "<span id=\"exported\">60</span>"] {
        assert!(all.contains(words), "{words} in {all}");
    }
    let is_chosen = "aria-current=\"true\">24h</a>";
    assert!(page("since=-24h").contains(is_chosen) && !all.contains(is_chosen), "{all}");
    let found = page("user_prefix=USER-3&q=EVEN");
    for part in ["<mark>user-3</mark>", "<mark>even</mark>"] {
        assert!(found.contains(part), "{part} in {found}");
    }
    assert!(!all.contains("<mark>"), "{all}");
    // Without script: the same chart in the page.
    let shown = page("since=-2h&chart=1");
    assert!(shown.contains("id=\"chart-history\"") && !all.contains("id=\"chart-history\""), "{shown}");
}
