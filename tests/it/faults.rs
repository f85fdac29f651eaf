//! Faults of Kafka and of the application: the answers stay true, no accepted event is lost, and everything recovers by
//! itself.

use std::time::{Duration, Instant};

use crate::common::http::Response;
use crate::common::wait::{PATIENCE, eventually, within};
use crate::common::{
    Application, Attempt, Broker, Cursor, Follower, Frame, HEALING, Kafka, Ledger, Load, NewRecord, Proxy, Resources,
    Retries, Servers, Subscription, Topic, Weather, kafka, random,
};
use serde_json::{Value, json};

/// Runs `scenario` under a load that does not retry.
fn under_load(app: &Application, target: &str, scenario: impl FnOnce(&Load)) -> Ledger {
    Load::new(&Servers::of(app), target, Retries::Never).beside(scenario)
}

#[test]
fn it_starts_without_a_broker_and_recovers_when_the_broker_comes() {
    let kafka = Kafka::start();
    kafka.kill(1);
    let app = Application::at(kafka.servers()).start_without_waiting_for_kafka();

    let at_once = |what: &str, started: Instant| {
        assert!(started.elapsed() < Duration::from_secs(1), "{what}: {:?}", started.elapsed())
    };
    let started = Instant::now();
    let page = app.request("GET", "/").header("Accept", "text/html").send().expect(200);
    assert!(page.text().contains("Kafka unreachable"), "{}", page.text());
    at_once("the page", started);

    let started = Instant::now();
    let mut stream = app.stream("");
    let mut rows = Subscription::open(app.address, "/stream");
    assert!(matches!(stream.next_frame(), Frame::Message(message) if message.is_position()));
    // A client that resumes keeps its cursor, however often it is cut before Kafka is reachable.
    let resumed = app.stream_after("0-5.1-3").next_frame();
    assert_eq!(resumed, Frame::position("0-5.1-3"));
    let status = rows.control("status").json();
    assert_eq!(status["broker"], "away");
    assert!(status["since"].is_string() && status["reason"].is_string(), "{status}");
    at_once("the streams", started);

    let started = Instant::now();
    let event = json!({"user": "Ann", "action": "too early"});
    let refused = app.post(&event).expect(503);
    at_once("a post", started);
    assert!(refused.header("Retry-After").is_some_and(|seconds| seconds.parse::<u32>().is_ok_and(|s| s >= 1)));
    assert_eq!(refused.problem()["retryable"], true);
    app.request("POST", "/api/v1/events?ack=none").json(&event).send().expect(503).problem();
    app.request("POST", "/send-message/").json(&event).send().expect(503).problem();
    let batch = app.post(&json!([event, event])).expect(503);
    assert!(batch.header("Retry-After").is_some());
    let form = app.request("POST", "/events").form(&[("user", "Ann-typed"), ("action", "b"), ("details", "{\"c\":1}")]);
    let page = form.header("Accept", "text/html").send().expect(503);
    assert!(page.text().contains("Ann-typed"), "{}", page.text());

    app.get("/livez").expect(200);
    let ready = app.get("/readyz").expect(503);
    assert!(ready.text().contains(kafka.servers()), "it says why: {}", ready.text());
    let ready = app.get("/readyz?verbose").expect(503);
    assert!(ready.text().contains("kafka") && ready.text().contains("posts"), "{}", ready.text());
    for path in ["/api/v1/events", "/api/v1/events/0/0", "/api/v1/stream?strict=1&after=0-0.1-0.2-0"] {
        let started = Instant::now();
        let problem = app.get(path).expect(503);
        assert!(problem.header("Retry-After").is_some() && problem.problem()["retryable"] == true, "{path}");
        assert!(started.elapsed() < Duration::from_secs(7), "{path}: {:?}", started.elapsed());
    }
    app.request("GET", "/history").header("Accept", "text/html").send().expect(200);

    kafka.restart(1);
    within(HEALING, "it is ready", || (app.get("/readyz").status() == 200).then_some(()));
    assert_eq!(app.topic().partitions(), Some(3), "the topic was created");
    app.accept(&json!({"user": "Ann", "action": "in time"}));
    // The streams that were open all the time continue.
    assert_eq!(stream.record()["value"]["action"], "in time");
    assert_eq!(Cursor::parse(stream.last_event_id()).0.len(), 3);
    let status = rows.control("status");
    assert_eq!(status.json(), json!({"broker": "up", "since": null, "reason": null}));
    assert!(rows.row().data.contains("in time"));
    assert_eq!(app.topic().records().len(), 1);
}

