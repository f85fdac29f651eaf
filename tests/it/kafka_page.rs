//! The Kafka page and its API: `/kafka`, `/api/v1/topics` and `/api/v1/groups`.

use std::path::Path;
use std::time::Duration;

use crate::common::wait::{PATIENCE, eventually, within};
use crate::common::{
    Application, Broker, Browser, NewRecord, Process, Topic, application, kafka, on_every_broker, on_three_brokers,
};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};

on_every_broker! {
    topics_are_listed_with_our_partitions_and_their_offsets,
    the_page_shows_the_topic_with_and_without_groups,
}

on_three_brokers! {
    topics_are_listed_with_our_partitions_and_their_offsets,
    the_page_shows_the_topic_with_and_without_groups,
}

mod groups {
    use crate::common::Broker;

    #[test]
    fn three_consumers_share_and_hand_over_partitions() {
        super::three_consumers_share_and_hand_over_partitions(Broker::Kafka);
    }

    #[test]
    fn three_consumers_share_and_hand_over_partitions_on_three_brokers() {
        super::three_consumers_share_and_hand_over_partitions(Broker::Cluster);
    }
}

/// A rebalance takes long: the classic protocol waits for all members.
const REBALANCE: Duration = Duration::from_secs(60);

fn write(topic: &Topic, partition: i32, count: usize) {
    let record = NewRecord::event("Ann", "step").partition(partition);
    topic.produce_all(&vec![record; count]);
}

fn consume(topic: &Topic, group: &str) -> Process {
    let mut command = application::command(Path::new(env!("CARGO_TARGET_TMPDIR")));
    command.args(["consume", "--group", group]);
    command.env("KAFKA_BOOTSTRAP_SERVERS", topic.servers()).env("KAFKA_TOPIC", topic.name());
    Process::start(&mut command)
}

/// Returns the group in the API; `None` while there is none.
fn group(app: &Application, name: &str) -> Option<Value> {
    let answer = app.get("/api/v1/groups").expect(200).json();
    answer["groups"].as_array().expect("groups").iter().find(|group| group["group"] == name).cloned()
}

/// Returns each member's partitions of our topic.
fn shares(group: &Value) -> Vec<Vec<i64>> {
    let members = group["members"].as_array().expect("members").iter();
    members
        .map(|member| {
            let partitions = member["partitions"].as_array().expect("partitions").iter();
            partitions.map(|place| place["partition"].as_i64().expect("a number")).collect()
        })
        .collect()
}

#[track_caller]
fn wait_for_shares(app: &Application, name: &str, sizes: &[usize]) -> Value {
    within(REBALANCE, "the partitions are shared", || {
        let group = group(app, name)?;
        let mut found: Vec<usize> = shares(&group).iter().map(Vec::len).collect();
        found.sort_unstable();
        (found == sizes && group["state"] == "Stable").then_some(group)
    })
}

fn topics_are_listed_with_our_partitions_and_their_offsets(broker: Broker) {
    let app = Application::on(broker).start();
    write(app.topic(), 0, 5);
    write(app.topic(), 2, 7);
    let answer = eventually("the records are counted", || {
        let answer = app.get("/api/v1/topics").expect(200).json();
        (answer["topic"]["partitions"][2]["next_offset"] == 7
            && [0, 2].iter().all(|n| answer["topic"]["partitions"][*n]["bytes_estimate"] != Value::Null))
        .then_some(answer)
    });
    assert_eq!(answer["problems"], json!([]));
    assert_eq!(answer["topic"]["topic"], app.topic().name());
    let partitions = answer["topic"]["partitions"].as_array().expect("partitions");
    let records: Vec<i64> = partitions.iter().map(|p| p["records"].as_i64().expect("a number")).collect();
    assert_eq!(records, [5, 0, 7]);
    let brokers: Vec<i64> = answer["cluster"]["brokers"]
        .as_array()
        .expect("brokers")
        .iter()
        .map(|broker| broker["broker"].as_i64().expect("a number"))
        .collect();
    let copies = if broker == Broker::Cluster { 3 } else { 1 };
    assert_eq!(brokers.len(), copies);
    for (number, partition) in partitions.iter().enumerate() {
        assert_eq!(partition["partition"], number);
        assert_eq!(partition["first_offset"], 0);
        assert!(brokers.contains(&partition["leader"].as_i64().expect("a leader")), "{partition}");
        assert_eq!(partition["replicas"].as_array().map(Vec::len), Some(copies), "{partition}");
        assert_eq!(partition["in_sync"].as_array().map(Vec::len), Some(copies), "{partition}");
    }
    let size = partitions[0]["bytes_estimate"].as_u64().expect("a number");
    assert!((5 * 20..5 * 100).contains(&size), "{size} bytes for five small records");
    let listed = answer["topics"].as_array().expect("topics");
    if answer["left_out"] == 0 {
        assert!(listed.contains(&json!({"topic": app.topic().name(), "partitions": 3, "records": 12})), "{listed:?}");
    }
    eventually("a rate", || {
        write(app.topic(), 1, 1);
        let answer = app.get("/api/v1/topics").expect(200).json();
        answer["topic"]["partitions"][1]["records_per_second"].as_f64().filter(|rate| *rate > 0.0)
    });
}

