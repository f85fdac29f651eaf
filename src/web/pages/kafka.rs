//! The Kafka page: a snapshot of the cluster, in an order for newcomers, and a picture of each group.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use askama::Template;
use footfall_core::query_string::QueryString;
use rocket::request::{FromRequest, Outcome, Request};
use rocket::{State, get};

use super::{Html, html};
use crate::base_path::base_path;
use crate::bounds;
use crate::colours::Colour;
use crate::event::time::now_ms;
use crate::hot_keys::{HotKey, HotKeys};
use crate::kafka::{
    ClusterSnapshot, Group, GroupMember, GroupPartition, GroupTrend, InspectError, Inspector, LagTime, ListedGroup,
    PartitionDetail, Progress, TopicFacts, TopicSummary,
};
use crate::web::openapi;
use crate::web::problem::Problem;
use crate::web::query::{self, Parameters};
use crate::web::views::{self, BrokerStatus, PageFrame, Stamp, Zone, count_of, cut, sentence, size, thousands};

/// Bounds of the page; the API has the rest.
const GROUPS: usize = 8;
const MORE_GROUPS: usize = 50;
const PARTITIONS: usize = 48;
const NAME_CHARS: usize = 80;
/// Rows of a list of topics or groups.
const LISTED: usize = 50;
/// Most characters of what is searched in a list.
const FIND_CHARS: usize = 100;
/// Changes of a group that are shown without opening its details.
const LATEST_CHANGES: usize = 2;
/// Height of a row of the picture, as `app.css` has it (`--picture-row`).
const ROW_HEIGHT: usize = 36;
/// A key is hot with at least this part of at least so many records.
const HOT_SHARE: f64 = 0.1;
const HOT_OF: u64 = 100;
/// The cookie with the names of the open explanations, separated by dots, as `explain.js` writes it.
const EXPLAIN: &str = "footfall_explain";

#[derive(Template)]
#[template(path = "kafka.html")]
struct KafkaPage {
    frame: PageFrame,
    /// The explanations that are open.
    explained: Explained,
    shown: Result<ShownCluster, InspectError>,
}

/// The explanations that are open, as the cookie says. Rocket does not read the cookies of requests from our server.
pub struct Explained(Vec<String>);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Explained {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        let ours = super::cookie(request, EXPLAIN);
        Outcome::Success(Explained(ours.unwrap_or_default().split('.').take(8).map(str::to_owned).collect()))
    }
}

impl KafkaPage {
    /// Whether an explanation is open.
    fn explains(&self, name: &str) -> bool {
        self.explained.0.iter().any(|open| open == name)
    }
}

/// The cluster, the topic's partitions and the consumer groups
#[utoipa::path(
    operation_id = "kafkaPage",
    tag = "pages",
    params(openapi::Kafka),
    responses(openapi::HtmlOrNotice, openapi::BadParameter)
)]
#[get("/kafka")]
pub async fn page(
    inspector: &State<Arc<Inspector>>,
    hot_keys: &State<Arc<HotKeys>>,
    frame: PageFrame,
    parameters: Parameters,
    explained: Explained,
) -> Result<Html, Problem> {
    let choice = Choice::of((*parameters).clone())?;
    let shown = inspector.snapshot().await.map(|snapshot| ShownCluster::new(snapshot, choice, hot_keys));
    if let Ok(shown) = &shown {
        let topics = shown.topics.rows.iter().filter(|topic| topic.records.is_none());
        let groups = shown.others.rows.iter().filter(|row| row.described.is_none());
        inspector.want(topics.map(|topic| &*topic.topic), groups.map(|row| &*row.listed.group));
    }
    html(rocket::http::Status::Ok, &KafkaPage { frame, explained, shown })
}

/// The order of the topic's groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// Active groups first, otherwise by name.
    Active,
    /// The largest lag first.
    Lag,
}

/// What a viewer wants to see.
struct Choice {
    sort: Sort,
    /// Part of the name, and page from 0, of the lists.
    find_topic: String,
    find_group: String,
    topics_page: usize,
    groups_page: usize,
    parameters: QueryString,
}

