//! The position that a client knows: the last id that its stream sent.

use std::sync::Arc;

use bytes::Bytes;

use super::Beat;
use crate::feed::{Cursor, Dialect, Filter, Frames};

/// The last id that was sent to a client.
pub struct LastId {
    dialect: Dialect,
    /// Whether the client has a filter. Without one, the last id is always the current position.
    filtered: bool,
    /// `None` if no id was sent, or if it is known only as text.
    place: Option<Arc<Cursor>>,
    /// The last id of some frames as text, if `place` does not have it.
    text: Option<Box<[u8]>>,
    /// A buffer to compare positions as text.
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

    /// Notes frames that end at `place`. Records that the filter hides may lie between the last frame and that
    /// position.
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

    /// Notes the first part of some frames.
    pub fn sent_part(&mut self, frames: &[u8]) {
        (self.place, self.text) = (None, Frames::last_id(frames, self.dialect).map(Into::into));
    }

    /// Returns the position to send between two parts of frames.
    fn known(&self) -> Option<Arc<Cursor>> {
        let parsed = || std::str::from_utf8(self.text.as_ref()?).ok()?.parse().ok().map(Arc::new);
        self.place.clone().or_else(parsed)
    }

    /// Returns a frame that moves the client to `place` without an event.
    pub fn position(&mut self, place: &Arc<Cursor>) -> Bytes {
        self.set(place);
        let mut out = Vec::new();
        Frames::position(&mut out, self.dialect, Some(place));
        out.into()
    }

    /// Returns the frame of a beat. `place` is the stream's position if all frames before it were sent.
    pub fn beat(&mut self, beat: &Beat, place: Option<&Arc<Cursor>>) -> Bytes {
        match (beat, place) {
            (Beat::Heartbeat(_), Some(place)) if self.dialect == Dialect::Json => match self.is(place) {
                true => beat.bytes(self.dialect, None),
                false => self.position(place),
            },
            (_, Some(place)) => {
                self.set(place);
                beat.bytes(self.dialect, Some(place))
            }
            (_, None) => beat.bytes(self.dialect, self.known().as_deref()),
        }
    }
}