fn the_page_shows_the_topic_with_and_without_groups(broker: Broker) {
    let app = Application::on(broker).start();
    write(app.topic(), 1, 4);
    let page = app.get("/kafka").expect(200).text().to_owned();
    assert!(page.contains(r#"aria-current="page">Kafka</a>"#), "{page}");
    assert!(page.contains("0 to 4"), "{page}");
    assert!(page.contains("in sync") || page.contains("unreplicated"), "{page}");
    assert!(!page.contains("style="), "the policy forbids inline style");
    assert!(page.len() < 50_000, "{} bytes", page.len());
    if broker == Broker::Embedded {
        assert!(page.contains("The embedded broker cannot list consumer groups"), "{page}");
        return;
    }
    // A Kafka that has just started may still be loading its groups; the page then says that.
    eventually("a command to begin with", || {
        let page = app.get("/kafka").expect(200).text().to_owned();
        let is_loading = page.contains("Kafka cannot list its groups now");
        assert!(is_loading || page.contains("footfall consume"), "{page}");
        (!is_loading).then_some(())
    });
}

#[test]
fn the_embedded_broker_answers_501_for_groups() {
    let app = Application::on(Broker::Embedded).start();
    let problem = app.get("/api/v1/groups").expect(501).problem();
    let words = "the embedded broker cannot list consumer groups; it can with Apache Kafka (kafka.bootstrap_servers)";
    assert_eq!(problem["detail"], words);
    assert_eq!(problem["type"], "/problems/not-possible-here");
}

#[test]
fn without_kafka_the_page_says_unreachable_and_the_api_is_503() {
    let app = Application::at("127.0.0.1:1").start_without_waiting_for_kafka();
    for target in ["/api/v1/topics", "/api/v1/groups"] {
        let answer = app.get(target).expect(503);
        assert!(answer.header("Retry-After").is_some());
        assert_eq!(answer.problem()["type"], "/problems/unavailable");
    }
    assert!(app.get("/kafka").expect(200).text().contains("Nothing to show: Kafka is unreachable"));
}

fn three_consumers_share_and_hand_over_partitions(broker: Broker) {
    let app = Application::on(broker).start();
    let name = crate::common::unique("group");
    let mut consumers: Vec<Process> = (0..3).map(|_| consume(app.topic(), &name)).collect();
    let shared = wait_for_shares(&app, &name, &[1, 1, 1]);
    assert_eq!(shared["type"], "classic");
    assert!(shared["assignor"].is_string() && shared["coordinator"].is_number(), "{shared}");
    let holders: Vec<&Value> =
        shared["partitions"].as_array().expect("partitions").iter().map(|p| &p["member"]).collect();
    let members: Vec<&Value> = shared["members"].as_array().expect("members").iter().map(|m| &m["id"]).collect();
    assert_eq!(holders, members, "each member has one partition, and they stand in its order");
    let page = app.get("/kafka").expect(200).text().to_owned();
    assert!(page.contains("3 members share the partitions"), "{page}");
    assert!(page.contains("client <bdi>footfall</bdi> on 127.0.0.1"), "{page}");

    let mut first = consumers.remove(0);
    first.signal("TERM");
    assert!(first.wait(PATIENCE).success());
    let handed = wait_for_shares(&app, &name, &[1, 2]);
    let mut all = shares(&handed).concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2]);
    let page = app.get("/kafka").expect(200).text().to_owned();
    for change in ["footfall on 127.0.0.1 left", "rebalanced: partitions assigned"] {
        assert!(page.contains(change), "{change}: {page}");
    }

    for mut consumer in consumers {
        consumer.signal("TERM");
        assert!(consumer.wait(PATIENCE).success());
    }
}

