//! Measures each step of the two hot paths (ingest and fan-out), so that a regression can be located. `cargo bench`, or
//! `cargo bench -- parse` for some; `dev/bench` measures the whole.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use footfall::event::{BodyFormat, Limits, Record, json, parse};
use footfall::feed::{Cursor, Dialect, Feed, Filter, Frames, Subscription, Text, Writer};
use footfall::stats::Stats;
use footfall_core::Condition;

const LIMITS: Limits = Limits { event: 32 * 1024, batch: 500, now_ms: 1_795_435_200_123 };

fn event(n: usize) -> String {
    let user = n % 1000;
    format!(r#"{{"user":"user-{user:06}","action":"page_view","n":"{n:09}","path":"/products/4711/reviews"}}"#)
}

fn record(n: usize) -> Record {
    let value = event(n);
    let headers: [(&str, Option<&[u8]>); 6] = [
        ("ce_specversion", Some(b"1.0")),
        ("ce_id", Some(b"01a209aa-8bc6-7357-b52b-5b5b035196ec")),
        ("ce_source", Some(b"/footfall")),
        ("ce_type", Some(b"footfall.user_activity")),
        ("ce_time", Some(b"2026-11-23T12:00:00.123Z")),
        ("content-type", Some(b"application/json")),
    ];
    let partition = n % 3;
    let key = &value.as_bytes()[9..20];
    let (offset, timestamp) = ((n / 3) as i64, Some(1_795_435_200_123));
    Record::new(partition as i32, offset, timestamp, Some(key), Some(value.as_bytes()), headers.into_iter())
}

fn feed() -> (Feed, Writer) {
    let feed = Feed::new("user_activity", Frames::new(|_| "<li></li>".into()), 50_000, 32 << 20);
    let mut writer = feed.writer();
    writer.start(&[0, 0, 0], &[0, 0, 0]);
    (feed, writer)
}

/// A feed with this many records in memory, in blocks as under load.
fn filled(records: usize) -> (Feed, Writer) {
    let (feed, mut writer) = feed();
    (0..records).for_each(|n| writer.push(record(n)));
    (feed, writer)
}

fn read_all(feed: &Feed, filter: Filter) -> usize {
    let mut subscription = Subscription::new(feed, Dialect::Json, filter, Cursor::new([0, 0, 0]));
    let mut bytes = 0;
    while let Some(footfall::feed::Next::Frames(frames)) = subscription.read() {
        bytes += frames.len();
    }
    bytes
}

fn parsing(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let one = Bytes::from(event(1));
    group.throughput(Throughput::Bytes(one.len() as u64));
    group.bench_function("one event", |b| b.iter(|| parse(black_box(&one), BodyFormat::Json, &LIMITS)));
    let hundred = Bytes::from(format!("[{}]", (0..100).map(event).collect::<Vec<_>>().join(",")));
    group.throughput(Throughput::Bytes(hundred.len() as u64));
    group.bench_function("an array of 100", |b| b.iter(|| parse(black_box(&hundred), BodyFormat::Json, &LIMITS)));
    group.finish();
}

fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let (record, mut out) = (record(1), Vec::with_capacity(1024));
    group.bench_function("a record as JSON", |b| {
        b.iter(|| {
            out.clear();
            json::write(&mut out, "user_activity", black_box(&record));
        });
    });
    for partitions in [3, 12] {
        let cursor = Cursor::new(vec![1_234_567; partitions]);
        let frames = Frames::new(|_| String::new());
        group.bench_function(format!("a frame with a cursor of {partitions} partitions"), |b| {
            b.iter(|| {
                out.clear();
                frames.event(&mut out, Dialect::Json, "user_activity", black_box(&record), &cursor);
            });
        });
    }
    group.finish();
}

fn ring(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring");
    group.throughput(Throughput::Elements(1000));
    let (_feed, mut writer) = filled(50_000);
    let mut n = 50_000;
    group.bench_function("append 1,000 records", |b| {
        b.iter_batched(
            || {
                n += 1000;
                (n - 1000..n).map(record).collect::<Vec<_>>()
            },
            |records| records.into_iter().for_each(|record| writer.push(record)),
            BatchSize::SmallInput,
        );
    });
    let (feed, _writer) = filled(1000);
    group.bench_function("read 1,000 records that are encoded", |b| b.iter(|| read_all(&feed, Filter::default())));
    group.finish();
}

fn filters(c: &mut Criterion) {
    let mut group = c.benchmark_group("filter");
    group.throughput(Throughput::Elements(1000));
    let user = |n: usize| Filter { users: vec![format!("user-{n:06}")], ..Filter::default() };
    let text = |n: usize| Filter { texts: vec![Text::seen(&format!("\"{n:09}\""))], ..Filter::default() };
    group.bench_function("the index of 1,000 records, and the first that asks", |b| {
        b.iter_batched(|| filled(1000), |(feed, _writer)| read_all(&feed, user(7)), BatchSize::LargeInput);
    });
    let (feed, _writer) = filled(1000);
    let mut n = 0;
    group.bench_function("another user each time", |b| {
        b.iter(|| {
            n += 1;
            read_all(&feed, user(1000 + n)) // a user without events
        });
    });
    group.bench_function("another text each time", |b| {
        b.iter(|| {
            n += 1;
            read_all(&feed, text(1_000_000 + n))
        });
    });
    let field = |name: &str, n: usize| {
        let condition = Condition::parse(&format!("/{name}:in:/cart,{n}"), false).expect("a condition");
        Filter { conditions: vec![condition], ..Filter::default() }
    };
    group.bench_function("another condition on the same field each time", |b| {
        b.iter(|| {
            n += 1;
            read_all(&feed, field("path", n))
        });
    });
    group.bench_function("a condition on another field each time", |b| {
        b.iter(|| {
            n += 1;
            read_all(&feed, field(&format!("path-{n}"), n))
        });
    });
    group.finish();
}

/// The overview's statistics, as the tail updates them.
fn statistics(c: &mut Criterion) {
    let mut group = c.benchmark_group("statistics");
    group.throughput(Throughput::Elements(1));
    let stats = Stats::new(false);
    let at = |n: usize| {
        let value = event(n);
        let timestamp = Some(footfall::event::time::now_ms());
        Record::new(0, n as i64, timestamp, None, Some(value.as_bytes()), std::iter::empty())
    };
    let records: Vec<Record> = (0..10_000).map(at).collect();
    let mut n = 0;
    group.bench_function("count a record", |b| {
        b.iter(|| {
            n += 1;
            stats.observe(black_box(&records[n % records.len()]));
        });
    });
    group.finish();
}

criterion_group!(benches, parsing, encoding, ring, filters, statistics);
criterion_main!(benches);
