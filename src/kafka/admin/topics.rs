//! The topics of the cluster and the records they hold (`footfall topics`, and the page about Kafka).

use std::collections::HashMap;
use std::ffi::CString;
use std::time::{Duration, Instant};

use rdkafka::admin::AdminClient;
use rdkafka::bindings as sys;
use rdkafka::bindings::rd_kafka_IsolationLevel_t as Isolation;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::{Offset, TopicPartitionList};

use super::{AdminError, Op, Owned};
use crate::kafka::{Connection, HistoryError, QUESTION, Quiet, admin, connection_errors};

/// A topic with the records that it holds now.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct TopicSummary {
    pub topic: String,
    pub partitions: usize,
    /// Next offset minus first offset, over all partitions: at least the number of records, more if compaction and
    /// transactions left offsets without a record. Null if a partition does not answer, and of topics beyond 5,000
    /// partitions, which are not asked for.
    #[schema(required)]
    pub records: Option<i64>,
}

/// What `footfall topics` shows.
pub struct Topics {
    /// All topics but Kafka's internal ones, by name.
    pub topics: Vec<TopicSummary>,
    /// Why the records of some topics could not be counted, as a sentence.
    pub problem: Option<String>,
}

/// Returns all topics with the records they hold. Blocks.
pub fn topics(connection: &Connection) -> Result<Topics, HistoryError> {
    let admin: AdminClient<Quiet> = AdminClient::from_config_and_context(&connection.base, Quiet)?;
    // Retries once if something is missing: a topic may have been deleted, or a leader elected, between the requests. A
    // broker that did not answer in time would not answer the second time either.
    let started = Instant::now();
    let mut left = 2;
    let (metadata, topics, failed) = loop {
        let metadata = admin.inner().fetch_metadata(None, QUESTION);
        let metadata = metadata.map_err(|error| connection_errors::no_answer(connection, error))?;
        let described = Described::new(&metadata);
        let names = described.names();
        let places = names.iter().flat_map(|name| described.places(name)).collect();
        let (offsets, failed) = match offsets(&admin, places, QUESTION) {
            Ok(offsets) => (offsets, None),
            Err(error) => (Offsets::new(), Some(error)),
        };
        let topics: Vec<_> = names.iter().map(|name| described.summary(name, &offsets)).collect();
        left -= 1;
        let is_last = left == 0 || failed.is_some() || started.elapsed() >= QUESTION;
        if is_last || topics.iter().all(|topic| topic.records.is_some()) {
            break (metadata, topics, failed);
        }
    };
    let uncounted = topics.iter().filter(|topic| topic.records.is_none()).count();
    let problem = (uncounted > 0).then(|| {
        let leaderless = metadata.topics().iter().flat_map(|topic| topic.partitions()).any(|p| p.leader() < 0);
        let otherwise = match failed {
            Some(error) => error.to_string(),
            None if leaderless => "a partition has no leader".into(),
            None => "a broker did not answer".into(),
        };
        format!(
            "the records of {uncounted} of {} topics cannot be counted: {}",
            topics.len(),
            connection_errors::heard(connection).unwrap_or(otherwise)
        )
    });
    Ok(Topics { topics, problem })
}

/// A partition of any topic.
pub(in crate::kafka) type Place = (String, i32);

/// The topics of the cluster by name: there may be ten thousand.
pub(in crate::kafka) struct Described<'a>(HashMap<&'a str, &'a MetadataTopic>);

impl<'a> Described<'a> {
    pub fn new(metadata: &'a Metadata) -> Self {
        Described(metadata.topics().iter().map(|topic| (topic.name(), topic)).collect())
    }