impl Choice {
    fn of(parameters: QueryString) -> Result<Self, Problem> {
        let sort = match parameters.get("sort") {
            None | Some("active") => Sort::Active,
            Some("lag") => Sort::Lag,
            Some(other) => return Err(query::bad("sort", format!("must be active or lag, not \"{other}\""))),
        };
        let find = |name| match parameters.get(name).unwrap_or_default() {
            long if long.chars().count() > FIND_CHARS => {
                Err(query::bad(name, format!("must have at most {FIND_CHARS} characters")))
            }
            text => Ok(text.trim().to_owned()),
        };
        let page = |name| parameters.number(name, 1..=bounds::LISTED).map(|page| page.unwrap_or(1) - 1);
        Ok(Choice {
            sort,
            find_topic: find("find_topic")?,
            find_group: find("find_group")?,
            topics_page: page("topics")?,
            groups_page: page("groups")?,
            parameters,
        })
    }

    /// The address of this page with some other parameters.
    fn address(&self, others: &[(&str, &str)]) -> String {
        format!("{}/kafka?{}", base_path(), self.parameters.with(others))
    }
}

/// Some rows of a long list.
struct Listed<T> {
    rows: Vec<T>,
    /// Rows that match, and their number without a search.
    found: usize,
    all: usize,
    /// The number of the first row, from 1.
    first: usize,
    previous: Option<String>,
    next: Option<String>,
}

impl<T> Listed<T> {
    /// Takes a page of what matches. `parameter` names the page in the address.
    fn of<S>(
        all: &[S],
        matches: impl Fn(&S) -> bool,
        row: impl Fn(&S) -> T,
        page: usize,
        parameter: &str,
        choice: &Choice,
    ) -> Self {
        let found: Vec<&S> = all.iter().filter(|item| matches(item)).collect();
        let page = page.min(found.len().saturating_sub(1) / LISTED);
        let to = |page: usize| choice.address(&[(parameter, &(page + 1).to_string())]);
        Listed {
            first: page * LISTED + 1,
            previous: (page > 0).then(|| to(page - 1)),
            next: (found.len() > (page + 1) * LISTED).then(|| to(page + 1)),
            rows: found.iter().skip(page * LISTED).take(LISTED).map(|item| row(item)).collect(),
            found: found.len(),
            all: all.len(),
        }
    }

    /// The addresses of the pages before and after.
    fn pages(&self) -> (Option<&str>, Option<&str>) {
        (self.previous.as_deref(), self.next.as_deref())
    }

    /// `51 to 100 of 10,000`.
    fn words(&self) -> String {
        match self.rows.len() {
            0 => "none".to_owned(),
            rows if rows == self.found => format!("all {}", thousands(rows as u64)),
            rows => format!(
                "{} to {} of {}",
                thousands(self.first as u64),
                thousands((self.first + rows - 1) as u64),
                thousands(self.found as u64)
            ),
        }
    }
}

/// A group in the list of all groups.
struct ListedRow {
    listed: ListedGroup,
    /// Its number of members and its lag.
    described: Option<(usize, Option<i64>)>,
}

/// A snapshot, arranged for the page.
struct ShownCluster {
    snapshot: Arc<ClusterSnapshot>,
    choice: Choice,
    partitions: Vec<PartitionRow>,
    /// The groups that read our topic.
    groups: Vec<GroupPicture>,
    more_groups: Vec<GroupPicture>,
    groups_not_drawn: usize,
    others: Listed<ListedRow>,
    topics: Listed<TopicSummary>,
    no_groups: Option<InspectError>,
}

