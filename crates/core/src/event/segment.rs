//! Messages of Segment's protocol (the HTTP Tracking API) as events.
//!
//! A message's `messageId` becomes the event's `id`, `userId` or else `anonymousId` its `user`, `event` or else the call's
//! name its `action`, and `timestamp` its `time`. All other members stay as they are, except `writeKey`, a secret. Those that
//! become an event's own count as absent if they are `null` or empty.

use serde_json::value::RawValue;

use super::refused::{Limits, Refused, body_text, not_an_object};
use crate::value::{for_each_member, write_string};

/// Most bytes that a batch may add to its messages: a small body would otherwise become a very large one.
const SHARED: usize = 1 << 20;

/// What a message reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Track,
    Identify,
    Page,
    Screen,
    Group,
    Alias,
}

impl Call {
    /// The message's `type`.
    pub fn name(self) -> &'static str {
        match self {
            Call::Track => "track",
            Call::Identify => "identify",
            Call::Page => "page",
            Call::Screen => "screen",
            Call::Group => "group",
            Call::Alias => "alias",
        }
    }
}

/// Returns the message of a body as an array of one event, in JSON.
///
/// # Errors
///
/// Fails if the body is not a JSON object.
pub fn message(body: &[u8], call: Call) -> Result<Vec<u8>, Refused> {
    let text = body_text(body)?;
    let mut out = b"[".to_vec();
    Message::read(text).map_err(|error| not_an_object(&error, "expected one message, a JSON object"))?.write(
        &mut out,
        Some(call),
        &[],
    );
    out.push(b']');
    Ok(out)
}

/// Returns the messages of a batch as an array of events, in JSON. What the batch says for all of its messages
/// (`context`, `integrations`) is added to those that do not say it themselves.
///
/// # Errors
///
/// Fails if the body is not a JSON object with one array `batch`, if that has more messages than the limits allow, or if
/// what it says for all of them has more than 1 MiB in all of them. A message that is not an object stays as it is.
pub fn batch(body: &[u8], limits: &Limits) -> Result<Vec<u8>, Refused> {
    const EXPECTED: &str = "expected a JSON object with `batch`, an array of messages";
    let text = body_text(body)?;
    let (mut batch, mut shared, mut is_double) = (None, Vec::new(), false);
    for_each_member(text, |name, value| match &*name {
        "batch" => is_double |= batch.replace(value).is_some(),
        "context" | "integrations" => shared.push((if name == "context" { "context" } else { "integrations" }, value)),
        _ => {}
    })
    .map_err(|error| not_an_object(&error, EXPECTED))?;
    let messages: Option<Vec<&RawValue>> = batch.and_then(|batch| serde_json::from_str(batch.get()).ok());
    let messages = messages.filter(|_| !is_double).ok_or_else(|| Refused::WrongType(EXPECTED.into()))?;
    if messages.len() > limits.batch {
        return Err(Refused::TooMany { count: messages.len(), max: limits.batch });
    }
    let added: usize = shared.iter().map(|(_, value)| value.get().len() * messages.len()).sum();
    if added > SHARED {
        let detail = format!(
            "`context` and `integrations` of the batch have {added} bytes in its {} messages; the maximum is {SHARED}: \
             shorten them, or put them into the messages that need them",
            messages.len()
        );
        return Err(Refused::WrongType(detail));
    }
    let mut out = Vec::with_capacity(body.len() + 32 * messages.len());
    out.push(b'[');
    for (index, message) in messages.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match Message::read(message.get()) {
            Ok(message) => message.write(&mut out, None, &shared),
            Err(_) => out.extend_from_slice(message.get().as_bytes()),
        }
    }
    out.push(b']');
    Ok(out)
}

/// The members of a message. Those that become an event's own are apart.
#[derive(Default)]
struct Message<'a> {
    id: Option<&'a RawValue>,
    user: Option<&'a RawValue>,
    anonymous: Option<&'a RawValue>,
    event: Option<&'a RawValue>,
    kind: Option<&'a RawValue>,
    time: Option<&'a RawValue>,
    others: Vec<(String, &'a RawValue)>,
}

