//! The page about Kafka: what a snapshot says, in the order in which a newcomer needs it, and the picture of a group.

use std::sync::Arc;

use askama::Template;
use rocket::{State, get};

use super::{Html, html};
use crate::kafka::{Group, GroupPartition, InspectError, Inspector, Member, PartitionDetail, Snapshot, TopicSummary};
use crate::web::openapi;
use crate::web::problem::Problem;
use crate::web::views::{self, Broker, Frame, HUES, cut, sentence, size, thousands};

/// Bounds of the page: the rest is in the API.
const TOPICS: usize = 50;
const GROUPS: usize = 8;
const OTHER_GROUPS: usize = 50;
const PARTITIONS: usize = 48;
const NAME_CHARS: usize = 80;
/// Height of a row of the picture, as `app.css` has it (`--lane`).
const LANE: usize = 36;
/// A member that does not commit for this long although there is a lag does not look healthy. Kafka's clients commit every
/// 5 s by default.
const STALLED_MS: u64 = 15_000;

#[derive(Template)]
#[template(path = "kafka.html")]
struct KafkaPage {
    frame: Frame,
    shown: Result<Shown, InspectError>,
}

/// The cluster, the topic's partitions and the consumer groups
#[utoipa::path(operation_id = "kafkaPage", tag = "pages", responses(openapi::HtmlOrNotice))]
#[get("/kafka")]
pub async fn page(inspector: &State<Arc<Inspector>>, frame: Frame) -> Result<Html, Problem> {
    let snapshot = inspector.snapshot().await;
    html(rocket::http::Status::Ok, &KafkaPage::new(frame, snapshot))
}

/// A snapshot in the order of the page.
struct Shown {
    snapshot: Arc<Snapshot>,
    /// Those that read our topic.
    groups: Vec<Picture>,
    groups_not_drawn: usize,
    others: Vec<Group>,
    others_not_shown: usize,
    no_groups: Option<InspectError>,
}

impl KafkaPage {
    fn new(frame: Frame, snapshot: Result<Arc<Snapshot>, InspectError>) -> Self {
        KafkaPage { frame, shown: snapshot.map(Shown::new) }
    }
}

impl Shown {
    fn new(snapshot: Arc<Snapshot>) -> Self {
        let topic = &snapshot.topic.topic;
        let listed = snapshot.groups.as_ref().map_or(&[][..], |groups| &groups.groups);
        let (mut ours, others): (Vec<&Group>, Vec<&Group>) = listed.iter().partition(|group| group.reads(topic));
        // Those in which something happens first; otherwise by name, as they come.
        ours.sort_by_key(|group| group.members.is_empty());
        Shown {
            groups_not_drawn: ours.len().saturating_sub(GROUPS),
            groups: ours.into_iter().take(GROUPS).map(|group| Picture::new(group, topic)).collect(),
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

    /// What the partitions' bars are measured against.
    fn longest(&self) -> i64 {
        self.snapshot.topic.partitions.iter().filter_map(|p| p.next_offset).max().unwrap_or(0).max(1)
    }

    /// Partitions of our topic that a broker leads.
    fn led_by(&self, broker: &i32) -> usize {
        self.snapshot.topic.partitions.iter().filter(|partition| partition.leader == Some(*broker)).count()
    }
}

/// Offsets of a partition as a bar 100 wide: what was deleted, and what is there.
fn bar(partition: &PartitionDetail, longest: i64) -> (f64, f64) {
    let part = |offset: Option<i64>| offset.unwrap_or(0) as f64 * 100.0 / longest as f64;
    let (first, next) = (part(partition.first_offset), part(partition.next_offset));
    // A single record of a long partition is to be seen too.
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

/// A consumer group as lines from partitions to the members that have them.
struct Picture {
    group: Group,
    lanes: Vec<Lane>,
    lanes_not_drawn: usize,
}

/// A partition at the left of the picture.
struct Lane {
    partition: GroupPartition,
    label: String,
    /// Its member's place, from the top.
    member: Option<usize>,
}

impl Picture {
    fn new(group: &Group, topic: &str) -> Self {
        let lane = |partition: &GroupPartition| Lane {
            label: match partition.topic == topic {
                true => format!("Partition {}", partition.partition),
                false => format!("{} {}", cut(&partition.topic, 30), partition.partition),
            },
            member: group.members.iter().position(|member| partition.member.as_ref() == Some(&member.id)),
            partition: partition.clone(),
        };
        let lanes: Vec<Lane> = group.partitions.iter().take(PARTITIONS).map(lane).collect();
        Picture { lanes_not_drawn: group.partitions.len() - lanes.len(), lanes, group: group.clone() }
    }

    fn height(&self) -> usize {
        LANE * self.lanes.len().max(self.members().len()).max(1)
    }

    fn members(&self) -> &[Member] {
        &self.group.members[..self.group.members.len().min(PARTITIONS)]
    }

    /// How long the partition that stands still for the longest has had a lag and no commit.
    fn stalled_ms(&self) -> Option<u64> {
        self.group.partitions.iter().filter_map(|partition| partition.stalled_ms).max().filter(|ms| *ms >= STALLED_MS)
    }

    /// Whether it may be shown as good: all members read, and nothing is wrong with their offsets.
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

    /// A curve from a partition to its member, in a drawing 100 wide.
    fn curve(&self, lane: &usize, member: &usize) -> String {
        let middle = |row: &usize| row * LANE + LANE / 2;
        let (from, to) = (middle(lane), middle(member));
        format!("M0 {from}C50 {from} 50 {to} 100 {to}")
    }

    /// Why it looks as it does, for someone who sees such a picture for the first time.
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

/// The part of a member's id that tells it from others of the same client.
fn short(member: &Member) -> String {
    let id = member.id.strip_prefix(&member.client_id).map_or(member.id.as_str(), |rest| rest.trim_start_matches('-'));
    format!("{} {}", cut(&member.client_id, 24), id.chars().take(8).collect::<String>())
}

/// Neighbours of the picture differ.
fn hue(member: &usize) -> usize {
    (member * 7 + 11) % HUES as usize
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
