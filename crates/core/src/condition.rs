//! Conditions on the fields of an event: `f=POINTER:OP:VALUE`. A condition is read once, and then compared with the JSON
//! text of each event along its pointer, without building a tree of values.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use percent_encoding::percent_decode;
use serde_json::value::RawValue;

use crate::text::Part;
use crate::value::{Text, compare_numbers, for_each_element, for_each_member};

/// Most bytes of a pointer, without percent-encoding.
pub const POINTER_BYTES: usize = 512;
/// Most levels that a pointer descends.
pub const POINTER_DEPTH: usize = 32;
/// Most bytes of a condition's value.
pub const VALUE_BYTES: usize = 4096;

/// A condition on one field of an event's JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    pointer: Pointer,
    operator: Operator,
    value: Option<String>,
    test: Test,
}

/// How a condition compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Eq,
    Ne,
    Lt,
    Gt,
    Exists,
    Contains,
    Prefix,
    In,
}

/// What is compared with a field.
#[derive(Debug, Clone, PartialEq)]
enum Test {
    Equal(Scalar<'static>),
    NotEqual(Scalar<'static>),
    Less(Scalar<'static>),
    Greater(Scalar<'static>),
    Exists(bool),
    Contains(Part),
    Begins(Part),
    Among(Vec<Scalar<'static>>),
}

impl Condition {
    /// Reads a condition. `exact` makes `contains` and `prefix` compare upper and lower case as they are.
    ///
    /// # Errors
    ///
    /// Returns what is expected.
    pub fn parse(text: &str, exact: bool) -> Result<Self, String> {
        let (pointer, rest) = text.split_once(':').ok_or(EXPECTED)?;
        let (operator, value) = match rest.split_once(':') {
            Some((operator, value)) => (operator, Some(value)),
            None => (rest, None),
        };
        let pointer = Pointer::parse(pointer)?;
        let operator = Operator::parse(operator)?;
        let length = value.map_or(0, str::len);
        if length > VALUE_BYTES {
            return Err(format!("must have a value of at most {VALUE_BYTES} bytes, not {length}"));
        }
        let test = Test::new(operator, value, exact)?;
        Ok(Condition { pointer, operator, value: value.map(str::to_owned), test })
    }

    pub fn pointer(&self) -> &Pointer {
        &self.pointer
    }

    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// Returns the value as it is written in the condition; `exists` may have none.
    pub fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }

    /// Whether `case=exact` makes a difference to it.
    pub fn has_case(&self) -> bool {
        matches!(self.operator, Operator::Contains | Operator::Prefix)
    }

    /// Whether it was read with `exact`, and that makes a difference.
    pub fn is_exact(&self) -> bool {
        matches!(self.test, Test::Contains(Part::Exact(_)) | Test::Begins(Part::Exact(_)))
    }

    /// Whether an event matches in which the pointer finds this JSON.
    pub fn matches(&self, found: Option<&str>) -> bool {
        self.test.matches(found)
    }
}

/// Writes the condition as `f` has it.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.pointer, self.operator)?;
        self.value.iter().try_for_each(|value| write!(f, ":{value}"))
    }
}

const EXPECTED: &str = "must be POINTER:OP:VALUE, such as /total:gt:30";

impl Operator {
    const ALL: [(Operator, &str); 8] = [
        (Operator::Eq, "eq"),
        (Operator::Ne, "ne"),
        (Operator::Lt, "lt"),
        (Operator::Gt, "gt"),
        (Operator::Exists, "exists"),
        (Operator::Contains, "contains"),
        (Operator::Prefix, "prefix"),
        (Operator::In, "in"),
    ];

    fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|(_, own)| *own == name);
        let names = || Self::ALL.map(|(_, name)| name).join(", ");
        found.map(|(operator, _)| operator).ok_or_else(|| {
            let shown: String = name.chars().take(20).collect();
            format!("{EXPECTED}, with OP one of {}, not \"{shown}\"", names())
        })
    }

