//! Consumer groups: their members, the partitions of each member, and their lag (`footfall groups`, and the page about
//! Kafka).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CString;
use std::time::{Duration, Instant};

use footfall_core::schema::Partition;
use rdkafka::admin::AdminClient;
use rdkafka::bindings as sys;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use serde::Serialize;
use utoipa::ToSchema;

use super::next_records::{Ahead, LookaheadCache};
use super::topics::{Described, Offsets, Place, offsets};
use super::{AdminError, Op, Owned};
use crate::bounds::{GROUPS, SAMPLED_GROUPS, SAMPLED_OTHERS};
use crate::event::time::now_ms;
use crate::kafka::{Connection, HistoryError, QUESTION, Quiet, admin, connection_errors};

/// The consumer groups that this client may see, by name.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    pub groups: Vec<Group>,
    /// Groups beyond those that are described. Groups with members come first.
    pub left_out: usize,
    /// Why the list is incomplete, as a sentence.
    pub problem: Option<String>,
}

/// A consumer group.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Group {
    pub group: String,
    /// Kafka's name: `Stable`, `Empty`, `PreparingRebalance` and so on.
    pub state: String,
    /// `classic`, or `consumer` (KIP-848).
    #[serde(rename = "type")]
    pub kind: String,
    #[schema(required)]
    pub assignor: Option<String>,
    /// Id of the broker that coordinates the group.
    #[schema(required)]
    pub coordinator: Option<i32>,
    pub members: Vec<GroupMember>,
    /// Offsets that the group has not read, over all partitions whose lag is known; null if none is. Never less than the
    /// records that the group still has to read.
    #[schema(required)]
    pub lag: Option<i64>,
    /// Milliseconds, of the partition with the largest lag.
    #[schema(required)]
    pub lag_ms: Option<i64>,
    /// Partitions that a member has or for which an offset is committed, sorted.
    pub partitions: Vec<GroupPartition>,
    /// Why something about the group is not known, as a sentence. Left out if all is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub problem: Option<String>,
}

/// A member of a consumer group.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Member)]
pub struct GroupMember {
    pub id: String,
    pub client_id: String,
    pub host: String,
    pub partitions: Vec<AssignedPartition>,
}

/// A partition that a member has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[schema(as = Assigned)]
pub struct AssignedPartition {
    pub topic: String,
    #[schema(value_type = Partition)]
    pub partition: i32,
}

/// A partition that a consumer group reads.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct GroupPartition {
    pub topic: String,
    #[schema(value_type = Partition)]
    pub partition: i32,
    /// The offset at which the group continues.
    #[schema(required)]
    pub committed: Option<i64>,
    /// The partition's first offset that was not deleted.
    #[schema(required)]
    pub first: Option<i64>,
    /// The partition's next offset.
    #[schema(required)]
    pub end: Option<i64>,
    /// Offsets from where the group continues to the end, without deleted ones. On our topic it starts at the next
    /// record that exists; compaction and transactions can still make it more than the records. Null: see `problem`.
    #[schema(required)]
    pub lag: Option<i64>,
    /// Milliseconds since the next record that exists was written, by Kafka's timestamp; only of our topic. 0 without lag,
    /// null until that record was read.
    #[schema(required)]
    pub lag_ms: Option<i64>,
    /// Milliseconds for which a member with a lag has not committed, since the first snapshot that shows it; null if
    /// it commits, has nothing to read or is seen for the first time.
    #[schema(required)]
    pub stalled_ms: Option<u64>,
    /// Id of the member that has the partition.
    #[schema(required)]
    pub member: Option<String>,
    /// Why the lag is not known, or what happened to the committed offset, as a sentence. Left out if all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub problem: Option<String>,
}

