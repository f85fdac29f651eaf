//! Followers without a socket, over a feed that the test fills. Kafka is unreachable, so a follower gets only records
//! in memory; tests/it/stream.rs has those that read from Kafka.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::config::KafkaSettings;
use crate::event::Record;
use crate::feed::{Frames, Writer};
use crate::kafka::{Cause, Connection, History, TopicState, Trouble};
use crate::rejects::Rejects;

/// Long enough for anything that is to arrive.
const IN_TIME: Duration = Duration::from_secs(20);
/// Long enough to see that nothing arrives.
const A_MOMENT: Duration = Duration::from_millis(100);

struct Fixture {
    streams: Arc<Streams>,
    writer: Writer,
    kafka: watch::Sender<ClusterState>,
    closing: CancellationToken,
}

impl Fixture {
    /// A feed that has started, at the beginning of a topic with one partition.
    fn new(settings: FeedSettings) -> Self {
        let mut fixture = Fixture::before_the_start(settings);
        fixture.writer.start(&[0], &[0]);
        fixture
    }

    fn before_the_start(settings: FeedSettings) -> Self {
        let nowhere = KafkaSettings { bootstrap_servers: "127.0.0.1:9".into(), ..KafkaSettings::default() };
        let connection = Connection::new(&nowhere).expect("valid settings");
        let (kafka, state) = watch::channel(ClusterState::Up(Arc::default()));
        let feed = Feed::new("t", Frames::new(|_| "<li>".into()), settings.events, 1 << 20);
        let (writer, closing) = (feed.writer(), CancellationToken::new());
        let reads = Reads::new(Arc::new(History::new(&connection, state.clone())));
        let streams =
            Arc::new(Streams::new(feed, reads, state, Rejects::default().news(), false, closing.clone(), settings));
        Fixture { streams, writer, kafka, closing }
    }

