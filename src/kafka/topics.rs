//! What stands on the cluster: its topics and the records they hold (`footfall topics`, and the page about Kafka).

use std::collections::HashMap;
use std::ffi::CString;
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::bindings as sys;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};

use super::admin::{self, Op, Owned, Unanswered};
use super::{Connection, HistoryError, QUESTION, Quiet};

/// A topic with the records it holds now.
#[derive(Debug, Clone, serde::Serialize)]
pub struct TopicSummary {
    pub topic: String,
    pub partitions: usize,
    /// Next offset less first offset, over all partitions: compaction and transactions may make it more than the
    /// records. `None` if a partition does not answer.
    pub records: Option<i64>,
}

/// All topics but Kafka's internal ones, by name. Blocks.
pub fn topics(connection: &Connection) -> Result<Vec<TopicSummary>, HistoryError> {
    let admin: AdminClient<Quiet> = AdminClient::from_config_and_context(&connection.base, Quiet)?;
    let away = |error: String| HistoryError::Away(format!("no answer from {}: {error}", connection.servers()));
    let metadata = admin.inner().fetch_metadata(None, QUESTION).map_err(|error| away(error.to_string()))?;
    let names = names(&metadata);
    let places = names.iter().flat_map(|name| places(&metadata, name)).collect();
    let offsets = offsets(&admin, places, QUESTION).map_err(|error| away(error.to_string()))?;
    Ok(names.iter().map(|name| summary(&metadata, name, &offsets)).collect())
}

/// The topics but Kafka's internal ones, in order.
pub(super) fn names(metadata: &Metadata) -> Vec<&str> {
    let mut names: Vec<&str> =
        metadata.topics().iter().map(|topic| topic.name()).filter(|name| !name.starts_with("__")).collect();
    names.sort_unstable();
    names
}

/// A partition of any topic.
pub(super) type Place = (String, i32);

/// The partitions of a topic that can be asked: librdkafka would wait for a leader of the others.
pub(super) fn places(metadata: &Metadata, name: &str) -> Vec<Place> {
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    let partitions = topic.map_or(&[][..], |topic| topic.partitions());
    partitions.iter().filter(|p| p.leader() >= 0).map(|partition| (name.to_owned(), partition.id())).collect()
}

pub(super) fn summary(metadata: &Metadata, name: &str, offsets: &Offsets) -> TopicSummary {
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    let partitions = topic.map_or(&[][..], |topic| topic.partitions());
    let records = partitions.iter().map(|partition| {
        let (first, next) = offsets.get(&(name.to_owned(), partition.id()))?;
        Some(next - first)
    });
    TopicSummary { topic: name.to_owned(), partitions: partitions.len(), records: records.sum() }
}

/// First and next offset of partitions, of those that answered.
pub(super) type Offsets = HashMap<Place, (i64, i64)>;

/// Asks for the first and the next offset of all these partitions, in two questions to each broker. Blocks for at most
/// twice the time given.
pub(super) fn offsets(
    admin: &AdminClient<Quiet>,
    mut places: Vec<Place>,
    within: Duration,
) -> Result<Offsets, Unanswered> {
    places.sort_unstable();
    places.dedup();
    if places.is_empty() {
        return Ok(Offsets::new());
    }
    let first = ask(admin, &places, sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST, within)?;
    let next = ask(admin, &places, sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST, within)?;
    let both = |(place, next)| first.get(&place).map(|first| (place, (*first, next)));
    Ok(next.into_iter().filter_map(both).collect())
}

/// First and next offset of a topic's partitions, as far as this consumer may read, in two questions to each broker.
/// Blocks for at most twice [`QUESTION`]; fails if one of them has no leader.
pub(super) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: usize,
) -> KafkaResult<Vec<(i64, i64)>> {
    let ask = |end: Offset| -> KafkaResult<Vec<i64>> {
        let mut list = TopicPartitionList::with_capacity(partitions);
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition as i32, end)?;
        }
        let answered = consumer.offsets_for_times(list, QUESTION)?;
        let offset = |partition: usize| {
            let place = answered.find_partition(topic, partition as i32);
            match place.map(|place| (place.error(), place.offset())) {
                Some((Ok(()), Offset::Offset(offset))) => Ok(offset),
                Some((Err(error), _)) => Err(error),
                _ => Err(KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset)),
            }
        };
        (0..partitions).map(offset).collect()
    };
    if partitions == 0 {
        return Ok(Vec::new());
    }
    // The end comes last, so that it is not before the beginning.
    let first = ask(Offset::Beginning)?;
    Ok(first.into_iter().zip(ask(Offset::End)?).collect())
}

/// One end of all these partitions (ListOffsets).
fn ask(
    admin: &AdminClient<Quiet>,
    places: &[Place],
    end: sys::rd_kafka_OffsetSpec_t,
    within: Duration,
) -> Result<HashMap<Place, i64>, Unanswered> {
    let client = admin.inner().native_ptr();
    unsafe {
        let list = Owned::new(
            sys::rd_kafka_topic_partition_list_new(places.len() as i32),
            sys::rd_kafka_topic_partition_list_destroy,
        );
        for (topic, partition) in places {
            // A topic's name has no NUL: it came from Kafka.
            let Ok(topic) = CString::new(topic.as_str()) else { continue };
            let item = sys::rd_kafka_topic_partition_list_add(list.pointer(), topic.as_ptr(), *partition);
            (*item).offset = end as i64;
        }
        let event = admin::ask(admin, Op::RD_KAFKA_ADMIN_OP_LISTOFFSETS, within, |options, queue| {
            sys::rd_kafka_ListOffsets(client, list.pointer(), options, queue);
        })?;
        let result = sys::rd_kafka_event_ListOffsets_result(event.pointer());
        let infos = admin::items(|count| sys::rd_kafka_ListOffsets_result_infos(result, count));
        let answered = infos.iter().filter_map(|info| {
            let place = &*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*info);
            let good = place.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && place.offset >= 0;
            good.then(|| ((admin::text(place.topic), place.partition), place.offset))
        });
        Ok(answered.collect())
    }
}
