//! The request header `Prefer` (RFC 7240).

use rocket::request::{FromRequest, Outcome, Request};

use crate::ingest::Handling;

/// The header of an answer that says which preference was applied, and its value for [`Handling::Strict`].
pub const APPLIED: (&str, &str) = ("Preference-Applied", "handling=strict");

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Handling {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        Outcome::Success(handling(request.headers().get("Prefer")))
    }
}

/// Returns the preference `handling` (RFC 7240, section 4.4) of the values of all `Prefer` headers. The first one counts;
/// other preferences and other values are ignored (section 2).
fn handling<'h>(headers: impl Iterator<Item = &'h str>) -> Handling {
    let value = headers.flat_map(|header| parts(header, ',')).find_map(|preference| {
        let (name, value) = parts(preference, ';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("handling").then(|| value.trim().trim_matches('"'))
    });
    match value {
        Some(value) if value.eq_ignore_ascii_case("strict") => Handling::Strict,
        _ => Handling::Lenient,
    }
}

/// Splits a text at a separator, but not inside of quoted strings (RFC 9110, section 5.6.4).
fn parts(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |c| {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => return c == separator && !is_quoted,
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_handling_counts_and_everything_else_is_ignored() {
        for (headers, expected) in [
            (&[][..], Handling::Lenient),
            (&[""], Handling::Lenient),
            (&["handling"], Handling::Lenient),
            (&["handling=lenient"], Handling::Lenient),
            (&["handling=odd"], Handling::Lenient),
            (&["return=minimal, wait=10"], Handling::Lenient),
            (&["handling=strict"], Handling::Strict),
            (&["Handling = \"strict\"; x=1"], Handling::Strict),
            (&["respond-async, wait=10,, handling=strict;x"], Handling::Strict),
            (&["wait=10", "handling=strict"], Handling::Strict),
            (&["handling=strict, handling=lenient"], Handling::Strict),
            (&["handling=lenient", "handling=strict"], Handling::Lenient),
            (&["x=\"a, handling=strict\""], Handling::Lenient),
            (&["x=\"a\\\", handling=strict\", handling=strict"], Handling::Strict),
            (&["x; handling=strict"], Handling::Lenient),
        ] {
            assert_eq!(handling(headers.iter().copied()), expected, "{headers:?}");
        }
    }
}
