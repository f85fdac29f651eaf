//! Events submitted with a form.

use bytes::Bytes;

use super::fields::{self, Fallbacks};
use super::refused::{Checked, FieldError, Limits, Refused};
use crate::value::{for_each_member, write_string};

/// Makes an event of a form. `details` is blank or a JSON object, whose members follow `user` and `action`. The
/// pointers of errors are names of form fields.
pub fn parse_form(user: &str, action: &str, details: &str, limits: &Limits) -> Checked {
    let mut errors = Vec::new();
    let details = details.trim();
    let mut names = Vec::new();
    let inner = match for_each_member(details, |name, _| names.push(name)) {
        _ if details.is_empty() => "",
        Ok(()) => {
            for name in ["user", "action"] {
                if names.iter().any(|member| member == name) {
                    errors
                        .push(FieldError::new("/details", format!("must not contain `{name}`: it has its own field")));
                }
            }
            if errors.is_empty() { details[1..details.len() - 1].trim() } else { "" }
        }
        Err(e) if e.is_data() => {
            errors.push(FieldError::new("/details", "must be a JSON object such as {\"page\": \"/cart\"}"));
            ""
        }
        Err(e) => {
            let place = if details.contains('\n') { format!("line {} column", e.line()) } else { "column".into() };
            let detail =
                format!("is not JSON at {place} {}; expected an object such as {{\"page\": \"/cart\"}}", e.column());
            errors.push(FieldError::new("/details", detail));
            ""
        }
    };
    let mut value = Vec::with_capacity(user.len() + action.len() + inner.len() + 32);
    value.extend_from_slice(b"{\"user\":");
    write_string(&mut value, user.trim());
    value.extend_from_slice(b",\"action\":");
    write_string(&mut value, action.trim());
    if !inner.is_empty() {
        value.push(b',');
        value.extend_from_slice(inner.as_bytes());
    }
    value.push(b'}');
    if value.len() > limits.event {
        errors.push(FieldError::new(
            "/details",
            Refused::TooLarge { index: 0, size: value.len(), max: limits.event }.to_string(),
        ));
        return Err(errors);
    }
    let value = Bytes::from(value);
    let text = std::str::from_utf8(&value).unwrap_or_default();
    match fields::event(&value, text, &Fallbacks::default(), limits) {
        Ok(Ok(event)) if errors.is_empty() => return Ok(event),
        Ok(Ok(_)) => {}
        Ok(Err(more)) => errors.extend(more.into_iter().map(|error| match error.pointer.as_str() {
            "/user" | "/action" => error,
            inside => FieldError::new("/details", format!("{inside} {}", error.detail).trim_start().to_owned()),
        })),
        Err(refused) => errors.push(FieldError::new("/details", refused.to_string())),
    }
    // In the order of the form.
    errors.sort_by_key(|error| error.pointer == "/details");
    Err(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { event: 32 * 1024, batch: 500, now_ms: 1_795_435_200_000 };

    #[test]
    fn a_form_becomes_the_equivalent_object() {
        let event = parse_form(" John ", "log\"in", " { \"page\": \"/cart\" } ", &LIMITS).expect("an event");
        assert_eq!(&event.value[..], br#"{"user":"John","action":"log\"in","page": "/cart"}"#);
        let event = parse_form("John", "login", "{}", &LIMITS).expect("an event");
        assert_eq!(&event.value[..], br#"{"user":"John","action":"login"}"#);
    }

    #[test]
    fn a_form_says_which_field_is_wrong() {
        let fields = |user, action, details| {
            let errors: Vec<FieldError> = parse_form(user, action, details, &LIMITS).expect_err("errors");
            errors.into_iter().map(|e| e.pointer).collect::<Vec<_>>()
        };
        assert_eq!(fields("", "login", ""), ["/user"]);
        assert_eq!(fields("a", "b", "[1]"), ["/details"]);
        assert_eq!(fields("a", "b", "{"), ["/details"]);
        assert_eq!(fields("a", "", "{\"user\":1}"), ["/action", "/details"]);
        assert_eq!(fields("a", "b", "{\"id\":7}"), ["/details"]);
    }
}