/// A paused member keeps its partitions, and records written meanwhile are its lag.
#[test]
fn lag_is_counted_exactly_in_records_and_in_time() {
    let app = Application::on(Broker::Kafka).start();
    let name = crate::common::unique("group");
    let consumer = consume(app.topic(), &name);
    (0..3).for_each(|partition| write(app.topic(), partition, 10));
    consumer.some_lines(30);
    within(REBALANCE, "it has committed all", || group(&app, &name).filter(|group| group["lag"] == 0));
    assert_eq!(group(&app, &name).expect("the group")["lag_ms"], 0);
    consumer.signal("STOP");
    let an_hour_ago = (time::OffsetDateTime::now_utc().unix_timestamp() - 3600) * 1000;
    for (partition, count) in [(0, 7), (2, 25)] {
        let record = NewRecord::event("Ann", "late").partition(partition).timestamp(an_hour_ago);
        app.topic().produce_all(&vec![record; count]);
    }
    let behind = eventually("its lag", || group(&app, &name).filter(|group| group["lag"] == 32));
    let lags: Vec<&Value> = behind["partitions"].as_array().expect("partitions").iter().map(|p| &p["lag"]).collect();
    assert_eq!(lags, [7, 0, 25]);
    for (place, committed, end) in [(0, 10, 17), (1, 10, 10), (2, 10, 35)] {
        let partition = &behind["partitions"][place];
        assert_eq!((&partition["committed"], &partition["end"]), (&json!(committed), &json!(end)), "{partition}");
    }
    let lag_ms = behind["lag_ms"].as_i64().expect("a number");
    assert!((3_600_000..3_700_000).contains(&lag_ms), "{lag_ms} ms");
    assert_eq!(behind["partitions"][1]["lag_ms"], 0);
    eventually("that it commits nothing", || {
        group(&app, &name).filter(|group| group["partitions"][0]["stalled_ms"].as_u64().is_some_and(|ms| ms > 0))
    });
    consumer.signal("CONT");
    within(REBALANCE, "it has caught up", || group(&app, &name).filter(|group| group["lag"] == 0));
}

/// A member of a group that commits only what the test commits.
fn subscribe(topic: &Topic, group: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", topic.servers())
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[topic.name()]).expect("a subscription");
    consumer
}

/// Commits as this member; fails while Kafka has assigned it nothing.
fn commit_as(consumer: &BaseConsumer, topic: &Topic, offset: i64) -> bool {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic.name(), 0, Offset::Offset(offset)).expect("an offset");
    consumer.commit(&list, CommitMode::Sync).is_ok()
}

/// The state of a group in words, as the page shows it.
fn state(page: &str, group: &str) -> String {
    let article = page.split(&format!("id=\"g-{group}\"")).nth(1).unwrap_or_default();
    let words = article.split("class=\"word\">").nth(1).unwrap_or_default();
    words.split('<').next().unwrap_or_default().to_owned()
}

