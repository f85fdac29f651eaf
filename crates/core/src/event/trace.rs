//! The trace context of a request's headers (W3C Trace Context).

pub const PARENT: &str = "traceparent";
pub const STATE: &str = "tracestate";

/// Most bytes of `traceparent`: later versions may be longer than today's.
const PARENT_MAX: usize = 128;
/// Most bytes of `tracestate`: the specification asks everybody to pass on at least this many.
const STATE_MAX: usize = 512;

/// Returns the headers to pass on. Malformed ones are dropped, and `tracestate` is dropped with a malformed
/// `traceparent`, because it has no meaning alone.
pub fn context<'a>(parent: Option<&'a str>, state: Option<&'a str>) -> [Option<&'a str>; 2] {
    let parent = parent.filter(|parent| is_parent(parent));
    let state = state.filter(|state| parent.is_some() && (1..=STATE_MAX).contains(&state.len()));
    [parent, state]
}

/// Whether a text is `version-trace-parent-flags` in lower-case hexadecimals. Later versions may add fields after a
/// dash.
fn is_parent(text: &str) -> bool {
    let hex = |digits: &str| digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let id = |digits: &str| hex(digits) && digits.bytes().any(|b| b != b'0');
    let mut parts = text.splitn(5, '-');
    let [version, trace, parent, flags] = [2, 32, 16, 2].map(|len| parts.next().filter(|part| part.len() == len));
    let more = parts.next();
    text.len() <= PARENT_MAX
        && version.is_some_and(|version| hex(version) && version != "ff" && (version != "00" || more.is_none()))
        && trace.is_some_and(id)
        && parent.is_some_and(id)
        && flags.is_some_and(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_a_well_formed_traceparent_is_kept() {
        let later = NOW.replacen("00", "cc", 1) + "-what-will-be";
        for good in [NOW, &NOW.replacen("00", "cc", 1), &later] {
            assert!(is_parent(good), "{good}");
        }
        for bad in [
            "",
            "00-1-2-01",
            &NOW.to_uppercase(),
            &NOW.replacen("00", "ff", 1),
            &NOW[..54],
            &format!("{NOW}-more"),
            &format!("{NOW}0"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            &(later + &"x".repeat(PARENT_MAX)),
        ] {
            assert!(!is_parent(bad), "{bad}");
        }
    }

    #[test]
    fn tracestate_is_bounded_and_dropped_without_traceparent() {
        let (most, more) = ("x".repeat(STATE_MAX), "x".repeat(STATE_MAX + 1));
        assert_eq!(context(Some(NOW), Some(&most)), [Some(NOW), Some(&*most)]);
        assert_eq!(context(Some(NOW), Some(&more)), [Some(NOW), None]);
        assert_eq!(context(Some("00-1-2-01"), Some("a=b")), [None, None]);
        assert_eq!(context(None, Some("a=b")), [None, None]);
    }
}
