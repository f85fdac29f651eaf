//! Turns checked events into verdicts: claims their ids, passes new events to the producer, waits for acknowledgements.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::batch::Batch;
use super::ids::{Claim, IdHash};
use super::{Ack, Failure, HEADERS, Handling, Ingest, KIB, Verdict, Written};
use crate::bounds::{Address, Busy, Share};
use crate::event::Event;
use crate::kafka::{Completion, Message, Priority, TopicState, partition_of};

/// Approximate bytes that an event takes in the queue, in addition to its value.
const EVENT_BESIDE_VALUE: usize = 256;

const ID_HELD_UP: &str = "a record with this id lies after the start of an open transaction of another writer and may be part of it; \
                          whether it counts is known when that transaction ends";
const DOUBTFUL: &str = "an earlier attempt may have been written, and the topic cannot be asked now";
const WITHHELD_ELSEWHERE: &str =
    "another event with this id was refused together with its request, and was not written";

/// An event whose id is claimed. New ones are with the producer.
enum Produced {
    /// The batch gets the outcome, at this index; `true` if it is the batch of another request.
    Waiting(Arc<Batch>, usize, bool),
    Known(Written),
    Failed(Failure),
}

impl Ingest {
    /// Writes events, and with [`Ack::All`] waits for Kafka's acknowledgements. Returns one verdict per event, in
    /// order. With [`Handling::Strict`] no event is sent if one is refused before that.
    pub(super) async fn deliver(
        &self,
        events: Vec<Event>,
        ack: Ack,
        handling: Handling,
        client: Address,
    ) -> Vec<Verdict> {
        let _permit = match self.admission.try_acquire(client) {
            Ok(permit) => permit,
            Err(busy) => return reject(events, too_many_requests(busy)),
        };
        let room = match ack {
            Ack::All => None,
            Ack::None => match self.room(&events, client) {
                Ok(room) => Some(room),
                Err(busy) => return reject(events, too_many_unawaited(busy)),
            },
        };
        let deadline = Instant::now() + self.settings.deadline;
        self.resolve_doubts(&events, deadline).await;
        let produced = self.produce(&events, ack, handling, room);
        match ack {
            Ack::All => self.acknowledged(events, produced, deadline).await,
            Ack::None => queued(events, produced),
        }
    }

    /// Reserves room in the part of the queue for events that no client waits for.
    fn room(&self, events: &[Event], client: Address) -> Result<(Share, Share), Busy> {
        let [each, kib] = &self.unawaited;
        let bytes: usize = events.iter().map(|event| event.value.len() + EVENT_BESIDE_VALUE).sum();
        let events = each.try_acquire_many(client, events.len())?;
        Ok((events, kib.try_acquire_many(client, bytes.div_ceil(KIB))?))
    }

    /// Waits until every event is settled, or until the deadline.
    async fn acknowledged(&self, events: Vec<Event>, produced: Vec<Produced>, deadline: Instant) -> Vec<Verdict> {
        self.look_up_unknown(&events, &produced, deadline).await;
        let mut verdicts = Vec::with_capacity(events.len());
        for (event, produced) in events.into_iter().zip(produced) {
            let (written, replayed) = match produced {
                Produced::Waiting(batch, index, replayed) => {
                    // The first wait is for the whole batch, so the others return at once.
                    let waited = timeout_at(deadline, batch.wait()).await;
                    let unknown = || {
                        debug_assert!(waited.is_err());
                        Err(Failure::Unknown)
                    };
                    let mut outcome = batch.outcome(index).unwrap_or_else(unknown);
                    if waited.is_ok() && outcome == Err(Failure::Unknown) {
                        outcome = self.ids.written(self.key(&event)).ok_or(Failure::Unknown);
                    }
                    if replayed && outcome == Err(Failure::Withheld) {
                        outcome = Err(Failure::Unavailable(WITHHELD_ELSEWHERE.into()));
                    }
                    (outcome, replayed)
                }
                Produced::Known(written) => (Ok(written), true),
                Produced::Failed(failure) => (Err(failure), false),
            };
            verdicts.push(match written {
                Ok(at) => Verdict::Written { id: event.id, at, replayed },
                Err(failure) => Verdict::Failed { id: event.id, failure },
            });
        }
        verdicts
    }

    /// Waits until the batches are settled, and searches the topic for events that Kafka did not acknowledge, while
    /// there is time. An event that is not found may still be in flight, so only a retry releases its id.
    async fn look_up_unknown(&self, events: &[Event], produced: &[Produced], deadline: Instant) {
        let mut unknown = Vec::new();
        for (event, produced) in events.iter().zip(produced) {
            let Produced::Waiting(batch, index, _) = produced else { continue };
            if timeout_at(deadline, batch.wait()).await.is_ok() && batch.outcome(*index) == Some(Err(Failure::Unknown))
            {
                unknown.push(event);
            }
        }
        if !unknown.is_empty() {
            let _ = timeout_at(deadline, self.look_up(unknown.into_iter())).await;
        }
    }

    pub(super) fn key(&self, event: &Event) -> IdHash {
        self.ids.key(event.source.as_deref(), event.id.as_str())
    }