#[test]
fn groups_are_catching_up_stuck_or_have_committed_nothing_by_what_they_commit() {
    let app = Application::on(Broker::Kafka).start();
    let names = ["catching-up", "stuck", "silent"].map(crate::common::unique);
    write(app.topic(), 0, 5_000);
    let members = names.each_ref().map(|name| subscribe(app.topic(), name));
    // All are committed at the same moment, so that their 30 s begin together.
    within(REBALANCE, "the members have partitions", || {
        members.iter().for_each(|member| drop(member.poll(Duration::from_millis(10))));
        let assigned = |member: &&BaseConsumer| member.assignment().is_ok_and(|list| list.count() > 0);
        (members.iter().filter(assigned).count() == 3).then_some(())
    });
    let started = std::time::Instant::now();
    assert!(commit_as(&members[1], app.topic(), 5));
    let page = within(REBALANCE, "the states by rule", || {
        members.iter().for_each(|member| drop(member.poll(Duration::from_millis(10))));
        assert!(commit_as(&members[0], app.topic(), started.elapsed().as_millis() as i64 / 20));
        let page = app.get("/kafka").expect(200).text().to_owned();
        let [catching_up, stuck, silent] = names.each_ref().map(|name| state(&page, name));
        std::thread::sleep(Duration::from_millis(200));
        (catching_up.starts_with("catching up, ready in ")
            && stuck.starts_with("stuck for ")
            && silent == "has committed nothing, up to 5,000 behind")
            .then_some(page)
    });
    assert!(started.elapsed() >= Duration::from_secs(30), "stuck after {:?}", started.elapsed());
    assert!(page.contains("at partition 0"), "{page}");
    assert!(commit_as(&members[0], app.topic(), 5_000) && commit_as(&members[1], app.topic(), 5_000));
    eventually("both are up to date", || {
        let page = app.get("/kafka").expect(200).text().to_owned();
        names[..2].iter().all(|name| state(&page, name) == "up to date").then_some(())
    });
}

#[test]
fn lag_is_known_from_before_somebody_looked() {
    let app = Application::on(Broker::Kafka).start();
    let name = crate::common::unique("group");
    commit(app.topic(), &name, &[(0, 0)]);
    write(app.topic(), 0, 10);
    // Nobody looks meanwhile: the samples are those of the background, every 10 s.
    std::thread::sleep(Duration::from_secs(25));
    let page = app.get("/kafka").expect(200).text().to_owned();
    assert_eq!(state(&page, &name), "no members, 10 behind");
    let covered = page.split("of which ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a time");
    assert!(covered.parse::<u32>().expect("seconds") >= 15, "{page}");
}

#[test]
fn groups_are_sorted_by_lag_and_lists_are_searched_without_script() {
    let app = Application::on(Broker::Kafka).start();
    let [first, last] = ["a-small-lag", "b-large-lag"].map(crate::common::unique);
    write(app.topic(), 0, 10);
    commit(app.topic(), &first, &[(0, 9)]);
    commit(app.topic(), &last, &[(0, 1)]);
    let order = |target: &str| {
        let page = app.get(target).expect(200).text().to_owned();
        let place = |name: &str| page.find(&format!("id=\"g-{name}\""));
        Some(place(&first)? < place(&last)?)
    };
    eventually("both groups by name", || order("/kafka").filter(|in_order| *in_order));
    assert_eq!(order("/kafka?sort=lag"), Some(false), "the largest lag first");
    let found = app.get(&format!("/kafka?find_topic={}&find_group={last}", app.topic().name())).expect(200);
    let found = found.text();
    assert!(found.contains("<details id=\"topics\" open>") && found.contains("<caption>Topics: all 1,"), "{found}");
    assert!(found.contains("<caption>Groups: all 1,"), "{found}");
    let none = app.get("/kafka?find_topic=there-is-no-such-topic").expect(200);
    assert!(none.text().contains("<caption>Topics: none,"), "{}", none.text());
    assert_eq!(app.get("/kafka?sort=size").expect(400).problem()["type"], "/problems/bad-parameter");
}

#[test]
fn the_topic_has_its_retention_its_oldest_record_and_hot_keys() {
    let topic = Topic::create(kafka::shared(), 2, &[("retention.ms", "432000000")]);
    let app = Application::at(kafka::shared()).topic(&topic).start();
    let two_hours_ago = (time::OffsetDateTime::now_utc().unix_timestamp() - 7_300) * 1000;
    topic.produce(&NewRecord::event("Ann", "step").partition(0).timestamp(two_hours_ago));
    topic.produce_all(&vec![NewRecord::event("Ann", "step").key("Ann").partition(0); 90]);
    topic.produce_all(&vec![NewRecord::event("Zoe", "step").key("Zoe").partition(0); 30]);
    eventually("the hot key", || {
        let page = app.get("/kafka").expect(200).text().to_owned();
        page.contains("<bdi>Ann</bdi> 75 %").then_some(())
    });
    let page = within(REBALANCE, "what Kafka says about the topic", || {
        let page = app.get("/kafka").expect(200).text().to_owned();
        (page.contains("kept for 5 d") && page.contains(">2 h</time>")).then_some(page)
    });
    assert!(page.contains("1 replica <b class=\"warned\">⚠ unreplicated</b>"), "{page}");
}