impl GroupPartition {
    /// Computes the lag from the partition's bounds; `missing` says why they are not known.
    fn measure(&mut self, bounds: Option<(i64, i64)>, missing: &str) {
        (self.first, self.end) = bounds.unzip();
        (self.lag, self.problem) = match (bounds, self.committed) {
            (None, _) => (None, Some(missing.to_owned())),
            (Some(_), None) => {
                let words = "nothing is committed; a member starts at its auto.offset.reset";
                (None, Some(words.to_owned()))
            }
            (Some((first, end)), Some(committed)) if committed > end => {
                let words = format!(
                    "the committed offset {committed} is beyond the end {end}: the topic was recreated or truncated, and \
                     the group continues at its auto.offset.reset (all records from offset {first}, or only new ones)"
                );
                (None, Some(words))
            }
            (Some((first, end)), Some(committed)) if committed < first => {
                let words = format!("offsets {committed} to {} were deleted before the group read them", first - 1);
                (Some(end - first), Some(words))
            }
            (Some((_, end)), Some(committed)) => (Some(end - committed), None),
        };
    }

    /// Returns where the group continues: the committed offset, or the first one that was not deleted.
    fn next(&self) -> Option<i64> {
        Some(self.committed?.max(self.first?))
    }

    /// Corrects the lag with the next record after the committed offset.
    fn look(&mut self, ahead: Option<Ahead>, now_ms: i64) {
        let (Some(ahead), Some(end)) = (ahead, self.end) else { return };
        let next = match ahead {
            Ahead::Record { offset, .. } => offset,
            Ahead::Nothing { up_to } => up_to,
        };
        self.lag = Some((end - next).max(0));
        if let Ahead::Record { timestamp_ms: Some(at), .. } = ahead {
            self.lag_ms = Some((now_ms - at).max(0));
        }
    }
}

impl Group {
    /// Returns whether the group has anything to do with a topic.
    pub fn reads(&self, topic: &str) -> bool {
        self.partitions.iter().any(|partition| partition.topic == topic)
    }

