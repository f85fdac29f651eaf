//! Reading many messages at a time: a consumer that is assigned its partitions by hand, and one queue for all of them.
//!
//! rdkafka hands out one message a call, each with an event of its own and two looks at the clock. At hundreds of thousands
//! of messages a second that costs as much as what is done with them.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use sys::rd_kafka_resp_err_t::{RD_KAFKA_RESP_ERR__PARTITION_EOF, RD_KAFKA_RESP_ERR_NO_ERROR as OK};

use crate::event::Record;

/// Messages taken at a time, at most.
const MOST: usize = 500;
/// How long after an assignment librdkafka may still be stopping partitions for the one before, and how long to wait at a
/// time until then. It may take longer, and is then noticed by the next fetch.
const SETTLED: Duration = Duration::from_secs(1);
const GLANCE: Duration = Duration::from_millis(2);
/// As librdkafka says that a message has none.
const NO_TIMESTAMP: i64 = -1;

/// A consumer whose partitions are assigned with [`Fetcher::assign`], and read with [`Fetcher::fetch`] only.
pub struct Fetcher<C: ConsumerContext> {
    // The queues stand before the consumer, which must not end while they are there.
    assigned: Mutex<Assigned>,
    queue: Queue,
    consumer: BaseConsumer<C>,
}

struct Assigned {
    /// Where librdkafka puts what it fetched, by partition.
    queues: Vec<Queue>,
    since: Instant,
}

impl<C: ConsumerContext> Fetcher<C> {
    pub fn new(config: &ClientConfig, context: C) -> KafkaResult<Self> {
        let consumer = BaseConsumer::from_config_and_context(config, context)?;
        let queue = Queue(unsafe { sys::rd_kafka_queue_new(consumer.client().native_ptr()) });
        Ok(Fetcher { assigned: Mutex::new(Assigned { queues: Vec::new(), since: Instant::now() }), queue, consumer })
    }

    /// For everything but reading.
    pub fn consumer(&self) -> &BaseConsumer<C> {
        &self.consumer
    }

    /// Reads these partitions from these offsets on, and no others.
    pub fn assign(&self, partitions: &TopicPartitionList) -> KafkaResult<()> {
        // First, or a partition that librdkafka does not know yet gets another queue than the one that is asked for here.
        self.consumer.unassign()?;
        let client = self.consumer.client().native_ptr();
        let elements = partitions.elements();
        let queues = elements.iter().filter_map(|element| {
            let topic = CString::new(element.topic()).ok()?; // no topic has a name with a NUL
            let queue = unsafe { sys::rd_kafka_queue_get_partition(client, topic.as_ptr(), element.partition()) };
            (!queue.is_null()).then_some(Queue(queue))
        });
        *self.assigned() = Assigned { queues: queues.collect(), since: Instant::now() };
        self.forward();
        self.consumer.assign(partitions)
    }

    /// Makes all partitions share one queue, with what they hold already. librdkafka undoes it when it stops a partition for
    /// an earlier assignment, which it does some time after it was told to.
    fn forward(&self) {
        for partition in &self.assigned().queues {
            unsafe { sys::rd_kafka_queue_forward(partition.0, self.queue.0) };
        }
    }

    /// Waits for a message, and takes those that are there with it; nothing may come although there is time left. Less than
    /// a millisecond is one; zero does not wait.
    pub fn fetch(&self, wait: Duration) -> impl Iterator<Item = KafkaResult<Fetched<'_>>> {
        // Errors and statistics of the client itself.
        let error = self.consumer.poll(Duration::ZERO).and_then(Result::err);
        let mut messages = Vec::with_capacity(MOST);
        if error.is_none() {
            self.forward();
            let settles = self.assigned().since.elapsed() < SETTLED;
            let wait = if settles { wait.min(GLANCE) } else { wait };
            let wait_ms = wait.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32;
            // librdkafka waits for as many as it may take: so for one, and then for none.
            self.take(&mut messages, wait_ms, 1);
            if !messages.is_empty() {
                self.take(&mut messages, 0, MOST - 1);
            }
        }
        error.map(Err).into_iter().chain(messages.into_iter().map(Fetched::read))
    }

    fn assigned(&self) -> MutexGuard<'_, Assigned> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, messages: &mut Vec<Fetched<'_>>, wait_ms: i32, most: usize) {
        let room = messages.spare_capacity_mut();
        let most = most.min(room.len());
        unsafe {
            let taken = sys::rd_kafka_consume_batch_queue(self.queue.0, wait_ms, room.as_mut_ptr().cast(), most);
            // -1 is an error, with no message.
            messages.set_len(messages.len() + usize::try_from(taken).unwrap_or(0));
        }
    }
}