/// Commits as a group that has no members now.
fn commit(topic: &Topic, group: &str, offsets: &[(i32, i64)]) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", topic.servers())
        .set("group.id", group)
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic.name(), *partition, Offset::Offset(*offset)).expect("an offset");
    }
    consumer.commit(&list, CommitMode::Sync).expect("a commit");
}

#[test]
fn a_committed_offset_outside_the_partition_is_named_and_deleted_records_are_no_lag() {
    let app = Application::on(Broker::Kafka).start();
    let name = crate::common::unique("group");
    (0..3).for_each(|partition| write(app.topic(), partition, 10));
    commit(app.topic(), &name, &[(0, 2), (1, 2), (2, 50)]);
    app.topic().delete_before(0, 10);
    app.topic().delete_before(1, 6);
    let group = eventually("what is left of its lag", || group(&app, &name).filter(|group| group["lag"] == 4));
    let partitions = group["partitions"].as_array().expect("partitions");
    let of = |key: &str| partitions.iter().map(|partition| partition[key].clone()).collect::<Vec<_>>();
    assert_eq!((of("lag"), of("first")), (vec![json!(0), json!(4), Value::Null], vec![json!(10), json!(6), json!(0)]));
    for (partition, words) in partitions.iter().zip(["2 to 9 were deleted", "2 to 5 were deleted", "beyond the end 10"])
    {
        assert!(partition["problem"].as_str().is_some_and(|problem| problem.contains(words)), "{partition}");
    }
    let page = app.get("/kafka").expect(200).text().to_owned();
    assert!(page.contains("the committed offset 50 is beyond the end 10"), "{page}");
}

/// Offsets 0 to 2 and their marker, 4 and 5 aborted and their marker: nothing is readable from 3 on.
fn write_transactions(topic: &Topic) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", topic.servers())
        .set("transactional.id", crate::common::unique("transactions"))
        .create()
        .expect("a producer");
    producer.init_transactions(PATIENCE).expect("transactions");
    for (count, commits) in [(3, true), (2, false)] {
        producer.begin_transaction().expect("a transaction");
        for _ in 0..count {
            let record = BaseRecord::<(), str>::to(topic.name()).partition(0).payload("{}");
            producer.send(record).map_err(|(error, _)| error).expect("a record");
        }
        producer.flush(PATIENCE).expect("written");
        match commits {
            true => producer.commit_transaction(PATIENCE).expect("committed"),
            false => producer.abort_transaction(PATIENCE).expect("aborted"),
        }
    }
}

#[test]
fn transaction_markers_and_aborted_records_are_no_lag() {
    let app = Application::on(Broker::Kafka).start();
    write_transactions(app.topic());
    let [name, foreign] = ["group", "foreign"].map(crate::common::unique);
    commit(app.topic(), &foreign, &[(0, 3)]);
    let consumer = consume(app.topic(), &name);
    consumer.some_lines(3);
    let done = within(REBALANCE, "it has committed the end", || group(&app, &name).filter(|group| group["lag"] == 0));
    within(REBALANCE, "the end is committed itself", || {
        (group(&app, &name)?["partitions"][0]["committed"] == 7).then_some(())
    });
    assert_eq!(done["lag_ms"], 0);
    eventually("only markers", || group(&app, &foreign).filter(|group| group["lag"] == 0 && group["lag_ms"] == 0));
    // The next record follows the aborted ones at the group's offset.
    write(app.topic(), 0, 1);
    commit(app.topic(), &foreign, &[(0, 4)]);
    eventually("the age of the next record", || {
        group(&app, &foreign).filter(|group| group["lag"] == 1 && group["lag_ms"].as_i64().is_some())
    });
}