#[test]
fn a_killed_broker_loses_nothing_and_is_answered_503_within_a_second() {
    let kafka = Kafka::start();
    let app = Application::at(kafka.servers()).start();
    let mut stream = app.stream("");
    let mut rows = Subscription::open(app.address, "/stream");
    assert!(matches!(stream.next_frame(), Frame::Message(message) if message.is_position()));
    assert_eq!(rows.control("status").json()["broker"], "up");

    let (mut lost, mut back) = (None, None);
    let load = under_load(&app, "/api/v1/events", |load| {
        load.wait_for(200, 201);
        kafka.kill(1);
        within(Duration::from_secs(1), "it is noticed", || (app.get("/readyz").status() == 503).then_some(()));
        lost = Some(Instant::now());
        app.post(&json!({"user": "Ann", "action": "meanwhile"})).expect(503);
        // The reason why it is unreachable, without hints about settings, because it was reachable before.
        let words = eventually("it says why", || Some(app.get("/readyz")).filter(|it| it.text().contains("refused")));
        assert!(!words.text().contains("advertised.listeners"), "{}", words.text());
        assert!(!words.text().contains("kafka.security_protocol"), "{}", words.text());
        load.wait_for(50, 503);
        back = Some(Instant::now());
        kafka.restart(1);
        load.wait_for(200, 201);
    });
    let (lost, back) = (lost.expect("it was unreachable"), back.expect("it came back"));
    let second = Duration::from_secs(1);
    let meanwhile: Vec<Attempt> =
        load.attempts().into_iter().filter(|attempt| (lost..back).contains(&attempt.started)).collect();
    for attempt in &meanwhile {
        assert!(
            attempt.status == Some(503) && attempt.took < second,
            "{attempt:?}, known to be unreachable at {lost:?}"
        );
    }
    // Posts in flight when it was killed may have used their deadline.
    assert!(load.attempts().iter().all(|attempt| attempt.took < 12 * second), "{:?}", load.attempts());
    load.assert_truthful(app.topic());

    // The open stream has every record once, in order.
    let mut follower = Follower::from("0-0.1-0.2-0");
    let end = app.topic().end();
    while follower.place.to_string() != end {
        follower.take(&stream.next());
    }
    assert_eq!(follower.dropped, 0);
    let states: Vec<Value> = std::iter::from_fn(|| match rows.frame(Instant::now() + Duration::from_millis(500))? {
        Frame::Message(message) if message.event == "status" => Some(Some(message.json()["broker"].clone())),
        _ => Some(None),
    })
    .flatten()
    .collect();
    assert_eq!(states, ["away", "up"]);
}

