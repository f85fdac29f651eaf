//! The messages of one partition that wait for librdkafka, and which of them form the next batch.

use std::collections::{HashMap, VecDeque};

use rdkafka::message::{BorrowedMessage, Message as _, OwnedHeaders};

use super::{Message, Priority, Ticket};
use crate::bounds::UNAWAITED_BATCH_BYTES;

/// Batches of awaited messages between two batches of unawaited ones, by partition.
const AWAITED_BATCHES: usize = 3;
/// In a batch of unawaited messages, one user with an awaited message gets one part in this many, if there are others.
const URGENT_PARTS: usize = 8;

#[derive(Default)]
pub(super) struct PartitionQueue {
    /// Messages that librdkafka has, and one more for each request that is passing messages on.
    pub(super) in_flight: usize,
    /// Bytes that the request in front has passed on, and whether its other messages must wait.
    bytes: usize,
    full: bool,
    waiting: VecDeque<WaitingMessage>,
    unawaited: Unawaited,
    /// How many messages have waited so far.
    arrived: u64,
    /// Batches since the last one with unawaited messages.
    batches: usize,
    /// Messages that were rejected together with others. They are sent alone, before those that wait.
    pub(super) refused: VecDeque<WaitingMessage>,
    /// How many messages were passed to librdkafka so far, and the number of the last one that was written.
    passed_on: u64,
    pub(super) written: u64,
}

impl PartitionQueue {
    /// Returns whether another message of the request in front fits into the batch. After one that does not fit, none
    /// does, so that they stay in order.
    pub(super) fn has_room(&mut self, size: usize, most: usize) -> bool {
        self.full = self.full || self.bytes > 0 && self.bytes + size > most;
        if !self.full {
            self.bytes += size;
        }
        !self.full
    }

    pub(super) fn wait(&mut self, mut waiting: WaitingMessage, priority: Priority) {
        self.arrived += 1;
        waiting.arrived = self.arrived;
        if priority == Priority::Awaited && !self.unawaited.users.contains_key(&waiting.user) {
            self.waiting.push_back(waiting);
        } else {
            self.unawaited.push(waiting, priority);
        }
    }

    /// Takes the next batch from the front of the queue: awaited messages, unless it is the turn of the unawaited ones.
    /// Unawaited messages never overtake awaited ones that arrived earlier.
    fn take_waiting(&mut self, most: usize) -> Vec<WaitingMessage> {
        self.batches += 1;
        if self.waiting.is_empty() || self.batches > AWAITED_BATCHES {
            let before = self.waiting.front().map_or(u64::MAX, |first| first.arrived);
            let taken = self.unawaited.take(most.min(UNAWAITED_BATCH_BYTES), before);
            if !taken.is_empty() {
                self.batches = 0;
                return taken;
            }
        }
        let mut bytes = 0;
        let fits = |waiting: &&WaitingMessage| {
            bytes += waiting.ticket.size;
            bytes <= most
        };
        let many = self.waiting.iter().take_while(fits).count().max(1).min(self.waiting.len());
        self.waiting.drain(..many).collect()
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.passed_on += 1;
        self.passed_on
    }

    /// Takes the messages to pass on next. They count as in flight from then on.
    pub(super) fn next_batch(&mut self, most: usize) -> Vec<WaitingMessage> {
        (self.bytes, self.full) = (0, false);
        let mut batch: Vec<_> = match self.refused.pop_front() {
            Some(alone) => vec![alone],
            None => self.take_waiting(most),
        };
        let alone = batch.len() == 1;
        for waiting in &mut batch {
            (waiting.ticket.number, waiting.ticket.alone) = (self.next_number(), alone);
        }
        self.in_flight = batch.len();
        batch
    }
}

/// The unawaited messages of a partition, and those that must not overtake one of them.
#[derive(Default)]
struct Unawaited {
    /// The messages of each key, by its hash.
    users: HashMap<u64, UserQueue>,
    /// All messages in the order of arrival, as key and number. An entry stays for a while after its message was sent.
    order: VecDeque<(u64, u64)>,
    /// Keys with an awaited message; perhaps also others.
    urgent: VecDeque<u64>,
    /// Whether the last batch had no room for the first message, which is then the first of the next batch.
    passed_over: bool,
    count: usize,
}

#[derive(Default)]
struct UserQueue {
    messages: VecDeque<WaitingMessage>,
    /// The number of the last awaited message.
    awaited: Option<u64>,
}

impl UserQueue {
    /// Returns the first message, if it or one after it is awaited.
    fn urgent(&self) -> Option<&WaitingMessage> {
        self.messages.front().filter(|first| self.awaited.is_some_and(|last| first.arrived <= last))
    }
}

impl Unawaited {
    fn push(&mut self, waiting: WaitingMessage, priority: Priority) {
        let (user, number) = (waiting.user, waiting.arrived);
        let of_user = self.users.entry(user).or_default();
        if priority == Priority::Awaited {
            if of_user.urgent().is_none() {
                self.urgent.push_back(user);
            }
            of_user.awaited = Some(number);
        }
        of_user.messages.push_back(waiting);
        self.order.push_back((user, number));
        self.count += 1;
    }

