//! The parameters of requests, in the groups that handlers share. All but those of a path may be left out.

#![expect(dead_code, reason = "the fields describe; `Parameters` parses")]

use footfall_core::schema::{Condition, Offset, Partition, Pointer};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};

use super::schemas::{From, Time};
use crate::event::EventId;
use crate::feed::Cursor;
use crate::ingest::Ack;

macro_rules! groups {
    ($($(#[$doc:meta])* $name:ident: $($member:ident)+;)+) => {
        $(
            $(#[$doc])*
            pub enum $name {}

            impl IntoParams for $name {
                fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                    [$($member::into_params(&place)),+].concat()
                }
            }
        )+
    };
}

groups! {
    /// What a stream takes.
    Follow: LastEventId Start Filter;
    /// What a page of history takes.
    HistoryPage: Range PageSize Filter;
    /// What an export takes.
    Export: Range ExportSize Filter;
}

/// Which records are wanted.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Only records whose `user` equals it. Several: any of them.
    #[param(max_items = 10, explode = true, example = json!(["John"]))]
    user: Vec<String>,
    /// Only records whose `action` equals it. Several: any of them.
    #[param(max_items = 10, explode = true, example = json!(["login"]))]
    action: Vec<String>,
    /// Only records whose `user` begins with it, in upper or lower case. Several, also of `user`: any of them.
    #[param(max_items = 10, explode = true, example = json!(["jo"]))]
    user_prefix: Vec<String>,
    /// Only records whose `action` begins with it, in upper or lower case. Several, also of `action`: any of them.
    #[param(max_items = 10, explode = true, example = json!(["log"]))]
    action_prefix: Vec<String>,
    /// No records whose `user` equals it. Several: none of them. Records without a `user` stay.
    #[param(max_items = 10, explode = true, example = json!(["John"]))]
    not_user: Vec<String>,
    /// No records whose `action` equals it. Several: none of them. Records without an `action` stay.
    #[param(max_items = 10, explode = true, example = json!(["page_view"]))]
    not_action: Vec<String>,
    /// Only records for which a condition on a field of the event's JSON holds: `POINTER:OP:VALUE`, with a JSON Pointer (RFC
    /// 6901; `%3A` for a colon, `%25` for a per cent sign) and one of `eq`, `ne`, `lt`, `gt`, `exists`, `contains`, `prefix`,
    /// `in`. Several: all of them.
    #[param(max_items = 10, explode = true, example = json!(["/approved:eq:false"]))]
    f: Vec<Condition>,
    /// Only records of this partition. Several: any of them.
    #[param(max_items = 10, explode = true, example = json!([1]))]
    partition: Vec<Partition>,
    /// Only records whose value contains this text, in upper or lower case, as it is written or as it reads once the escapes
    /// of JSON are decoded. Several: any of them.
    #[param(max_items = 10, explode = true, example = json!(["/cart"]))]
    q: Vec<String>,
    /// `exact`: `q` is a substring of the value's bytes, case-sensitive; `contains` and `prefix` of `f` are case-sensitive.
    /// `ignore`, the default, is as described there.
    #[param(inline)]
    case: Case,
}

/// Whether `q` and `f` mind upper and lower case.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum Case {
    Ignore,
    Exact,
}

/// What the rows of a page show.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Columns {
    /// A field, as a JSON Pointer, that gets a column of its own.
    #[param(inline, max_items = 8, explode = true, example = json!(["/page"]))]
    col: Vec<Pointer>,
}

/// The places of two records.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Compared {
    /// The first record: its partition and its offset.
    #[param(example = "2-3524", pattern = "^[0-9]{1,9}-[0-9]{1,18}$")]
    a: String,
    /// The second record.
    #[param(example = "2-3525", pattern = "^[0-9]{1,9}-[0-9]{1,18}$")]
    b: String,
}

/// Whether a record's page is shown without its neighbours.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Alone {
    /// Leave out the other records of the user. `0` and `false` mean no, anything else means yes, also no value.
    #[param(example = "1")]
    alone: String,
}

