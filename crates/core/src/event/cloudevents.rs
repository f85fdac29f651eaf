//! CloudEvents 1.0.2: the attributes of an event in structured mode (JSON format) and in binary mode (HTTP protocol
//! binding), and the names of their headers in Kafka (Kafka protocol binding).

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use percent_encoding::percent_decode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::Event;
use super::fields::{self, Fallbacks};
use super::refused::{Checked, FieldError, Limits, Refused, body_text};
use super::{ERRORS_EACH, EXTENSIONS};
use crate::value::{MemberValue, Text, for_each_member};

pub const SPECVERSION: &str = "ce_specversion";
pub const ID: &str = "ce_id";
pub const SOURCE: &str = "ce_source";
pub const TYPE: &str = "ce_type";
pub const SUBJECT: &str = "ce_subject";
pub const DATASCHEMA: &str = "ce_dataschema";
pub const TIME: &str = "ce_time";
pub const CONTENT_TYPE: &str = "content-type";

/// The prefix of attribute names in HTTP headers of binary mode (HTTP protocol binding, section 3.1.3.1).
pub const HTTP_PREFIX: &str = "ce-";
/// The headers that binary mode requires. A request with any of them counts as a CloudEvent in binary mode.
pub const HTTP_REQUIRED: [&str; 4] = ["ce-specversion", "ce-id", "ce-source", "ce-type"];

/// Most bytes of `source`, `type`, `subject` and `dataschema`.
const ATTRIBUTE_BYTES: usize = 2048;
/// Most bytes of `datacontenttype`.
const CONTENT_TYPE_BYTES: usize = 256;
/// Most characters of an extension's name. The specification asks senders to stay within 20.
const NAME: usize = 64;

/// The attributes of a structured-mode message (CloudEvents JSON format, section 3).
#[derive(Deserialize, Default)]
pub struct Envelope<'a> {
    #[serde(borrow, default)]
    pub id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub source: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "type")]
    pub kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub subject: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub time: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
}

/// Whether a content type names the structured mode's JSON format.
pub fn is_structured(content_type: &str) -> bool {
    media_type(content_type).eq_ignore_ascii_case("application/cloudevents+json")
}

/// Whether a content type is JSON: `application/json`, or a type with the suffix `+json` (RFC 6839, section 3.1) that
/// is not a CloudEvents format.
pub fn is_json(content_type: &str) -> bool {
    let essence = media_type(content_type).to_ascii_lowercase();
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let is_type = essence.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype));
    essence == "application/json"
        || is_type && essence.ends_with("+json") && !essence.starts_with("application/cloudevents")
}

/// Returns a content type without its parameters.
pub fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Parses one CloudEvent in structured mode: its `data` is the event, its attributes become the headers. `text` is a
/// part of `body`.
pub(super) fn structured(body: &Bytes, text: &str, limits: &Limits) -> Result<Checked, Refused> {
    let members = match EnvelopeVisitor::read(text) {
        Ok(members) => members,
        Err(e) if e.is_data() => return Ok(Err(vec![FieldError::new("", format!("must be a CloudEvent: {e}"))])),
        Err(e) => return fields::unreadable(text, &e),
    };
    let EnvelopeVisitor { mut attributes, data, data_base64 } = members;
    let fallbacks = attributes.check();
    let data = match (data, data_base64) {
        (Some(_), Some(_)) => {
            attributes.wrong("data_base64", "cannot be used together with `data`");
            None
        }
        (Some(data), None) => Some((body.clone(), data.get(), "/data")),
        (None, Some(encoded)) => {
            return match decoded(encoded) {
                Ok(bytes) => {
                    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
                    attributes.event(&bytes, text, "/data_base64", &fallbacks, limits)
                }
                Err(detail) => {
                    attributes.wrong("data_base64", detail);
                    Ok(Err(attributes.errors))
                }
            };
        }
        (None, None) => {
            attributes.wrong("data", "is missing: expected a JSON object with `user` and `action`");
            None
        }
    };
    match data {
        Some((body, text, place)) => attributes.event(&body, text, place, &fallbacks, limits),
        None => Ok(Err(attributes.errors)),
    }
}