impl ShownCluster {
    fn new(snapshot: Arc<ClusterSnapshot>, choice: Choice, hot_keys: &HotKeys) -> Self {
        let topic = &snapshot.topic.topic;
        let described = snapshot.groups.as_ref().map_or(&[][..], |groups| &groups.groups);
        let trends = &snapshot.trends.groups;
        let mut ours: Vec<GroupPicture> = described
            .iter()
            .filter(|group| group.reads(topic))
            .map(|group| GroupPicture::new(group, topic, trends.get(&group.group)))
            .collect();
        match choice.sort {
            Sort::Active => ours.sort_by_key(|picture| picture.group.members.is_empty()),
            Sort::Lag => ours.sort_by_key(|picture| std::cmp::Reverse(picture.behind())),
        }
        let mut more_groups = ours.split_off(ours.len().min(GROUPS));
        let groups_not_drawn = more_groups.len().saturating_sub(MORE_GROUPS);
        more_groups.truncate(MORE_GROUPS);
        let by_name: HashMap<&str, &Group> = described.iter().map(|group| (&*group.group, group)).collect();
        let others = Listed::of(
            &snapshot.listed_groups,
            |group| contains(&group.group, &choice.find_group),
            |group| ListedRow {
                described: by_name.get(&*group.group).map(|group| (group.members.len(), group.lag)),
                listed: group.clone(),
            },
            choice.groups_page,
            "groups",
            &choice,
        );
        let topics = Listed::of(
            &snapshot.topics,
            |topic| contains(&topic.topic, &choice.find_topic),
            Clone::clone,
            choice.topics_page,
            "topics",
            &choice,
        );
        let all: i64 = snapshot.topic.partitions.iter().filter_map(|partition| partition.records).sum();
        let partitions = snapshot.topic.partitions.iter().take(PARTITIONS);
        let rates = |partition: &PartitionDetail| snapshot.trends.rates.get(partition.partition as usize).cloned();
        let partitions = partitions
            .map(|partition| PartitionRow {
                rates: rates(partition).unwrap_or_default(),
                share: partition.records.filter(|_| all > 0).map(|records| records as f64 / all as f64),
                hot: hot_keys.top(partition.partition),
                detail: partition.clone(),
            })
            .collect();
        ShownCluster {
            partitions,
            groups: ours,
            more_groups,
            groups_not_drawn,
            others,
            topics,
            no_groups: snapshot.groups.as_ref().err().cloned(),
            choice,
            snapshot,
        }
    }

    fn facts(&self) -> &TopicFacts {
        &self.snapshot.facts
    }

    fn partitions_not_shown(&self) -> usize {
        self.snapshot.topic.partitions.len() - self.partitions.len()
    }

    /// The sum over all partitions; `None` if it is not known of one of them.
    fn sum<T: std::iter::Sum>(&self, of: impl Fn(&PartitionDetail) -> Option<T>) -> Option<T> {
        self.snapshot.topic.partitions.iter().map(of).sum()
    }

    fn rate(&self) -> String {
        let rates = &self.snapshot.trends.rates;
        let last = |partition: &PartitionDetail| *rates.get(partition.partition as usize)?.last()?;
        rate(&self.sum(|partition| partition.records_per_second.or_else(|| last(partition))))
    }

    fn records(&self) -> String {
        count(&self.sum(|partition| partition.records))
    }

    fn bytes(&self) -> String {
        bytes(&self.sum(|partition| partition.bytes_estimate))
    }

    /// The line of all partitions' rates.
    fn line(&self) -> String {
        let rates = &self.snapshot.trends.rates;
        let points = rates.iter().map(Vec::len).max().unwrap_or(0);
        let sum = |point| rates.iter().map(|rates| rates.get(point).copied().flatten()).sum();
        views::spark_with_gaps(&(0..points).map(sum).collect::<Vec<Option<f64>>>())
    }

    /// `kept for 7 d`, of deletion by time and by size, and compaction.
    fn kept(&self) -> Option<String> {
        let facts = self.facts();
        let policy = facts.cleanup.as_deref().unwrap_or("delete");
        let mut words = Vec::new();
        if policy.contains("delete") {
            words.push(match facts.retention_ms? {
                ms if ms < 0 => "kept without a time limit".to_owned(),
                ms => format!("kept for {}", views::duration(ms as u64)),
            });
            if let Some(bytes) = facts.retention_bytes.filter(|bytes| *bytes >= 0) {
                words.push(format!("at most {} in each partition", size(bytes as usize)));
            }
        }
        if policy.contains("compact") {
            words.push("compacted: the newest record of each key is kept".to_owned());
        }
        Some(words.join(", ")).filter(|words| !words.is_empty())
    }