    /// Returns its name in a condition.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(operator, _)| *operator == self).map_or("", |(_, name)| name)
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A JSON Pointer (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Reads a pointer as it is written in a condition or a column: `%3A` is a colon, `%25` a per cent sign (RFC 6901,
    /// section 6). A `%` without two hexadecimal digits is kept.
    ///
    /// # Errors
    ///
    /// Returns what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = percent_decode(text.as_bytes()).decode_utf8();
        let text = text.map_err(|_| "must have a pointer that is UTF-8 after percent-decoding")?;
        if text.len() > POINTER_BYTES {
            return Err(format!("must have a pointer of at most {POINTER_BYTES} bytes, not {}", text.len()));
        }
        let Some(names) = text.strip_prefix('/') else {
            return match &*text {
                "" => Ok(Pointer(Vec::new())),
                _ => Err("must start with a JSON Pointer such as /user or /items/0/price".to_owned()),
            };
        };
        let names: Vec<String> = names
            .split('/')
            .map(unescaped)
            .collect::<Option<_>>()
            .ok_or("must have a JSON Pointer in which ~0 stands for a tilde and ~1 for a slash (RFC 6901)")?;
        match names.len() {
            1..=POINTER_DEPTH => Ok(Pointer(names)),
            levels => Err(format!("must have a pointer of at most {POINTER_DEPTH} levels, not {levels}")),
        }
    }

    /// Makes the pointer to a member of the event.
    pub fn to_member(name: &str) -> Self {
        Pointer(vec![name.to_owned()])
    }

    /// Makes the pointer along these names of members and indices of elements.
    pub fn to(names: &[String]) -> Self {
        Pointer(names.to_vec())
    }

    /// Returns the names of members and the indices of elements on the way.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Approximate bytes in memory.
    pub fn size(&self) -> usize {
        self.0.iter().map(|name| size_of::<String>() + name.len()).sum()
    }

    /// Returns the JSON that it points to; `None` if there is nothing, or `json` cannot be read. Of members with the same
    /// name the last counts.
    pub fn find<'a>(&self, json: &'a str) -> Option<&'a str> {
        let Some((first, rest)) = self.0.split_first() else {
            return serde_json::from_str::<&RawValue>(json).ok().map(RawValue::get);
        };
        let first = step(json, first)?;
        rest.iter().try_fold(first, |json, name| step(json, name))
    }
}

/// Writes the pointer as a condition has it.
impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|name| {
            let escaped = name.replace('~', "~0").replace('/', "~1").replace('%', "%25").replace(':', "%3A");
            write!(f, "/{escaped}")
        })
    }
}

fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('~');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        out.push(match part.as_bytes().first()? {
            b'0' => '~',
            b'1' => '/',
            _ => return None,
        });
        out.push_str(&part[1..]);
    }
    Some(out)
}

/// Returns the member or the element with this name.
fn step<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let mut found = None;
    match json.trim_ascii_start().as_bytes().first()? {
        b'{' => for_each_member(json, |own, value| {
            if own == name {
                found = Some(value.get());
            }
        })
        .ok()?,
        b'[' => {
            let wanted = name.parse().ok().filter(|index: &usize| index.to_string() == name)?;
            for_each_element(json, |index, value| {
                if index == wanted {
                    found = Some(value.get());
                }
            })
            .ok()?;
        }
        _ => {}
    }
    found
}

