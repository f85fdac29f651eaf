//! What a subscription gives, block by block.

use std::time::Duration;

use footfall_core::Text;

use super::*;
use crate::event::Record;
use crate::feed::Writer;

fn record(partition: i32, offset: i64) -> Record {
    let value = format!(r#"{{"user":"u{}","action":"a"}}"#, offset % 2);
    Record::new(partition, offset, Some(offset), None, Some(value.as_bytes()), std::iter::empty())
}

fn feed(records: usize) -> (Feed, Writer) {
    let feed = Feed::new("t", Frames::new(|_| "<li>".into()), records, 1 << 20);
    let mut writer = feed.writer();
    writer.start(&[0, 0], &[0, 0]);
    (feed, writer)
}

/// Publishes each record as a block of its own.
fn publish(writer: &mut Writer, records: &[(i32, i64)]) {
    for (partition, offset) in records {
        writer.push(record(*partition, *offset));
        while writer.publish() != Duration::MAX {}
    }
}

fn subscribe(feed: &Feed, place: &str) -> Subscription {
    Subscription::new(feed, Dialect::Json, Filter::default(), place.parse().expect("a cursor"))
}

fn ids(subscription: &mut Subscription) -> Vec<String> {
    let mut ids = Vec::new();
    while let Some(next) = subscription.read() {
        let Next::Frames(bytes) = next else { panic!("{next:?}") };
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        ids.extend(text.lines().filter_map(|line| line.strip_prefix("id: ")).map(str::to_owned));
    }
    ids
}

#[test]
fn everything_after_a_place_is_read_in_order() {
    let (feed, mut writer) = feed(100);
    publish(&mut writer, &[(0, 0), (1, 0), (0, 1)]);
    assert_eq!(ids(&mut subscribe(&feed, "0-0.1-0")), ["0-1.1-0", "0-1.1-1", "0-2.1-1"]);
    let mut live = subscribe(&feed, "0-2.1-1");
    assert!(live.read().is_none());
    publish(&mut writer, &[(1, 1)]);
    assert_eq!(ids(&mut live), ["0-2.1-2"]);
}

#[test]
fn a_place_of_another_replicas_order_gets_what_is_missing_and_nothing_twice() {
    let (feed, mut writer) = feed(100);
    publish(&mut writer, &[(0, 0), (1, 0), (0, 1), (1, 1)]);
    // The other replica saw both records of partition 1 first.
    assert_eq!(ids(&mut subscribe(&feed, "0-0.1-2")), ["0-1.1-2", "0-2.1-2"]);
}

#[test]
fn a_place_ahead_of_this_replica_waits_for_what_comes_after_it() {
    let (feed, mut writer) = feed(100);
    let mut ahead = subscribe(&feed, "0-2.1-0");
    publish(&mut writer, &[(0, 0), (0, 1)]);
    assert_eq!(ids(&mut ahead), Vec::<String>::new());
    publish(&mut writer, &[(0, 2)]);
    assert_eq!(ids(&mut ahead), ["0-3.1-0"]);
}

#[test]
fn a_place_before_memory_is_behind() {
    let (feed, mut writer) = feed(2);
    publish(&mut writer, &[(0, 0), (0, 1), (0, 2), (0, 3)]);
    let mut late = subscribe(&feed, "0-0.1-0");
    let Some(Next::Behind { to }) = late.read() else { panic!("not behind") };
    assert_eq!(to.to_string(), "0-3.1-0");
    late.resume(Cursor::clone(&to));
    assert_eq!(ids(&mut late), ["0-4.1-0"]);
}

#[test]
fn a_reader_that_has_not_caught_up_returns_to_kafka_after_an_eviction() {
    let (feed, mut writer) = feed(4);
    publish(&mut writer, &[(0, 0), (0, 1)]);
    let mut late = subscribe(&feed, "0-0.1-0");
    assert!(text_of(late.read()).contains("id: 0-1.1-0"));
    publish(&mut writer, &(2..11).map(|offset| (0, offset)).collect::<Vec<_>>());
    let Some(Next::Behind { to }) = late.read() else { panic!("not behind") };
    assert_eq!((late.place().to_string().as_str(), to.to_string().as_str()), ("0-1.1-0", "0-9.1-0"));
    late.resume(Cursor::clone(&to));
    assert_eq!(ids(&mut late), ["0-10.1-0", "0-11.1-0"]);
    // From now on it loses records that it is too slow for.
    publish(&mut writer, &(11..21).map(|offset| (0, offset)).collect::<Vec<_>>());
    assert!(text_of(late.read()).contains(r#"{"count":8,"from":"0-11.1-0","to":"0-19.1-0"}"#));
}

#[test]
fn a_slow_reader_gets_the_exact_count_and_continues_half_a_ring_behind() {
    let (feed, mut writer) = feed(4);
    publish(&mut writer, &[(0, 0)]);
    let mut slow = subscribe(&feed, "0-0.1-0");
    assert_eq!(ids(&mut slow), ["0-1.1-0"]);
    publish(&mut writer, &(1..11).map(|offset| (0, offset)).collect::<Vec<_>>());
    let Some(Next::Frames(bytes)) = slow.read() else { panic!("no frames") };
    let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    assert!(text.contains(r#"{"count":8,"from":"0-1.1-0","to":"0-9.1-0"}"#), "{text}");
    assert_eq!(ids(&mut slow), ["0-10.1-0", "0-11.1-0"]);
}

#[test]
fn a_reader_that_connects_before_the_tail_has_caught_up_returns_to_kafka_after_an_eviction() {
    let feed = Feed::new("t", Frames::new(|_| "<li>".into()), 4, 1 << 20);
    let mut writer = feed.writer();
    writer.start(&[0], &[10]);
    let mut early = subscribe(&feed, "0-2");
    assert!(early.read().is_none());
    publish(&mut writer, &(0..10).map(|offset| (0, offset)).collect::<Vec<_>>());
    assert!(matches!(early.read(), Some(Next::Behind { .. })));
}

#[test]
fn the_cursor_advances_over_filtered_records() {
    let (feed, mut writer) = feed(100);
    let filter = Filter { users: vec!["u1".into()], ..Filter::default() };
    let mut some = Subscription::new(&feed, Dialect::Json, filter, Cursor::new([0, 0]));
    publish(&mut writer, &[(0, 0), (0, 1), (0, 2)]);
    assert_eq!(ids(&mut some), ["0-2.1-0"]);
    assert_eq!(some.place().to_string(), "0-3.1-0");
}

#[test]
fn a_gap_is_sent_once_and_in_its_place() {
    let (feed, mut writer) = feed(100);
    let mut live = subscribe(&feed, "0-0.1-0");
    publish(&mut writer, &[(0, 0)]);
    writer.skip(0, 5);
    publish(&mut writer, &[(0, 5)]);
    assert_eq!(ids(&mut live), ["0-1.1-0", "0-5.1-0", "0-6.1-0"]);
    writer.restart(&[0, 0]);
    publish(&mut writer, &[(0, 0)]);
    assert_eq!(ids(&mut live), ["0-0.1-0", "0-1.1-0"]);
}

/// The text of one read's frames.
fn text_of(next: Option<Next>) -> String {
    let Some(Next::Frames(bytes)) = next else { panic!("no frames: {next:?}") };
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn records_read_before_a_gap_come_before_it() {
    let (feed, mut writer) = feed(100);
    let mut live = subscribe(&feed, "0-0.1-0");
    writer.push(record(1, 0)); // not published yet
    writer.skip(0, 5);
    assert_eq!(ids(&mut live), ["0-0.1-1", "0-5.1-1"]);
    assert_eq!(feed.head().to_string(), "0-5.1-1");
}

#[test]
fn a_gap_counts_only_what_a_client_of_another_replica_misses() {
    let (feed, mut writer) = feed(100);
    let mut ahead = subscribe(&feed, "0-2.1-3");
    let mut far_ahead = subscribe(&feed, "0-9.1-0");
    writer.skip(0, 5);
    assert!(
        text_of(ahead.read()).contains(r#"{"missed":3,"reason":"expired","requested":"0-2.1-3","resumed":"0-5.1-3"}"#)
    );
    assert_eq!(ahead.place().to_string(), "0-5.1-3");
    assert!(far_ahead.read().is_none());
    assert_eq!(far_ahead.place().to_string(), "0-9.1-0");
}

#[test]
fn expired_records_count_as_dropped_too() {
    let (feed, mut writer) = feed(2);
    let mut slow = subscribe(&feed, "0-0.1-0");
    publish(&mut writer, &[(0, 0)]);
    assert_eq!(ids(&mut slow), ["0-1.1-0"]);
    writer.skip(0, 5);
    publish(&mut writer, &(5..9).map(|offset| (0, offset)).collect::<Vec<_>>());
    assert!(text_of(slow.read()).contains(r#"{"count":7,"from":"0-1.1-0","to":"0-8.1-0"}"#));
}

#[test]
fn a_slow_reader_gets_the_recreation_gap_even_after_its_block_was_evicted() {
    let (feed, mut writer) = feed(2);
    let mut slow = subscribe(&feed, "0-0.1-0");
    publish(&mut writer, &[(0, 0)]);
    assert_eq!(ids(&mut slow), ["0-1.1-0"]);
    writer.restart(&[0, 0]);
    publish(&mut writer, &(0..6).map(|offset| (0, offset)).collect::<Vec<_>>());
    assert!(text_of(slow.read()).contains("topic recreated"));
    assert!(text_of(slow.read()).contains(r#"{"count":5,"from":"0-0.1-0","to":"0-5.1-0"}"#));
}

#[test]
fn a_reader_in_kafka_gets_a_gap_when_the_topic_is_recreated() {
    let (feed, mut writer) = feed(2);
    publish(&mut writer, &(0..6).map(|offset| (0, offset)).collect::<Vec<_>>());
    let mut late = subscribe(&feed, "0-0.1-0");
    assert!(matches!(late.read(), Some(Next::Behind { .. })));
    writer.restart(&[0, 0]);
    publish(&mut writer, &[(0, 0)]);
    late.resume(Cursor::new([4, 0]));
    assert_eq!(ids(&mut late), ["0-0.1-0", "0-1.1-0"]);
}

#[test]
fn a_cursor_found_before_the_topic_was_recreated_leads_to_a_gap() {
    let (feed, mut writer) = feed(100);
    publish(&mut writer, &[(0, 0), (0, 1), (0, 2)]);
    let mut late = Subscription::new(&feed, Dialect::Json, Filter::default(), Cursor::default());
    let place = feed.head();
    writer.restart(&[0, 0]);
    publish(&mut writer, &[(0, 0)]);
    late.restart(place);
    assert!(text_of(late.read()).contains("topic recreated"));
    assert_eq!(ids(&mut late), ["0-1.1-0"]);
    assert_eq!(late.incarnation, feed.incarnation());
}

#[test]
fn events_after_filtered_records_count_against_the_allowance() {
    let (feed, mut writer) = feed(100);
    let filter = Filter { users: vec!["u1".into()], ..Filter::default() };
    let mut page = Subscription::new(&feed, Dialect::Json, filter, Cursor::new([0, 0]));
    publish(&mut writer, &[(0, 0), (0, 1)]);
    let mut allowance = 3;
    assert!(text_of(page.read_newest(&mut allowance)).contains("id: 0-2.1-0"));
    assert_eq!(allowance, 2);
}

#[test]
fn an_allowance_holds_for_a_cursor_inside_a_block() {
    let (feed, mut writer) = feed(100);
    let records: Vec<(i32, i64)> = (0..10).map(|offset| (0, offset)).collect();
    records.iter().for_each(|(partition, offset)| writer.push(record(*partition, *offset)));
    writer.flush();
    let mut page = subscribe(&feed, "0-2.1-0");
    let text = text_of(page.read_newest(&mut 2));
    assert!(text.contains(r#"{"count":6,"from":"0-2.1-0","to":"0-8.1-0"}"#), "{text}");
    assert_eq!(text.matches("\"offset\"").count(), 2);
}

#[test]
fn beyond_the_allowance_the_newest_are_read_and_the_rest_is_counted() {
    let (feed, mut writer) = feed(100);
    let filter = Filter { users: vec!["u1".into()], ..Filter::default() };
    let mut page = Subscription::new(&feed, Dialect::Json, filter, Cursor::new([0, 0]));
    let records: Vec<(i32, i64)> = (0..20).map(|offset| (0, offset)).collect();
    publish(&mut writer, &records);
    let mut allowance = 3;
    let Some(Next::Frames(bytes)) = page.read_newest(&mut allowance) else { panic!("frames") };
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(r#"{"count":7,"from":"0-0.1-0","to":"0-14.1-0"}"#), "{text}");
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(ids, ["0-14.1-0", "0-16.1-0", "0-18.1-0", "0-20.1-0"]);
    assert_eq!((allowance, page.read_newest(&mut 5).is_none()), (0, true));
    publish(&mut writer, &[(0, 20), (0, 21)]);
    allowance = 2;
    assert!(matches!(page.read_newest(&mut allowance), Some(Next::Frames(_))));
    assert_eq!(page.place().to_string(), "0-22.1-0");
}

/// Reads until there is nothing more. Returns how often frames came, and how often other tasks could run.
fn read_out(mut read: impl FnMut() -> Option<Next>) -> (usize, usize) {
    let (mut frames, mut turns) = (0, 0);
    loop {
        match read() {
            Some(Next::Frames(_)) => frames += 1,
            Some(Next::Onward) => turns += 1,
            Some(next) => panic!("{next:?}"),
            None => return (frames, turns),
        }
    }
}

#[test]
fn many_blocks_of_one_record_are_read_quickly_and_let_other_tasks_run() {
    const RECORDS: i64 = 10_000;
    let feed = Feed::new("t", Frames::new(|_| "<li>".into()), RECORDS as usize, usize::MAX);
    let mut writer = feed.writer();
    writer.start(&[0], &[0]);
    for offset in 0..RECORDS {
        writer.push(record(0, offset));
        writer.flush();
    }
    let started = std::time::Instant::now();
    let filtered = |text: &str| {
        let filter = Filter { texts: vec![Text::seen(text)], ..Filter::default() };
        Subscription::new(&feed, Dialect::Json, filter, Cursor::new([0]))
    };
    let strides = RECORDS as usize / STRIDE;
    let mut nobody = filtered("nobody");
    let (frames, turns) = read_out(|| nobody.read());
    assert!(frames == 0 && turns >= strides, "{frames} {turns}");
    let (mut nobody, mut allowance) = (filtered("nobody"), 100);
    let (frames, turns) = read_out(|| nobody.read_newest(&mut allowance));
    assert!(frames == 0 && turns >= strides && allowance == 100, "{frames} {turns} {allowance}");
    assert_eq!(**nobody.place(), feed.head());
    let (mut half, mut allowance) = (filtered("u1"), RECORDS as usize);
    let (frames, turns) = read_out(|| half.read_newest(&mut allowance));
    assert!(frames == 5000 && turns >= strides && allowance == 5000, "{frames} {turns} {allowance}");
    // A read per block over all blocks would take a minute.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn records_evicted_after_counting_do_not_use_up_the_allowance() {
    let (feed, mut writer) = feed(4);
    let mut page = subscribe(&feed, "0-0.1-0");
    let mut allowance = 10;
    assert!(page.read_newest(&mut allowance).is_none());
    publish(&mut writer, &[(0, 0), (0, 1), (0, 2)]);
    assert!(text_of(page.read_newest(&mut allowance)).contains("id: 0-1.1-0"));
    publish(&mut writer, &(3..11).map(|offset| (0, offset)).collect::<Vec<_>>());
    assert!(text_of(page.read_newest(&mut allowance)).contains(r#"{"count":8,"from":"0-1.1-0","to":"0-9.1-0"}"#));
    assert_eq!(allowance, 9);
    assert!(text_of(page.read_newest(&mut allowance)).contains("id: 0-10.1-0"));
    assert_eq!(allowance, 8);
}

#[test]
fn only_the_part_of_a_block_that_a_client_lacks_counts() {
    let (feed, mut writer) = feed(100);
    (0..10).for_each(|offset| writer.push(record(0, offset)));
    while writer.publish() != Duration::MAX {}
    let mut page = subscribe(&feed, "0-5.1-0");
    let Some(Next::Frames(bytes)) = page.read_newest(&mut 2) else { panic!("frames") };
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(r#"{"count":3,"from":"0-5.1-0","to":"0-8.1-0"}"#), "{text}");
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(ids, ["0-8.1-0", "0-9.1-0", "0-10.1-0"]);
    assert!(page.read_newest(&mut 5).is_none());
}

/// A feed whose partition 1 has no leader at first.
fn feed_without_a_leader() -> (Feed, Writer) {
    let feed = Feed::new("t", Frames::new(|_| "<li>".into()), 100, 1 << 20);
    let mut writer = feed.writer();
    writer.start(&[0, UNKNOWN], &[0, 0]);
    (feed, writer)
}

/// The gap for a reader that knew no offset in partition 1.
fn no_leader(from: &str, to: &str) -> String {
    let data = format!(r#"{{"missed":null,"reason":"no leader","requested":"{from}","resumed":"{to}"}}"#);
    format!("event: gap\ndata: {data}\nid: {to}\n\n")
}

#[test]
fn a_partition_without_a_leader_does_not_block_the_others() {
    let (feed, mut writer) = feed_without_a_leader();
    let now = feed.now().expect("it has started");
    assert_eq!(now.to_string(), format!("0-0.1-{UNKNOWN}"));
    let mut live = Subscription::new(&feed, Dialect::Json, Filter::default(), now.clone());
    let slow = Subscription::new(&feed, Dialect::Json, Filter::default(), now.clone());
    publish(&mut writer, &[(0, 0)]);
    assert_eq!(ids(&mut live), [format!("0-1.1-{UNKNOWN}")]);
    // The partition has a leader: a reader gets what was written since the start, and a gap because there may be
    // more.
    writer.start_partition(1, 5, 7, 8);
    publish(&mut writer, &[(1, 5), (1, 6), (1, 7), (0, 1)]);
    assert_eq!(text_of(live.read()), no_leader(&format!("0-1.1-{UNKNOWN}"), "0-1.1-7"));
    assert_eq!(ids(&mut live), ["0-1.1-8", "0-2.1-8"]);
    assert_eq!(feed.now(), Some(feed.head()));
    // So do a slow reader, and one that connects later with the old cursor.
    for mut reader in [slow, Subscription::new(&feed, Dialect::Json, Filter::default(), now)] {
        assert_eq!(text_of(reader.read()), no_leader(&format!("0-0.1-{UNKNOWN}"), "0-0.1-7"));
        assert_eq!(ids(&mut reader), ["0-1.1-7", "0-1.1-8", "0-2.1-8"]);
    }
}

#[test]
fn frames_are_shared_also_while_a_partition_has_no_leader() {
    let (feed, mut writer) = feed_without_a_leader();
    let now = feed.now().expect("it has started");
    let all = || Subscription::new(&feed, Dialect::Json, Filter::default(), now.clone());
    let some = || {
        let filter = Filter { users: vec!["u0".into()], ..Filter::default() };
        Subscription::new(&feed, Dialect::Json, filter, now.clone())
    };
    let (mut readers, mut knows) = ([all(), all(), some(), some()], subscribe(&feed, "0-0.1-3"));
    writer.push(record(0, 0));
    writer.push(record(0, 1));
    writer.flush();
    let read = |reader: &mut Subscription| {
        let Some(Next::Frames(bytes)) = reader.read() else { panic!("no frames") };
        bytes
    };
    let [first, second, third, fourth] = readers.each_mut().map(read);
    assert_eq!((first.as_ptr(), third.as_ptr()), (second.as_ptr(), fourth.as_ptr()), "each is encoded once");
    let all = String::from_utf8_lossy(&first);
    assert!([1, 2].iter().all(|next| all.contains(&format!("id: 0-{next}.1-{UNKNOWN}\n"))), "{all}");
    assert!(String::from_utf8_lossy(&third).ends_with(&format!("id: 0-1.1-{UNKNOWN}\n\n")));
    assert_eq!(ids(&mut knows), ["0-1.1-3", "0-2.1-3"]);
    for reader in &readers {
        assert_eq!(reader.place().to_string(), format!("0-2.1-{UNKNOWN}"));
    }
    // Each gets a gap when the partition is read.
    writer.start_partition(1, 5, 5, 6);
    publish(&mut writer, &[(1, 5)]);
    for reader in &mut readers {
        assert_eq!(text_of(reader.read()), no_leader(&format!("0-2.1-{UNKNOWN}"), "0-2.1-5"));
    }
    assert_eq!(ids(&mut readers[0]), ["0-2.1-6"]);
}

#[test]
fn beyond_the_allowance_the_newest_are_read_while_a_partition_has_no_leader() {
    let (feed, mut writer) = feed_without_a_leader();
    let now = feed.now().expect("it has started");
    let mut some = Subscription::new(&feed, Dialect::Json, Filter::default(), now);
    publish(&mut writer, &[(0, 0)]);
    assert_eq!(ids(&mut some), [format!("0-1.1-{UNKNOWN}")]);
    publish(&mut writer, &(1..9).map(|offset| (0, offset)).collect::<Vec<_>>());
    let text = text_of(some.read_newest(&mut 2));
    let skipped = format!(r#"{{"count":6,"from":"0-1.1-{UNKNOWN}","to":"0-7.1-{UNKNOWN}"}}"#);
    assert!(text.contains(&skipped) && text.ends_with(&format!("id: 0-9.1-{UNKNOWN}\n\n")), "{text}");
    assert_eq!(some.place().to_string(), format!("0-9.1-{UNKNOWN}"));
    // A reader that is too slow gets the same cursors.
    publish(&mut writer, &(9..300).map(|offset| (0, offset)).collect::<Vec<_>>());
    let dropped = text_of(some.read());
    assert!(dropped.contains(&format!(r#""from":"0-9.1-{UNKNOWN}","#)), "{dropped}");
    assert!(some.place().to_string().ends_with(&format!(".1-{UNKNOWN}")));
}

#[test]
fn records_written_before_a_partition_was_read_come_from_kafka() {
    let (feed, mut writer) = feed_without_a_leader();
    let now = feed.now().expect("it has started");
    let mut live = Subscription::new(&feed, Dialect::Json, Filter::default(), now.clone());
    let mut newest = Subscription::new(&feed, Dialect::Json, Filter::default(), now);
    assert!(live.read().is_none() && newest.read_newest(&mut 9).is_none());
    writer.start_partition(1, 5, 2, 7);
    publish(&mut writer, &[(1, 5), (1, 6), (0, 0)]);
    let gap = no_leader(&format!("0-0.1-{UNKNOWN}"), "0-0.1-2");
    assert_eq!(text_of(live.read()), gap);
    assert_eq!(text_of(newest.read_newest(&mut 9)), gap);
    for next in [live.read(), newest.read_newest(&mut 9)] {
        let Some(Next::Behind { to }) = next else { panic!("not behind: {next:?}") };
        assert_eq!(to.get(1), 6);
    }
}

#[test]
fn a_place_in_a_partition_without_a_leader_is_kept_until_it_has_one() {
    let (feed, mut writer) = feed_without_a_leader();
    let [mut behind, mut within, mut ahead] = [2, 6, 9].map(|offset| subscribe(&feed, &format!("0-0.1-{offset}")));
    publish(&mut writer, &[(0, 0)]);
    for (reader, offset) in [(&mut behind, 2), (&mut within, 6), (&mut ahead, 9)] {
        assert_eq!(ids(reader), [format!("0-1.1-{offset}")]);
    }
    writer.start_partition(1, 5, 8, 8);
    publish(&mut writer, &[(1, 5), (1, 6), (1, 7), (0, 1)]);
    assert_eq!(ids(&mut within), ["0-1.1-7", "0-1.1-8", "0-2.1-8"]);
    assert_eq!(ids(&mut ahead), ["0-2.1-9"]);
    // Memory never had the older records; Kafka has them, also for a client that had everything else.
    let Some(Next::Behind { to }) = behind.read().filter(|next| !next.is_nothing()).or_else(|| behind.read()) else {
        panic!("not behind")
    };
    assert_eq!(to.get(1), 6);
    assert!(!feed.remembers(behind.place()) && feed.remembers(&to.max(behind.place())));
    behind.resume(to.max(behind.place()));
    assert_eq!(ids(&mut behind), ["0-1.1-7", "0-1.1-8", "0-2.1-8"]);
}

#[test]
fn a_slow_reader_gets_from_kafka_what_it_missed_of_a_partition_that_had_no_leader() {
    let feed = Feed::new("t", Frames::new(|_| "<li>".into()), 2, 1 << 20);
    let mut writer = feed.writer();
    writer.start(&[0, UNKNOWN], &[0, 0]);
    let mut slow = Subscription::new(&feed, Dialect::Json, Filter::default(), feed.now().expect("it has started"));
    assert!(slow.read().is_none());
    writer.start_partition(1, 5, 7, 7);
    publish(&mut writer, &(5..12).map(|offset| (1, offset)).collect::<Vec<_>>());
    assert_eq!(text_of(slow.read()), no_leader(&format!("0-0.1-{UNKNOWN}"), "0-0.1-7"));
    let Some(Next::Behind { to }) = slow.read() else { panic!("not behind") };
    assert_eq!(to.get(1), 11);
    slow.resume(Cursor::clone(&to));
    assert_eq!(ids(&mut slow), ["0-0.1-12"]);
}

#[test]
fn encodings_evict_no_records() {
    let feed = Feed::new("t", Frames::new(|_| "<li>".into()), 1000, 64 << 10);
    let mut writer = feed.writer();
    writer.start(&[0], &[0]);
    publish(&mut writer, &(0..100).map(|offset| (0, offset)).collect::<Vec<_>>());
    for n in 0..40 {
        let filter = Filter { texts: vec![Text::seen("u"), Text::seen(&format!("no {n}"))], ..Filter::default() };
        let mut reader = Subscription::new(&feed, Dialect::Json, filter, Cursor::new([0]));
        assert_eq!(ids(&mut reader).len(), 100);
    }
    publish(&mut writer, &[(0, 100)]);
    let (records, _, encoded) = feed.kept();
    assert_eq!(records, 101);
    assert!((1..=16 << 10).contains(&encoded), "{encoded}");
    assert!(feed.remembers(&Cursor::new([0])));
}

#[test]
fn the_last_records_are_found_by_cursor() {
    let (feed, mut writer) = feed(100);
    publish(&mut writer, &[(0, 0), (1, 0), (0, 1), (1, 1)]);
    let (place, found) = feed.back(&Filter::default(), 2);
    assert_eq!((place.to_string().as_str(), found), ("0-1.1-1", 2));
}

/// A reader that rests, or whose client is slow, looks at memory at any time after a wave.
#[test]
fn only_a_reader_that_waited_measures_a_wave() {
    let (feed, mut writer) = feed(100);
    let mut reader = subscribe(&feed, "0-0.1-0");
    reader.is_sample = true;
    let mut look = |waits: bool, offset| {
        if waits {
            assert!(reader.poll_changed(&Context::from_waker(std::task::Waker::noop())).is_pending());
        }
        publish(&mut writer, &[(0, offset)]);
        std::thread::sleep(Duration::from_millis(20));
        reader.mark_seen();
        while reader.read().is_some() {}
        feed.metrics().pace.get()
    };
    // The pace follows with the next wave.
    assert_eq!((look(false, 0), look(false, 1)), (0.0005, 0.0005));
    assert_eq!(look(true, 2), 0.0005);
    assert!(look(true, 3) > 0.01);
}
