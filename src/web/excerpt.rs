//! What the list of rejects shows of a body. It shows a body only if it can be parsed, as JSON or as a form: in anything else
//! nobody can say where a secret begins. Names stay; values that may be secret are replaced by `…`.

use std::fmt;

use footfall_core::query_string::pairs;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::views::cut;

/// Most bytes of an excerpt.
const EXCERPT: usize = 512;
/// Strings of more characters are shortened to so many.
const STRING_CHARS: usize = 32;
const SHORT_CHARS: usize = 24;
/// A name that contains one of these is that of a secret. Compared without case, and without what is no letter or digit.
const SECRETS: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "writekey",
    "authorization",
    "bearer",
    "credential",
    "cookie",
    // What the Base64 of JSON, such as a JSON Web Token, begins with.
    "eyj",
];
/// A string with one of these may be JSON, a form, markup or another text with names and values.
const SYNTAX: [char; 11] = ['{', '}', '[', ']', '<', '>', '"', '\\', '%', '=', '&'];

/// What is shown of a body.
#[derive(Debug, PartialEq)]
pub struct Excerpt {
    pub text: String,
    /// Whether it is the refused event alone, otherwise the start of the body.
    pub is_event: bool,
}

/// Returns what may be shown of a body of this media type; `None` if it cannot be parsed. `item` is the place of the
/// refused event, if the body is an array or lines.
pub fn excerpt(media_type: &str, body: &[u8], item: Option<usize>) -> Option<Excerpt> {
    if media_type.contains("ndjson") || media_type.contains("jsonl") {
        let Some(index) = item else { return whole(parse(body)?) };
        return event(&parse(body.split(|byte| *byte == b'\n').nth(index)?)?);
    }
    match parse(body) {
        Some(node) => {
            let items = if let Node::Array(items) = &node { &items[..] } else { &[] };
            item.and_then(|index| event(items.get(index)?)).or_else(|| whole(node))
        }
        None if media_type == "application/x-www-form-urlencoded" => {
            Some(Excerpt { text: form(body)?, is_event: false })
        }
        None => None,
    }
}

/// Returns the start of a path: two segments, unless they may hold a secret.
pub fn path(path: &str) -> String {
    let mut shown = String::new();
    for (place, segment) in path.split('/').skip(1).enumerate() {
        if place == 2 || segment.chars().count() > SHORT_CHARS || !is_plain(segment) {
            return shown + "/…";
        }
        shown += &format!("/{segment}");
    }
    shown
}

fn parse(json: &[u8]) -> Option<Node> {
    serde_json::from_slice(json).ok()
}

fn whole(node: Node) -> Option<Excerpt> {
    event(&node).map(|excerpt| Excerpt { is_event: false, ..excerpt })
}

/// `None` if it is no object or array: nothing says what a string alone is.
fn event(node: &Node) -> Option<Excerpt> {
    let mut text = String::new();
    if let Node::Text(_) | Node::Other(_) = node {
        return None;
    }
    node.write(&mut text, false);
    Some(Excerpt { text: bounded(text), is_event: true })
}

/// `None` if it does not look like a form.
fn form(body: &[u8]) -> Option<String> {
    let is_pair = |part: &[u8]| part.is_empty() || part.contains(&b'=');
    if body.is_empty() || !body.split(|byte| *byte == b'&').all(is_pair) {
        return None;
    }
    let mut members = Vec::new();
    for [name, value] in pairs(body) {
        let name = name.ok().filter(|name| is_plain(name) || is_name(name))?;
        members.push((name, value.map_or_else(|_| Node::Other(String::new()), Node::Text)));
    }
    let hides = members.iter().any(|(_, value)| value.names_secret());
    let mut text = String::new();
    for (name, value) in members {
        if text.len() > EXCERPT {
            break;
        }
        if !text.is_empty() {
            text.push('&');
        }
        let value = match value {
            Node::Text(value) if !hides && is_plain(&name) && is_plain(&value) => shortened(&value),
            _ => "…".to_owned(),
        };
        text += &format!("{}={value}", shortened(&name));
    }
    Some(bounded(text))
}