    /// Returns a group of which only the name is known.
    pub fn new(group: String) -> Self {
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

/// Returns all groups with their lag. Blocks.
pub fn groups(connection: &Connection) -> Result<Groups, HistoryError> {
    let admin: AdminClient<Quiet> = AdminClient::from_config_and_context(&connection.base, Quiet)?;
    let failed = |error: AdminError| match error {
        AdminError::Failed(reason) => connection_errors::no_answer(connection, reason),
        AdminError::Denied(_) => HistoryError::Unreachable(error.to_string()),
    };
    let mut groups = describe(&admin, QUESTION).map_err(failed)?;
    let metadata = admin.inner().fetch_metadata(None, QUESTION);
    let metadata = metadata.map_err(|error| connection_errors::no_answer(connection, error))?;
    let described = Described::new(&metadata);
    // Requested after the committed offsets, so that a lag is never negative.
    let offsets = offsets(&admin, groups.places(&described), QUESTION).map_err(failed)?;
    groups.measure(&described, &offsets);
    groups.look_ahead(connection, &mut LookaheadCache::default());
    if groups.groups.iter().any(|group| group.problem.is_some()) {
        groups.problem.get_or_insert_with(|| {
            connection_errors::heard(connection).unwrap_or_else(|| "not every group is described whole".to_owned())
        });
    }
    Ok(groups)
}

impl Groups {
    /// Returns the partitions of all groups that have a leader to ask.
    pub(in crate::kafka) fn places(&self, described: &Described<'_>) -> Vec<Place> {
        let partitions = || self.groups.iter().flat_map(|group| &group.partitions);
        let places: HashSet<Place> =
            partitions().map(|partition| (partition.topic.clone(), partition.partition)).collect();
        let topics: HashSet<&str> = partitions().map(|partition| &*partition.topic).collect();
        topics.iter().flat_map(|topic| described.places(topic)).filter(|place| places.contains(place)).collect()
    }

    /// Computes the lags in offsets from the current first and next offsets of the partitions.
    pub(in crate::kafka) fn measure(&mut self, described: &Described<'_>, offsets: &Offsets) {
        let leaders = |topic: &str| {
            let topic = described.topic(topic);
            topic.filter(|topic| topic.error().is_none()).map(|topic| topic.partitions())
        };
        for partition in self.groups.iter_mut().flat_map(|group| &mut group.partitions) {
            let place = (partition.topic.clone(), partition.partition);
            let missing =
                match leaders(&partition.topic).map(|list| list.iter().find(|p| p.id() == partition.partition)) {
                    None => "the topic does not exist, or may not be seen",
                    Some(None) => "the topic has no such partition",
                    Some(Some(described)) if described.leader() < 0 => "the partition has no leader",
                    Some(Some(_)) => "the broker did not say where the partition ends",
                };
            partition.measure(offsets.get(&place).copied(), missing);
        }
        self.sum();
    }

    /// Looks up, on our topic, the records at which groups continue: not every offset has a record.
    pub(in crate::kafka) fn look_ahead(&mut self, connection: &Connection, lookahead: &mut LookaheadCache) {
        let ours = |partition: &&GroupPartition| partition.topic == connection.topic();
        let behind = |partition: &GroupPartition| {
            let next = partition.lag.filter(|lag| *lag > 0).and(partition.next());
            next.zip(partition.end).map(|(next, end)| (partition.partition, next, end))
        };
        let partitions = self.groups.iter().flat_map(|group| &group.partitions);
        lookahead.look(connection, partitions.filter(ours).filter_map(behind).collect());
        let now = now_ms();
        for partition in self.groups.iter_mut().flat_map(|group| &mut group.partitions) {
            if partition.topic == connection.topic()
                && let Some((number, next, _)) = behind(partition)
            {
                partition.look(lookahead.at(number, next), now);
            }
            if partition.lag == Some(0) {
                partition.lag_ms = Some(0);
            }
        }
        self.sum();
    }

    fn sum(&mut self) {
        for group in &mut self.groups {
            let known = group.partitions.iter().filter_map(|partition| partition.lag);
            group.lag = known.reduce(|sum, lag| sum + lag);
            group.lag_ms = group.partitions.iter().filter_map(|partition| partition.lag_ms).max();
        }
    }
}

/// Since when members have not committed, updated with each snapshot.
#[derive(Default)]
pub(in crate::kafka) struct CommitHistory(HashMap<(String, Place), LastCommit>);

struct LastCommit {
    committed: Option<i64>,
    /// The partition's end when the offset was first seen.
    end: i64,
    since: Instant,
}

impl CommitHistory {
    /// Compares with the previous snapshot.
    pub fn watch(&mut self, groups: &mut Groups) {
        let now = Instant::now();
        let mut seen = HashMap::new();
        for group in &mut groups.groups {
            for partition in group.partitions.iter_mut().filter(|partition| partition.member.is_some()) {
                let Some(end) = partition.end.filter(|_| partition.lag != Some(0)) else { continue };
                let key = (group.group.clone(), (partition.topic.clone(), partition.partition));
                let new = LastCommit { committed: partition.committed, end, since: now };
                let stand = match self.0.remove(&key) {
                    // A group that starts at the end has nothing to commit until something is written.
                    Some(stand)
                        if stand.committed == partition.committed && (new.committed.is_some() || stand.end < end) =>
                    {
                        partition.stalled_ms = Some(now.duration_since(stand.since).as_millis() as u64);
                        stand
                    }
                    _ => new,
                };
                seen.insert(key, stand);
            }
        }
        self.0 = seen;
    }
}

/// A group that is listed, and may not be described.
#[derive(Debug, Clone)]
pub struct ListedGroup {
    pub group: String,
    /// Kafka's name, as in [`Group`].
    pub state: String,
    /// `classic`, or `consumer`.
    pub kind: String,
}

/// For what groups are described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kafka) enum Purpose {
    /// For a viewer: at most [`GROUPS`].
    Snapshot,
    /// For the history: at most [`SAMPLED_GROUPS`] of our topic, and [`SAMPLED_OTHERS`] in turns.
    Sample,
}

/// Chooses the groups to describe where there are more than one snapshot may describe: Kafka does not say which groups read
/// a topic.
#[derive(Default)]
pub(in crate::kafka) struct GroupChoice {
    /// By name, of the groups that were described: whether the group read our topic, and in which turn that was.
    known: HashMap<String, (bool, u64)>,
    turn: u64,
}

impl GroupChoice {
    /// Keeps those to describe: groups that read our topic, then those that a viewer `wants`, then those that were never
    /// described, then the others; of each kind active groups before empty ones, by name. Samples describe the others in
    /// turns.
    pub fn choose(&mut self, listed: &mut Groups, purpose: Purpose, wants: &HashSet<String>) {
        let names: HashSet<&str> = listed.groups.iter().map(|group| &*group.group).collect();
        self.known.retain(|name, _| names.contains(&**name));
        self.turn += 1;
        let order = |group: &Group| {
            let (rank, turn) = match self.known.get(&group.group) {
                Some((true, _)) => (0, 0),
                _ if wants.contains(&group.group) => (1, 0),
                None => (2, 0),
                Some((false, turn)) => (3, if purpose == Purpose::Sample { *turn } else { 0 }),
            };
            (rank, turn, group.state == "Empty", group.group.clone())
        };
        listed.groups.sort_by_cached_key(order);
        let readers = listed.groups.iter().take_while(|group| order(group).0 == 0).count();
        let all = listed.groups.len();
        match purpose {
            Purpose::Snapshot => listed.groups.truncate(GROUPS),
            Purpose::Sample => {
                listed.groups.truncate(readers + SAMPLED_OTHERS);
                listed.groups.drain(readers.min(SAMPLED_GROUPS)..readers);
            }
        }
        listed.left_out = all - listed.groups.len();
        listed.groups.sort_by(|a, b| a.group.cmp(&b.group));
    }

