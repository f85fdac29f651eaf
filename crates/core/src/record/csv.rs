//! Records as CSV (RFC 4180). A spreadsheet must not execute what other people sent.

use super::Record;
use super::json::base64;
use crate::event::time::format_ms;

/// The header line.
pub const HEAD: &[u8] = b"time,timestamp,partition,offset,key,id,user,action,value,raw\r\n";

/// Appends a record as a line.
pub fn line(out: &mut Vec<u8>, record: &Record) {
    let text =
        |bytes: Option<&[u8]>| bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default().to_owned();
    let fields = record.user_and_action();
    let value = record.value();
    let raw = match value {
        Some(bytes) if std::str::from_utf8(bytes).is_err() => base64(bytes),
        _ => String::new(),
    };
    let cells = [
        record.time_ms().map(format_ms).unwrap_or_default(),
        record.timestamp_ms().map(format_ms).unwrap_or_default(),
        record.partition().to_string(),
        record.offset().to_string(),
        text(record.key()),
        record.id().unwrap_or_default().into_owned(),
        fields.user.unwrap_or_default().into_owned(),
        fields.action.unwrap_or_default().into_owned(),
        text(value),
        raw,
    ];
    for (index, text) in cells.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        cell(out, text);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a cell. A spreadsheet must not take its text for a formula (OWASP, CSV Injection).
fn cell(out: &mut Vec<u8>, text: &str) {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    if !formula && !text.contains(['"', ',', '\r', '\n', ';']) {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    if formula {
        out.push(b'\'');
    }
    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}
