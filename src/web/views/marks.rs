//! Marks what the filters of a page found in its rows.

use std::fmt;

use askama::Template;
use footfall_core::Part;
use footfall_core::query_string::Filters;

/// The texts that the filters of a page look for.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    /// Texts anywhere in the event.
    texts: Vec<Part>,
    /// Starts of users and of actions.
    users: Vec<Part>,
    actions: Vec<Part>,
}

/// A text as HTML, with what was found in `<mark>`.
#[derive(Template)]
#[template(
    source = "{% for (text, is_found) in parts %}{% if is_found %}<mark>{{ text }}</mark>{% else %}{{ text }}{% endif %}{% endfor %}",
    ext = "html"
)]
struct Marked<'a> {
    parts: Vec<(&'a str, bool)>,
}

impl Marks {
    pub fn of(filters: &Filters) -> Self {
        let part = |text: &String| if filters.exact { Part::exact(text) } else { Part::folded(text) };
        let starts = |texts: &[String]| texts.iter().map(|text| Part::folded(text)).collect();
        Marks {
            texts: filters.q.iter().map(part).collect(),
            users: starts(&filters.user_prefix),
            actions: starts(&filters.action_prefix),
        }
    }

    /// Returns a user as HTML.
    pub fn user<'a>(&self, text: &'a str) -> impl fmt::Display + 'a {
        self.marked(text, &self.users)
    }

    /// Returns an action as HTML.
    pub fn action<'a>(&self, text: &'a str) -> impl fmt::Display + 'a {
        self.marked(text, &self.actions)
    }

    /// Returns any other text of a row as HTML.
    pub fn text<'a>(&self, text: &'a str) -> impl fmt::Display + 'a {
        self.marked(text, &[])
    }

    fn marked<'a>(&self, text: &'a str, starts: &[Part]) -> Marked<'a> {
        let mut places: Vec<_> = self.texts.iter().flat_map(|part| part.places(text)).collect();
        places.extend(starts.iter().filter_map(|part| part.start(text)));
        places.sort_by_key(|place| (place.start, place.end));
        let (mut parts, mut done) = (Vec::new(), 0);
        for place in places {
            // Two filters may find overlapping texts.
            let start = place.start.max(done);
            if start < place.end {
                parts.extend((done < start).then(|| (&text[done..start], false)));
                parts.push((&text[start..place.end], true));
                done = place.end;
            }
        }
        parts.extend((done < text.len()).then(|| (&text[done..], false)));
        Marked { parts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_filters_found_is_marked() {
        let filters =
            Filters { q: vec!["<CART".into(), "art".into()], user_prefix: vec!["jo".into()], ..Filters::default() };
        let marks = Marks::of(&filters);
        assert_eq!(marks.text("a <cart> & Art").to_string(), "a <mark>&#60;cart</mark>&#62; &#38; <mark>Art</mark>");
        assert_eq!(marks.user("Johanna Jo").to_string(), "<mark>Jo</mark>hanna Jo");
        assert_eq!((marks.action("Jo").to_string(), marks.user("").to_string()), ("Jo".to_owned(), String::new()));
        let exact = Marks::of(&Filters { q: vec!["Art".into()], exact: true, ..Filters::default() });
        assert_eq!(exact.text("art Art").to_string(), "art <mark>Art</mark>");
    }
}
