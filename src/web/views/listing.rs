//! The filters and columns of a page with rows, and the addresses of the page with other ones.

use std::borrow::Cow;
use std::sync::Arc;

use footfall_core::query_string::{BadParameter, Filters, QueryBuilder, QueryString, encode};
use footfall_core::{Condition, Operator, Pointer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::address::history_page;
use super::format::{count_of, cut, explicit};
use super::marks::Marks;
use super::wrong::WrongParameters;
use super::zone::Zone;
use crate::base_path::base_path;

/// Most characters of a column's name in its head.
const HEAD_CHARS: usize = 40;

/// The filters and columns of a page with rows. They are in its address, so every change of them is a link.
#[derive(Clone)]
pub struct Listing {
    /// The page's path, without the base path.
    path: &'static str,
    pub filters: Filters,
    /// What the filters find, to be marked in rows.
    pub marks: Arc<Marks>,
    /// Fields that have a column of their own.
    pub columns: Vec<Pointer>,
    /// Parameters that are wrong: the form shows them, and the page no rows.
    pub wrong: WrongParameters,
    /// The zone of the times in rows. UTC for rows of streams, which all readers of a stream share: the page's script writes
    /// their times.
    pub zone: Zone,
    /// The parameters of the page that stay when filters change, as a query.
    others: String,
    /// Its query up to the value of a filter for one action.
    before_action: String,
}

/// The head of a column.
pub struct Head {
    pub name: String,
    /// As `col` has it.
    pub pointer: String,
    /// Address of the page without the column.
    pub without: String,
}

/// The values of one filter.
type Values = fn(&mut Filters) -> &mut Vec<String>;

impl Default for Listing {
    fn default() -> Self {
        Listing::of_rows(Filters::default(), Vec::new())
    }
}

/// A filter that the page shows, and can remove.
pub struct Chip {
    /// The parameter that a form sends for it.
    pub name: &'static str,
    pub value: String,
    /// `user is`, to be followed by `shown`.
    pub words: String,
    pub shown: String,
    /// Address of the page without it.
    pub without: String,
}

impl Listing {
    /// Reads the filters and columns of a page. Its other parameters stay when they change, except `passing` ones.
    pub fn new(path: &'static str, parameters: &QueryString, passing: &[&str]) -> Result<Self, BadParameter> {
        const OWN: [&str; 11] = [
            "user",
            "action",
            "user_prefix",
            "action_prefix",
            "not_user",
            "not_action",
            "q",
            "case",
            "f",
            "partition",
            "col",
        ];
        let removed: Vec<(&str, &str)> = OWN.iter().chain(passing).map(|name| (*name, "")).collect();
        let (filters, columns) = (parameters.filters()?, parameters.columns()?);
        Ok(Listing::of(path, filters, columns, parameters.with(&removed)))
    }

    /// Reads the filters and columns of the live page.
    pub fn of_live(parameters: &QueryString) -> Result<Self, BadParameter> {
        Listing::new("/", parameters, &["sent", "as", "field", "op", "value"])
    }

    /// Returns a listing for the rows of a page whose parameters are nothing but filters and columns.
    pub fn of_rows(filters: Filters, columns: Vec<Pointer>) -> Self {
        Listing::of("/", filters, columns, String::new())
    }

    /// Returns the listing of a page with these parameters, as a query.
    pub fn of(path: &'static str, filters: Filters, columns: Vec<Pointer>, others: String) -> Self {
        let any_action = Filters { action: vec![], action_prefix: vec![], not_action: vec![], ..filters.clone() };
        let mut before_action = query(&any_action, &columns, &others);
        before_action.push_str(if before_action.is_empty() { "action=" } else { "&action=" });
        let marks = Arc::new(Marks::of(&filters));
        let (wrong, zone) = (WrongParameters::default(), Zone::default());
        Listing { path, filters, marks, columns, wrong, zone, others, before_action }
    }

    /// Returns the listing with times of a zone.
    pub fn in_zone(self, zone: &Zone) -> Self {
        Listing { zone: zone.clone(), ..self }
    }

    /// Returns the query of filters and columns, without `?`.
    pub fn query(&self) -> String {
        query(&self.filters, &self.columns, "")
    }

    /// Returns what follows an address to keep filters and columns: `?user=John`, or nothing.
    pub fn suffix(&self) -> String {
        suffix(&self.query())
    }

    /// Returns the address of the page with a filter for one action, which replaces the other filters of actions.
    pub fn action_page(&self, action: &str) -> String {
        format!("{}{}?{}{}", base_path(), self.path, self.before_action, encode(action))
    }

    /// Returns the text for the input of a filter: its first value, or what was typed if that is wrong.
    pub fn first<'a>(&'a self, name: &str, values: &'a [String]) -> &'a str {
        self.wrong.of(name).map(|wrong| &wrong.typed).or(values.first()).map_or("", String::as_str)
    }

    /// Returns a class for the number of columns, for the style: ` cols-2`.
    pub fn columns_class(&self) -> String {
        match self.columns.len() {
            0 => String::new(),
            count => format!(" cols-{count}"),
        }
    }

    /// Returns the address of the page without filters. Columns stay.
    pub fn clear(&self) -> String {
        self.address(&Filters::default(), &self.columns, "")
    }

    /// Returns what stands for the filters on a narrow screen: `2 filters`.
    pub fn filter_words(&self) -> String {
        match self.filters.count() {
            0 => "Filters".to_owned(),
            count => count_of(count as u64, "filter"),
        }
    }

    /// Returns the columns as their heads show them.
    pub fn heads(&self) -> Vec<Head> {
        let head = |index: usize| {
            let mut others = self.columns.clone();
            let column = others.remove(index);
            let without = self.address(&self.filters, &others, &self.others);
            Head { name: cut(&name(&column), HEAD_CHARS), pointer: column.to_string(), without }
        };
        (0..self.columns.len()).map(head).collect()
    }

    /// Returns the addresses of the page with only the events whose field has a value, and without them; `None` if the
    /// value cannot be compared.
    pub fn narrowed(&self, pointer: &Pointer, json: &str) -> Option<[String; 2]> {
        let value = filter_value(json)?;
        let text = || serde_json::from_str::<String>(json).ok();
        let names: Option<[Values; 3]> = match pointer.names() {
            [name] if name == "user" => {
                Some([|all| &mut all.user, |all| &mut all.not_user, |all| &mut all.user_prefix])
            }
            [name] if name == "action" => {
                Some([|all| &mut all.action, |all| &mut all.not_action, |all| &mut all.action_prefix])
            }
            _ => None,
        };
        let (mut only, mut without) = (self.filters.clone(), self.filters.clone());
        if let (Some(own @ [values, others, _]), Some(name)) = (names, text()) {
            for all in own {
                all(&mut only).clear();
            }
            values(&mut only).push(name.clone());
            for all in [values, others] {
                all(&mut without).retain(|other| *other != name);
            }
            others(&mut without).push(name);
        } else {
            for (filters, operator) in [(&mut only, Operator::Eq), (&mut without, Operator::Ne)] {
                let condition = Condition::parse(&format!("{pointer}:{operator}:{value}"), filters.exact).ok()?;
                filters.f.retain(|own| own.pointer() != pointer || own.value() != condition.value());
                filters.f.push(condition);
            }
        }
        Some([only, without].map(|filters| self.address(&filters, &self.columns, &self.others)))
    }

    /// Returns the address of the page with one more column.
    pub fn with_column(&self, column: &Pointer) -> String {
        let mut columns = self.columns.clone();
        if !columns.contains(column) {
            columns.push(column.clone());
        }
        self.address(&self.filters, &columns, &self.others)
    }

    /// Returns the address of the history from a time on, oldest first, with these filters and the columns of the page.
    pub fn history_from(&self, filters: Filters, ms: i64) -> String {
        let mut range = QueryBuilder::default();
        range.add("since", &explicit(ms));
        range.add("order", "oldest");
        history_page(query(&filters, &self.columns, &range.text()))
    }

    /// Returns the filters as chips, without those that are in an input: the first prefixes, the first text, and the
    /// first of `partition_inputs`.
    pub fn chips(&self, partition_inputs: usize) -> Vec<Chip> {
        let mut chips = Vec::new();
        let mut chip = |name, words: &str, value: &str, shown: &str, without: Filters| {
            chips.push(Chip {
                name,
                value: value.to_owned(),
                words: words.to_owned(),
                shown: cut(shown, usize::MAX),
                without: self.address(&without, &self.columns, &self.others),
            });
        };
        let texts: [(&str, &str, usize, Values); 7] = [
            ("user", "user is", 0, |filters| &mut filters.user),
            ("user_prefix", "user begins with", 1, |filters| &mut filters.user_prefix),
            ("not_user", "user is not", 0, |filters| &mut filters.not_user),
            ("action", "action is", 0, |filters| &mut filters.action),
            ("action_prefix", "action begins with", 1, |filters| &mut filters.action_prefix),
            ("not_action", "action is not", 0, |filters| &mut filters.not_action),
            ("q", "contains", 1, |filters| &mut filters.q),
        ];
        let mut all = self.filters.clone();
        for (name, words, inputs, values) in texts {
            for (index, value) in values(&mut all).iter().enumerate().skip(inputs) {
                let mut without = self.filters.clone();
                values(&mut without).remove(index);
                chip(name, words, value, value, without);
            }
        }
        for (index, condition) in self.filters.f.iter().enumerate() {
            let mut without = self.filters.clone();
            without.f.remove(index);
            let (operator, value) = words(condition);
            let words = format!("{} {operator}", cut(&self::name(condition.pointer()), HEAD_CHARS));
            chip("f", &words, &condition.to_string(), value, without);
        }
        for (index, partition) in self.filters.partition.iter().enumerate().skip(partition_inputs) {
            let mut without = self.filters.clone();
            without.partition.remove(index);
            let number = partition.to_string();
            chip("partition", "partition", &number, &number, without);
        }
        chips
    }

    fn address(&self, filters: &Filters, columns: &[Pointer], others: &str) -> String {
        format!("{}{}{}", base_path(), self.path, suffix(&query(filters, columns, others)))
    }
}

/// Returns the condition that the three fields of a page's form make, as `f` has it; `None` if no field is named.
pub fn typed_condition(parameters: &QueryString) -> Option<String> {
    let field = parameters.get("field").map(str::trim).filter(|field| !field.is_empty())?;
    let pointer = if field.starts_with('/') { field.to_owned() } else { Pointer::to_member(field).to_string() };
    Some(match (parameters.get("op").unwrap_or("eq"), parameters.get("value")) {
        ("missing", _) => format!("{pointer}:exists:false"),
        ("exists" | "eq", None) | ("exists", _) => format!("{pointer}:exists"),
        (operator, value) => format!("{pointer}:{operator}:{}", value.unwrap_or_default()),
    })
}

/// Returns a pointer as people read it: `page`, `basket.items.0`.
pub fn name(pointer: &Pointer) -> String {
    pointer.names().join(".")
}

/// Returns a JSON value as a condition has it: text without its quotes, unless that would be ambiguous. `None` for
/// objects, arrays and text that is not Unicode.
pub fn filter_value(json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        b'{' | b'[' => None,
        b'"' => match serde_json::from_str::<Cow<str>>(json).ok()? {
            text if text.contains(char::is_control) => Some(Value::from(text).to_string()),
            text => Some(written(text)),
        },
        _ => Some(json.to_owned()),
    }
}

