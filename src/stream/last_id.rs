//! The place that a client knows: the last id that its stream sent.

use std::sync::Arc;

use bytes::Bytes;

use super::Beat;
use crate::feed::{Cursor, Dialect, Filter, Frames};

/// The last id that was sent to a client.
pub struct LastId {
    dialect: Dialect,
    /// Whether the client has a filter. Without one, the last id is always the place that was reached.
    filtered: bool,
    /// `None` if no id was sent, or if it is known as text only.
    place: Option<Arc<Cursor>>,
    /// The last id of a piece of frames as text, where `place` does not say it.
    text: Option<Box<[u8]>>,
    /// Reused to compare places as text.
    buffer: Vec<u8>,
}

impl LastId {
    pub fn new(dialect: Dialect, filter: &Filter) -> Self {
        LastId { dialect, filtered: !filter.is_empty(), place: None, text: None, buffer: Vec::new() }
    }

    pub fn set(&mut self, place: &Arc<Cursor>) {
        (self.place, self.text) = (Some(place.clone()), None);
    }

    pub fn is(&self, place: &Arc<Cursor>) -> bool {
        self.place.as_ref().is_some_and(|last| Arc::ptr_eq(last, place) || last == place)
    }

    /// Notes frames that lead to `place`. Records that the filter hides may lie between the last frame and that place.
    pub fn sent(&mut self, frames: &[u8], place: &Arc<Cursor>) {
        if !self.filtered {
            return self.set(place);
        }
        self.buffer.clear();
        place.write(&mut self.buffer);
        match Frames::last_id(frames, self.dialect) {
            Some(id) if id == self.buffer => self.set(place),
            Some(_) => self.sent_part(frames),
            None => {}
        }
    }

    /// Notes the first of many frames, where more follow.
    pub fn sent_part(&mut self, frames: &[u8]) {
        (self.place, self.text) = (None, Frames::last_id(frames, self.dialect).map(Into::into));
    }

    /// The place to send between two parts of frames.
    fn known(&self) -> Option<Arc<Cursor>> {
        let parsed = || std::str::from_utf8(self.text.as_ref()?).ok()?.parse().ok().map(Arc::new);
        self.place.clone().or_else(parsed)
    }

    /// A frame that moves the client to `place` without an event.
    pub fn position(&mut self, place: &Arc<Cursor>) -> Bytes {
        self.set(place);
        let mut out = Vec::new();
        Frames::position(&mut out, self.dialect, Some(place));
        out.into()
    }

    /// The frame of a beat. `place` is where the stream is, if nothing that leads there is still to be sent.
    pub fn beat(&mut self, beat: &Beat, place: Option<&Arc<Cursor>>) -> Bytes {
        match (beat, place) {
            (Beat::Heartbeat, Some(place)) if self.dialect != Dialect::Lines && !self.is(place) => self.position(place),
            (_, Some(place)) => {
                let bytes = beat.bytes(self.dialect, Some(place));
                if !matches!(beat, Beat::Heartbeat) {
                    self.set(place);
                }
                bytes
            }
            (_, None) => beat.bytes(self.dialect, self.known().as_deref()),
        }
    }
}