#[test]
fn three_brokers_continue_when_one_is_killed() {
    let kafka = Kafka::start_brokers(3);
    let app = Application::at(kafka.servers()).env("FOOTFALL_INGEST__DEADLINE", "3s").start();
    let mut stream = app.stream("");
    stream.next_frame();
    let load = under_load(&app, "/api/v1/events", |load| {
        load.wait_for(200, 201);
        kafka.kill(2);
        // All partitions have leaders again, so that every user's events are taken.
        load.wait_for(500, 201);
        within(HEALING, "no post is refused any more", || {
            let latest = load.attempts().iter().rev().take(100).all(|attempt| attempt.status == Some(201));
            latest.then_some(())
        });
    });
    load.assert_truthful(app.topic());
    let mut follower = Follower::from("0-0.1-0.2-0");
    let end = app.topic().end();
    while follower.place.to_string() != end {
        follower.take(&stream.next());
    }

    // Without a majority nothing can be acknowledged by all in-sync replicas, so nothing is.
    kafka.kill(3);
    let started = Instant::now();
    let answer = app.post(&json!({"user": "Ann", "action": "no majority"}));
    assert!(matches!(answer.status(), 503 | 504), "{}", answer.status());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn too_few_replicas_in_sync_are_answered_503_at_once() {
    let kafka = Kafka::start_brokers(3);
    let topic = Topic::create(kafka.servers(), 3, &[("min.insync.replicas", "3")]);
    let app = Application::at(kafka.servers()).topic(&topic).start();
    let event = json!({"user": "Ann", "action": "in time"});
    app.accept(&event);
    kafka.kill(2);
    // The cluster removes a broker when its session has expired.
    let refused = within(HEALING, "posts are refused, and why", || {
        let started = Instant::now();
        let answer = app.post(&event);
        let why = answer.status() == 503 && answer.text().contains("2 of the 3 in-sync replicas");
        (why && started.elapsed() < Duration::from_secs(1)).then_some(answer)
    });
    assert!(refused.header("Retry-After").is_some());
    assert_eq!(refused.problem()["retryable"], true);
    // The same sentence everywhere.
    let words = refused.problem()["detail"].as_str().expect("a detail").to_owned();
    assert!(words.contains("min.insync.replicas"), "{words}");
    let ready = app.get("/readyz").expect(503);
    assert!(ready.text().contains(&format!("replicas-missing: {words}\n")), "{}", ready.text());
    let page = app.request("GET", "/").header("Accept", "text/html").send().expect(200);
    assert!(page.text().contains(&words), "{words}: {}", page.text());
    assert!(app.get("/metrics").text().contains("footfall_trouble{cause=\"replicas-missing\"} 3"));
    app.log_line("the log says it", |line| line["cause"] == "replicas-missing" && line["reason"] == words.as_str());
    // Records in memory are sent. A leader that was elected meanwhile cannot be read before it has enough replicas.
    let mut stream = app.stream("?last=1");
    assert_eq!(stream.record()["value"]["action"], "in time");
    kafka.restart(2);
    within(HEALING, "posts are taken again", || (app.post(&event).status() == 201).then_some(()));
    app.get("/readyz").expect(200);
}

/// A broker that accepts requests and does not answer.
#[test]
fn a_frozen_broker_is_answered_504_and_the_retry_writes_the_event_once() {
    let kafka = Kafka::start();
    let app = Application::at(kafka.servers()).env("FOOTFALL_INGEST__DEADLINE", "1s").start();
    app.accept(&json!({"user": "Ann", "action": "before"}));
    let frozen = kafka.freeze(1);
    let event = json!({"id": "order-977", "user": "Ann", "action": "checkout"});
    let started = Instant::now();
    let answer = app.post(&event).expect(504);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    let problem = answer.problem();
    assert_eq!(
        (&problem["outcome"], &problem["retryable"], &problem["id"]),
        (&json!("unknown"), &json!(true), &json!("order-977"))
    );
    // Footfall notices it, and from then on answers at once.
    eventually("posts are refused", || (app.post(&json!({"user": "a", "action": "b"})).status() == 503).then_some(()));
    drop(frozen);
    let receipt = within(HEALING, "the retry is taken", || {
        let answer = app.post(&event);
        (answer.status() == 201).then(|| answer.json())
    });
    let written: Vec<_> =
        app.topic().records().into_iter().filter(|r| r.header("ce_id") == Some("order-977")).collect();
    assert_eq!(written.len(), 1, "{written:?}");
    assert_eq!(receipt["offset"], written[0].offset);
}

#[test]
fn a_full_queue_is_answered_503_at_once() {
    let kafka = Kafka::start();
    let app = Application::at(kafka.servers()).env("FOOTFALL_INGEST__QUEUE_MESSAGES", "500").start();
    app.accept(&json!({"user": "Ann", "action": "first"}));
    let _frozen = kafka.freeze(1);
    let batch = json!(vec![json!({"user": "Ann", "action": "b"}); 500]);
    app.request("POST", "/api/v1/events?ack=none").json(&batch).send().expect(202);
    let started = Instant::now();
    let refused = app.post(&json!({"user": "Ann", "action": "one too many"})).expect(503);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(refused.header("Retry-After").is_some());
    assert!(refused.problem()["detail"].as_str().is_some_and(|detail| detail.contains("queue")), "{}", refused.text());
}

#[test]
fn requests_beyond_the_concurrency_are_503_at_once_and_the_others_are_answered() {
    let kafka = Kafka::start();
    let app = Application::at(kafka.servers()).env("FOOTFALL_INGEST__CONCURRENCY", "2").start();
    app.accept(&json!({"user": "Ann", "action": "first"}));
    let frozen = kafka.freeze(1);
    std::thread::scope(|scope| {
        let taken: Vec<_> = (0..2)
            .map(|n| {
                scope.spawn({
                    let app = &app;
                    move || app.post(&json!({"user": format!("user-{n}"), "action": "b"}))
                })
            })
            .collect();
        let refused = eventually("both are in flight", || {
            let started = Instant::now();
            let answer =
                app.request("POST", "/api/v1/events?ack=none").json(&json!({"user": "Ann", "action": "b"})).send();
            assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
            (answer.status() == 503).then_some(answer)
        });
        assert!(refused.header("Retry-After").is_some());
        assert!(
            refused.problem()["detail"].as_str().is_some_and(|detail| detail.contains("at once")),
            "{}",
            refused.text()
        );
        drop(frozen);
        for post in taken {
            post.join().expect("no panic").expect(201);
        }
    });
    app.accept(&json!({"user": "Ann", "action": "room again"}));
}

#[test]
fn one_address_leaves_posts_to_others() {
    let kafka = Kafka::start();
    let app = Application::at(kafka.servers())
        .env("ROCKET_IP_HEADER", "X-Real-IP")
        .env("FOOTFALL_INGEST__CONCURRENCY", "4")
        .env("FOOTFALL_INGEST__DEADLINE", "60s")
        .env("FOOTFALL_INGEST__QUEUE_MESSAGES", "1000")
        .start();
    app.accept(&json!({"user": "Ann", "action": "first"}));
    let post = |address: &str, target: &str, events: &Value| {
        app.request("POST", target).json(events).header("X-Real-IP", address).send()
    };
    let refused = |answer: Response, words: &[&str]| {
        assert!(answer.header("Retry-After").is_some());
        let problem = answer.expect(503).json();
        for words in words {
            assert!(problem.to_string().contains(words), "no {words:?} in {problem}");
        }
    };
    let frozen = kafka.freeze(1);
    let (events, greedy, other) = (json!(vec![json!({"user": "Ann", "action": "b"}); 250]), "192.0.2.1", "192.0.2.2");
    // Half of the queue is for unawaited events, and three quarters of that for one address; but at least the events of
    // one request.
    for _ in 0..2 {
        post(greedy, "/api/v1/events?ack=none", &events).expect(202);
    }
    let words = ["ack=none", "ingest.queue_messages"];
    refused(post(greedy, "/api/v1/events?ack=none", &events), &words);
    refused(post(other, "/api/v1/events?ack=none", &events), &words);
    let one = json!({"user": "Ann", "action": "b"});
    std::thread::scope(|scope| {
        let mut waiting = Vec::new();
        for address in [greedy, greedy, greedy, other] {
            let (post, one) = (&post, &one);
            waiting.push(scope.spawn(move || post(address, "/api/v1/events", one)));
            let taken = waiting.len();
            eventually("it is taken", || {
                let metrics = app.get("/metrics");
                let line = format!("footfall_produce_in_flight {}", 500 + taken);
                metrics.text().lines().any(|it| it == line).then_some(())
            });
            if taken == 3 {
                refused(post(greedy, "/api/v1/events", one), &["of this address", "ingest.concurrency"]);
            }
        }
        refused(post("192.0.2.3", "/api/v1/events", &one), &["at once", "ingest.concurrency"]);
        drop(frozen);
        waiting.into_iter().for_each(|post| drop(post.join().expect("no panic").expect(201)));
    });
    // The permits are free again.
    within(HEALING, "there is room again", || {
        (post(greedy, "/api/v1/events?ack=none", &events).status() == 202).then_some(())
    });
    post(greedy, "/api/v1/events", &events).expect(201);
}

/// Packets to Kafka take 100 ms, so that every batch takes 200 ms.
#[test]
fn an_awaited_post_goes_before_ack_none_posts() {
    let proxy = Proxy::start();
    let kafka = Kafka::start_behind(&proxy);
    let topic = Topic::create(kafka.servers(), 1, &[]);
    let app = Application::at(kafka.servers()).topic(&topic).env("FOOTFALL_INGEST__DEADLINE", "60s");
    let app = app.env("KAFKA_BOOTSTRAP_SERVERS", &proxy.address().to_string()).start();
    app.accept(&json!({"user": "Ann", "action": "first"}));
    proxy.set(Weather::Delay { latency: Duration::from_millis(100), jitter: Duration::ZERO });
    let post_unawaited =
        |events: &Value| app.request("POST", "/api/v1/events?ack=none").json(events).send().expect(202);
    let noise = json!(vec![json!({"user": "Nick", "action": "noise", "pad": "x".repeat(31_000)}); 15]);
    for _ in 0..20 {
        post_unawaited(&noise);
    }
    post_unawaited(&json!({"user": "Bob", "action": "one"}));
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        let started = Instant::now();
        app.accept(&json!({"user": "Ann", "action": "waits"}));
        slowest = slowest.max(started.elapsed());
    }
    println!("slowest: {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    // The events of one user still keep their order, and do not wait for other users.
    let started = Instant::now();
    app.accept(&json!({"user": "Bob", "action": "two"}));
    let after_own = started.elapsed();
    println!("behind one of its own: {after_own:?}");
    assert!(after_own < Duration::from_secs(1), "it waits for those of others: {after_own:?}");
    post_unawaited(&json!({"user": "Bob", "action": "three"}));
    app.accept(&json!({"user": "Bob", "action": "four"}));
    proxy.restore();
    let records = within(HEALING, "all of it is written", || Some(topic.records()).filter(|all| all.len() == 310));
    let bobs = records.iter().map(|record| record.json()).filter(|value| value["user"] == "Bob");
    let actions: Vec<Value> = bobs.map(|value| value["action"].clone()).collect();
    assert_eq!(actions, ["one", "two", "three", "four"]);
}

#[test]
fn an_event_that_kafka_rejects_is_422() {
    let topic = Topic::create(kafka::shared(), 3, &[("max.message.bytes", "2000")]);
    let app = Application::at(kafka::shared()).topic(&topic).start();
    let mut random = random();
    let incompressible: String = (0..4000).map(|_| random.lowercase()).collect();
    let problem = app.post(&json!({"user": "a", "action": "b", "x": incompressible})).expect(422).problem();
    assert_eq!((&problem["type"], &problem["retryable"]), (&json!("/problems/refused-by-kafka"), &json!(false)));
    app.accept(&json!({"user": "a", "action": "small enough"}));
    assert_eq!(topic.records().len(), 1);
}

#[test]
fn new_partitions_are_picked_up() {
    let app = Application::on(Broker::Kafka).start();
    let mut stream = app.stream("");
    stream.next_frame();
    app.accept(&json!({"user": "Ann", "action": "before"}));
    stream.record();
    let before = stream.last_event_id().to_owned();
    app.get("/api/v1/events").expect(200); // by a client that knows three partitions
    app.topic().grow_to(5);
    for partition in 3..5 {
        app.topic().produce(&NewRecord::event("Ann", "foreign").partition(partition));
    }
    let mut found: Vec<Value> = stream.records(2).iter().map(|record| record["partition"].clone()).collect();
    found.sort_by_key(Value::to_string);
    assert_eq!(found, [3, 4]);
    assert_eq!(Cursor::parse(stream.last_event_id()).0.len(), 5);
    // A client from before the change resumes with its old cursor.
    let mut resumed = app.stream_after(&before);
    assert_eq!(resumed.records(2).len(), 2);
    // The application writes to them: with enough users every partition gets some.
    let events: Vec<Value> = (0..200).map(|n| json!({"user": format!("user-{n}"), "action": "spread"})).collect();
    eventually("all five are written to", || {
        let results = app.post(&json!(events)).expect(201).json()["results"].clone();
        let used = |partition: i32| results.as_array().expect("results").iter().any(|r| r["partition"] == partition);
        (0..5).all(used).then_some(())
    });
    let history = app.get("/api/v1/events?partition=4&limit=1").expect(200).json();
    assert_eq!(history["events"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_recreated_topic_is_a_gap() {
    let topic = Topic::create(kafka::shared(), 3, &[]);
    let app = Application::at(kafka::shared()).topic(&topic).start();
    let mut stream = app.stream("");
    stream.next_frame();
    for n in 0..19 {
        app.accept(&json!({"user": format!("user-{n}"), "action": "old"}));
    }
    let retried = json!({"id": "order-977", "user": "Ann", "action": "checkout"});
    app.accept(&retried);
    stream.records(20);
    let old = stream.last_event_id().to_owned();

    topic.delete();
    eventually("it is noticed that there is no topic", || (app.get("/readyz").status() == 503).then_some(()));
    app.post(&json!({"user": "a", "action": "refused"})).expect(503);
    topic.make(3);
    within(HEALING, "it is ready again", || (app.get("/readyz").status() == 200).then_some(()));
    let receipt = app.accept(&json!({"user": "Ann", "action": "new"}));

    let gap = stream.control("gap");
    let data = gap.json();
    assert_eq!((&data["reason"], &data["missed"]), (&json!("topic recreated"), &Value::Null));
    assert_eq!((&data["requested"], &data["resumed"]), (&json!(old), &json!("0-0.1-0.2-0")));
    assert_eq!(gap.last_event_id, "0-0.1-0.2-0");
    let record = stream.record();
    assert_eq!((&record["value"]["action"], &record["offset"]), (&json!("new"), &receipt["offset"]));
    // A client that was disconnected meanwhile gets the same.
    let mut late = app.stream_after(&old);
    assert_eq!(late.control("gap").json()["reason"], "topic recreated");
    assert_eq!(late.record()["value"]["action"], "new");
    // A receipt from the old topic must not answer a retry.
    let answer = app.post(&retried).expect(201);
    assert_eq!(answer.header("Idempotent-Replayed"), None);
    let replayed = app.post(&retried).expect(201);
    assert_eq!((replayed.header("Idempotent-Replayed"), replayed.json()), (Some("true"), answer.json()));
    assert_eq!(topic.records().len(), 2);
    let history = app.get("/api/v1/events").expect(200).json();
    assert_eq!(history["events"].as_array().map(Vec::len), Some(2));
}

#[test]
fn sigterm_under_load_delivers_what_was_accepted() {
    let app = Application::on(Broker::Kafka).start();
    for target in ["/api/v1/events", "/api/v1/events?ack=none"] {
        let app = app.replica().start();
        let mut stream = app.stream("");
        let status = if target.ends_with("none") { 202 } else { 201 };
        let load = under_load(&app, target, |load| {
            load.wait_for(200, status);
            let started = Instant::now();
            app.terminate();
            assert!(app.wait_for_exit(PATIENCE).success());
            assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        });
        load.assert_truthful(app.topic());
        // Every connected client gets a last message.
        loop {
            if let Frame::Message(message) = stream.next_frame()
                && message.event == "bye"
            {
                break;
            }
        }
    }
}

#[test]
fn sigterm_while_the_broker_is_unreachable_ends_in_bounded_time() {
    let kafka = Kafka::start();
    let app = Application::at(kafka.servers()).env("FOOTFALL_INGEST__DEADLINE", "2s").start();
    let load = under_load(&app, "/api/v1/events", |load| {
        load.wait_for(100, 201);
        let frozen = kafka.freeze(1);
        let started = Instant::now();
        app.terminate();
        app.wait_for_exit(Duration::from_secs(20));
        assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
        drop(frozen);
    });
    load.assert_truthful(app.topic());
}

#[test]
fn a_crash_loses_nothing_that_was_acknowledged() {
    let app = Application::on(Broker::Kafka).start();
    let load = under_load(&app, "/api/v1/events", |load| {
        load.wait_for(200, 201);
        app.kill();
    });
    load.assert_truthful(app.topic());
    let again = app.replica().start();
    let mut stream = again.stream_after("0-0.1-0.2-0");
    let mut follower = Follower::from("0-0.1-0.2-0");
    let end = app.topic().end();
    while follower.place.to_string() != end {
        follower.take(&stream.next());
    }
}

/// Tests whose limits the load of other tests could break: `dev/test` without arguments runs them alone.
mod alone {
    use super::*;

    #[test]
    fn waiting_for_a_broker_uses_almost_no_cpu() {
        let kafka = Kafka::start();
        let app = Application::at(kafka.servers()).start();
        app.accept(&json!({"user": "Ann", "action": "before"}));
        kafka.kill(1);
        eventually("it knows that Kafka is unreachable", || (app.get("/readyz").status() == 503).then_some(()));
        let measured = Duration::from_secs(3);
        let before = Resources::of(app.process_id()).ticks;
        std::thread::sleep(measured);
        let busy = Duration::from_millis(10) * (Resources::of(app.process_id()).ticks - before) as u32;
        assert!(busy < measured / 4, "busy for {busy:?} of {measured:?}");
    }
}
