//! The Kafka page: a snapshot of the cluster, in an order for newcomers, and a picture of each group.

use std::sync::Arc;

use askama::Template;
use rocket::{State, get};

use super::{Html, html};
use crate::colours::Colour;
use crate::kafka::{
    ClusterSnapshot, Group, GroupMember, GroupPartition, InspectError, Inspector, PartitionDetail, TopicSummary,
};
use crate::web::openapi;
use crate::web::problem::Problem;
use crate::web::views::{self, BrokerStatus, PageFrame, cut, sentence, size, thousands};

/// Bounds of the page; the API has the rest.
const TOPICS: usize = 50;
const GROUPS: usize = 8;
const OTHER_GROUPS: usize = 50;
const PARTITIONS: usize = 48;
const NAME_CHARS: usize = 80;
/// Height of a row of the picture, as `app.css` has it (`--picture-row`).
const ROW_HEIGHT: usize = 36;
/// A member that has a lag but has not committed for this long is shown as unhealthy. Kafka's clients commit every 5 s
/// by default.
const STALLED_MS: u64 = 15_000;

#[derive(Template)]
#[template(path = "kafka.html")]
struct KafkaPage {
    frame: PageFrame,
    shown: Result<ShownCluster, InspectError>,
}

/// The cluster, the topic's partitions and the consumer groups
#[utoipa::path(operation_id = "kafkaPage", tag = "pages", responses(openapi::HtmlOrNotice))]
#[get("/kafka")]
pub async fn page(inspector: &State<Arc<Inspector>>, frame: PageFrame) -> Result<Html, Problem> {
    let snapshot = inspector.snapshot().await;
    html(rocket::http::Status::Ok, &KafkaPage::new(frame, snapshot))
}

/// A snapshot, arranged for the page.
struct ShownCluster {
    snapshot: Arc<ClusterSnapshot>,
    /// The groups that read our topic.
    groups: Vec<GroupPicture>,
    groups_not_drawn: usize,
    others: Vec<Group>,
    others_not_shown: usize,
    no_groups: Option<InspectError>,
}

impl KafkaPage {
    fn new(frame: PageFrame, snapshot: Result<Arc<ClusterSnapshot>, InspectError>) -> Self {
        KafkaPage { frame, shown: snapshot.map(ShownCluster::new) }
    }
}

impl ShownCluster {
    fn new(snapshot: Arc<ClusterSnapshot>) -> Self {
        let topic = &snapshot.topic.topic;
        let listed = snapshot.groups.as_ref().map_or(&[][..], |groups| &groups.groups);
        let (mut ours, others): (Vec<&Group>, Vec<&Group>) = listed.iter().partition(|group| group.reads(topic));
        // Active groups first, otherwise by name.
        ours.sort_by_key(|group| group.members.is_empty());
        ShownCluster {
            groups_not_drawn: ours.len().saturating_sub(GROUPS),
            groups: ours.into_iter().take(GROUPS).map(|group| GroupPicture::new(group, topic)).collect(),
            others_not_shown: others.len().saturating_sub(OTHER_GROUPS)
                + snapshot.groups.as_ref().map_or(0, |groups| groups.left_out),
            others: others.into_iter().take(OTHER_GROUPS).cloned().collect(),
            no_groups: snapshot.groups.as_ref().err().cloned(),
            snapshot,
        }
    }

    fn topics(&self) -> &[TopicSummary] {
        &self.snapshot.topics[..self.snapshot.topics.len().min(TOPICS)]
    }

    fn topics_not_shown(&self) -> usize {
        self.snapshot.topics.len() - self.topics().len() + self.snapshot.topics_left_out
    }

    fn partitions(&self) -> &[PartitionDetail] {
        let partitions = &self.snapshot.topic.partitions;
        &partitions[..partitions.len().min(PARTITIONS)]
    }

    fn partitions_not_shown(&self) -> usize {
        self.snapshot.topic.partitions.len() - self.partitions().len()
    }

    /// The length of the longest bar.
    fn longest(&self) -> i64 {
        self.snapshot.topic.partitions.iter().filter_map(|p| p.next_offset).max().unwrap_or(0).max(1)
    }

    /// Partitions of our topic that a broker leads.
    fn led_by(&self, broker: &i32) -> usize {
        self.snapshot.topic.partitions.iter().filter(|partition| partition.leader == Some(*broker)).count()
    }
}

/// The offsets of a partition as a bar of width 100: the deleted part, and the rest.
fn bar(partition: &PartitionDetail, longest: i64) -> (f64, f64) {
    let part = |offset: Option<i64>| offset.unwrap_or(0) as f64 * 100.0 / longest as f64;
    let (first, next) = (part(partition.first_offset), part(partition.next_offset));
    // A single record of a long partition must be visible too.
    (first, if next > first { (next - first).max(0.5) } else { 0.0 })
}

/// `1, 2, 3: all in sync`.
fn sync_words(partition: &PartitionDetail) -> String {
    let numbers = |list: &mut dyn Iterator<Item = &i32>| list.map(i32::to_string).collect::<Vec<_>>().join(", ");
    let all = numbers(&mut partition.replicas.iter());
    let mut missing = partition.replicas.iter().filter(|id| !partition.in_sync.contains(id)).peekable();
    match (missing.peek().is_some(), partition.replicas.len()) {
        (false, 1) => format!("{all}: in sync, unreplicated"),
        (false, _) => format!("{all}: all in sync"),
        (true, _) => format!("{all}: {} behind", numbers(&mut missing)),
    }
}

