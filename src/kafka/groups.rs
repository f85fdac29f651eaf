//! Consumer groups: who is a member, which partitions each member has, and how far behind the group is
//! (`footfall groups`, and the page about Kafka).

use std::collections::BTreeMap;
use std::ffi::CString;
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::bindings as sys;
use rdkafka::config::FromClientConfigAndContext;
use serde::Serialize;

use super::admin::{self, Op, Owned, Unanswered};
use super::topics::{Offsets, Place, offsets};
use super::{Connection, HistoryError, QUESTION, Quiet};

/// Groups that are described at most: each costs its coordinator two requests.
const MOST: usize = 100;

/// The consumer groups that we may see, by name.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    pub groups: Vec<Group>,
    /// Beyond those that are described at once. Groups with members come first.
    pub left_out: usize,
    /// Why the list is not whole, as a sentence.
    pub problem: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Group {
    pub group: String,
    /// As Kafka names it: `Stable`, `Empty`, `PreparingRebalance` and so on.
    pub state: String,
    /// `classic`, or `consumer` (KIP-848).
    #[serde(rename = "type")]
    pub kind: String,
    pub assignor: Option<String>,
    /// Number of the broker that keeps the group.
    pub coordinator: Option<i32>,
    pub members: Vec<Member>,
    /// Records, over all partitions of which it is known; `None` if of none.
    pub lag: Option<i64>,
    /// Milliseconds, of the partition that is furthest behind.
    pub lag_ms: Option<i64>,
    /// Those that a member has or for which an offset is committed, in order.
    pub partitions: Vec<GroupPartition>,
    /// Why something of it is not known, as a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Member {
    pub id: String,
    pub client_id: String,
    pub host: String,
    pub partitions: Vec<Assigned>,
}

/// A partition that a member has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Assigned {
    pub topic: String,
    pub partition: i32,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct GroupPartition {
    pub topic: String,
    pub partition: i32,
    /// The offset at which the group goes on.
    pub committed: Option<i64>,
    /// The partition's next offset.
    pub end: Option<i64>,
    /// Records from the one to the other.
    pub lag: Option<i64>,
    /// Milliseconds since the record at the committed offset was written; 0 without lag, `None` where it was not read.
    pub lag_ms: Option<i64>,
    /// Id of the member that has it.
    pub member: Option<String>,
}

impl Group {
    /// Whether it has to do with a topic.
    pub fn reads(&self, topic: &str) -> bool {
        self.partitions.iter().any(|partition| partition.topic == topic)
    }

    fn new(group: String) -> Self {
        Group {
            group,
            state: String::new(),
            kind: String::new(),
            assignor: None,
            coordinator: None,
            members: Vec::new(),
            lag: None,
            lag_ms: None,
            partitions: Vec::new(),
            problem: None,
        }
    }

    fn complain(&mut self, problem: impl std::fmt::Display) {
        self.problem.get_or_insert_with(|| problem.to_string());
    }
}

/// All groups with their lag in records; the lag in time is not asked for. Blocks.
pub fn groups(connection: &Connection) -> Result<Groups, HistoryError> {
    let admin: AdminClient<Quiet> = AdminClient::from_config_and_context(&connection.base, Quiet)?;
    let away = |error: Unanswered| match error {
        Unanswered::Failed(reason) => HistoryError::Away(format!("no answer from {}: {reason}", connection.servers())),
        Unanswered::Denied(_) => HistoryError::Away(error.to_string()),
    };
    let mut groups = describe(&admin, QUESTION).map_err(away)?;
    // After the committed offsets: a lag is never less than nothing.
    let offsets = offsets(&admin, groups.places(), QUESTION).map_err(away)?;
    groups.measure(&offsets);
    Ok(groups)
}

impl Groups {
    /// The partitions that any of them has to do with.
    pub(super) fn places(&self) -> Vec<Place> {
        let partitions = self.groups.iter().flat_map(|group| &group.partitions);
        partitions.map(|partition| (partition.topic.clone(), partition.partition)).collect()
    }

