//! Where the records of a block have a field. Filters with a condition on the same field share it, so that each record is
//! parsed once for all of them.

use footfall_core::Pointer;

use crate::event::Record;

/// The JSON of one field in each record of a block.
pub(super) struct Column(Box<[Place]>);

/// Where a record's value has the JSON; 0 bytes if it does not.
#[derive(Clone, Copy, Default)]
struct Place {
    start: u32,
    length: u32,
}

impl Column {
    pub fn new(records: &[Record], pointer: &Pointer) -> Self {
        Column(records.iter().map(|record| Place::of(record, pointer).unwrap_or_default()).collect())
    }

    /// Bytes in memory.
    pub fn size(&self) -> usize {
        size_of_val(&*self.0)
    }

    /// Returns the field's JSON in the record that has this index in the block.
    pub fn get<'a>(&self, record: &'a Record, index: usize) -> Option<&'a str> {
        let Place { start, length } = *self.0.get(index)?;
        let json = record.value()?.get(start as usize..)?.get(..length as usize)?;
        std::str::from_utf8(json).ok().filter(|json| !json.is_empty())
    }
}

impl Place {
    fn of(record: &Record, pointer: &Pointer) -> Option<Self> {
        let json = pointer.find(record.event_json()?)?;
        // The event's JSON is a part of the value, and the field a part of that.
        let start = json.as_ptr() as usize - record.value()?.as_ptr() as usize;
        Some(Place { start: u32::try_from(start).ok()?, length: u32::try_from(json.len()).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_has_what_the_pointer_finds() {
        let structured = [("content-type", Some(&b"application/cloudevents+json"[..]))];
        let record =
            |value: Option<&str>| Record::new(0, 0, None, Some(b"key"), value.map(str::as_bytes), [].into_iter());
        let envelope = br#"{"id":"1","data": {"a": {"b": [1, 22]}}}"#;
        let records = [
            record(Some(r#"{"a":{"b":[1,"x"]}}"#)),
            record(Some(r#" {"a":{"b":[]}} "#)),
            record(Some("plain")),
            record(None),
            Record::new(0, 0, None, None, Some(envelope), structured.into_iter()),
        ];
        let column = Column::new(&records, &Pointer::parse("/a/b/1").expect("a pointer"));
        let found: Vec<_> = records.iter().enumerate().map(|(index, record)| column.get(record, index)).collect();
        assert_eq!(found, [Some("\"x\""), None, None, None, Some("22")]);
    }
}