impl Test {
    fn new(operator: Operator, value: Option<&str>, exact: bool) -> Result<Self, String> {
        let value = match (operator, value) {
            (Operator::Exists, None | Some("true")) => return Ok(Test::Exists(true)),
            (Operator::Exists, Some("false")) => return Ok(Test::Exists(false)),
            (Operator::Exists, Some(_)) => return Err("must be POINTER:exists or POINTER:exists:false".to_owned()),
            (_, Some(value)) => value,
            (_, None) => return Err(format!("must have a value after {operator}, such as /total:{operator}:30")),
        };
        let part = || {
            let text = match read(value) {
                Some(Ok(Scalar::Text(text))) => text,
                _ => Cow::Borrowed(value),
            };
            if exact { Part::exact(&text) } else { Part::folded(&text) }
        };
        Ok(match operator {
            Operator::Eq => Test::Equal(scalar(value)?),
            Operator::Ne => Test::NotEqual(scalar(value)?),
            Operator::Lt => Test::Less(ordered(value)?),
            Operator::Gt => Test::Greater(ordered(value)?),
            Operator::Contains => Test::Contains(part()),
            Operator::Prefix => Test::Begins(part()),
            Operator::In => Test::Among(list(value)?),
            Operator::Exists => Test::Exists(true),
        })
    }

    fn matches(&self, found: Option<&str>) -> bool {
        if let Test::Exists(wanted) = self {
            return found.is_some() == *wanted;
        }
        let found = found.and_then(Scalar::read);
        match (self, found) {
            (Test::NotEqual(value), found) => found.is_none_or(|found| found != *value),
            (_, None) => false,
            (Test::Equal(value), Some(found)) => found == *value,
            (Test::Less(value), Some(found)) => found.order(value) == Some(Ordering::Less),
            (Test::Greater(value), Some(found)) => found.order(value) == Some(Ordering::Greater),
            (Test::Among(values), Some(found)) => values.contains(&found),
            (Test::Contains(part), Some(Scalar::Text(text))) => part.is_in(&text),
            (Test::Begins(part), Some(Scalar::Text(text))) => part.begins(&text),
            (Test::Contains(_) | Test::Begins(_) | Test::Exists(_), Some(_)) => false,
        }
    }
}

/// Reads what is compared: JSON if it is JSON, else the text itself.
fn scalar(value: &str) -> Result<Scalar<'static>, String> {
    match read(value) {
        Some(Ok(scalar)) => Ok(scalar.into_owned()),
        Some(Err(kind)) => Err(format!("must compare with a text, a number, true, false or null, not with {kind}")),
        None => Ok(Scalar::Text(Cow::Owned(value.to_owned()))),
    }
}

fn ordered(value: &str) -> Result<Scalar<'static>, String> {
    match scalar(value)? {
        Scalar::Null | Scalar::Bool(_) => {
            Err(format!("must compare lt and gt with a number or a text, not with {value}; a text may be quoted"))
        }
        scalar => Ok(scalar),
    }
}

/// Most values after `in`: each is compared with the field of each record.
const LIST_VALUES: usize = 50;

/// Reads a JSON array, or values between commas.
fn list(value: &str) -> Result<Vec<Scalar<'static>>, String> {
    const LIST: &str = "must have a JSON array after in, or values between commas, such as /page:in:/cart,/pay";
    let is_array = value.starts_with('[');
    let array = if is_array { Cow::Borrowed(value) } else { Cow::Owned(format!("[{value}]")) };
    let mut values = Vec::new();
    let values: Vec<Scalar> = match for_each_element(&array, |_, element| values.push(scalar(element.get()))) {
        Ok(()) => values.into_iter().collect::<Result<_, _>>()?,
        Err(_) if is_array => return Err(LIST.to_owned()),
        Err(_) => value.split(',').map(scalar).collect::<Result<_, _>>()?,
    };
    if values.is_empty() {
        return Err(format!("{LIST}, with at least one value"));
    }
    if values.len() > LIST_VALUES {
        return Err(format!("must have at most {LIST_VALUES} values after in, not {}", values.len()));
    }
    Ok(values)
}