    /// Works out the lag in records, from what the partitions' next offsets are now.
    pub(super) fn measure(&mut self, offsets: &Offsets) {
        for group in &mut self.groups {
            for partition in &mut group.partitions {
                let place = (partition.topic.clone(), partition.partition);
                partition.end = offsets.get(&place).map(|(_, next)| *next);
                partition.lag = partition.end.zip(partition.committed).map(|(end, next)| (end - next).max(0));
            }
            let known = group.partitions.iter().filter_map(|partition| partition.lag);
            group.lag = known.reduce(|sum, lag| sum + lag);
        }
    }
}

/// The groups with members, assignments and committed offsets, each question answered within the time given.
pub(super) fn describe(admin: &AdminClient<Quiet>, within: Duration) -> Result<Groups, Unanswered> {
    let mut listed = list(admin, within)?;
    // Those that do something, before those that are only remembered.
    listed.groups.sort_by(|a, b| (a.state == "Empty", &a.group).cmp(&(b.state == "Empty", &b.group)));
    listed.left_out = listed.groups.len().saturating_sub(MOST);
    listed.groups.truncate(MOST);
    listed.groups.sort_by(|a, b| a.group.cmp(&b.group));
    if !listed.groups.is_empty() {
        describe_all(admin, &mut listed.groups, within);
        committed(admin, &mut listed.groups, within);
    }
    Ok(listed)
}

/// Names, states and types (ListConsumerGroups).
fn list(admin: &AdminClient<Quiet>, within: Duration) -> Result<Groups, Unanswered> {
    let client = admin.inner().native_ptr();
    unsafe {
        let event = admin::ask(admin, Op::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS, within, |options, queue| {
            sys::rd_kafka_ListConsumerGroups(client, options, queue);
        })?;
        let result = sys::rd_kafka_event_ListConsumerGroups_result(event.pointer());
        let listings = admin::items(|count| sys::rd_kafka_ListConsumerGroups_result_valid(result, count));
        let errors = admin::items(|count| sys::rd_kafka_ListConsumerGroups_result_errors(result, count));
        let error = errors.iter().find_map(|error| Unanswered::of(*error));
        let groups = listings.iter().map(|listing| {
            let mut group = Group::new(admin::text(sys::rd_kafka_ConsumerGroupListing_group_id(*listing)));
            group.state = state(sys::rd_kafka_ConsumerGroupListing_state(*listing));
            group.kind = kind(sys::rd_kafka_ConsumerGroupListing_type(*listing));
            group
        });
        let groups: Vec<Group> = groups.collect();
        match error {
            Some(error) if groups.is_empty() => Err(error),
            error => {
                let problem = error.map(|error| format!("not every broker has listed its groups: {error}"));
                Ok(Groups { groups, left_out: 0, problem })
            }
        }
    }
}

/// State, members and what they are assigned (DescribeConsumerGroups).
fn describe_all(admin: &AdminClient<Quiet>, groups: &mut [Group], within: Duration) {
    let client = admin.inner().native_ptr();
    let names: Vec<CString> = groups.iter().filter_map(|group| CString::new(group.group.as_str()).ok()).collect();
    let mut names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let event = admin::ask(admin, Op::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, within, |options, queue| unsafe {
        sys::rd_kafka_DescribeConsumerGroups(client, names.as_mut_ptr(), names.len(), options, queue);
    });
    let event = match event {
        Ok(event) => event,
        Err(error) => return groups.iter_mut().for_each(|group| group.complain(&error)),
    };
    unsafe {
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event.pointer());
        let described = admin::items(|count| sys::rd_kafka_DescribeConsumerGroups_result_groups(result, count));
        for description in described {
            let name = admin::text(sys::rd_kafka_ConsumerGroupDescription_group_id(*description));
            if let Some(group) = groups.iter_mut().find(|group| group.group == name) {
                read(*description, group);
            }
        }
    }
}