/// Parses one CloudEvent in binary mode (HTTP protocol binding, section 3.1). The body is its data, `headers` are those
/// with [`HTTP_PREFIX`], and `content_type` is its `datacontenttype`.
pub fn binary<'h>(
    body: &Bytes,
    headers: impl Iterator<Item = (&'h str, &'h str)>,
    content_type: Option<&str>,
    limits: &Limits,
) -> Result<Checked, Refused> {
    let text = body_text(body)?;
    limits.check_size(0, text)?;
    let mut attributes = SubmittedAttributes { mode: Mode::Binary, ..SubmittedAttributes::default() };
    for (name, value) in headers {
        let name = name.get(HTTP_PREFIX.len()..).unwrap_or_default().to_ascii_lowercase();
        if matches!(&*name, "data" | "data_base64" | "datacontenttype") {
            attributes.wrong(&name, "is not allowed as a header: the body is the data, and `Content-Type` is its type");
            continue;
        }
        let value = decode_header(value).map(Cow::Owned).map(Value::Text);
        attributes.set(name.into(), value.unwrap_or(Value::Wrong("must be UTF-8, percent-encoded".into())));
    }
    if let Some(content_type) = content_type {
        attributes.content_type = Some(content_type.to_owned());
    }
    let fallbacks = attributes.check();
    attributes.event(body, text, "", &fallbacks, limits)
}

/// Decodes a header value of binary mode (HTTP protocol binding, section 3.1.3.2): removes quotes around it, and
/// percent-decodes it as UTF-8. A `%` without two hexadecimal digits is kept, because many senders do not encode.
fn decode_header(value: &str) -> Option<String> {
    let unquoted = match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => {
            let mut text = String::with_capacity(inner.len());
            let mut chars = inner.chars();
            while let Some(c) = chars.next() {
                text.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
            }
            Cow::Owned(text)
        }
        None => Cow::Borrowed(value),
    };
    percent_decode(unquoted.as_bytes()).decode_utf8().ok().map(Cow::into_owned)
}

/// Decodes the JSON in `data_base64`.
fn decoded(encoded: &RawValue) -> Result<Bytes, &'static str> {
    let text: Text = serde_json::from_str(encoded.get()).map_err(|_| "must be a string in Base64")?;
    let bytes = BASE64.decode(text.0.as_bytes()).map_err(|_| "must be Base64 (RFC 4648, section 4)")?;
    let is_object = std::str::from_utf8(&bytes)
        .is_ok_and(|text| text.trim().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok());
    if is_object { Ok(bytes.into()) } else { Err("must contain a JSON object with `user` and `action`") }
}

/// Where the attributes come from, which decides how an error names one.
#[derive(Clone, Copy, Default)]
enum Mode {
    #[default]
    Structured,
    Binary,
}

/// A CloudEvent's attributes as they were sent; `None` if not set.
#[derive(Default)]
struct SubmittedAttributes<'a> {
    mode: Mode,
    specversion: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    dataschema: Option<Cow<'a, str>>,
    content_type: Option<String>,
    extensions: Vec<(String, String)>,
    /// The names seen so far, to find duplicates. Bounded by [`EXTENSIONS`].
    seen: Vec<Cow<'a, str>>,
    extensions_seen: usize,
    errors: Vec<FieldError>,
}