/// A condition as the form of a page sends it.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TypedCondition {
    /// A member of the event, or a JSON Pointer: the page redirects to its address with the condition as `f`.
    #[param(example = "page")]
    field: String,
    /// An operator of `f`, or `missing`.
    #[param(example = "eq")]
    op: String,
    /// The value of the condition.
    value: String,
}

/// Where a stream resumes.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct LastEventId {
    /// The cursor after the last frame that arrived: `after` as a header. Goes before every other start; an empty one counts
    /// as none.
    #[param(rename = "Last-Event-ID", example = "0-812.1-790.2-455")]
    last_event_id: String,
}

/// Where a stream starts, and how fast it is.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Start {
    /// Start at this cursor. One that is no cursor is reported as a `gap`, with `strict` it is 400.
    #[param(example = "0-812.1-790.2-455")]
    after: String,
    /// Start at a time, by the records' timestamps.
    #[param(example = "-15m")]
    since: Time,
    /// Start with the newest this many records that match the filter.
    #[param(minimum = 1, maximum = 1000, example = 10)]
    last: u32,
    /// Answer 400 to a cursor for which there would be a `gap`. `0` and `false` mean no, anything else means yes, also no
    /// value.
    #[param(example = "1")]
    strict: String,
    /// Events a second. Of more than that only the newest are sent, and `skipped` counts the others.
    #[param(minimum = 0, maximum = 100_000)]
    max_rate: u32,
}

/// Where a bounded read starts and stops.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Range {
    /// Where to start.
    #[param(default = "latest", example = "beginning")]
    from: From,
    /// Start at a time, by the records' timestamps.
    #[param(example = "-15m")]
    since: Time,
    /// Only records before this time.
    #[param(example = "-5m")]
    until: Time,
    /// The offset to begin with. Only beside exactly one `partition`, else 400.
    offset: Offset,
    /// The cursor at which to stop; the end if it is left out.
    #[param(example = "0-812.1-790.2-455")]
    to: Cursor,
    /// What comes first. Default: `oldest` with `since`, `offset`, `from=beginning` and `from=<cursor>`, else `newest`.
    #[param(inline)]
    order: Order,
}

/// What comes first.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum Order {
    Newest,
    Oldest,
}

/// How much a page has.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageSize {
    /// Records in the answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: u32,
    /// The newest this many records: `limit`, counted from the end. With `order=oldest` it is 400 if they are not all found
    /// within a page's bounds.
    #[param(minimum = 1, maximum = 1000)]
    last: u32,
}

/// Whether the page contains its histogram, for browsers without script.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ShowHistogram {
    /// Any value: the page contains its histogram.
    #[param(example = "1")]
    chart: String,
}

/// The zone of times without one.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TimesZone {
    /// The zone of `since` and `until` without one: `UTC`, a name of the IANA database, or an offset such as `+05:30`. Without
    /// it, that of the cookie `zone`, else UTC.
    #[param(max_length = 64, example = "Europe/Berlin")]
    zone: String,
}

/// What the overview shows.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Overview {
    /// The period up to now: `15m` by default.
    #[param(inline)]
    period: Period,
    /// Only events of this action.
    #[param(example = "login")]
    action: String,
}

/// What the page about Kafka shows.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Kafka {
    /// The order of the topic's groups: those with members first (default), or the largest lag first.
    #[param(inline)]
    sort: GroupOrder,
    /// Only topics whose name contains it, in upper or lower case.
    #[param(max_length = 100, example = "orders")]
    find_topic: String,
    /// Only groups whose name contains it, in upper or lower case.
    #[param(max_length = 100, example = "billing")]
    find_group: String,
    /// The page of the list of topics, of 50 each.
    #[param(minimum = 1, maximum = 20000)]
    topics: usize,
    /// The page of the list of groups, of 50 each.
    #[param(minimum = 1, maximum = 20000)]
    groups: usize,
}

