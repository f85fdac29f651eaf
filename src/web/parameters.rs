//! What stands behind the `?`, as text and as what it means. Any text is read, and what is wrong in it is named; knows no
//! HTTP beside that.

use std::time::Duration;

use super::view::{self, Filters};
use crate::event::time;
use crate::feed::{BadCursor, Cursor, Filter};

/// The parameters of a request, decoded, in their order.
pub struct Parameters(Vec<(String, String)>);

/// A parameter that is not of its form, and what would be right.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("`{name}`: {detail}")]
pub struct BadParameter {
    name: String,
    detail: String,
}

impl Parameters {
    /// Those of a query, as it stands behind the `?`.
    pub fn parse(query: &str) -> Self {
        Parameters(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The first value of a parameter; an empty one counts as none, as a form sends it so.
    pub fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// Whether a parameter is there, with or without a value; `0` and `false` say no.
    pub fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|(n, value)| n == name && !matches!(value.as_str(), "0" | "false"))
    }

    /// The query with some parameters in place of those of the same names.
    pub fn with(&self, others: &[(&str, &str)]) -> String {
        let mut query = view::Query::default();
        let kept = self.0.iter().filter(|(name, value)| !value.is_empty() && others.iter().all(|(n, _)| n != name));
        kept.for_each(|(name, value)| query.add(name, value));
        others.iter().filter(|(_, value)| !value.is_empty()).for_each(|(name, value)| query.add(name, value));
        query.text()
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, value)| n == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    pub fn number(&self, name: &str, range: std::ops::RangeInclusive<usize>) -> Result<Option<usize>, BadParameter> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(bad(name, format!("expected {} to {}, not `{text}`", range.start(), range.end()))),
        }
    }

    pub fn cursor(&self, name: &str) -> Result<Option<Cursor>, BadParameter> {
        self.get(name).map(|text| text.parse().map_err(|e: BadCursor| bad(name, e.to_string()))).transpose()
    }

    /// A time: RFC 3339, the same without a zone (UTC), milliseconds since 1970, or a duration ago such as `-15m`.
    pub fn time(&self, name: &str) -> Result<Option<i64>, BadParameter> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let before_now = |ago: Duration| time::now_ms().checked_sub(i64::try_from(ago.as_millis()).ok()?);
        let ago = text.strip_prefix('-').and_then(time::parse_duration).and_then(before_now);
        // A `+` of a zone arrives as a blank from those who don't encode it.
        let zoned = || time::parse_ms(&text.replace(' ', "+"));
        let zoneless = || {
            let seconds = if text.len() == "2026-11-23T12:00".len() { ":00" } else { "" };
            time::parse_ms(&format!("{}{seconds}Z", text.replacen(' ', "T", 1)))
        };
        let ms = ago.or_else(|| text.parse().ok().filter(|ms| *ms >= 0)).or_else(zoned).or_else(zoneless);
        let what = "expected RFC 3339, milliseconds since 1970, or a duration ago such as -15m";
        ms.map(Some).ok_or_else(|| bad(name, format!("{what}, not `{text}`")))
    }

    /// The filters as they were given.
    pub fn filters(&self) -> Result<Filters, BadParameter> {
        for name in ["user", "action", "q", "partition"] {
            if self.all(name).nth(MOST_VALUES).is_some() {
                return Err(bad(name, format!("expected at most {MOST_VALUES} values")));
            }
        }
        let texts = |name| self.all(name).map(str::to_owned).collect();
        let partition = |text: &str| match text.parse() {
            Ok(number) if (0..1_000_000).contains(&number) => Ok(number),
            _ => Err(bad("partition", format!("expected a partition's number, not `{text}`"))),
        };
        Ok(Filters {
            user: texts("user"),
            action: texts("action"),
            q: texts("q"),
            partition: self.all("partition").map(partition).collect::<Result<_, _>>()?,
        })
    }
}

/// Values of one filter at most.
const MOST_VALUES: usize = 100;

impl From<&Filters> for Filter {
    fn from(filters: &Filters) -> Self {
        Filter {
            users: filters.user.clone(),
            actions: filters.action.clone(),
            partitions: filters.partition.clone(),
            texts: filters.q.iter().map(|text| Filter::text(text)).collect(),
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
    fn a_name_that_is_kept_is_the_same_name() {
        let kept = Parameters::parse("a%26since=x&limit=5").with(&[("limit", "7")]);
        assert_eq!(kept, "a%26since=x&limit=7");
    }

    #[test]
    fn a_time_longer_ago_than_time_itself_is_refused() {
        let time = |text: &str| Parameters::parse(text).time("since");
        assert!(matches!(time("since=-15m"), Ok(Some(_))));
        assert!(time("since=-5124095576030430h").is_err());
        assert!(time("since=-99999999999999999999999h").is_err());
    }
}