/// A JSON value without members or elements.
#[derive(Debug, Clone)]
enum Scalar<'a> {
    Null,
    Bool(bool),
    /// As it is written.
    Number(Cow<'a, str>),
    Text(Cow<'a, str>),
}

/// Reads JSON, or returns what else it is; `None` if `text` is not JSON, or text with half of a surrogate pair.
fn read(text: &str) -> Option<Result<Scalar<'_>, &'static str>> {
    let json = serde_json::from_str::<&RawValue>(text).ok()?.get();
    match json.as_bytes().first()? {
        b'{' => Some(Err("an object")),
        b'[' => Some(Err("an array")),
        _ => Scalar::read(json).map(Ok),
    }
}

impl<'a> Scalar<'a> {
    /// Reads valid JSON; `None` if it is an object, an array, or text with half of a surrogate pair.
    fn read(json: &'a str) -> Option<Self> {
        match json.as_bytes().first()? {
            b'"' => serde_json::from_str(json).ok().map(|Text(text)| Scalar::Text(text)),
            b'{' | b'[' => None,
            b't' => Some(Scalar::Bool(true)),
            b'f' => Some(Scalar::Bool(false)),
            b'n' => Some(Scalar::Null),
            _ => Some(Scalar::Number(Cow::Borrowed(json))),
        }
    }

    fn into_owned(self) -> Scalar<'static> {
        match self {
            Scalar::Null => Scalar::Null,
            Scalar::Bool(value) => Scalar::Bool(value),
            Scalar::Number(number) => Scalar::Number(Cow::Owned(number.into_owned())),
            Scalar::Text(text) => Scalar::Text(Cow::Owned(text.into_owned())),
        }
    }

    /// Compares numbers by value and texts by code points; nothing else has an order.
    fn order(&self, other: &Scalar) -> Option<Ordering> {
        match (self, other) {
            (Scalar::Number(left), Scalar::Number(right)) => Some(compare_numbers(left, right)),
            (Scalar::Text(left), Scalar::Text(right)) => Some(left.cmp(right)),
            _ => None,
        }
    }
}