    fn oldest(&self, zone: &Zone) -> Option<(Stamp, String)> {
        let oldest = self.facts().oldest_ms?;
        Some((Stamp::new(oldest, zone), views::duration((now_ms() - oldest).max(0) as u64)))
    }

    /// The numbers of replicas of the partitions, and whether one has only one.
    fn replicas(&self) -> (String, bool) {
        let counts = || self.snapshot.topic.partitions.iter().map(|partition| partition.replicas.len() as u64);
        let (least, most) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
        let words = if least == most { count_of(most, "replica") } else { format!("{least} to {most} replicas") };
        (words, least == 1)
    }

    /// `15 min`: how far the lines go back.
    fn covered(&self) -> String {
        views::duration(self.snapshot.trends.covered_ms.max(0) as u64)
    }

    /// `even 33 %`.
    fn even_share(&self) -> String {
        percent(1.0 / self.snapshot.topic.partitions.len().max(1) as f64)
    }

    /// Partitions of our topic that a broker leads.
    fn led_by(&self, broker: &i32) -> usize {
        self.snapshot.topic.partitions.iter().filter(|partition| partition.leader == Some(*broker)).count()
    }

    fn is_sorted_by_lag(&self) -> bool {
        self.choice.sort == Sort::Lag
    }

    fn address(&self, name: &str, value: &str) -> String {
        self.choice.address(&[(name, value)])
    }

    /// The parameters that a search in a list keeps.
    fn kept_parameters(&self, searched: &str) -> Vec<(&'static str, &str)> {
        let (other, other_page) =
            if searched == "find_topic" { ("find_group", "groups") } else { ("find_topic", "topics") };
        let names = ["sort", other, other_page].into_iter();
        names.filter_map(|name| Some((name, self.choice.parameters.get(name)?))).collect()
    }

    /// Whether the list of topics or groups was searched or paged, so that it is open.
    fn is_open(&self, parameters: &[&str; 2]) -> bool {
        parameters.iter().any(|name| self.choice.parameters.get(name).is_some())
    }
}

/// Whether a name contains a text, in upper or lower case.
fn contains(name: &str, text: &str) -> bool {
    text.is_empty() || name.to_lowercase().contains(&text.to_lowercase())
}

/// A partition of our topic.
struct PartitionRow {
    detail: PartitionDetail,
    rates: Vec<Option<f64>>,
    /// Of all records of the topic, from 0 to 1.
    share: Option<f64>,
    hot: Option<HotKey>,
}

impl PartitionRow {
    fn line(&self) -> String {
        views::spark_with_gaps(&self.rates)
    }

    /// Over the last 10 s, or the last 30 s if nobody looked before.
    fn rate(&self) -> String {
        rate(&self.detail.records_per_second.or_else(|| self.rates.last().copied().flatten()))
    }

    fn peak(&self) -> Option<String> {
        self.rates.iter().flatten().copied().reduce(f64::max).map(views::rate)
    }

    fn share(&self) -> String {
        known(&self.share, percent)
    }

    /// Width of the bar, of 100.
    fn bar(&self) -> f64 {
        (self.share.unwrap_or(0.0) * 1000.0).round() / 10.0
    }

    /// The most frequent key, and its share, if the key is hot.
    fn hot(&self) -> Option<(String, String)> {
        let hot = self.hot.as_ref().filter(|hot| hot.records >= HOT_OF)?;
        let share = hot.count as f64 / hot.records as f64;
        (share >= HOT_SHARE).then(|| (cut(&hot.key, 24), percent(share)))
    }

    fn is_unreplicated(&self) -> bool {
        self.detail.replicas.len() == 1
    }