    /// Returns the topics without Kafka's internal ones, sorted.
    pub fn names(&self) -> Vec<&'a str> {
        let mut names: Vec<&str> = self.0.keys().copied().filter(|name| !name.starts_with("__")).collect();
        names.sort_unstable();
        names
    }

    pub fn topic(&self, name: &str) -> Option<&'a MetadataTopic> {
        self.0.get(name).copied()
    }

    /// Returns the partitions of a topic that have a leader: librdkafka would wait for a leader of the others.
    pub fn places(&self, name: &str) -> Vec<Place> {
        let partitions = self.topic(name).map_or(&[][..], |topic| topic.partitions());
        partitions.iter().filter(|p| p.leader() >= 0).map(|partition| (name.to_owned(), partition.id())).collect()
    }

    pub fn summary(&self, name: &str, offsets: &Offsets) -> TopicSummary {
        let partitions = self.topic(name).map_or(&[][..], |topic| topic.partitions());
        let records = partitions.iter().map(|partition| {
            let (first, next) = offsets.get(&(name.to_owned(), partition.id()))?;
            Some(next - first)
        });
        TopicSummary { topic: name.to_owned(), partitions: partitions.len(), records: records.sum() }
    }
}

/// First and next offset of the partitions that answered.
pub(in crate::kafka) type Offsets = HashMap<Place, (i64, i64)>;

/// Requests the first and the next offset of all these partitions, with two requests to each broker. Blocks for at most
/// twice the given time.
pub(in crate::kafka) fn offsets<C: ClientContext>(
    admin: &AdminClient<C>,
    mut places: Vec<Place>,
    within: Duration,
) -> Result<Offsets, AdminError> {
    places.sort_unstable();
    places.dedup();
    two_ends(admin, &places, [EARLIEST, LATEST], within)
}

/// Requests the first and next offset of these partitions of a topic, as far as this consumer may read, with two
/// requests to each broker. Blocks for at most twice the given time. Fails if one of them has no leader.
pub(in crate::kafka) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    within: Duration,
) -> KafkaResult<Vec<(i64, i64)>> {
    let ask = |end: Offset| -> KafkaResult<Vec<i64>> {
        let offsets = offsets_at(consumer, topic, partitions, end, within)?.into_iter();
        offsets.map(|offset| offset.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset))).collect()
    };
    // The end comes last, so that it is not before the start.
    let first = ask(Offset::Beginning)?;
    Ok(first.into_iter().zip(ask(Offset::End)?).collect())
}

/// Returns, for each of these partitions, the first offset whose record's timestamp is at or after a time, in
/// milliseconds since 1970; `None` if there is no such record. Fails as [`watermarks`] does.
pub(in crate::kafka) fn since<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    ms: i64,
    within: Duration,
) -> KafkaResult<Vec<Option<i64>>> {
    offsets_at(consumer, topic, partitions, Offset::Offset(ms.max(0)), within)
}

/// Returns, for each of these partitions, the offset at one of its ends, or at a time.
fn offsets_at<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    at: Offset,
    within: Duration,
) -> KafkaResult<Vec<Option<i64>>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(topic, *partition, at)?;
    }
    let answered = consumer.offsets_for_times(list, within)?;
    let offset = |partition: &i32| {
        let place = answered.find_partition(topic, *partition);
        match place.map(|place| (place.error(), place.offset())) {
            Some((Ok(()), Offset::Offset(offset))) => Ok(Some(offset)),
            Some((Err(error), _)) => Err(error),
            _ => Ok(None),
        }
    };
    partitions.iter().map(offset).collect()
}

/// A record's offset and timestamp, in milliseconds since 1970.
pub(in crate::kafka) type Found = (i64, i64);

/// Returns, for each of these times, the first record of each partition whose timestamp is at or after it; `None` if there
/// is no such record that may be read. Sends one request per time and broker, all at once. Fails if a partition does not
/// answer.
pub(in crate::kafka) fn first_records<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partitions: &[i32],
    times_ms: &[i64],
    within: Duration,
) -> Result<Vec<Vec<Option<Found>>>, AdminError> {
    let places: Vec<Place> = partitions.iter().map(|partition| (topic.to_owned(), *partition)).collect();
    let answers =
        admin::ask_all(client, Op::RD_KAFKA_ADMIN_OP_LISTOFFSETS, within, times_ms.len(), |number, options, queue| {
            let (_, isolation) = READABLE;
            // Negative numbers mean the ends of the partition.
            list_offsets(client, &places, times_ms[number].max(0), isolation, options, queue);
        });
    let found = |answer: Result<admin::Event, AdminError>| {
        let answered = answered(&answer?);
        let of = |place: &Place| {
            let found = answered.get(place).ok_or_else(|| AdminError::Failed(format!("partition {} failed", place.1)));
            found.map(|(offset, at)| (*offset >= 0).then_some((*offset, *at)))
        };
        places.iter().map(of).collect()
    };
    answers.into_iter().map(found).collect()
}