/// A queue of librdkafka's, or our hold on it.
struct Queue(*mut sys::rd_kafka_queue_t);

// They are made to be used from any thread.
unsafe impl Send for Queue {}
unsafe impl Sync for Queue {}

impl Drop for Queue {
    fn drop(&mut self) {
        unsafe { sys::rd_kafka_queue_destroy(self.0) }
    }
}

/// A message in its consumer's memory.
#[repr(transparent)]
pub struct Fetched<'a> {
    message: NonNull<sys::rd_kafka_message_t>,
    consumer: PhantomData<&'a Queue>,
}

impl Fetched<'_> {
    /// librdkafka tells of errors of fetching in messages too; that a topic or a partition is missing it only logs.
    fn read(self) -> KafkaResult<Self> {
        match self.native().err {
            OK => Ok(self),
            RD_KAFKA_RESP_ERR__PARTITION_EOF => Err(KafkaError::PartitionEOF(self.partition())),
            error => Err(KafkaError::MessageConsumption(error.into())),
        }
    }

    fn native(&self) -> &sys::rd_kafka_message_t {
        unsafe { self.message.as_ref() }
    }

    pub fn partition(&self) -> i32 {
        self.native().partition
    }

    pub fn offset(&self) -> i64 {
        self.native().offset
    }

    pub fn record(&self) -> Record {
        unsafe { record(self.native()) }
    }
}

impl Drop for Fetched<'_> {
    fn drop(&mut self) {
        unsafe { sys::rd_kafka_message_destroy(self.message.as_ptr()) }
    }
}

/// A record of ours out of a message that rdkafka handed out.
pub fn record_of(message: &BorrowedMessage<'_>) -> Record {
    unsafe { record(&*message.ptr()) }
}

/// The message must be one that librdkafka delivered and that was not destroyed.
unsafe fn record(message: &sys::rd_kafka_message_t) -> Record {
    let bytes = |start: *mut c_void, length| {
        (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast::<u8>().cast_const(), length) })
    };
    let timestamp = unsafe { sys::rd_kafka_message_timestamp(message, ptr::null_mut()) };
    let headers = unsafe { headers(message) };
    Record::new(
        message.partition,
        message.offset,
        (timestamp != NO_TIMESTAMP).then_some(timestamp),
        bytes(message.key, message.key_len),
        bytes(message.payload, message.len),
        headers.iter().map(|(name, value)| (&**name, *value)),
    )
}

/// A message's headers. rdkafka's own iterator panics on a name that is not UTF-8, and anybody may write such a name.
unsafe fn headers(message: &sys::rd_kafka_message_t) -> Vec<(Cow<'_, str>, Option<&[u8]>)> {
    let (mut native, mut name, mut value, mut size) = (ptr::null_mut(), ptr::null(), ptr::null(), 0);
    unsafe {
        if sys::rd_kafka_message_headers(message, &mut native) != OK {
            return Vec::new();
        }
        let mut list = Vec::with_capacity(sys::rd_kafka_header_cnt(native));
        while sys::rd_kafka_header_get_all(native, list.len(), &mut name, &mut value, &mut size) == OK {
            let value = (!value.is_null()).then(|| slice::from_raw_parts(value.cast::<u8>(), size));
            list.push((CStr::from_ptr(name).to_string_lossy(), value));
        }
        list
    }
}