impl<'a> Message<'a> {
    fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        let mut message = Message::default();
        for_each_member(text, |name, value| {
            let (own, renamed) = match &*name {
                "messageId" => (&mut message.id, "id"),
                "userId" => (&mut message.user, "user"),
                "anonymousId" => (&mut message.anonymous, "user"),
                "event" => (&mut message.event, "action"),
                "type" => (&mut message.kind, "type"),
                "timestamp" => (&mut message.time, "time"),
                "writeKey" => return, // a secret
                _ => return message.others.push((name.into_owned(), value)),
            };
            // SDKs send `null` or an empty string for what is not set.
            let is_set = !matches!(value.get(), "null" | "\"\"");
            // Twice the same name: both go on, and the rules of events refuse that.
            if is_set && let Some(first) = own.replace(value) {
                message.others.push((renamed.to_owned(), first));
            }
        })?;
        Ok(message)
    }

    fn write(self, out: &mut Vec<u8>, call: Option<Call>, shared: &[(&str, &RawValue)]) {
        let mut separator = b'{';
        let mut member = |name: &str, value: &str| {
            out.push(std::mem::replace(&mut separator, b','));
            write_string(out, name);
            out.push(b':');
            out.extend_from_slice(value.as_bytes());
        };
        let name = call.map(|call| format!("\"{}\"", call.name()));
        let kind = self.kind.map(RawValue::get).or(name.as_deref());
        let action = self.event.map(RawValue::get).or(name.as_deref()).or(kind);
        let fields = [
            ("id", self.id.map(RawValue::get)),
            ("user", self.user.or(self.anonymous).map(RawValue::get)),
            ("action", action),
            ("time", self.time.map(RawValue::get)),
            ("type", kind),
            ("anonymousId", self.user.and(self.anonymous).map(RawValue::get)),
        ];
        fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .for_each(|(name, value)| member(name, value));
        for (name, value) in &self.others {
            member(name, value.get());
        }
        for (name, value) in shared.iter().filter(|(name, _)| self.others.iter().all(|(other, _)| other != name)) {
            member(name, value.get());
        }
        if separator == b'{' {
            out.push(b'{');
        }
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { event: 32 * 1024, batch: 500, now_ms: 1_795_435_200_000 };

    fn text(json: Result<Vec<u8>, Refused>) -> String {
        String::from_utf8(json.expect("events")).expect("UTF-8")
    }

    #[test]
    fn a_message_keeps_everything_under_the_names_of_an_event() {
        for (call, body, expected) in [
            (
                Call::Track,
                r#"{"messageId":"m-1","userId":"Ann","event":"Signed Up","timestamp":"2026-11-27T12:00:00Z","properties":{"n":1.0}}"#,
                r#"[{"id":"m-1","user":"Ann","action":"Signed Up","time":"2026-11-27T12:00:00Z","type":"track","properties":{"n":1.0}}]"#,
            ),
            (
                Call::Page,
                r#"{"userId":null,"anonymousId":"a","name":"Home","type":"page"}"#,
                r#"[{"user":"a","action":"page","type":"page","name":"Home"}]"#,
            ),
            (
                Call::Identify,
                r#"{"userId":"Ann","anonymousId":"a","traits":{},"writeKey":"secret"}"#,
                r#"[{"user":"Ann","action":"identify","type":"identify","anonymousId":"a","traits":{}}]"#,
            ),
            // The rules of events say what is missing, and refuse a name that is there twice.
            (Call::Alias, "{}", r#"[{"action":"alias","type":"alias"}]"#),
            (
                Call::Group,
                r#"{"userId":"Ann","user":"Bob","userId":"Cid"}"#,
                r#"[{"user":"Cid","action":"group","type":"group","user":"Bob","user":"Ann"}]"#,
            ),
        ] {
            assert_eq!(text(message(body.as_bytes(), call)), expected);
        }
    }

    #[test]
    fn a_batch_adds_its_context_to_messages_without_one() {
        let body = r#"{"sentAt":"2026-11-27T12:00:00Z","context":{"ip":1},"integrations":{},"batch":[
            {"type":"track","userId":"Ann","event":"A","context":{"ip":2}},
            {"type":"screen","userId":"Ann"}, 7, {}]}"#;
        let expected = r#"[{"user":"Ann","action":"A","type":"track","context":{"ip":2},"integrations":{}},{"user":"Ann","action":"screen","type":"screen","context":{"ip":1},"integrations":{}},7,{"context":{"ip":1},"integrations":{}}]"#;
        assert_eq!(text(batch(body.as_bytes(), &LIMITS)), expected);
        assert_eq!(text(batch(br#"{"batch":[{}]}"#, &LIMITS)), "[{}]");
    }

    #[test]
    fn what_is_no_message_is_refused_with_what_was_expected() {
        for body in ["[]", "7", "\"x\"", "{}", r#"{"batch":{}}"#, r#"{"batch":null}"#, r#"{"batch":[{}],"batch":[{}]}"#]
        {
            let Err(Refused::WrongType(detail)) = batch(body.as_bytes(), &LIMITS) else { panic!("{body}") };
            assert!(detail.contains("`batch`, an array of messages"), "{detail}");
        }
        assert!(matches!(message(b"[]", Call::Track), Err(Refused::WrongType(_))));
        assert!(matches!(message(b"{", Call::Track), Err(Refused::NotJson(_))));
        assert!(matches!(batch(b"\xff", &LIMITS), Err(Refused::NotUtf8(_))));
        assert!(matches!(batch(b" ", &LIMITS), Err(Refused::Empty)));
    }

    #[test]
    fn a_small_body_does_not_become_a_large_one() {
        let of = |context: usize, messages: usize| {
            let messages = vec!["{}"; messages].join(",");
            batch(format!(r#"{{"context":"{}","batch":[{messages}]}}"#, "x".repeat(context)).as_bytes(), &LIMITS)
        };
        assert!(of(2_000, 500).is_ok());
        assert_eq!(of(2, 501), Err(Refused::TooMany { count: 501, max: 500 }));
        let Err(Refused::WrongType(detail)) = of(200_000, 500) else { panic!("accepted") };
        assert!(detail.contains("100001000 bytes in its 500 messages"), "{detail}");
    }
}