impl PartialEq for Scalar<'_> {
    fn eq(&self, other: &Scalar) -> bool {
        match (self, other) {
            (Scalar::Null, Scalar::Null) => true,
            (Scalar::Bool(left), Scalar::Bool(right)) => left == right,
            _ => self.order(other) == Some(Ordering::Equal),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::Value;

    use super::*;

    fn condition(text: &str) -> Condition {
        Condition::parse(text, false).unwrap_or_else(|expected| panic!("{text} {expected}"))
    }

    /// Whether an event with this value matches.
    fn holds(condition: &Condition, json: Option<&str>) -> bool {
        condition.matches(json.and_then(|json| condition.pointer().find(json)))
    }

    fn matches(text: &str, json: &str) -> bool {
        holds(&condition(text), Some(json))
    }

    const EVENT: &str = r#" {"user":"John","total":31.50,"n":9007199254740993,"approved":false,"note":"Caf\u00e9 \"x\"",
        "none":null,"items":[{"sku":"a-1"},{"sku":"b,2"}],"a/b":{"m~n":{"x:y":"50%"}},"twice":1,"twice":2,"":"empty",
        "big":1e999} "#;

    #[test]
    fn each_operator_compares_as_it_says() {
        for text in [
            "/user:eq:John",
            r#"/user:eq:"John""#,
            "/total:eq:31.5",
            "/total:eq:315e-1",
            "/n:eq:9007199254740993",
            "/approved:eq:false",
            "/none:eq:null",
            "/note:eq:Café \"x\"",
            "/items/1/sku:eq:b,2",
            "/:eq:empty",
            "/big:eq:1e999",
            "/twice:eq:2",
            "/a~1b/m~0n/x%3Ay:eq:50%",
            "/user:ne:Ann",
            "/absent:ne:1",
            "/items:ne:1",
            "/approved:ne:true",
            r#"/total:ne:"31.5""#,
            "/total:lt:31.51",
            "/total:gt:31.49",
            "/total:gt:-1",
            "/user:gt:Jo",
            "/user:lt:john",
            "/none:exists",
            "/items/0:exists:true",
            "/absent:exists:false",
            "/items/2:exists:false",
            "/items/01:exists:false",
            "/items/-:exists:false",
            "/user/0:exists:false",
            ":exists",
            "/note:contains:CAFÉ",
            r#"/note:contains:"é \"X""#,
            "/note:prefix:caf",
            "/user:prefix:",
            "/user:in:Ann,John",
            r#"/user:in:["Ann","John"]"#,
            "/total:in:1,31.50",
            r#"/items/1/sku:in:1,"b,2""#,
            "/approved:in:null,false",
        ] {
            assert!(matches(text, EVENT), "{text}");
        }
        for text in [
            "/user:eq:john",
            r#"/user:eq:"""#,
            r#"/total:eq:"31.5""#,
            "/n:eq:9007199254740992",
            "/approved:eq:0",
            "/none:eq:",
            "/absent:eq:null",
            "/items:eq:a",
            "/twice:eq:1",
            "/user:ne:John",
            "/total:ne:31.500",
            "/total:lt:31.5",
            "/total:gt:31.5",
            r#"/total:lt:"9""#,
            "/user:lt:9",
            "/approved:lt:true2",
            "/absent:lt:1",
            "/absent:exists",
            "/none:exists:false",
            "/note:contains:tea",
            "/total:contains:31",
            "/note:prefix:afé",
            "/user:in:Ann,Bob",
            r#"/total:in:["31.5"]"#,
            "/absent:in:null",
        ] {
            assert!(!matches(text, EVENT), "{text}");
        }
        let exact = |text: &str| holds(&Condition::parse(text, true).expect("a condition"), Some(EVENT));
        assert!(exact("/note:contains:Caf") && !exact("/note:contains:caf") && !exact("/user:prefix:j"));
    }

    #[test]
    fn what_is_not_json_has_no_fields() {
        for json in
            [None, Some(""), Some("plain"), Some(r#"{"a":1"#), Some(r#"{"a":1} x"#), Some(r#"{"a":1,"\ud800":2}"#)]
        {
            let matches = |text| holds(&condition(text), json);
            assert!(matches("/a:ne:1") && matches("/a:exists:false"), "{json:?}");
            assert!(!matches("/a:eq:1") && !matches("/a:exists"), "{json:?}");
        }
        assert!(matches("/0:eq:1", "[1]") && matches(":eq:7", "7") && matches("/a:exists", r#"{"a":"\ud800"}"#));
        assert!(matches("/a:ne:x", r#"{"a":"\ud800"}"#) && !matches("/a:prefix:", r#"{"a":"\ud800"}"#));
    }

    #[test]
    fn a_condition_that_cannot_be_read_says_what_is_expected() {
        let long = format!("/a:eq:{}", "x".repeat(VALUE_BYTES + 1));
        let (wide, deep) = (format!("/{}:exists", "x".repeat(POINTER_BYTES)), format!("{}:exists", "/a".repeat(33)));
        for (text, expected) in [
            ("/a", "POINTER:OP:VALUE"),
            ("a:eq:1", "start with a JSON Pointer"),
            ("/a~2:eq:1", "RFC 6901"),
            ("/a~:eq:1", "RFC 6901"),
            ("/a:is:1", "one of eq, ne, lt, gt, exists, contains, prefix, in, not \"is\""),
            ("/a:eq", "a value after eq"),
            ("/a:exists:maybe", "exists:false"),
            ("/a:eq:[1]", "not with an array"),
            ("/a:ne:{}", "not with an object"),
            ("/a:lt:null", "a number or a text"),
            ("/a:in:", "at least one value"),
            ("/a:in:[]", "at least one value"),
            ("/a:in:[a]", "a JSON array"),
            ("/a:in:[[1]]", "not with an array"),
            ("/%FF:eq:1", "UTF-8"),
            (&long, "at most 4096 bytes, not 4097"),
            (&wide, "at most 512 bytes, not 513"),
            (&deep, "at most 32 levels, not 33"),
        ] {
            let error = Condition::parse(text, false).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    /// An independent evaluation, over the tree of values.
    fn evaluate(pointer: &str, operator: &str, value: Option<&str>, json: &str) -> bool {
        let tree: Value = serde_json::from_str(json).unwrap_or_default();
        let found = tree.pointer(pointer).filter(|_| serde_json::from_str::<Value>(json).is_ok());
        let read = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        let same = |left: &Value, right: &Value| match (left.as_f64(), right.as_f64()) {
            (Some(left), Some(right)) => left == right,
            _ => left == right,
        };
        let text = |text: &str| read(text).as_str().unwrap_or(text).to_lowercase();
        let order = |value: &str| match (found?, &read(value)) {
            (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
            (Value::String(left), Value::String(right)) => Some(left.chars().cmp(right.chars())),
            _ => None,
        };
        let field = found.and_then(Value::as_str).map(str::to_lowercase);
        match (operator, value) {
            ("exists", wanted) => found.is_some() == (wanted != Some("false")),
            ("eq", Some(value)) => found.is_some_and(|found| same(found, &read(value))),
            ("ne", Some(value)) => !found.is_some_and(|found| same(found, &read(value))),
            ("lt", Some(value)) => order(value) == Some(Ordering::Less),
            ("gt", Some(value)) => order(value) == Some(Ordering::Greater),
            ("contains", Some(value)) => field.is_some_and(|field| field.contains(&text(value))),
            ("prefix", Some(value)) => field.is_some_and(|field| field.starts_with(&text(value))),
            ("in", Some(value)) => found.is_some_and(|found| value.split(',').any(|value| same(found, &read(value)))),
            other => panic!("{other:?}"),
        }
    }

    fn any_scalar() -> impl Strategy<Value = String> {
        prop_oneof![
            select(vec!["0", "-0", "1", "1.0", "10e-1", "-2.5", "31", "3.1e1", "true", "false", "null"])
                .prop_map(str::to_owned),
            "[a-cA-C1é ]{0,3}".prop_map(|text| Value::from(text).to_string()),
        ]
    }

    fn any_json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![8 => any_scalar(), 1 => Just("broken".to_owned())];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let name = select(vec!["a", "b", "a/b", "m~n", "x:y", "0", "%", ""]);
            let member = (name, inner.clone()).prop_map(|(name, json)| format!("{}: {json}", Value::from(name)));
            prop_oneof![
                3 => proptest::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(" ,"))),
                1 => proptest::collection::vec(inner, 0..3).prop_map(|elements| format!("[{}]", elements.join(","))),
            ]
        })
    }

    fn any_value() -> impl Strategy<Value = String> {
        // Neither JSON by chance nor with commas.
        prop_oneof![3 => any_scalar(), 1 => "[a-cA-Cé]{1,3}"]
    }

    proptest! {
        #[test]
        fn a_condition_matches_what_another_evaluator_says(
            json in any_json(),
            names in proptest::collection::vec(select(vec!["a", "b", "a~1b", "m~0n", "x:y", "0", "1", "%", ""]), 0..3),
            operator in select(vec!["eq", "ne", "lt", "gt", "exists", "contains", "prefix", "in"]),
            values in proptest::collection::vec(any_value(), 1..3),
        ) {
            let pointer: String = names.iter().map(|name| format!("/{name}")).collect();
            let value = match operator {
                "exists" => values[0].contains('a').then(|| "false".to_owned()),
                "in" => Some(values.join(",")),
                _ => Some(values[0].clone()),
            };
            let written = pointer.replace('%', "%25").replace(':', "%3A");
            let text = match &value {
                Some(value) => format!("{written}:{operator}:{value}"),
                None => format!("{written}:{operator}"),
            };
            let parsed = Condition::parse(&text, false);
            prop_assume!(parsed.is_ok() || !matches!(operator, "lt" | "gt"));
            let condition = parsed.expect("a condition");
            prop_assert_eq!(&condition.to_string(), &text);
            let expected = evaluate(&pointer, operator, value.as_deref(), &json);
            prop_assert_eq!(holds(&condition, Some(&json)), expected, "{} of {}", text, json);
        }
    }
}