/// # Safety
/// `description` must be valid.
unsafe fn read(description: *const sys::rd_kafka_ConsumerGroupDescription_t, group: &mut Group) {
    unsafe {
        if let Some(error) = Unanswered::of(sys::rd_kafka_ConsumerGroupDescription_error(description)) {
            return group.complain(error);
        }
        group.state = state(sys::rd_kafka_ConsumerGroupDescription_state(description));
        let kind = kind(sys::rd_kafka_ConsumerGroupDescription_type(description));
        if kind != "unknown" {
            group.kind = kind;
        }
        let assignor = admin::text(sys::rd_kafka_ConsumerGroupDescription_partition_assignor(description));
        group.assignor = Some(assignor).filter(|name| !name.is_empty());
        let coordinator = sys::rd_kafka_ConsumerGroupDescription_coordinator(description);
        group.coordinator = (!coordinator.is_null()).then(|| sys::rd_kafka_Node_id(coordinator));
        for index in 0..sys::rd_kafka_ConsumerGroupDescription_member_count(description) {
            let member = sys::rd_kafka_ConsumerGroupDescription_member(description, index);
            let assignment = sys::rd_kafka_MemberDescription_assignment(member);
            let list = match assignment.is_null() {
                true => std::ptr::null(),
                false => sys::rd_kafka_MemberAssignment_partitions(assignment),
            };
            let assigned = admin::partitions(list).iter();
            let mut partitions: Vec<Assigned> = assigned
                .map(|place| Assigned { topic: admin::text(place.topic), partition: place.partition })
                .collect();
            partitions.sort();
            let host = admin::text(sys::rd_kafka_MemberDescription_host(member));
            group.members.push(Member {
                id: admin::text(sys::rd_kafka_MemberDescription_consumer_id(member)),
                client_id: admin::text(sys::rd_kafka_MemberDescription_client_id(member)),
                // Java writes an address without a name as `/127.0.0.1`.
                host: host.trim_start_matches('/').to_owned(),
                partitions,
            });
        }
        // Those with the first partitions first, as a reader compares them with the list of partitions.
        let order = |member: &Member| (member.partitions.is_empty(), member.partitions.first().cloned());
        group.members.sort_by(|a, b| (order(a), &a.id).cmp(&(order(b), &b.id)));
    }
}

/// What each group has committed (ListConsumerGroupOffsets, which takes one group a question).
fn committed(admin: &AdminClient<Quiet>, groups: &mut [Group], within: Duration) {
    let client = admin.inner().native_ptr();
    let names: Vec<CString> =
        groups.iter().map(|group| CString::new(group.group.as_str()).unwrap_or_default()).collect();
    let op = Op::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
    let answers = admin::ask_all(admin, op, within, groups.len(), |number, options, queue| unsafe {
        // Without a list of partitions: all that the group has committed.
        let question = Owned::new(
            sys::rd_kafka_ListConsumerGroupOffsets_new(names[number].as_ptr(), std::ptr::null()),
            sys::rd_kafka_ListConsumerGroupOffsets_destroy,
        );
        sys::rd_kafka_ListConsumerGroupOffsets(client, &mut question.pointer(), 1, options, queue);
    });
    for (group, answer) in groups.iter_mut().zip(answers) {
        let mut partitions: BTreeMap<(String, i32), GroupPartition> = BTreeMap::new();
        let at = |topic: String, partition| {
            let new = GroupPartition { topic: topic.clone(), partition, ..GroupPartition::default() };
            ((topic, partition), new)
        };
        for member in &group.members {
            for place in &member.partitions {
                let (key, new) = at(place.topic.clone(), place.partition);
                partitions.insert(key, GroupPartition { member: Some(member.id.clone()), ..new });
            }
        }
        match answer {
            Err(error) => group.complain(format!("its committed offsets are not known: {error}")),
            Ok(event) => unsafe {
                let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(event.pointer());
                let results = admin::items(|count| sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, count));
                for result in results {
                    if let Some(error) = Unanswered::of(sys::rd_kafka_group_result_error(*result)) {
                        group.complain(format!("its committed offsets are not known: {error}"));
                    }
                    let list = sys::rd_kafka_group_result_partitions(*result);
                    // Below 0: nothing is committed there.
                    for place in admin::partitions(list).iter().filter(|place| place.offset >= 0) {
                        let (key, new) = at(admin::text(place.topic), place.partition);
                        partitions.entry(key).or_insert(new).committed = Some(place.offset);
                    }
                }
            },
        }
        group.partitions = partitions.into_values().collect();
    }
}

fn state(state: sys::rd_kafka_consumer_group_state_t) -> String {
    // The names are constants of librdkafka's.
    unsafe { admin::text(sys::rd_kafka_consumer_group_state_name(state)) }
}

fn kind(kind: sys::rd_kafka_consumer_group_type_t) -> String {
    unsafe { admin::text(sys::rd_kafka_consumer_group_type_name(kind)) }.to_lowercase()
}