/// Returns the offset up to which committed records can be read, and the next offset, of the partitions that answered.
/// They differ while a transaction is open. Blocks for at most twice the given time.
pub(in crate::kafka) fn ends(
    admin: &AdminClient<Quiet>,
    places: &[Place],
    within: Duration,
) -> Result<Offsets, AdminError> {
    // The readable end comes last, so that it does not seem behind only because it is older.
    let ends = two_ends(admin, places, [LATEST, READABLE], within)?;
    Ok(ends.into_iter().map(|(place, (next, readable))| (place, (readable, next))).collect())
}

/// One end of a partition, as ListOffsets names it: for readers of committed records, or for all.
type End = (sys::rd_kafka_OffsetSpec_t, Isolation);

const EARLIEST: End =
    (sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST, Isolation::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED);
const LATEST: End =
    (sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST, Isolation::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED);
const READABLE: End =
    (sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST, Isolation::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED);

/// Requests one end of all these partitions, and then the other end of those that answered.
fn two_ends<C: ClientContext>(
    admin: &AdminClient<C>,
    places: &[Place],
    [one, other]: [End; 2],
    within: Duration,
) -> Result<Offsets, AdminError> {
    let first = ask(admin, places, one, within)?;
    let answered: Vec<Place> = first.keys().cloned().collect();
    let second = ask(admin, &answered, other, within)?;
    let both = |(place, second)| first.get(&place).map(|first| (place, (*first, second)));
    Ok(second.into_iter().filter_map(both).collect())
}

/// Requests one end of all these partitions (ListOffsets). Returns those that answered.
fn ask<C: ClientContext>(
    admin: &AdminClient<C>,
    places: &[Place],
    (end, isolation): End,
    within: Duration,
) -> Result<HashMap<Place, i64>, AdminError> {
    if places.is_empty() {
        return Ok(HashMap::new());
    }
    let event = admin::ask(admin, Op::RD_KAFKA_ADMIN_OP_LISTOFFSETS, within, |options, queue| {
        list_offsets(admin.inner(), places, end as i64, isolation, options, queue);
    })?;
    let offset = |(place, (offset, _)): (Place, Found)| (offset >= 0).then_some((place, offset));
    Ok(answered(&event).into_iter().filter_map(offset).collect())
}

/// Sends a request for one end of all these partitions, or for the first offset at or after a time.
fn list_offsets<C: ClientContext>(
    client: &Client<C>,
    places: &[Place],
    at: i64,
    isolation: Isolation,
    options: *const sys::rd_kafka_AdminOptions_t,
    queue: *mut sys::rd_kafka_queue_t,
) {
    unsafe {
        let list = Owned::new(
            sys::rd_kafka_topic_partition_list_new(places.len() as i32),
            sys::rd_kafka_topic_partition_list_destroy,
        );
        for (topic, partition) in places {
            // A topic's name has no NUL: it came from Kafka.
            let Ok(topic) = CString::new(topic.as_str()) else { continue };
            let item = sys::rd_kafka_topic_partition_list_add(list.pointer(), topic.as_ptr(), *partition);
            (*item).offset = at;
        }
        sys::rd_kafka_AdminOptions_set_isolation_level(options.cast_mut(), isolation);
        sys::rd_kafka_ListOffsets(client.native_ptr(), list.pointer(), options, queue);
    }
}

/// Returns what the partitions answered, without those that failed. The offset is negative if there is no such record.
fn answered(event: &admin::Event) -> HashMap<Place, Found> {
    unsafe {
        let result = sys::rd_kafka_event_ListOffsets_result(event.pointer());
        let infos = admin::items(|count| sys::rd_kafka_ListOffsets_result_infos(result, count));
        let answered = infos.iter().filter_map(|info| {
            let place = &*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*info);
            let at = sys::rd_kafka_ListOffsetsResultInfo_timestamp(*info);
            let good = place.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
            good.then(|| ((admin::text(place.topic), place.partition), (place.offset, at)))
        });
        answered.collect()
    }
}
