//! Reads many messages at a time: a consumer whose partitions are assigned explicitly and share one queue.
//!
//! rdkafka returns one message per call, each with an event of its own and two reads of the clock. At hundreds of
//! thousands of messages a second that costs as much as processing them.

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
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use sys::rd_kafka_resp_err_t::{RD_KAFKA_RESP_ERR__PARTITION_EOF, RD_KAFKA_RESP_ERR_NO_ERROR as OK};

use crate::event::Record;

/// Most messages taken at a time.
const MOST: usize = 500;
/// For this long after an assignment librdkafka may still be stopping partitions of the previous one; until then a
/// fetch waits only this briefly. If it takes longer, the next fetch notices.
const SETTLED: Duration = Duration::from_secs(1);
const GLANCE: Duration = Duration::from_millis(2);
/// librdkafka's value for a message without a timestamp.
const NO_TIMESTAMP: i64 = -1;

/// What a fetch returns instead of a message.
#[derive(Debug)]
pub enum FetchError {
    /// All messages of a partition before this offset were delivered, and there is none at it or after it yet.
    End {
        partition: i32,
        offset: i64,
    },
    Client(KafkaError),
}

/// A consumer whose partitions are assigned with [`Fetcher::assign`], and read with [`Fetcher::fetch`] only.
pub struct Fetcher<C: ConsumerContext> {
    // The queues come before the consumer, which must outlive them.
    assigned: Mutex<Assignment>,
    queue: Queue,
    consumer: BaseConsumer<C>,
}

struct Assignment {
    /// The queue in which librdkafka puts what it fetched, by partition.
    queues: Vec<Queue>,
    since: Instant,
}

impl<C: ConsumerContext> Fetcher<C> {
    pub fn new(config: &ClientConfig, context: C) -> KafkaResult<Self> {
        let consumer = BaseConsumer::from_config_and_context(config, context)?;
        let queue = Queue(unsafe { sys::rd_kafka_queue_new(consumer.client().native_ptr()) });
        Ok(Fetcher { assigned: Mutex::new(Assignment { queues: Vec::new(), since: Instant::now() }), queue, consumer })
    }

    /// The consumer, for everything except reading.
    pub fn consumer(&self) -> &BaseConsumer<C> {
        &self.consumer
    }

    /// Assigns these partitions at these offsets, instead of the previous ones.
    pub fn assign(&self, partitions: &TopicPartitionList) -> KafkaResult<()> {
        // First, because a partition that librdkafka does not know yet would get another queue than the one requested
        // here.
        self.consumer.unassign()?;
        let client = self.consumer.client().native_ptr();
        let elements = partitions.elements();
        let queues = elements.iter().filter_map(|element| {
            let topic = CString::new(element.topic()).ok()?; // Kafka allows no NUL in topic names
            let queue = unsafe { sys::rd_kafka_queue_get_partition(client, topic.as_ptr(), element.partition()) };
            (!queue.is_null()).then_some(Queue(queue))
        });
        *self.assigned() = Assignment { queues: queues.collect(), since: Instant::now() };
        self.forward();
        self.consumer.assign(partitions)
    }

    /// Makes all partitions share one queue, including what was fetched already. librdkafka undoes this when it stops a
    /// partition of an earlier assignment, which may happen later.
    fn forward(&self) {
        for partition in &self.assigned().queues {
            unsafe { sys::rd_kafka_queue_forward(partition.0, self.queue.0) };
        }
    }

    /// Waits for a message, and takes those that have arrived with it. May return nothing before the time is up. Less
    /// than a millisecond counts as one; zero does not wait.
    pub fn fetch(&self, wait: Duration) -> impl Iterator<Item = Result<Fetched<'_>, FetchError>> {
        // Errors and statistics of the client itself.
        let error = self.consumer.poll(Duration::ZERO).and_then(Result::err);
        // librdkafka asks for the coordinator of a group that we never join, and that we may have no rights on.
        let error =
            error.filter(|error| error.rdkafka_error_code() != Some(RDKafkaErrorCode::GroupAuthorizationFailed));
        let mut messages = Vec::with_capacity(MOST);
        if error.is_none() {
            self.forward();
            let settles = self.assigned().since.elapsed() < SETTLED;
            let wait = if settles { wait.min(GLANCE) } else { wait };
            let wait_ms = wait.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32;
            // librdkafka waits until it has as many messages as it may take: so wait for one, and then take the others
            // without waiting.
            self.take(&mut messages, wait_ms, 1);
            if !messages.is_empty() {
                self.take(&mut messages, 0, MOST - 1);
            }
        }
        error.map(|error| Err(FetchError::Client(error))).into_iter().chain(messages.into_iter().map(Fetched::read))
    }

    fn assigned(&self) -> MutexGuard<'_, Assignment> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, messages: &mut Vec<Fetched<'_>>, wait_ms: i32, most: usize) {
        let room = messages.spare_capacity_mut();
        let most = most.min(room.len());
        unsafe {
            let taken = sys::rd_kafka_consume_batch_queue(self.queue.0, wait_ms, room.as_mut_ptr().cast(), most);
            // -1 is an error, without a message.
            messages.set_len(messages.len() + usize::try_from(taken).unwrap_or(0));
        }
    }
}

/// A reference to one of librdkafka's queues.
struct Queue(*mut sys::rd_kafka_queue_t);

// librdkafka's queues may be used from any thread.
unsafe impl Send for Queue {}
unsafe impl Sync for Queue {}

impl Drop for Queue {
    fn drop(&mut self) {
        unsafe { sys::rd_kafka_queue_destroy(self.0) }
    }
}

/// A message in the memory of its consumer.
#[repr(transparent)]
pub struct Fetched<'a> {
    message: NonNull<sys::rd_kafka_message_t>,
    consumer: PhantomData<&'a Queue>,
}

impl Fetched<'_> {
    /// Separates messages from errors: librdkafka also reports errors of fetching as messages. It only logs that a
    /// topic or partition is missing.
    fn read(self) -> Result<Self, FetchError> {
        match self.native().err {
            OK => Ok(self),
            RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                Err(FetchError::End { partition: self.partition(), offset: self.offset() })
            }
            error => Err(FetchError::Client(KafkaError::MessageConsumption(error.into()))),
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

/// Converts a message from rdkafka to a record.
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

/// Returns a message's headers. rdkafka's own iterator panics on a name that is not UTF-8, and anybody may write such a
/// name.
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