enum Value<'a> {
    NotSet,
    Text(Cow<'a, str>),
    /// An integer or a boolean, as JSON writes it.
    Literal(&'a str),
    Wrong(String),
}

impl<'a> SubmittedAttributes<'a> {
    fn wrong(&mut self, name: &str, detail: impl fmt::Display) {
        if self.errors.len() < ERRORS_EACH {
            self.errors.push(match self.mode {
                Mode::Structured => FieldError::new(pointer(name), detail.to_string()),
                Mode::Binary => FieldError::new("", format!("`{HTTP_PREFIX}{name}` {detail}")),
            });
        }
    }

    fn set(&mut self, name: Cow<'a, str>, value: Value<'a>) {
        let is_extension = !is_core(&name);
        if is_extension {
            self.extensions_seen += 1;
            if self.extensions_seen > EXTENSIONS {
                if self.extensions_seen == EXTENSIONS + 1 {
                    self.errors.push(FieldError::new("", format!("must have at most {EXTENSIONS} extensions")));
                }
                return;
            }
        }
        if self.seen.contains(&name) {
            self.wrong(&name, "appears twice");
            return;
        }
        self.seen.push(name.clone());
        let text = match value {
            Value::NotSet => return,
            Value::Wrong(detail) => return self.wrong(&name, detail),
            Value::Literal(literal) if is_extension => Cow::Borrowed(literal),
            Value::Literal(literal) => {
                let kind = if literal.starts_with(['t', 'f']) { "a boolean" } else { "a number" };
                return self.wrong(&name, format!("must be a string, not {kind}"));
            }
            Value::Text(text) => text,
        };
        if !is_extension && text.is_empty() {
            return self.wrong(&name, "must not be empty");
        }
        if !text.chars().all(is_allowed) {
            return self.wrong(&name, "must not contain control characters or noncharacters");
        }
        let field = match &*name {
            "specversion" => &mut self.specversion,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.kind,
            "subject" => &mut self.subject,
            "time" => &mut self.time,
            "dataschema" => &mut self.dataschema,
            "datacontenttype" => {
                self.content_type = Some(text.into_owned());
                return;
            }
            _ => return self.extension(&name, text),
        };
        *field = Some(text);
    }

    fn extension(&mut self, name: &str, text: Cow<str>) {
        let is_name =
            (1..=NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !is_name {
            let detail = format!("is not an attribute's name: 1 to {NAME} lower-case letters and digits");
            return self.wrong(name, detail);
        }
        self.extensions.push((format!("ce_{name}"), text.into_owned()));
    }

    /// Checks the attributes alone. Returns the values that replace missing members of the data.
    fn check(&mut self) -> Fallbacks {
        for (name, is_set) in [
            ("specversion", self.specversion.is_some()),
            ("id", self.id.is_some()),
            ("source", self.source.is_some()),
            ("type", self.kind.is_some()),
        ] {
            // An invalid one has an error already.
            let came_wrong = self.errors.iter().any(|error| match self.mode {
                Mode::Structured => error.pointer == pointer(name),
                Mode::Binary => error.detail.starts_with(&format!("`{HTTP_PREFIX}{name}`")),
            });
            if !is_set && !came_wrong {
                self.wrong(name, "is missing: CloudEvents 1.0 requires it");
            }
        }
        if let Some(version) = self.specversion.as_deref().filter(|version| *version != "1.0") {
            let detail = format!("must be \"1.0\", not \"{}\"", version.chars().take(20).collect::<String>());
            self.wrong("specversion", detail);
        }
        for (name, text) in [
            ("source", self.source.clone()),
            ("type", self.kind.clone()),
            ("subject", self.subject.clone()),
            ("dataschema", self.dataschema.clone()),
        ] {
            let Some(text) = text else { continue };
            if text.len() > ATTRIBUTE_BYTES {
                self.wrong(name, format!("must be at most {ATTRIBUTE_BYTES} bytes, not {}", text.len()));
            } else if name == "source" && !is_uri_reference(&text) {
                self.wrong(name, "must be a URI-reference (RFC 3986, section 4.1) such as /shop");
            } else if name == "dataschema" && !is_uri(&text) {
                self.wrong(name, "must be a URI (RFC 3986, section 3) such as https://example.com/schema.json");
            }
        }
        if let Some(content_type) = &self.content_type
            && !(is_json(content_type)
                && content_type.len() <= CONTENT_TYPE_BYTES
                && content_type.bytes().all(|b| matches!(b, b' '..=b'~')))
        {
            self.wrong("datacontenttype", "must be \"application/json\" or another type of JSON (`+json`)");
        }
        let text = |text: &Option<Cow<str>>| text.as_ref().map(|text| text.to_string());
        Fallbacks { user: text(&self.subject), action: text(&self.kind) }
    }

    /// Makes the event with `text`, a part of `body`, as its data. `place` is its index in the request.
    fn event(
        mut self,
        body: &Bytes,
        text: &str,
        place: &str,
        fallbacks: &Fallbacks,
        limits: &Limits,
    ) -> Result<Checked, Refused> {
        let data = fields::event(body, text, fallbacks, limits)?;
        let mut attribute_errors = Vec::new();
        let member = |text: Option<Cow<'a, str>>| text.map(MemberValue::Text);
        let id = fields::optional_id("id", member(self.id.take()), &mut attribute_errors);
        let time = fields::optional_time("time", member(self.time.take()), limits, &mut attribute_errors);
        for error in attribute_errors {
            self.wrong(&error.pointer, error.detail);
        }
        let event = match data {
            Ok(event) => event,
            Err(inner) => {
                let inner = inner.into_iter().map(|error| match &*error.pointer {
                    // The value comes from an attribute, so the error names that.
                    "subject" | "type" => {
                        let whose = if error.pointer == "subject" { "`user`" } else { "`action`" };
                        let detail = format!("replaces {whose}, which the data does not have, and {}", error.detail);
                        match self.mode {
                            Mode::Structured => FieldError::new(format!("/{}", error.pointer), detail),
                            Mode::Binary => FieldError::new("", format!("`{HTTP_PREFIX}{}` {detail}", error.pointer)),
                        }
                    }
                    pointer => FieldError::new(format!("{place}{pointer}"), error.detail),
                });
                self.errors.extend(inner);
                self.errors.truncate(ERRORS_EACH);
                return Ok(Err(self.errors));
            }
        };
        if let Some(id) = &id
            && event.id_was_given
            && event.id != *id
        {
            let error = FieldError::new(format!("{place}/id"), "must be the CloudEvent's `id`, or be left out");
            self.errors.push(error);
        }
        let Some(id) = id.filter(|_| self.errors.is_empty()) else { return Ok(Err(self.errors)) };
        let mut extra_headers = Vec::with_capacity(self.extensions.len() + 2);
        for (name, text) in [(SUBJECT, self.subject), (DATASCHEMA, self.dataschema)] {
            extra_headers.extend(text.map(|text| (name.to_owned(), text.into_owned())));
        }
        extra_headers.append(&mut self.extensions);
        Ok(Ok(Event {
            id,
            id_was_given: true,
            time_ms: time.as_ref().map_or(event.time_ms, |(ms, _)| *ms),
            time: time.map_or(event.time, |(_, text)| text),
            source: self.source.map(Cow::into_owned),
            kind: self.kind.map(Cow::into_owned),
            content_type: self.content_type,
            extra_headers,
            ..event
        }))
    }
}

/// Whether an attribute is one of the specification's own (section "Context Attributes").
fn is_core(name: &str) -> bool {
    matches!(name, "specversion" | "id" | "source" | "type" | "subject" | "time" | "dataschema" | "datacontenttype")
}

/// Whether the specification's type String allows a character (section "Type System").
fn is_allowed(c: char) -> bool {
    let code = u32::from(c);
    !c.is_control() && !(0xFDD0..=0xFDEF).contains(&code) && code & 0xFFFE != 0xFFFE
}

/// RFC 3986, section 4.1, with the characters of RFC 3987 (IRI).
fn is_uri_reference(text: &str) -> bool {
    let bytes = text.as_bytes();
    text.char_indices().all(|(at, c)| match c {
        '%' => bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
        c if c.is_ascii() => c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=".contains(c),
        c => !c.is_whitespace() && !c.is_control(),
    })
}

/// RFC 3986, section 3: a reference with a scheme.
fn is_uri(text: &str) -> bool {
    let scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    is_uri_reference(text) && text.split_once(':').is_some_and(|(name, rest)| scheme(name) && !rest.is_empty())
}

/// The members of a structured-mode event (JSON format, section 3).
#[derive(Default)]
struct EnvelopeVisitor<'a> {
    attributes: SubmittedAttributes<'a>,
    data: Option<&'a RawValue>,
    data_base64: Option<&'a RawValue>,
}

impl<'a> EnvelopeVisitor<'a> {
    fn read(json: &'a str) -> Result<Self, serde_json::Error> {
        let mut members = EnvelopeVisitor::default();
        let mut data_seen = [false; 2];
        for_each_member(json, |name, value| {
            let (field, seen) = match &*name {
                "data" => (&mut members.data, &mut data_seen[0]),
                "data_base64" => (&mut members.data_base64, &mut data_seen[1]),
                _ => return members.attributes.set(name, attribute(value.get())),
            };
            *field = (value.get() != "null").then_some(value);
            if std::mem::replace(seen, true) {
                members.attributes.wrong(&name, "appears twice");
            }
        })?;
        Ok(members)
    }
}

/// An attribute's value in JSON (JSON format, section 2.2): a string, an integer of 32 bits or a boolean; `null` is not set.
fn attribute(json: &str) -> Value<'_> {
    match json.as_bytes().first() {
        Some(b'"') => match serde_json::from_str(json) {
            Ok(Text(text)) => Value::Text(text),
            Err(_) => Value::Wrong("must not be text with half of a surrogate pair".into()),
        },
        Some(b'n') => Value::NotSet,
        Some(b't' | b'f') => Value::Literal(json),
        Some(b'{') => Value::Wrong("must be a string, an integer or a boolean, not an object".into()),
        Some(b'[') => Value::Wrong("must be a string, an integer or a boolean, not an array".into()),
        _ if json.parse::<i32>().is_ok() => Value::Literal(json),
        _ => Value::Wrong("must be a string, an integer of 32 bits or a boolean, not another number".into()),
    }
}