    /// Passes events to the producer. Their room in the queue is released when all of them are settled.
    fn produce(&self, events: &[Event], ack: Ack, handling: Handling, room: Option<(Share, Share)>) -> Vec<Produced> {
        let keys = events.iter().map(|event| (self.key(event), event.time_ms)).collect();
        let batch = Arc::new(Batch::new(keys, self.ids.clone(), self.metrics.clone()));
        let completion: Arc<dyn Completion> = batch.clone();
        if let Some(room) = room {
            batch.hold(room);
        }
        let (unavailable, impaired) = self.refusals();
        let refusal = |event: &Event| {
            let refused = |topic: &Arc<TopicState>| {
                let partition = partition_of(event.user.as_bytes(), topic.partitions.len());
                topic.refusal(partition).map(|trouble| trouble.detail.clone())
            };
            unavailable.clone().or_else(|| impaired.as_ref().and_then(refused)).map(Failure::Unavailable)
        };
        // Users with an event that has to be sent again: their later events must not overtake it.
        let mut held: HashMap<&str, Failure> = HashMap::new();
        let mut new = Vec::with_capacity(events.len());
        let mut produced: Vec<Produced> = events
            .iter()
            .enumerate()
            .map(|(index, event)| match self.ids.claim(batch.key(index), event, &batch, index) {
                Claim::Known(written) => Produced::Known(written),
                Claim::Pending(batch, index) => Produced::Waiting(batch, index, true),
                Claim::Reused => Produced::Failed(Failure::IdReused),
                Claim::HeldUp => {
                    let failure = Failure::Unavailable(ID_HELD_UP.into());
                    held.insert(&event.user, failure.clone());
                    Produced::Failed(failure)
                }
                Claim::Doubtful => {
                    let failure = Failure::Unavailable(DOUBTFUL.into());
                    held.insert(&event.user, failure.clone());
                    Produced::Failed(failure)
                }
                Claim::New => match held.get(&*event.user).cloned().or_else(|| refusal(event)) {
                    Some(failure) => self.give_up(&batch, index, failure),
                    None => {
                        new.push((index, self.message(event)));
                        Produced::Waiting(batch.clone(), index, false)
                    }
                },
            })
            .collect();
        held.clear();
        let is_failed = |produced: &Produced| matches!(produced, Produced::Failed(_));
        let mut withholds = handling == Handling::Strict && produced.iter().any(is_failed);
        let priority = match ack {
            Ack::All => Priority::Awaited,
            Ack::None => Priority::Unawaited,
        };
        let mut sending = self.producer.sending(new.len(), priority);
        for (index, message) in new {
            if withholds {
                produced[index] = self.give_up(&batch, index, Failure::Withheld);
                continue;
            }
            let user = &*events[index].user;
            if let Some(failure) = held.get(user) {
                produced[index] = self.give_up(&batch, index, failure.clone());
                continue;
            }
            batch.add_pending();
            if let Err(error) = sending.send(message, index, &completion) {
                batch.settle_one();
                let failure = Failure::from(error);
                if matches!(failure, Failure::Unavailable(_)) {
                    held.insert(user, failure.clone());
                }
                produced[index] = self.give_up(&batch, index, failure);
                withholds = handling == Handling::Strict;
            }
        }
        drop(sending);
        batch.settle_one();
        produced
    }

    /// Releases the id of an event that will not be written.
    fn give_up(&self, batch: &Batch, index: usize, failure: Failure) -> Produced {
        self.ids.release(batch.key(index));
        batch.fail(index, failure.clone());
        Produced::Failed(failure)
    }

    fn message<'a>(&self, event: &'a Event) -> Message<'a> {
        let own = HEADERS.into_iter().zip([
            "1.0",
            event.id.as_str(),
            event.source.as_deref().unwrap_or(&self.settings.source),
            event.kind.as_deref().unwrap_or(&self.settings.event_type),
            &event.time,
            event.content_type.as_deref().unwrap_or("application/json"),
        ]);
        let more = event.extra_headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Message::new(event.user.as_bytes(), &event.value, own.chain(more))
    }
}

/// Returns the verdicts on events whose client does not wait for acknowledgements.
fn queued(events: Vec<Event>, produced: Vec<Produced>) -> Vec<Verdict> {
    let is_withheld = |produced: &Produced| matches!(produced, Produced::Failed(Failure::Withheld));
    let withholds = produced.iter().any(is_withheld);
    let verdict = |(event, produced): (Event, Produced)| match produced {
        Produced::Failed(failure) => Verdict::Failed { id: event.id, failure },
        // Nothing was queued now: the answer must not say so.
        Produced::Known(at) if withholds => Verdict::Written { id: event.id, at, replayed: true },
        _ => Verdict::Queued { id: event.id, time_ms: event.time_ms },
    };
    events.into_iter().zip(produced).map(verdict).collect()
}

/// More events at once would only slow all of them down.
fn reject(events: Vec<Event>, why: String) -> Vec<Verdict> {
    let failure = Failure::Unavailable(why);
    events.into_iter().map(|event| Verdict::Failed { id: event.id, failure: failure.clone() }).collect()
}

fn too_many_requests(busy: Busy) -> String {
    let whose = if matches!(busy, Busy::Address(_)) { " of this address" } else { "" };
    format!("too many requests{whose} are waiting for Kafka at once (ingest.concurrency)")
}

fn too_many_unawaited(busy: Busy) -> String {
    let whose = if matches!(busy, Busy::Address(_)) { " of this address" } else { "" };
    format!("too many events{whose} that were sent with ack=none are in the queue to Kafka (ingest.queue_messages)")
}
