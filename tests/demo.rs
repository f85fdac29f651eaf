//! `footfall demo`: the product as it serves, with made-up events on their way through it.

mod common;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use common::wait::{PATIENCE, eventually, within};
use common::{Application, Broker, Builder, Kafka, Topic, on_every_broker};

on_every_broker! {
    within_ten_seconds_it_is_alive_and_it_ends_when_asked,
}

fn demo(broker: Broker, arguments: &[&str]) -> Builder {
    Application::on(broker).arguments(&[&["demo"], arguments].concat())
}

/// Of the log, what says that events wait or go on.
fn said(app: &Application, words: &str) -> usize {
    app.log().iter().filter(|line| line["message"].as_str().is_some_and(|text| text.contains(words))).count()
}

fn within_ten_seconds_it_is_alive_and_it_ends_when_asked(broker: Broker) {
    let begun = Instant::now();
    let app = demo(broker, &["--rate", "50"]).start();
    let mut stream = app.stream("?last=1000");
    let (mut users, mut actions) = (HashSet::new(), HashSet::new());
    while users.len() < 5 || actions.len() < 3 {
        let record = stream.record();
        assert_eq!(record["value"]["demo"], true, "{record}");
        assert!(record["id"].is_string(), "{record}");
        users.insert(record["key"].to_string());
        actions.insert(record["value"]["action"].to_string());
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let page = app.get("/").expect(200);
    assert!(page.text().contains(r#"<li class="event""#), "{}", page.text());
    let line = app.log_line("it says so", |line| line["message"].as_str().is_some_and(|text| text.contains("made up")));
    assert_eq!((&line["rate"], &line["users"]), (&50.0.into(), &200.into()));
    app.stop();
    assert_eq!(said(&app, "not taken"), 0, "{:?}", app.log());
}

#[test]
fn events_come_at_the_rate_that_was_asked_for() {
    for rate in [50.0, 2000.0] {
        let app = demo(Broker::Embedded, &["--rate", &rate.to_string(), "--users", "1000000"]).start();
        let accepted = || -> f64 {
            let metrics = app.get("/metrics").expect(200);
            let name = r#"footfall_events_total{outcome="acknowledged"} "#;
            metrics.text().lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0.0)
        };
        let (mut begun, mut before) = (Instant::now(), accepted());
        // A machine that stands still for a moment is behind for that moment, and not for the next.
        eventually(&format!("{rate}/s over 5 s"), || {
            std::thread::sleep(Duration::from_secs(5));
            let found = (accepted() - before) / begun.elapsed().as_secs_f64();
            (begun, before) = (Instant::now(), accepted());
            // 250 random arrivals are off by a seventh once in a hundred times.
            (0.8 * rate..1.2 * rate).contains(&found).then_some(())
        });
        app.stop();
    }
}

#[test]
fn it_waits_while_kafka_is_away_and_says_so_once() {
    let kafka = Kafka::start();
    let builder = Application::at(kafka.servers()).topic(&Topic::named(kafka.servers(), "user_activity"));
    let app = builder.arguments(&["demo", "--rate", "30"]).start();
    app.stream("").records(5);
    kafka.kill(1);
    eventually("it says that it waits", || (said(&app, "made-up events wait") > 0).then_some(()));
    kafka.restart(1);
    within(Duration::from_secs(40), "it goes on", || (said(&app, "made-up events go on") > 0).then_some(()));
    app.stream("").records(5);
    assert_eq!(said(&app, "made-up events wait"), 1);
    app.stop();
}

#[test]
fn it_ends_when_asked_also_before_kafka_was_there() {
    let app = Application::at("127.0.0.1:9").arguments(&["demo"]).start_without_waiting_for_kafka();
    eventually("it says that it waits", || (said(&app, "made-up events wait") == 1).then_some(()));
    app.terminate();
    assert_eq!(app.wait_for_exit(PATIENCE).code(), Some(0));
}