    /// Takes one batch. Half of it is for users with an awaited message, a part for each in turn; the rest is in the
    /// order of arrival, as long as the number is below `before`.
    fn take(&mut self, most: usize, before: u64) -> Vec<WaitingMessage> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        let in_order = std::mem::take(&mut self.passed_over);
        'urgent: while !in_order && let Some(user) = self.urgent.pop_front() {
            let mut of_user = 0;
            while let Some(first) = self.users.get(&user).and_then(UserQueue::urgent) {
                let size = first.ticket.size;
                if bytes > 0 && bytes + size > most / 2 {
                    self.urgent.push_front(user);
                    break 'urgent;
                }
                if of_user > 0 && of_user + size > most / URGENT_PARTS {
                    self.urgent.push_back(user);
                    break;
                }
                (bytes, of_user) = (bytes + size, of_user + size);
                taken.extend(self.pop(user));
            }
        }
        let mut any_in_order = false;
        while let Some((user, number)) = self.order.front().copied() {
            let first = self.users.get(&user).and_then(|of_user| of_user.messages.front());
            let Some(first) = first.filter(|first| first.arrived == number) else {
                self.order.pop_front(); // was sent before its turn
                continue;
            };
            if number >= before {
                break;
            }
            if bytes > 0 && bytes + first.ticket.size > most {
                self.passed_over = !any_in_order;
                break;
            }
            any_in_order = true;
            bytes += first.ticket.size;
            self.order.pop_front();
            taken.extend(self.pop(user));
        }
        if self.order.len() > 2 * self.count + 64 {
            let users = &self.users;
            let first = |user: u64| users.get(&user).and_then(|of_user| of_user.messages.front());
            self.order.retain(|(user, number)| first(*user).is_some_and(|first| first.arrived <= *number));
        }
        taken
    }

    /// Takes the first message of a user.
    fn pop(&mut self, user: u64) -> Option<WaitingMessage> {
        let of_user = self.users.get_mut(&user)?;
        let first = of_user.messages.pop_front()?;
        if of_user.messages.is_empty() {
            self.users.remove(&user);
        }
        self.count -= 1;
        Some(first)
    }
}

pub(super) struct WaitingMessage {
    /// Key and value.
    pub(super) data: Box<[u8]>,
    pub(super) key_len: usize,
    pub(super) headers: OwnedHeaders,
    pub(super) ticket: Box<Ticket>,
    /// The hash of its key.
    user: u64,
    /// Its number among those of its partition queue that have waited.
    pub(super) arrived: u64,
}

impl WaitingMessage {
    pub(super) fn new(message: Message, ticket: Box<Ticket>, user: u64) -> Self {
        let Message { key, value, headers, .. } = message;
        WaitingMessage { data: [key, value].concat().into(), key_len: key.len(), headers, ticket, user, arrived: 0 }
    }

    /// Copies a message that librdkafka gives back.
    pub(super) fn again(message: &BorrowedMessage<'_>, ticket: Box<Ticket>) -> Self {
        let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
        let headers = message.headers().map_or_else(OwnedHeaders::new, |headers| headers.detach());
        WaitingMessage { data: [key, value].concat().into(), key_len: key.len(), headers, ticket, user: 0, arrived: 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::time::Instant;

    use super::super::Completion;
    use super::super::tests::Outcomes;
    use super::*;

    #[test]
    fn a_post_waits_only_for_unawaited_messages_of_its_own_user() {
        let completion: Arc<dyn Completion> = Arc::new(Outcomes::default());
        let mut partition_queue = PartitionQueue::default();
        let value = [b'x'; 1000];
        let wait = |partition_queue: &mut PartitionQueue, user: u64, priority| {
            let message = Message::new(b"key", &value, std::iter::empty());
            let size = message.size;
            let (completion, since) = (completion.clone(), Instant::now());
            let ticket =
                Box::new(Ticket { completion, index: 0, partition_queue: 0, size, since, number: 0, alone: true });
            partition_queue.wait(WaitingMessage::new(message, ticket, user), priority);
        };
        let (noise, greedy, victim) = (0, 1, 2);
        for _ in 0..5000 {
            wait(&mut partition_queue, noise, Priority::Unawaited);
            wait(&mut partition_queue, greedy, Priority::Unawaited);
        }
        wait(&mut partition_queue, greedy, Priority::Awaited);
        wait(&mut partition_queue, victim, Priority::Unawaited);
        wait(&mut partition_queue, victim, Priority::Awaited);
        let users = |batch: &[WaitingMessage], user| batch.iter().filter(|waiting| waiting.user == user).count();
        let first = partition_queue.next_batch(1_000_000);
        assert_eq!((users(&first, victim), users(&first, greedy) > 0, users(&first, noise) > 0), (2, true, true));
        assert!(first.iter().map(|waiting| waiting.ticket.size).sum::<usize>() <= UNAWAITED_BATCH_BYTES);

        // Awaited messages get three of four batches, each user's messages stay in order, and nothing is left of what
        // was sent.
        let (mut batches, mut last) = (vec![first], HashMap::new());
        for turn in 1.. {
            wait(&mut partition_queue, 10 + turn, Priority::Awaited);
            let batch = partition_queue.next_batch(1_000_000);
            assert!(partition_queue.unawaited.order.len() <= 2 * partition_queue.unawaited.count + 64);
            assert_eq!(batch[0].user >= 10, turn % 4 != 0, "batch {turn}");
            batches.push(batch);
            if partition_queue.unawaited.count == 0 {
                break;
            }
        }
        for waiting in batches.iter().flatten() {
            let before = last.insert(waiting.user, waiting.arrived);
            assert!(before.is_none_or(|before| before < waiting.arrived), "{}", waiting.user);
        }
        let sent = |user| batches.iter().map(|batch| users(batch, user)).sum::<usize>();
        assert_eq!([noise, greedy, victim].map(sent), [5000, 5001, 2]);
        assert!(partition_queue.unawaited.users.is_empty() && partition_queue.unawaited.urgent.len() <= 1);
    }
}
