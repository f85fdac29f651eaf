//! Query strings, forms and path segments: decoding, encoding, and the meaning of parameters. Any bytes can be parsed;
//! an invalid one is reported and never replaced. Knows nothing else of HTTP.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::{Display, Write};
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use crate::event::time;
use crate::{BadCursor, Condition, Cursor, Filter, Part, Pointer, Text};

/// Most values of one filter parameter, such as `user`, and most conditions (`f`).
pub const FILTER_VALUES: usize = 10;

/// Most columns of a page (`col`).
pub const COLUMNS: usize = 8;

/// The decoded parameters of a request, in their order. Cheap to clone.
#[derive(Clone)]
pub struct QueryString(Arc<[(String, String)]>);

/// The parameters that may have several values.
const REPEATABLE: [&str; 10] =
    ["user", "action", "user_prefix", "action_prefix", "not_user", "not_action", "q", "f", "partition", "col"];

/// A malformed parameter; the message says what is expected.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{name} {detail}")]
pub struct BadParameter {
    name: String,
    detail: String,
}

/// Returns the decoded names and values of `application/x-www-form-urlencoded` (URL Standard, section 5.1). Invalid
/// UTF-8 is returned as bytes. A `%` without two hexadecimal digits is kept.
pub fn pairs(encoded: &[u8]) -> impl Iterator<Item = [Result<String, Vec<u8>>; 2]> {
    let decoded = |text: &[u8]| {
        let text: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        String::from_utf8(percent_decode(&text).collect()).map_err(|error| error.into_bytes())
    };
    encoded.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        [halves.next(), halves.next()].map(|half| decoded(half.unwrap_or_default()))
    })
}

/// RFC 3986's unreserved characters are not encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes everything but RFC 3986's unreserved characters.
pub fn encode(text: &str) -> impl Display {
    utf8_percent_encode(text, RESERVED)
}

/// Decodes a segment of a path; `None` if it is not UTF-8.
pub fn segment(encoded: &str) -> Option<Cow<'_, str>> {
    percent_decode(encoded.as_bytes()).decode_utf8().ok()
}

impl QueryString {
    /// Parses a query, without its `?`.
    pub fn parse(query: &str) -> Result<Self, BadParameter> {
        let mut parameters = Vec::new();
        for [name, value] in pairs(query.as_bytes()) {
            let name =
                name.map_err(|name| bad(&String::from_utf8_lossy(&name), "is a name that is not UTF-8".into()))?;
            let value = value.map_err(|_| bad(&name, "is not UTF-8 after percent-decoding".into()))?;
            parameters.push((name, value));
        }
        let mut seen = HashSet::new();
        let single = |(name, value): &&(String, String)| !value.is_empty() && !REPEATABLE.contains(&name.as_str());
        match parameters.iter().filter(single).find(|(name, _)| !seen.insert(name.as_str())) {
            Some((name, _)) => Err(bad(name, "appears twice; expected one value".into())),
            None => Ok(QueryString(parameters.into())),
        }
    }