/// A JSON value, with its members in order.
enum Node {
    Text(String),
    /// A number, a boolean or null.
    Other(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    /// Whether it is a string that names a secret, whose value may then be beside it.
    fn names_secret(&self) -> bool {
        matches!(self, Node::Text(text) if is_secret(text))
    }

    /// Appends the value, unless the text is long enough already. `hides` is whether its strings and numbers are left out.
    fn write(&self, out: &mut String, hides: bool) {
        match self {
            _ if out.len() > EXCERPT => {}
            Node::Text(text) if !hides && is_plain(text) => *out += &format!("\"{}\"", shortened(text)),
            Node::Text(_) => *out += "\"…\"",
            Node::Other(text) => *out += if hides { "…" } else { text },
            Node::Array(items) => {
                let hides = hides || items.iter().any(Node::names_secret);
                out.push('[');
                for (place, item) in items.iter().enumerate().take(EXCERPT) {
                    *out += if place > 0 { "," } else { "" };
                    item.write(out, hides);
                }
                out.push(']');
            }
            Node::Object(members) => {
                let hides = hides || members.iter().any(|(_, value)| value.names_secret());
                out.push('{');
                for (place, (name, value)) in members.iter().enumerate().take(EXCERPT) {
                    let shown = if is_plain(name) || is_name(name) { shortened(name) } else { "…".to_owned() };
                    *out += &format!("{}\"{shown}\":", if place > 0 { "," } else { "" });
                    value.write(out, hides || !is_plain(name));
                }
                out.push('}');
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Text(text.to_owned()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
                Ok(Node::Other(number.to_string()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
                Ok(Node::Other(number.to_string()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
                Ok(Node::Other(format!("{number:?}")))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Other(value.to_string()))
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Other("null".to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
                let mut read = Vec::new();
                while let Some(item) = items.next_element()? {
                    read.push(item);
                }
                Ok(Node::Array(read))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
                let mut read = Vec::new();
                while let Some(member) = members.next_entry()? {
                    read.push(member);
                }
                Ok(Node::Object(read))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// Whether a text is only a text: it names no secret, and has no names and values of its own.
fn is_plain(text: &str) -> bool {
    !text.contains(SYNTAX) && !text.contains(char::is_control) && !is_secret(text)
}

/// Whether a text is the name of a member and nothing else, also if of a secret.
fn is_name(text: &str) -> bool {
    text.len() <= STRING_CHARS && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

fn is_secret(text: &str) -> bool {
    let letters: String = text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    SECRETS.iter().any(|secret| letters.contains(secret))
}

/// Returns a string as it is, or the start of a long one.
fn shortened(text: &str) -> String {
    cut(text, if text.chars().nth(STRING_CHARS).is_some() { SHORT_CHARS } else { STRING_CHARS })
}

fn bounded(mut text: String) -> String {
    if text.len() > EXCERPT {
        text.truncate(text.floor_char_boundary(EXCERPT - '…'.len_utf8()));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";

    fn shown(media_type: &str, body: &str) -> Option<String> {
        excerpt(media_type, body.as_bytes(), None).map(|excerpt| excerpt.text)
    }

    #[test]
    fn long_strings_and_secrets_are_left_out_of_an_excerpt() {
        let long = "x".repeat(33);
        let short = format!("{}…", "x".repeat(24));
        for (body, expected) in [
            (r#"{"user":"Ann", "n":7}"#.to_owned(), r#"{"user":"Ann","n":7}"#.to_owned()),
            (r#"{"user":"Ann","user":"Bob"}"#.to_owned(), r#"{"user":"Ann","user":"Bob"}"#.to_owned()),
            (format!(r#"{{"note":"{long}"}}"#), format!(r#"{{"note":"{short}"}}"#)),
            (format!(r#"{{"{long}":-1.5}}"#), format!(r#"{{"{short}":-1.5}}"#)),
            (
                r#"{"api_key":"k1","write Key": "w1","a":[2,true,null]}"#.to_owned(),
                r#"{"api_key":"…","…":"…","a":[2,true,null]}"#.to_owned(),
            ),
            (r#"{"token":{"a":["x",{"b":1}]},"c":3}"#.to_owned(), r#"{"token":{"a":["…",{"b":…}]},"c":3}"#.to_owned()),
            (r#"{"name":"password","value":"p"}"#.to_owned(), r#"{"name":"…","value":"…"}"#.to_owned()),
            (r#"{"a":"{\"b\":1}"}"#.to_owned(), r#"{"a":"…"}"#.to_owned()),
        ] {
            assert_eq!(shown("application/json", &body), Some(expected), "{body}");
        }
        let many = shown("", &format!("[{}1]", "[1],".repeat(5000))).expect("JSON");
        assert!(many.len() <= EXCERPT && many.ends_with('…'), "{many}");
    }

    #[test]
    fn a_form_is_split_before_it_is_decoded() {
        for (body, expected) in [
            ("user=A%26nn&action=a+b", Some("user=…&action=a b")),
            ("password=correct%2Chorse&user=Ann", Some("password=…&user=Ann")),
            ("p%61ssword=p&n=1", Some("password=…&n=1")),
            ("details=5\"&password=p", Some("details=…&password=…")),
            ("password=one&two", None),
            ("p%2561ssword=p", None),
            ("p", None),
            ("", None),
        ] {
            assert_eq!(shown(FORM, body).as_deref(), expected, "{body}");
        }
        assert_eq!(shown(FORM, r#"{"user":"Ann"}"#).as_deref(), Some(r#"{"user":"Ann"}"#), "what `curl --data` sends");
    }

    #[test]
    fn what_cannot_be_parsed_is_not_shown() {
        for body in [r#"{"user":"Ann,"password":"p"}"#, "<password>p</password>", "password: p", "\"p\"", "7", ""] {
            for media_type in ["application/json", "application/xml", "text/plain", FORM, ""] {
                assert_eq!(shown(media_type, body), None, "{body}");
            }
        }
    }

    #[test]
    fn an_item_is_shown_alone_only_if_it_is_certainly_that_item() {
        let found = |media_type: &str, body: &str, index| {
            excerpt(media_type, body.as_bytes(), index).map(|found| (found.text, found.is_event))
        };
        let (json, lines) = ("application/json", "application/x-ndjson");
        let array = r#"[{"a":1}, {"b":2}]"#;
        assert_eq!(found(json, array, Some(1)), Some((r#"{"b":2}"#.into(), true)));
        assert_eq!(found(json, array, None), Some((r#"[{"a":1},{"b":2}]"#.into(), false)));
        assert_eq!(found(json, array, Some(2)), Some((r#"[{"a":1},{"b":2}]"#.into(), false)));
        let pair = r#"["password","p"]"#;
        assert_eq!(found(json, pair, Some(1)), Some((r#"["…","…"]"#.into(), false)));
        let pretty = "{\"events\":\n[{\"a\":1},\n{\"b\":2}]}";
        assert_eq!(found(json, pretty, Some(1)), Some((r#"{"events":[{"a":1},{"b":2}]}"#.into(), false)));
        assert_eq!(found(lines, "{\"a\":1}\n\n{\"b\":2}\n", Some(2)), Some((r#"{"b":2}"#.into(), true)));
        assert_eq!(found(lines, "{\"a\":1}\n{\"b\":", Some(1)), None);
        assert_eq!(found(lines, "{\"a\":1}\n{\"b\":2}", None), None);
    }

    #[test]
    fn only_the_start_of_a_path_is_shown() {
        for (sent, expected) in [
            ("/api/events", "/api/events"),
            ("/", "/"),
            ("/services/T1/B2", "/services/T1/…"),
            ("/bot123456789012345678901234567890/send", "/…"),
            ("/token/abc", "/…"),
            ("/p%61ssword/abc", "/…"),
        ] {
            assert_eq!(path(sent), expected);
        }
    }

    const MARKER: &str = "mArKeR77";

    /// The name of a secret as programs spell it.
    fn secret_name() -> impl Strategy<Value = String> {
        let spelled = prop_oneof![
            Just("password"),
            Just("api key"),
            Just("API-Key"),
            Just("write.key"),
            Just("access_token"),
            Just("Authorization"),
            Just("user[password]"),
            Just("passWord"),
            Just("pass\u{200b}word"),
        ];
        (spelled, 0..2_usize)
            .prop_map(|(name, long)| format!("{}{name}", "the_name_before_it_is_long_".repeat(2 * long)))
    }

    /// A JSON value that has the marker only under the name of a secret.
    fn value() -> impl Strategy<Value = Value> {
        let marked = secret_name().prop_flat_map(|name| {
            prop_oneof![
                Just(json!({ name.clone(): MARKER })),
                Just(json!({ name.clone(): [{ "a": MARKER }] })),
                Just(json!({ "name": name.clone(), "value": MARKER })),
                Just(json!([name.clone(), MARKER])),
                Just(json!(format!("{name}={MARKER}"))),
                Just(json!(format!("{name}: {MARKER}"))),
                Just(json!(format!("<{name}>{MARKER}</{name}>"))),
                Just(json!({ format!("{name}={MARKER}"): 1 })),
            ]
        });
        marked.prop_recursive(4, 12, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|value| json!({ "user": "Ann", "inner": value })),
                inner.clone().prop_map(|value| json!(["Bob", value, 7])),
                inner.prop_map(|value| json!({ "payload": value.to_string() })),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_under_a_secret_name_is_never_shown(
            value in value(),
            cut_at in 0..400_usize,
            index in proptest::option::of(0..3_usize),
        ) {
            let text = value.to_string();
            let escaped = text.replace("pass", "p\\u0061ss").replace("tok", "t\\u006fk");
            let cut = text.get(..cut_at).unwrap_or(&text).to_owned();
            let unbalanced = text.replacen('"', "", 1);
            let field = format!("details={}&user=Ann", footfall_core::query_string::encode(&text));
            let raw = format!("details={text}&user=Ann");
            for body in [text, escaped, cut, unbalanced, field, raw] {
                for media_type in ["application/json", "application/x-ndjson", FORM, "multipart/form-data", "text/xml"] {
                    let excerpt = excerpt(media_type, body.as_bytes(), index);
                    prop_assert!(excerpt.as_ref().is_none_or(|found| !found.text.contains("mArKeR")), "{body}: {excerpt:?}");
                }
            }
        }

        #[test]
        fn a_secret_of_a_form_is_never_shown(name in secret_name(), place in 0..3_usize) {
            let encode = footfall_core::query_string::encode;
            let mut fields = ["user=Ann".to_owned(), "details=5\"".to_owned()].to_vec();
            fields.insert(place, format!("{}={}", encode(&name), encode(&format!("{MARKER},\"&{MARKER}"))));
            let body = fields.join("&");
            let excerpt = excerpt(FORM, body.as_bytes(), None);
            prop_assert!(excerpt.as_ref().is_none_or(|found| !found.text.contains("mArKeR")), "{body}: {excerpt:?}");
        }
    }
}