/// The JSON pointer to an object's member.
fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_decoded_as_the_http_binding_says() {
        let decoded = |value: &str| decode_header(value);
        assert_eq!(decoded("Euro%20%E2%82%AC%20%F0%9F%98%80").as_deref(), Some("Euro € 😀"));
        assert_eq!(decoded(r#""a \"b\" %25""#).as_deref(), Some("a \"b\" %"));
        assert_eq!(decoded("100% of 5%zz").as_deref(), Some("100% of 5%zz"));
        assert_eq!(decoded("Jos%E9"), None);
    }

    #[test]
    fn uris_are_recognised() {
        for good in
            ["/shop", "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66", "//a/b?c#d", "é", "https://a.example/%20"]
        {
            assert!(is_uri_reference(good), "{good}");
        }
        for bad in ["a b", "<x>", "%", "%2", "a\"b"] {
            assert!(!is_uri_reference(bad), "{bad}");
        }
        assert!(is_uri("https://example.com/s.json") && is_uri("urn:x"));
        assert!(!is_uri("/s.json") && !is_uri("1a:b") && !is_uri("a:"));
    }

    #[test]
    fn json_has_more_than_one_content_type() {
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.a+json", "text/x+json"] {
            assert!(is_json(good), "{good}");
        }
        for bad in ["text/json", "application/cloudevents+json", "application/jsonx", "+json", "a/b c+json", ""] {
            assert!(!is_json(bad), "{bad}");
        }
    }
}