    /// The ids of the replicas, and `all in sync`.
    fn sync_words(&self) -> (String, String) {
        let partition = &self.detail;
        let numbers = |list: &mut dyn Iterator<Item = &i32>| list.map(i32::to_string).collect::<Vec<_>>().join(", ");
        let all = numbers(&mut partition.replicas.iter());
        let mut missing = partition.replicas.iter().filter(|id| !partition.in_sync.contains(id)).peekable();
        let words = match (missing.peek().is_some(), partition.replicas.len()) {
            (false, 1) => "unreplicated".to_owned(),
            (false, _) => "all in sync".to_owned(),
            (true, _) => format!("{} behind", numbers(&mut missing)),
        };
        (all, words)
    }
}

/// A consumer group, drawn as lines from partitions to members.
struct GroupPicture {
    group: Group,
    trend: Option<GroupTrend>,
    lines: Vec<PartitionLine>,
    lines_not_drawn: usize,
}

/// A partition at the left of the picture.
struct PartitionLine {
    partition: GroupPartition,
    /// `Partition 2`, and in a column of partitions `2`.
    label: String,
    short_label: String,
    /// The position of its member, from the top.
    member: Option<usize>,
}

impl GroupPicture {
    fn new(group: &Group, topic: &str, trend: Option<&GroupTrend>) -> Self {
        let positions: BTreeMap<&str, usize> =
            group.members.iter().enumerate().map(|(at, member)| (&*member.id, at)).collect();
        let line = |partition: &GroupPartition| {
            let other = format!("{} {}", cut(&partition.topic, 30), partition.partition);
            let (label, short_label) = match partition.topic == topic {
                true => (format!("Partition {}", partition.partition), partition.partition.to_string()),
                false => (other.clone(), other),
            };
            let member = partition.member.as_ref().and_then(|id| positions.get(&**id).copied());
            PartitionLine { label, short_label, member, partition: partition.clone() }
        };
        let lines: Vec<PartitionLine> = group.partitions.iter().take(PARTITIONS).map(line).collect();
        let lines_not_drawn = group.partitions.len() - lines.len();
        GroupPicture { lines_not_drawn, lines, trend: trend.cloned(), group: group.clone() }
    }

    fn height(&self) -> usize {
        ROW_HEIGHT * self.lines.len().max(self.members().len()).max(1)
    }

    fn members(&self) -> &[GroupMember] {
        &self.group.members[..self.group.members.len().min(PARTITIONS)]
    }

    fn progress(&self) -> Progress {
        self.trend.as_ref().map_or(Progress::Unknown, |trend| trend.progress)
    }

    fn is_rebalancing(&self) -> bool {
        !matches!(self.group.state.as_str(), "Stable" | "Empty" | "Dead" | "")
    }

    /// By what groups are sorted: how far behind the group is.
    fn behind(&self) -> i64 {
        match self.progress() {
            Progress::NothingCommitted { up_to } => up_to,
            _ => self.known_lag().unwrap_or(0),
        }
    }