    /// Returns the value of a parameter; an empty one counts as missing, because a form sends empty fields.
    pub fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// Whether a parameter is present, with or without a value, and not `0` or `false`.
    pub fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|(n, value)| n == name && !matches!(value.as_str(), "0" | "false"))
    }

    /// Returns the query with some parameters replaced.
    pub fn with(&self, others: &[(&str, &str)]) -> String {
        let mut query = QueryBuilder::default();
        let kept = self.0.iter().filter(|(name, value)| !value.is_empty() && others.iter().all(|(n, _)| n != name));
        kept.for_each(|(name, value)| query.add(name, value));
        others.iter().filter(|(_, value)| !value.is_empty()).for_each(|(name, value)| query.add(name, value));
        query.text()
    }

    /// Returns the parameters without one value of a name.
    pub fn without(&self, name: &str, value: &str) -> Self {
        QueryString(self.0.iter().filter(|(n, v)| n != name || v != value).cloned().collect())
    }

    /// Returns the values of a parameter but empty ones.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, value)| n == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    pub fn number(&self, name: &str, range: std::ops::RangeInclusive<usize>) -> Result<Option<usize>, BadParameter> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(bad(name, format!("must be {} to {}, not \"{text}\"", range.start(), range.end()))),
        }
    }

    pub fn cursor(&self, name: &str) -> Result<Option<Cursor>, BadParameter> {
        self.get(name).map(|text| text.parse().map_err(|e: BadCursor| bad(name, e.to_string()))).transpose()
    }

    /// Parses a time: RFC 3339, the same without a zone (UTC), milliseconds since 1970, or a duration ago such as
    /// `-15m`.
    pub fn time(&self, name: &str) -> Result<Option<i64>, BadParameter> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let before_now = |ago: Duration| time::now_ms().checked_sub(i64::try_from(ago.as_millis()).ok()?);
        let ago = text.strip_prefix('-').and_then(time::parse_duration).and_then(before_now);
        // The `+` of a zone arrives as a blank if the client did not encode it.
        let zoned = || time::parse_ms(&text.replace(' ', "+"));
        let ms =
            ago.or_else(|| text.parse().ok().filter(|ms| *ms >= 0)).or_else(zoned).or_else(|| time::parse_local(text));
        let what = "must be RFC 3339, milliseconds since 1970, or a duration ago such as -15m";
        ms.map(Some).ok_or_else(|| bad(name, format!("{what}, not \"{text}\"")))
    }

    /// Returns the fields that a page shows as columns (`col`), each once.
    pub fn columns(&self) -> Result<Vec<Pointer>, BadParameter> {
        let mut columns: Vec<Pointer> = Vec::new();
        for text in self.all("col") {
            let column = Pointer::parse(text);
            let column = column.ok().filter(|column| !column.names().is_empty()).ok_or_else(|| {
                bad("col", format!("must be a JSON Pointer such as /page or /items/0/price, not \"{text}\""))
            })?;
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        match columns.len() {
            0..=COLUMNS => Ok(columns),
            count => Err(bad("col", format!("must have at most {COLUMNS} values, not {count}"))),
        }
    }

    /// Returns the filter parameters.
    pub fn filters(&self) -> Result<Filters, BadParameter> {
        for name in REPEATABLE {
            let values = self.0.iter().filter(|(n, _)| n == name).count();
            if values > FILTER_VALUES {
                return Err(bad(name, format!("must have at most {FILTER_VALUES} values, not {values}")));
            }
        }
        let texts = |name| self.all(name).map(str::to_owned).collect();
        let partition = |text: &str| match text.parse() {
            Ok(number) if (0..1_000_000).contains(&number) => Ok(number),
            _ => Err(bad("partition", format!("must be a number, not \"{text}\""))),
        };
        let exact = match self.get("case") {
            None | Some("ignore") => false,
            Some("exact") => true,
            Some(text) => return Err(bad("case", format!("must be exact or ignore, not \"{text}\""))),
        };
        let condition = |text: &str| Condition::parse(text, exact).map_err(|expected| bad("f", expected));
        Ok(Filters {
            user: texts("user"),
            action: texts("action"),
            user_prefix: texts("user_prefix"),
            action_prefix: texts("action_prefix"),
            not_user: texts("not_user"),
            not_action: texts("not_action"),
            q: texts("q"),
            exact,
            f: self.all("f").map(condition).collect::<Result<_, _>>()?,
            partition: self.all("partition").map(partition).collect::<Result<_, _>>()?,
        })
    }
}

/// The filters of a page, as its address has them.
#[derive(Default, Clone)]
pub struct Filters {
    pub user: Vec<String>,
    pub action: Vec<String>,
    pub user_prefix: Vec<String>,
    pub action_prefix: Vec<String>,
    pub not_user: Vec<String>,
    pub not_action: Vec<String>,
    pub q: Vec<String>,
    /// Whether upper and lower case differ in `q` and in `contains` and `prefix` of `f` (`case=exact`).
    pub exact: bool,
    /// Conditions on fields, read with the case of `exact`.
    pub f: Vec<Condition>,
    pub partition: Vec<i32>,
}

impl Filters {
    /// Returns the filters as a query without `?`, such as `user=John&q=cart`; empty without filters.
    pub fn query(&self) -> String {
        let mut query = QueryBuilder::default();
        for (name, values) in self.texts() {
            values.iter().for_each(|value| query.add(name, value));
        }
        if self.exact && (!self.q.is_empty() || self.f.iter().any(Condition::has_case)) {
            query.add("case", "exact");
        }
        self.f.iter().for_each(|condition| query.add("f", &condition.to_string()));
        self.partition.iter().for_each(|n| query.add("partition", &n.to_string()));
        query.0
    }

    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Returns the number of values to compare with.
    pub fn count(&self) -> usize {
        let texts: usize = self.texts().iter().map(|(_, values)| values.len()).sum();
        texts + self.f.len() + self.partition.len()
    }