    fn publish(&mut self, offsets: std::ops::Range<i64>) {
        for offset in offsets {
            let value = format!(r#"{{"user":"u{}","action":"a"}}"#, offset % 2);
            self.writer.push(Record::new(0, offset, Some(offset), None, Some(value.as_bytes()), std::iter::empty()));
            while self.writer.publish() != Duration::MAX {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Publishes this many records together, each so large that a stream sends it alone.
    fn publish_large(&mut self, count: i64) {
        let value = format!(r#"{{"user":"u","action":"{}"}}"#, "x".repeat(40_000));
        for offset in 0..count {
            self.writer.push(Record::new(0, offset, None, None, Some(value.as_bytes()), std::iter::empty()));
        }
        while self.writer.publish() != Duration::MAX {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    async fn follow(&self, start: Start) -> Client {
        self.open(request(start)).await.expect("a stream")
    }

    async fn open(&self, request: StreamRequest) -> Result<Client, OpenError> {
        self.streams.follow(request).await.map(Client)
    }
}

fn request(start: Start) -> StreamRequest {
    let (address, filter) = (Address::new(None), Filter::default());
    StreamRequest { address, dialect: Dialect::Lines, filter, frames: None, start, max_rate: None, strict: false }
}

struct Client(Follower);

impl Client {
    /// Returns the next message; several that arrive together are one text of as many lines.
    async fn next(&mut self) -> String {
        let bytes = timeout(IN_TIME, self.0.next()).await.expect("in time").expect("not the end");
        String::from_utf8(bytes.to_vec()).expect("UTF-8")
    }

    /// Returns the cursors of the next events, this many.
    async fn events(&mut self, count: usize) -> Vec<String> {
        let mut cursors = Vec::new();
        while cursors.len() < count {
            let text = self.next().await;
            for line in text.lines() {
                assert!(line.starts_with(r#"{"type":"event","#), "{line}");
                cursors.push(line.split('"').nth(7).expect("a cursor").to_owned());
            }
        }
        cursors
    }

    async fn expect(&mut self, part: &str) {
        let text = self.next().await;
        assert!(text.contains(part), "{text}");
    }

    async fn expect_nothing(&mut self) {
        assert!(timeout(A_MOMENT, self.0.next()).await.is_err());
    }
}

#[tokio::test]
async fn a_stream_from_now_gets_what_comes_after_it_was_opened() {
    let mut fixture = Fixture::new(FeedSettings::default());
    fixture.publish(0..2);
    let mut client = fixture.follow(Start::Now).await;
    fixture.publish(2..4);
    client.expect(r#"{"type":"position","cursor":"0-2"}"#).await;
    assert_eq!(client.events(2).await, ["0-3", "0-4"]);
    client.expect_nothing().await;
    fixture.publish(4..5);
    assert_eq!(client.events(1).await, ["0-5"]);
}

#[tokio::test]
async fn a_stream_resumes_from_memory() {
    let mut fixture = Fixture::new(FeedSettings::default());
    fixture.publish(0..4);
    let mut client = fixture.follow(Start::after("0-1")).await;
    client.expect(r#"{"type":"position","cursor":"0-1"}"#).await;
    assert_eq!(client.events(3).await, ["0-2", "0-3", "0-4"]);
}

#[tokio::test]
async fn the_last_records_that_match_come_from_memory() {
    let mut fixture = Fixture::new(FeedSettings::default());
    fixture.publish(0..10);
    let filter = Filter { users: vec!["u1".into()], ..Filter::default() };
    let mut client = fixture.open(StreamRequest { filter, ..request(Start::Last(2)) }).await.expect("a stream");
    client.expect(r#""cursor":null"#).await;
    client.expect(r#"{"type":"position","cursor":"0-7"}"#).await;
    assert_eq!(client.events(2).await, ["0-8", "0-10"]);
}

#[tokio::test]
async fn a_place_that_does_not_exist_is_a_gap() {
    let mut fixture = Fixture::new(FeedSettings::default());
    fixture.publish(0..3);
    for (start, reason) in [("yesterday", GapReason::MalformedCursor), ("0-1.1-1", GapReason::UnknownPartition)] {
        let mut client = fixture.follow(Start::after(start)).await;
        client.expect(r#"{"type":"position","cursor":null}"#).await;
        let gap = format!(r#""type":"gap","cursor":"0-3","missed":null,"reason":"{reason}","requested":"{start}""#);
        client.expect(&gap).await;
        fixture.publish(3..3);
        client.expect_nothing().await;
        let strict = StreamRequest { strict: true, ..request(Start::after(start)) };
        let refused = fixture.open(strict).await.err();
        assert_eq!(refused, Some(OpenError::NotResumable { requested: start.into(), reason }));
    }
    assert_eq!(fixture.streams.feed.metrics().gaps.get(), 2);
}

#[tokio::test]
async fn a_slow_stream_gets_the_count_of_dropped_records() {
    let mut fixture = Fixture::new(FeedSettings { events: 10, ..FeedSettings::default() });
    let mut client = fixture.follow(Start::Now).await;
    client.expect("position").await;
    fixture.publish(0..1);
    assert_eq!(client.events(1).await, ["0-1"]);
    client.expect_nothing().await;
    fixture.publish(1..40);
    let text = client.next().await;
    assert!(text.contains(r#""type":"dropped","#) && text.contains(r#""from":"0-1""#), "{text}");
    let dropped: usize =
        text.split(r#""count":"#).nth(1).and_then(|t| t.split(',').next()?.parse().ok()).expect("count");
    assert_eq!(client.events(39 - dropped).await.last().map(String::as_str), Some("0-40"));
}

#[tokio::test]
async fn a_recreated_topic_is_a_gap_also_for_a_stream_that_has_not_started() {
    let mut fixture = Fixture::new(FeedSettings::default());
    fixture.publish(0..2);
    let mut client = fixture.follow(Start::after("0-1")).await;
    fixture.writer.restart(&[0]);
    fixture.publish(0..3);
    client.expect(r#"{"type":"position","cursor":"0-1"}"#).await;
    // The new topic has this position too, but with another record.
    client.expect(r#""type":"gap","cursor":"0-0","missed":null,"reason":"topic recreated""#).await;
    assert_eq!(client.events(3).await, ["0-1", "0-2", "0-3"]);
}

#[tokio::test]
async fn a_stream_opened_before_the_tail_has_started_waits_for_it() {
    let mut fixture = Fixture::before_the_start(FeedSettings { heartbeat: A_MOMENT, ..FeedSettings::default() });
    let mut client = fixture.follow(Start::Now).await;
    client.expect(r#"{"type":"position","cursor":null}"#).await;
    // Heartbeats come all the same.
    client.expect(r#"{"type":"position","cursor":null}"#).await;
    fixture.writer.start(&[7], &[7]);
    client.expect(r#"{"type":"position","cursor":"0-7"}"#).await;
    fixture.publish(7..8);
    assert_eq!(client.events(1).await, ["0-8"]);
}

#[tokio::test]
async fn a_heartbeat_has_the_current_position() {
    let mut fixture = Fixture::new(FeedSettings { heartbeat: A_MOMENT, ..FeedSettings::default() });
    let filter = Filter { users: vec!["u1".into()], ..Filter::default() };
    let mut client = fixture.open(StreamRequest { filter, ..request(Start::Now) }).await.expect("a stream");
    client.expect(r#""cursor":"0-0""#).await;
    fixture.publish(0..1); // hidden by the filter
    client.expect(r#"{"type":"position","cursor":"0-1"}"#).await;
    let sse = StreamRequest { dialect: Dialect::Json, ..request(Start::Now) };
    let mut client = fixture.open(sse).await.expect("a stream");
    client.expect("id: 0-1\n\n").await;
    assert_eq!(client.next().await, ": heartbeat\n");
}

#[tokio::test]
async fn a_page_gets_heartbeats_as_events_with_the_age_of_the_stream() {
    let fixture = Fixture::new(FeedSettings { heartbeat: A_MOMENT, ..FeedSettings::default() });
    let start = Instant::now();
    let page = StreamRequest { dialect: Dialect::Html, ..request(Start::Now) };
    let mut page = fixture.open(page).await.expect("a stream");
    page.expect("retry: ").await;
    page.expect("event: status\n").await;
    let mut last = 0;
    for _ in 0..3 {
        let text = page.next().await;
        let age = text.strip_prefix("event: heartbeat\ndata: {\"elapsed_ms\":").expect("a heartbeat");
        let age: u128 = age.strip_suffix("}\nid: 0-0\n\n").expect("the position").parse().expect("a number");
        assert!(age >= last + 80 && age <= start.elapsed().as_millis(), "{age} ms after {last} ms");
        last = age;
    }
}

#[tokio::test]
async fn a_stream_says_bye_when_the_process_ends_and_at_its_maximum_age() {
    let fixture = Fixture::new(FeedSettings::default());
    let mut client = fixture.follow(Start::Now).await;
    client.expect("position").await;
    fixture.closing.cancel();
    client.expect(r#"{"type":"bye","cursor":"0-0","reason":"shutdown"}"#).await;
    assert!(client.0.next().await.is_none() && client.0.next().await.is_none());
    let mut late = fixture.follow(Start::Now).await;
    late.expect("position").await;
    late.expect(r#"{"type":"bye","cursor":"0-0","reason":"shutdown"}"#).await;
    assert!(late.0.next().await.is_none());
    let fixture = Fixture::new(FeedSettings { max_age: A_MOMENT, ..FeedSettings::default() });
    let mut client = fixture.follow(Start::Now).await;
    client.expect("position").await;
    client.expect(r#""reason":"max age""#).await;
    assert!(client.0.next().await.is_none());
}

#[tokio::test]
async fn a_stream_reports_missing_records_and_a_page_also_rejected_posts() {
    let fixture = Fixture::new(FeedSettings::default());
    let mut program = fixture.follow(Start::Now).await;
    let mut page =
        fixture.open(StreamRequest { dialect: Dialect::Html, ..request(Start::Now) }).await.expect("a stream");
    program.expect("position").await;
    page.expect("retry: ").await;
    page.expect(r#""broker":"up""#).await;
    program.expect_nothing().await;
    let troubles = vec![Trouble::new(Cause::WriteDenied, "writing is denied")];
    fixture.kafka.send_replace(ClusterState::Up(Arc::new(TopicState { troubles, ..TopicState::default() })));
    page.expect(r#""broker":"impaired","reason":"writing is denied""#).await;
    program.expect_nothing().await;
    let reason = "no answer".to_owned();
    fixture.kafka.send_replace(ClusterState::Unreachable { since_ms: 0, cause: Cause::Unreachable, reason });
    page.expect(r#""broker":"away","reason":"no answer""#).await;
    program.expect(r#""broker":"away","reason":"no answer""#).await;
}

#[tokio::test]
async fn a_rate_skips_to_the_newest_and_counts_what_it_leaves_out() {
    let mut fixture = Fixture::new(FeedSettings::default());
    let mut client = fixture.open(StreamRequest { max_rate: Some(2), ..request(Start::Now) }).await.expect("a stream");
    client.expect("position").await;
    fixture.publish(0..10);
    let text = client.next().await;
    // Two seconds' worth at once.
    assert!(text.contains(r#""type":"skipped","cursor":"0-6","count":6,"from":"0-0","to":"0-6""#), "{text}");
    assert_eq!(text.lines().count(), 5);
    let sent = Instant::now();
    fixture.publish(10..12);
    client.expect(r#""type":"event""#).await;
    assert!(sent.elapsed() >= Duration::from_millis(500), "after {:?}", sent.elapsed());
}

#[tokio::test]
async fn a_client_that_is_behind_memory_waits_while_kafka_is_unreachable_and_gets_its_heartbeats() {
    let settings = FeedSettings { events: 4, heartbeat: A_MOMENT, ..FeedSettings::default() };
    let mut fixture = Fixture::new(settings);
    let mut client = fixture.follow(Start::after("0-0")).await;
    client.expect(r#""cursor":"0-0""#).await;
    // It has not caught up yet, so nothing is dropped: Kafka has the records.
    fixture.publish(0..20);
    fixture.kafka.send_replace(ClusterState::Unreachable {
        since_ms: 0,
        cause: Cause::Unreachable,
        reason: "gone".into(),
    });
    client.expect(r#""broker":"away""#).await;
    for _ in 0..3 {
        client.expect(r#"{"type":"position","cursor":"0-0"}"#).await;
    }
}

/// A stream that never waits does not wait for its timer either.
#[tokio::test]
async fn a_stream_that_always_has_frames_gets_its_heartbeats_and_its_end() {
    let settings = FeedSettings { heartbeat: A_MOMENT, max_age: 10 * A_MOMENT, ..FeedSettings::default() };
    let mut fixture = Fixture::new(settings);
    fixture.publish_large(20);
    let mut client = fixture.follow(Start::after("0-0")).await;
    client.expect("position").await;
    for heartbeats in 1..=3 {
        assert_eq!(client.next().await.lines().count(), 1);
        sleep(A_MOMENT * 3 / 2).await;
        let beat = client.next().await;
        assert!(!beat.contains("\"event\""), "{heartbeats}: {beat}");
    }
    sleep(10 * A_MOMENT).await;
    client.expect("bye").await;
}

#[tokio::test]
async fn many_frames_come_in_parts_with_beats_in_between() {
    let mut fixture = Fixture::new(FeedSettings::default());
    fixture.publish_large(10);
    let mut client = fixture.follow(Start::after("0-0")).await;
    client.expect("position").await;
    assert_eq!(client.next().await.lines().count(), 1);
    fixture.closing.cancel();
    sleep(A_MOMENT).await; // a task tells the streams
    // Not the position after all ten, of which the client has one.
    client.expect(r#"{"type":"bye","cursor":"0-1","#).await;
    assert!(client.0.next().await.is_none());
}

#[tokio::test]
async fn only_so_many_streams_are_open_until_they_are_dropped() {
    let fixture = Fixture::new(FeedSettings { max_streams: 3, ..FeedSettings::default() });
    let first = [fixture.follow(Start::Now).await, fixture.follow(Start::Now).await, fixture.follow(Start::Now).await];
    assert_eq!(fixture.open(request(Start::Now)).await.err(), Some(OpenError::AddressFull(3)));
    let elsewhere = StreamRequest { address: Address::new("192.0.2.1".parse().ok()), ..request(Start::Now) };
    assert_eq!(fixture.open(elsewhere).await.err(), Some(OpenError::Full(3)));
    assert_eq!(fixture.streams.feed.streams(), 3);
    drop(first);
    assert_eq!(fixture.streams.feed.streams(), 0);
    fixture.follow(Start::Now).await.expect("position").await;
}

/// Each idle stream holds its follower and the future of its next bytes.
#[test]
fn an_idle_stream_is_small() {
    fn future_of<'a, F: Future>(_: impl Fn(&'a mut Follower) -> F) -> usize {
        size_of::<F>()
    }
    let (follower, next) = (size_of::<Follower>(), future_of(Follower::next));
    assert!(follower + next <= 1500, "{follower} + {next} bytes");
}
