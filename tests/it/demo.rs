//! `footfall demo`: the running server, with generated events.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::common::wait::{PATIENCE, eventually, within};
use crate::common::{Application, Broker, Builder, Kafka, Topic, on_every_broker};

on_every_broker! {
    the_demo_shows_events_within_ten_seconds_and_ends_on_a_signal,
}

fn demo(broker: Broker, arguments: &[&str]) -> Builder {
    Application::on(broker).arguments(&[&["demo"], arguments].concat())
}

/// The log lines about pausing and continuing.
fn said(app: &Application, words: &str) -> usize {
    app.log().iter().filter(|line| line["message"].as_str().is_some_and(|text| text.contains(words))).count()
}

fn the_demo_shows_events_within_ten_seconds_and_ends_on_a_signal(broker: Broker) {
    let started = Instant::now();
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
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let page = app.get("/").expect(200);
    assert!(page.text().contains(r#"<li class="event""#), "{}", page.text());
    let line = app.log_line("it says so", |line| {
        line["message"].as_str().is_some_and(|text| text.contains("events are generated"))
    });
    assert_eq!((&line["rate"], &line["users"]), (&50.0.into(), &200.into()));
    app.stop();
    assert_eq!(said(&app, "a demo event was rejected"), 0, "{:?}", app.log());
}

#[test]
fn events_come_at_the_requested_rate() {
    for rate in [50.0, 2000.0] {
        let app = demo(Broker::Embedded, &["--rate", &rate.to_string(), "--users", "1000000"]).start();
        let accepted = || -> f64 {
            let metrics = app.get("/metrics").expect(200);
            let name = r#"footfall_events_total{outcome="acknowledged"} "#;
            metrics.text().lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0.0)
        };
        let (mut started, mut before) = (Instant::now(), accepted());
        // A machine that stalls is behind only for that moment.
        eventually(&format!("{rate}/s over 5 s"), || {
            std::thread::sleep(Duration::from_secs(5));
            let found = (accepted() - before) / started.elapsed().as_secs_f64();
            (started, before) = (Instant::now(), accepted());
            // 250 random arrivals deviate by a seventh once in a hundred times.
            (0.8 * rate..1.2 * rate).contains(&found).then_some(())
        });
        app.stop();
    }
}

#[test]
fn the_demo_pauses_while_kafka_is_unreachable_and_logs_it_once() {
    let kafka = Kafka::start();
    let builder = Application::at(kafka.servers()).topic(&Topic::named(kafka.servers(), "user_activity"));
    let app = builder.arguments(&["demo", "--rate", "30"]).start();
    app.stream("").records(5);
    // The demo also waits for a Kafka that starts slowly.
    let before = said(&app, "the demo waits");
    kafka.kill(1);
    eventually("it says that it waits", || (said(&app, "the demo waits") > before).then_some(()));
    kafka.restart(1);
    within(Duration::from_secs(40), "it continues", || (said(&app, "the demo continues") > before).then_some(()));
    app.stream("").records(5);
    assert_eq!(said(&app, "the demo waits"), before + 1);
    app.stop();
}

#[test]
fn it_ends_on_a_signal_before_kafka_was_reachable() {
    let app = Application::at("127.0.0.1:9").arguments(&["demo"]).start_without_waiting_for_kafka();
    eventually("it says that it waits", || (said(&app, "the demo waits") == 1).then_some(()));
    app.terminate();
    assert_eq!(app.wait_for_exit(PATIENCE).code(), Some(0));
}