    fn texts(&self) -> [(&'static str, &Vec<String>); 7] {
        [
            ("user", &self.user),
            ("action", &self.action),
            ("user_prefix", &self.user_prefix),
            ("action_prefix", &self.action_prefix),
            ("not_user", &self.not_user),
            ("not_action", &self.not_action),
            ("q", &self.q),
        ]
    }
}

/// An `application/x-www-form-urlencoded` query under construction.
#[derive(Default)]
pub struct QueryBuilder(String);

impl QueryBuilder {
    /// Returns the query, without `?`.
    pub fn text(self) -> String {
        self.0
    }

    pub fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        // Writing into a String cannot fail.
        let _ = write!(self.0, "{}={}", encode(name), encode(value));
    }
}

impl From<&Filters> for Filter {
    fn from(filters: &Filters) -> Self {
        let text = if filters.exact { Text::exact } else { Text::seen };
        let prefixes = |prefixes: &[String]| prefixes.iter().map(|prefix| Part::folded(prefix)).collect();
        Filter {
            users: filters.user.clone(),
            user_prefixes: prefixes(&filters.user_prefix),
            not_users: filters.not_user.clone(),
            actions: filters.action.clone(),
            action_prefixes: prefixes(&filters.action_prefix),
            not_actions: filters.not_action.clone(),
            partitions: filters.partition.clone(),
            texts: filters.q.iter().map(|q| text(q)).collect(),
            conditions: filters.f.clone(),
        }
    }
}

fn bad(name: &str, detail: String) -> BadParameter {
    BadParameter { name: name.to_owned(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_written_as_the_address_has_them() {
        let filters = Filters {
            user: vec!["Ann".into(), "J & J".into()],
            q: vec!["a=b".into()],
            partition: vec![1],
            ..Filters::default()
        };
        assert_eq!(filters.query(), "user=Ann&user=J%20%26%20J&q=a%3Db&partition=1");
        let exact = Filters { exact: true, ..filters.clone() };
        assert_eq!(exact.query(), "user=Ann&user=J%20%26%20J&q=a%3Db&case=exact&partition=1");
        assert_eq!(Filters { exact: true, ..Filters::default() }.query(), "");
        let fields = QueryString::parse("f=/a%253A:contains:x%26y&case=exact&not_user=Ann&f=/n:exists&user_prefix=J");
        let fields = fields.and_then(|query| query.filters()).expect("filters");
        let written = "user_prefix=J&not_user=Ann&case=exact&f=%2Fa%253A%3Acontains%3Ax%26y&f=%2Fn%3Aexists";
        assert_eq!(fields.query(), written);
    }

    #[test]
    fn names_survive_encoding() {
        let kept = QueryString::parse("a%26since=x&limit=5").expect("valid").with(&[("limit", "7")]);
        assert_eq!(kept, "a%26since=x&limit=7");
    }

    #[test]
    fn invalid_utf8_and_duplicates_are_rejected() {
        let parsed =
            |query: &str| QueryString::parse(query).map(|parameters| parameters.with(&[])).map_err(|e| e.to_string());
        for bad in ["user=Jos%E9", "%E9=1", "q=%C0%AF", "q=%ED%A0%80", "x=%FF"] {
            assert!(parsed(bad).is_err_and(|error| error.contains("not UTF-8")), "{bad}");
        }
        assert_eq!(parsed("limit=1&q=a&limit=2"), Err("limit appears twice; expected one value".into()));
        let good = "user=Jos%C3%A9&user=b&limit=&limit=2&q=%25G1%20%00&&=";
        assert_eq!(parsed(good), Ok("user=Jos%C3%A9&user=b&limit=2&q=%25G1%20%00".into()));
        assert_eq!(parsed("q=100%&q=%G1"), Ok("q=100%25&q=%25G1".into()));
        assert_eq!((segment("a%2Fb").as_deref(), segment("%E9")), (Some("a/b"), None));
    }

    #[test]
    fn a_duration_that_overflows_is_rejected() {
        let time = |text: &str| QueryString::parse(text).expect("valid").time("since");
        assert!(matches!(time("since=-15m"), Ok(Some(_))));
        assert!(time("since=-5124095576030430h").is_err());
        assert!(time("since=-99999999999999999999999h").is_err());
    }
}