/// Returns a text as a row has it: without quotes, unless that would be ambiguous.
pub fn written(text: Cow<'_, str>) -> String {
    match is_plain(&text) {
        true => text.into_owned(),
        false => Value::from(text).to_string(),
    }
}

/// Whether a text can be written without quotes: it is not empty, not JSON itself, and has nothing that ends it.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains([' ', '=']) && serde_json::from_str::<&RawValue>(text).is_err()
}

/// Returns the comparison of a condition in words, and its value.
fn words(condition: &Condition) -> (&'static str, &str) {
    let value = condition.value().unwrap_or_default();
    match condition.operator() {
        Operator::Eq => ("=", value),
        Operator::Ne => ("≠", value),
        Operator::Lt => ("<", value),
        Operator::Gt => (">", value),
        Operator::Exists if value == "false" => ("is missing", ""),
        Operator::Exists => ("exists", ""),
        Operator::Contains => ("contains", value),
        Operator::Prefix => ("begins with", value),
        Operator::In => ("is one of", value),
    }
}

fn query(filters: &Filters, columns: &[Pointer], others: &str) -> String {
    let mut shown = QueryBuilder::default();
    columns.iter().for_each(|column| shown.add("col", &column.to_string()));
    let parts = [filters.query(), shown.text(), others.to_owned()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("&")
}

fn suffix(query: &str) -> String {
    if query.is_empty() { String::new() } else { format!("?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(query: &str) -> Listing {
        Listing::new("/history", &QueryString::parse(query).expect("valid"), &["from"]).expect("valid")
    }

    #[test]
    fn a_chip_says_its_filter_and_removes_only_that() {
        let page = listing(
            "user=Ann&not_user=Bob&q=a&q=b&f=/total:gt:5&f=/coupon:exists&partition=1&since=-1h&from=0-1&col=/page",
        );
        let chips = page.chips(1).into_iter().map(|chip| format!("{} {}", chip.words, chip.shown));
        let expected = ["user is Ann", "user is not Bob", "contains b", "total > 5", "coupon exists "];
        assert_eq!(chips.collect::<Vec<_>>(), expected);
        let without = &page.chips(1)[3].without;
        assert_eq!(
            without,
            "/history?user=Ann&not_user=Bob&q=a&q=b&f=%2Fcoupon%3Aexists&partition=1&col=%2Fpage&since=-1h"
        );
        assert_eq!(page.clear(), "/history?col=%2Fpage");
    }

    #[test]
    fn a_value_is_wanted_or_left_out_but_not_both() {
        let page = listing("user=Bob&user_prefix=c&not_user=Ann&f=/n:ne:5");
        let narrowed = |field: &str, json| page.narrowed(&Pointer::to_member(field), json);
        let query = |query: &str| format!("/history?{query}");
        assert_eq!(
            narrowed("user", "\"Ann\""),
            Some([query("user=Ann&f=%2Fn%3Ane%3A5"), query("user=Bob&user_prefix=c&not_user=Ann&f=%2Fn%3Ane%3A5"),])
        );
        let [only, without] = narrowed("n", "5").expect("a number");
        assert!(only.ends_with("&f=%2Fn%3Aeq%3A5") && without.ends_with("&f=%2Fn%3Ane%3A5"), "{only} {without}");
        assert_eq!(only.matches("f=").count(), 1, "{only}");
        assert_eq!(narrowed("n", "{}"), None);
    }

    #[test]
    fn three_fields_of_a_form_make_a_condition() {
        for (query, condition) in [
            ("field=page&op=eq&value=/cart", Some("/page:eq:/cart")),
            ("field=a/b:c&op=gt&value=5", Some("/a~1b%3Ac:gt:5")),
            ("field=/card/kind&op=missing&value=x", Some("/card/kind:exists:false")),
            ("field=coupon&op=eq&value=", Some("/coupon:exists")),
            ("field=+&op=eq&value=x", None),
            ("op=eq", None),
        ] {
            let parameters = QueryString::parse(query).expect("valid");
            assert_eq!(typed_condition(&parameters).as_deref(), condition, "{query}");
        }
    }
}