#[test]
fn records_removed_by_compaction_are_no_lag() {
    // By default the log cleaner runs every 15 s.
    let often = ["configs", "--alter", "--entity-type", "brokers", "--entity-default", "--add-config"];
    kafka::tool(kafka::shared(), &[&often[..], &["log.cleaner.backoff.ms=200"]].concat());
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "500"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("max.compaction.lag.ms", "500"),
    ];
    let topic = Topic::create(kafka::shared(), 1, &settings);
    let app = Application::at(kafka::shared()).topic(&topic).start();
    let name = crate::common::unique("group");
    let record = || NewRecord::event("Ann", "step").key("Ann").partition(0);
    topic.produce_all(&vec![record(); 10]);
    commit(&topic, &name, &[(0, 0)]);
    eventually("its lag", || group(&app, &name).filter(|group| group["lag"] == 10));
    std::thread::sleep(Duration::from_secs(1));
    // The latest segment, which is never compacted, starts here.
    topic.produce(&record());
    let lag = within(REBALANCE, "only the latest of the key are left", || {
        group(&app, &name).filter(|group| group["lag"] == 2 && group["lag_ms"].as_i64().is_some())
    });
    assert_eq!((&lag["partitions"][0]["committed"], &lag["partitions"][0]["end"]), (&json!(0), &json!(11)));
}

#[test]
fn the_page_updates_by_itself_and_keeps_opened_details_open() {
    let app = Application::on(Broker::Kafka).start();
    let name = crate::common::unique("group");
    let browser = Browser::start();
    browser.open(&app, "/kafka");
    browser.wait_for_text("#refreshed", "Updates every 2 s");
    assert!(browser.text(".empty").is_some_and(|words| words.contains("footfall consume")));
    browser.click("#topics summary");
    browser.js("document.querySelector('#topics summary').focus()");
    browser.js("document.querySelector('#p-1').mark = true");
    write(app.topic(), 1, 3);
    browser.wait_for_text("#p-1 .offsets", "0 to 3");
    let first = consume(app.topic(), &name);
    let article = format!("#g-{name}");
    browser.wait_for_text(&article, "One member has all partitions");
    assert_eq!(browser.count(&format!("{article} .sharing path")), 3);
    let _second = consume(app.topic(), &name);
    browser.wait_for_text(&article, "2 members share the partitions");
    assert_eq!(browser.count(&format!("{article} .sharing .member")), 2);
    assert_eq!(browser.js("return document.querySelector('#p-1').mark === true"), true, "the row was changed in place");
    assert_eq!(browser.count("#topics[open]"), 1);
    assert_eq!(browser.js("return document.activeElement.parentNode.id"), "topics");
    browser.click("[data-explain=topic] summary");
    browser.wait_for("the explanation is remembered", || {
        browser.js("return document.cookie.includes('footfall_explain=topic')") == true
    });
    browser.open(&app, "/kafka");
    let open = "return [...document.querySelectorAll('[data-explain][open]')].map((box) => box.dataset.explain)";
    assert_eq!(browser.js(open), json!(["topic"]), "the server renders it open");
    browser.wait_for_text("#refreshed", "Updates every 2 s");
    browser.click("[data-explain=topic] summary");
    write(app.topic(), 1, 3);
    browser.wait_for_text("#p-1 .offsets", "0 to 6");
    assert_eq!(browser.js(open), json!([]), "it stays closed");
    assert_eq!(browser.complaints(), Vec::<String>::new());
    for width in [1440, 768, 390, 320] {
        browser.resize(width, 800);
        let wider = "const page = document.documentElement; return page.scrollWidth - page.clientWidth";
        assert_eq!(browser.js(wider), 0, "at {width} pixels");
        let scrolls = "const table = document.querySelector('.partitions').parentNode; return table.scrollWidth - table.clientWidth";
        assert_eq!(browser.js(scrolls), 0, "the partitions at {width} pixels");
        if let Ok(folder) = std::env::var("FOOTFALL_TEST_PICTURES") {
            for scheme in ["light", "dark"] {
                browser.prefer(scheme);
                browser.js("scrollTo(0, 0)");
                std::fs::write(format!("{folder}/kafka-{width}-{scheme}.png"), browser.picture()).expect("a picture");
            }
        }
    }
    app.kill();
    browser.wait_for_text("#refreshed", "Server unreachable. Showing data from");
    drop(first);
}

#[test]
fn the_page_works_without_scripts() {
    let app = Application::on(Broker::Embedded).start();
    write(app.topic(), 0, 2);
    let browser = Browser::without_scripts();
    browser.open(&app, "/kafka");
    let page = app.get("/kafka").expect(200).text().to_owned();
    assert!(page.contains("no JavaScript") && page.contains("0 to 2"), "{page}");
}