    /// Notes which of the described groups read a topic.
    pub fn note(&mut self, groups: &[Group], topic: &str) {
        for group in groups {
            let known = self.known.entry(group.group.clone()).or_default();
            // A reader that could not be described now is still one.
            *known = (group.reads(topic) || (known.0 && group.problem.is_some()), self.turn);
        }
    }

    /// Returns how many groups were described at some time.
    pub fn known(&self) -> usize {
        self.known.len()
    }
}

/// Returns the groups with members, assignments and committed offsets. Each request may take `within`.
pub(in crate::kafka) fn describe<C: ClientContext>(
    admin: &AdminClient<C>,
    within: Duration,
) -> Result<Groups, AdminError> {
    let mut listed = list(admin, within)?;
    GroupChoice::default().choose(&mut listed, Purpose::Snapshot, &HashSet::new());
    describe_listed(admin, &mut listed, within);
    Ok(listed)
}

/// Adds members, assignments and committed offsets to groups that are listed.
pub(in crate::kafka) fn describe_listed<C: ClientContext>(
    admin: &AdminClient<C>,
    listed: &mut Groups,
    within: Duration,
) {
    if !listed.groups.is_empty() {
        describe_all(admin, &mut listed.groups, within);
        committed(admin, &mut listed.groups, within);
    }
}

/// Requests names, states and types (ListConsumerGroups).
pub(in crate::kafka) fn list<C: ClientContext>(admin: &AdminClient<C>, within: Duration) -> Result<Groups, AdminError> {
    let client = admin.inner().native_ptr();
    unsafe {
        let event = admin::ask(admin, Op::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS, within, |options, queue| {
            sys::rd_kafka_ListConsumerGroups(client, options, queue);
        })?;
        let result = sys::rd_kafka_event_ListConsumerGroups_result(event.pointer());
        let listings = admin::items(|count| sys::rd_kafka_ListConsumerGroups_result_valid(result, count));
        let errors = admin::items(|count| sys::rd_kafka_ListConsumerGroups_result_errors(result, count));
        let error = errors.iter().find_map(|error| AdminError::of(*error));
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

/// Requests state, members and their assignments (DescribeConsumerGroups).
fn describe_all<C: ClientContext>(admin: &AdminClient<C>, groups: &mut [Group], within: Duration) {
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
        if let Some(error) = AdminError::of(sys::rd_kafka_ConsumerGroupDescription_error(description)) {
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
            let mut partitions: Vec<AssignedPartition> = assigned
                .map(|place| AssignedPartition { topic: admin::text(place.topic), partition: place.partition })
                .collect();
            partitions.sort();
            let host = admin::text(sys::rd_kafka_MemberDescription_host(member));
            group.members.push(GroupMember {
                id: admin::text(sys::rd_kafka_MemberDescription_consumer_id(member)),
                client_id: admin::text(sys::rd_kafka_MemberDescription_client_id(member)),
                // Java writes an address without a name as `/127.0.0.1`.
                host: host.trim_start_matches('/').to_owned(),
                partitions,
            });
        }
        // Members with the first partitions come first, like the list of partitions beside them.
        let order = |member: &GroupMember| (member.partitions.is_empty(), member.partitions.first().cloned());
        group.members.sort_by(|a, b| (order(a), &a.id).cmp(&(order(b), &b.id)));
    }
}

/// Requests what each group has committed (ListConsumerGroupOffsets, one group per request).
fn committed<C: ClientContext>(admin: &AdminClient<C>, groups: &mut [Group], within: Duration) {
    let client = admin.inner().native_ptr();
    let names: Vec<CString> =
        groups.iter().map(|group| CString::new(group.group.as_str()).unwrap_or_default()).collect();
    let op = Op::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
    let answers = admin::ask_all(admin.inner(), op, within, groups.len(), |number, options, queue| unsafe {
        // Without a list of partitions: everything that the group has committed.
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
                    if let Some(error) = AdminError::of(sys::rd_kafka_group_result_error(*result)) {
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
    // The names are static strings of librdkafka.
    unsafe { admin::text(sys::rd_kafka_consumer_group_state_name(state)) }
}

fn kind(kind: sys::rd_kafka_consumer_group_type_t) -> String {
    unsafe { admin::text(sys::rd_kafka_consumer_group_type_name(kind)) }.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(count: usize) -> Groups {
        let group = |number: usize| Group { state: "Empty".into(), ..Group::new(format!("group-{number:04}")) };
        Groups { groups: (0..count).map(group).collect(), ..Groups::default() }
    }

    /// Reads our topic, as one of the groups does.
    fn described(groups: &Groups) -> Vec<Group> {
        let reads = |group: &Group| match group.group.as_str() {
            "group-4711" => vec![GroupPartition { topic: "events".into(), ..GroupPartition::default() }],
            _ => Vec::new(),
        };
        groups.groups.iter().map(|group| Group { partitions: reads(group), ..group.clone() }).collect()
    }

    #[test]
    fn the_one_group_of_5000_that_reads_the_topic_is_found_and_kept() {
        for (purpose, most) in [(Purpose::Snapshot, GROUPS), (Purpose::Sample, SAMPLED_OTHERS + 1)] {
            let mut choice = GroupChoice::default();
            let turns = (0..5000usize.div_ceil(SAMPLED_OTHERS) + 2).map(|_| {
                let mut groups = listed(5000);
                choice.choose(&mut groups, purpose, &HashSet::new());
                assert!(groups.groups.len() <= most, "{}", groups.groups.len());
                assert_eq!(groups.left_out, 5000 - groups.groups.len());
                choice.note(&described(&groups), "events");
                groups.groups.iter().any(|group| group.group == "group-4711")
            });
            let turns: Vec<bool> = turns.collect();
            let first = turns.iter().position(|found| *found).expect("it is found");
            assert!(turns[first..].iter().all(|found| *found), "it is described from then on");
            assert_eq!(choice.known(), 5000);
        }
    }

    #[test]
    fn a_wanted_group_is_described_next() {
        let mut choice = GroupChoice::default();
        let mut groups = listed(5000);
        choice.choose(&mut groups, Purpose::Snapshot, &HashSet::from(["group-4999".to_owned()]));
        assert!(groups.groups.iter().any(|group| group.group == "group-4999"));
    }
}