/// An order of groups.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum GroupOrder {
    Active,
    Lag,
}

/// A period up to now.
#[derive(ToSchema)]
enum Period {
    #[schema(rename = "15m")]
    Quarter,
    #[schema(rename = "1h")]
    Hour,
    #[schema(rename = "24h")]
    Day,
}

/// How many rejects are wanted.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RejectsSize {
    /// Rejects in the answer, the newest.
    #[param(minimum = 1, maximum = 256, default = 256)]
    limit: u32,
}

/// How much an export has.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ExportSize {
    /// Records at most; without it, all that match.
    #[param(minimum = 1)]
    limit: u64,
    /// The newest this many records.
    #[param(minimum = 1)]
    last: u64,
}

/// A record's place.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct Place {
    partition: Partition,
    offset: Offset,
}

/// A user.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct User {
    /// The user's name, percent-encoded. `.` and `..` cannot stand in a path.
    #[param(example = "John")]
    user: String,
}

/// Where a user's events are looked for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Partitions {
    /// `all` looks through all partitions; left out, only that of the user's key is looked at.
    #[param(inline)]
    partitions: AllPartitions,
}

/// All partitions.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum AllPartitions {
    All,
}

/// The actions that are counted.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OneAction {
    /// Only events with this action. Several are alternatives.
    #[param(max_items = 10, explode = true, example = json!(["checkout"]))]
    action: Vec<String>,
}

/// Where a count of a user's events stops.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CountUpTo {
    /// The cursor before which to count: the `next` of the request before; the end if it is left out. The sums are of this
    /// piece only.
    to: Cursor,
}

/// What a submission says beside its body.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AckParameter {
    /// `none`: answer 202 after validation, without waiting for Kafka.
    #[param(inline)]
    ack: Ack,
}

/// The headers of a submission.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct SubmissionHeaders {
    /// The `id` of a single event that has none. Of an array with `Prefer: handling=strict`, the ids of its events are made
    /// of it, and it has at most 117 characters; 400 beside another array.
    #[param(rename = "Idempotency-Key")]
    idempotency_key: EventId,
    #[param(rename = "Content-Encoding", inline)]
    content_encoding: ContentEncoding,
    /// `handling=strict` (RFC 7240): all events of an array are written, or none. Other preferences are ignored.
    #[param(rename = "Prefer", example = "handling=strict")]
    prefer: String,
    /// Written into the records' headers.
    traceparent: String,
    /// Written into the records' headers.
    tracestate: String,
    /// CloudEvents, binary mode: `1.0`. Ignored in the other modes.
    #[param(rename = "ce-specversion")]
    ce_specversion: String,
    /// CloudEvents, binary mode: The event's `id`, with `ce-source` its identity. Ignored in the other modes.
    #[param(rename = "ce-id")]
    ce_id: String,
    /// CloudEvents, binary mode: The `source`, a URI-reference. Ignored in the other modes.
    #[param(rename = "ce-source")]
    ce_source: String,
    /// CloudEvents, binary mode: The `type`; replaces a missing `action` of the data. Ignored in the other modes.
    #[param(rename = "ce-type")]
    ce_type: String,
    /// CloudEvents, binary mode: The `subject`; replaces a missing `user` of the data. Ignored in the other modes.
    #[param(rename = "ce-subject")]
    ce_subject: String,
    /// CloudEvents, binary mode: When it happened, as RFC 3339. Ignored in the other modes.
    #[param(rename = "ce-time")]
    ce_time: String,
    /// CloudEvents, binary mode: The `dataschema`, a URI. Ignored in the other modes.
    #[param(rename = "ce-dataschema")]
    ce_dataschema: String,
}

/// The encodings of a body.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum ContentEncoding {
    Gzip,
    Deflate,
    Zstd,
    Identity,
}

/// Rows that a count sends.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RowCount {
    /// Rows to send, the newest first.
    #[param(maximum = 50, default = 0)]
    limit: u32,
}