/// A consumer group, drawn as lines from partitions to members.
struct GroupPicture {
    group: Group,
    lines: Vec<PartitionLine>,
    lines_not_drawn: usize,
}

/// A partition at the left of the picture.
struct PartitionLine {
    partition: GroupPartition,
    label: String,
    /// The position of its member, from the top.
    member: Option<usize>,
}

impl GroupPicture {
    fn new(group: &Group, topic: &str) -> Self {
        let line = |partition: &GroupPartition| PartitionLine {
            label: match partition.topic == topic {
                true => format!("Partition {}", partition.partition),
                false => format!("{} {}", cut(&partition.topic, 30), partition.partition),
            },
            member: group.members.iter().position(|member| partition.member.as_ref() == Some(&member.id)),
            partition: partition.clone(),
        };
        let lines: Vec<PartitionLine> = group.partitions.iter().take(PARTITIONS).map(line).collect();
        GroupPicture { lines_not_drawn: group.partitions.len() - lines.len(), lines, group: group.clone() }
    }

    fn height(&self) -> usize {
        ROW_HEIGHT * self.lines.len().max(self.members().len()).max(1)
    }

    fn members(&self) -> &[GroupMember] {
        &self.group.members[..self.group.members.len().min(PARTITIONS)]
    }

    /// The longest time for which a partition has had a lag without a commit.
    fn stalled_ms(&self) -> Option<u64> {
        self.group.partitions.iter().filter_map(|partition| partition.stalled_ms).max().filter(|ms| *ms >= STALLED_MS)
    }

    /// Whether the group is healthy: all members read, and their offsets are fine.
    fn healthy(&self) -> bool {
        let members = self.group.partitions.iter().filter(|partition| partition.member.is_some());
        self.group.state == "Stable"
            && self.group.problem.is_none()
            && self.stalled_ms().is_none()
            && members.into_iter().all(|partition| partition.problem.is_none() || partition.committed.is_none())
    }

    fn idle_members(&self) -> usize {
        self.group.members.iter().filter(|member| member.partitions.is_empty()).count()
    }

    /// A curve from a partition to its member, in a drawing of width 100.
    fn curve(&self, line: &usize, member: &usize) -> String {
        let middle = |row: &usize| row * ROW_HEIGHT + ROW_HEIGHT / 2;
        let (from, to) = (middle(line), middle(member));
        format!("M0 {from}C50 {from} 50 {to} 100 {to}")
    }

    /// Explains the picture to newcomers.
    fn words(&self) -> String {
        let (members, idle) = (self.group.members.len(), self.idle_members());
        if members == 0 {
            return "No active members. Kafka keeps the committed offsets; the next member continues there.".to_owned();
        }
        if !self.group.state.is_empty() && self.group.state != "Stable" {
            return "Rebalancing: a member joined or left. This takes a few seconds.".to_owned();
        }
        if let Some(stalled) = self.stalled_ms() {
            return format!(
                "No commit for {} although there are unread records: the program hangs, fails at a record, or waits for an open \
                 transaction.",
                views::duration(stalled)
            );
        }
        let mut words = match members {
            1 => "One member has all partitions. Start a second one and Kafka assigns it some of them.".to_owned(),
            _ => format!(
                "{members} members share the partitions; each partition has one member. Stop a member (Ctrl-C) and Kafka \
                 assigns its partitions to the others."
            ),
        };
        if idle > 0 {
            words.push_str(match idle {
                1 => " One member is idle: there are more members than partitions.",
                _ => " Some members are idle: there are more members than partitions.",
            });
        }
        words
    }
}

/// The part of a member's id that distinguishes it from others of the same client.
fn short(member: &GroupMember) -> String {
    let id = member.id.strip_prefix(&member.client_id).map_or(member.id.as_str(), |rest| rest.trim_start_matches('-'));
    format!("{} {}", cut(&member.client_id, 24), id.chars().take(8).collect::<String>())
}

/// The class of a member's colour.
fn colour(member: &usize) -> &'static str {
    Colour::numbered(*member).class()
}

fn name(text: &str) -> String {
    cut(text, NAME_CHARS)
}

/// A number as text, or a dash where it is not known.
fn known<T: Copy>(number: &Option<T>, text: impl FnOnce(T) -> String) -> String {
    number.map_or_else(|| "–".to_owned(), text)
}

fn count(number: &Option<i64>) -> String {
    known(number, |n| thousands(n.max(0) as u64))
}

fn number(number: &Option<i32>) -> String {
    known(number, |n| n.to_string())
}

/// `≈ 31 kB`.
fn bytes(bytes: &Option<u64>) -> String {
    known(bytes, |n| format!("≈ {}", size(n as usize)))
}

fn rate(rate: &Option<f64>) -> String {
    known(rate, views::rate)
}

fn duration(ms: &Option<i64>) -> String {
    known(ms, |ms| views::duration(ms.max(0) as u64))
}