    /// The class of the dot.
    fn dot(&self) -> &'static str {
        match self.progress() {
            _ if self.group.problem.is_some() || self.is_rebalancing() => "warn",
            Progress::UpToDate => "good",
            Progress::Stuck { .. } | Progress::FallingBehind { .. } => "bad",
            Progress::NothingCommitted { up_to: 0 } | Progress::NoMembers { .. } => "",
            Progress::NothingCommitted { .. } | Progress::CatchingUp { .. } | Progress::Behind | Progress::Unknown => {
                "warn"
            }
        }
    }

    /// The state by rule: `up to date`.
    fn state(&self) -> String {
        if self.is_rebalancing() {
            return "rebalancing".to_owned();
        }
        let records = |n: i64| thousands(n.max(0) as u64);
        let time = |ms: i64| views::duration(ms.max(0) as u64);
        match self.progress() {
            Progress::UpToDate => "up to date".to_owned(),
            Progress::CatchingUp { ready_in_ms } => format!("catching up, ready in {}", time(ready_in_ms)),
            Progress::FallingBehind { per_second } => format!("falling behind {}", views::rate(per_second)),
            Progress::Behind => "behind".to_owned(),
            Progress::Stuck { partition, for_ms } => format!("stuck for {} at partition {partition}", time(for_ms)),
            Progress::NothingCommitted { up_to: 0 } => "has committed nothing, and there is nothing to read".to_owned(),
            Progress::NothingCommitted { up_to } => format!("has committed nothing, up to {} behind", records(up_to)),
            Progress::NoMembers { lag: Some(lag) } if lag > 0 => format!("no members, {} behind", records(lag)),
            Progress::NoMembers { .. } => "no members".to_owned(),
            Progress::Unknown => "lag unknown".to_owned(),
        }
    }

    /// Of our topic, if its samples are known.
    fn known_lag(&self) -> Option<i64> {
        self.trend.as_ref().map_or(self.group.lag, |trend| trend.lag)
    }

    /// `lag 6 · 300 ms`.
    fn lag(&self) -> String {
        let lag = count(&self.known_lag());
        match self.lag_time() {
            Some(time) => format!("lag {lag} · {time}"),
            None => format!("lag {lag}"),
        }
    }

    /// By the samples, or by Kafka's timestamp of a record that is older than they are.
    fn lag_time(&self) -> Option<String> {
        let by_timestamp = self.group.lag_ms.map(|ms| ms.max(0));
        let time = |ms: i64| views::duration(ms.max(0) as u64);
        match self.trend.as_ref().and_then(|trend| trend.lag_time) {
            Some(LagTime::Exactly(ms)) => Some(time(ms)),
            Some(LagTime::Over(covered)) => Some(match by_timestamp {
                Some(ms) if ms >= covered => time(ms),
                _ => format!("over {}", time(covered)),
            }),
            None => by_timestamp.map(time),
        }
    }

    /// The line of the lag.
    fn line(&self) -> String {
        let lags = self.trend.as_ref().map_or(&[][..], |trend| &trend.lags);
        views::spark_with_gaps(&lags.iter().map(|lag| lag.map(|lag| lag as f64)).collect::<Vec<_>>())
    }

    /// Time and words of its changes, the newest first.
    fn changes(&self, zone: &Zone) -> Vec<(Stamp, &str)> {
        let changes = self.trend.as_ref().map_or(&[][..], |trend| &trend.changes);
        changes.iter().map(|change| (Stamp::new(change.at_ms, zone), &*change.what)).collect()
    }

    fn latest_changes(&self, zone: &Zone) -> Vec<(Stamp, &str)> {
        self.changes(zone).into_iter().take(LATEST_CHANGES).collect()
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

    /// Explains the picture in a sentence.
    fn words(&self) -> String {
        if self.is_rebalancing() {
            return "Rebalancing: a member joined or left. This takes a few seconds.".to_owned();
        }
        if matches!(self.progress(), Progress::Stuck { .. }) {
            return "No commit although there are unread records: the program hangs, fails at a record, or waits for an open \
                    transaction."
                .to_owned();
        }
        let mut words = match self.group.members.len() {
            0 => "No active members. The next member continues at the committed offsets.".to_owned(),
            1 => "One member has all partitions.".to_owned(),
            members => format!("{members} members share the partitions."),
        };
        match self.idle_members() {
            0 => {}
            1 => words.push_str(" One member is idle: there are more members than partitions."),
            _ => words.push_str(" Some members are idle: there are more members than partitions."),
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

/// `10,000`.
fn number_of(items: impl Borrow<usize>) -> String {
    thousands(*items.borrow() as u64)
}

/// `≈ 31 kB`.
fn bytes(bytes: &Option<u64>) -> String {
    known(bytes, |n| format!("≈ {}", size(n as usize)))
}

fn rate(rate: &Option<f64>) -> String {
    known(rate, views::rate)
}

/// `36 %`, of a part from 0 to 1.
fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

fn duration(ms: &Option<i64>) -> String {
    known(ms, |ms| views::duration(ms.max(0) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::{ClusterSummary, TopicDetail, TrendSnapshot};

    /// A cluster with this many topics and groups.
    fn cluster(topics: usize, groups: usize) -> Arc<ClusterSnapshot> {
        let topic = |number: usize| TopicSummary { topic: format!("topic-{number:05}"), partitions: 3, records: None };
        let group = |number: usize| ListedGroup {
            group: format!("group-{number:04}"),
            state: "Stable".into(),
            kind: "classic".into(),
        };
        Arc::new(ClusterSnapshot {
            cluster: ClusterSummary::default(),
            topics: (0..topics).map(topic).collect(),
            topics_left_out: 0,
            topic: TopicDetail { topic: "events".into(), partitions: Vec::new() },
            facts: TopicFacts::default(),
            trends: TrendSnapshot::default(),
            listed_groups: (0..groups).map(group).collect(),
            unexamined_groups: groups,
            groups: Ok(Default::default()),
            problems: Vec::new(),
        })
    }

    fn shown(query: &str) -> ShownCluster {
        let choice = Choice::of(QueryString::parse(query).expect("parameters")).expect("a choice");
        ShownCluster::new(cluster(10_000, 5_000), choice, &HotKeys::default())
    }

    fn page(query: &str) -> String {
        let frame = PageFrame {
            css: String::new(),
            js: String::new(),
            icon: String::new(),
            topic: "events".into(),
            servers: "kafka-1:9092".into(),
            embedded: false,
            broker: BrokerStatus::Up,
            zone: Zone::default(),
            zone_is_chosen: false,
            here: "/kafka".into(),
        };
        KafkaPage { frame, explained: Explained(Vec::new()), shown: Ok(shown(query)) }.render().expect("a page")
    }

    #[test]
    fn ten_thousand_topics_and_5000_groups_are_a_small_page() {
        let page = page("");
        assert!(page.len() < 40_000, "{} bytes", page.len());
        for words in ["10,000 topics", "5,000 groups", "Topics: 1 to 50 of 10,000", "Groups: 1 to 50 of 5,000"] {
            assert!(page.contains(words), "{words}");
        }
        assert!(page.contains("5,000 of 5,000 groups have not been looked at yet"), "{page}");
    }

    #[test]
    fn lists_are_paged_and_found() {
        let third = shown("topics=3&groups=100");
        assert_eq!(third.topics.rows[0].topic, "topic-00100");
        assert_eq!(third.topics.words(), "101 to 150 of 10,000");
        assert_eq!(third.topics.next.as_deref(), Some("/kafka?groups=100&topics=4"));
        assert_eq!((third.others.rows.len(), third.others.next.is_some()), (50, false));
        let found = shown("find_topic=TOPIC-0123&topics=9");
        assert_eq!((found.topics.found, found.topics.rows.len()), (10, 10), "the page is beyond the end");
        assert_eq!(shown("find_group=nothing").others.words(), "none");
        let page = page("find_topic=topic-012&groups=2&sort=lag");
        assert!(page.contains("Topics: 1 to 50 of 100, of 10,000"), "{page}");
        assert!(page.contains(r#"<input type="hidden" name="groups" value="2">"#), "a search keeps the other list");
    }

    #[test]
    fn a_wrong_parameter_is_refused() {
        let of = |query: &str| Choice::of(QueryString::parse(query).expect("parameters"));
        for query in ["sort=size", "topics=0", "groups=x", &format!("find_topic={}", "x".repeat(101))] {
            assert!(of(query).is_err(), "{query}");
        }
    }

    #[test]
    fn a_lag_older_than_the_samples_has_kafkas_time_if_there_is_one() {
        let mut group = Group::new("billing".into());
        group.lag_ms = Some(7_200_000);
        let trend = |lag_time| GroupTrend {
            progress: Progress::Behind,
            lag: Some(6),
            lag_time,
            lags: Vec::new(),
            changes: Vec::new(),
        };
        let time = |group: &Group, lag_time| GroupPicture::new(group, "events", Some(&trend(lag_time))).lag_time();
        assert_eq!(time(&group, Some(LagTime::Exactly(300))).as_deref(), Some("300 ms"));
        assert_eq!(time(&group, Some(LagTime::Over(720_000))).as_deref(), Some("2 h"));
        group.lag_ms = None;
        assert_eq!(time(&group, Some(LagTime::Over(720_000))).as_deref(), Some("over 12 min"));
    }
}
