//! Requests to the cluster that rdkafka has no functions for, through librdkafka's own (rdkafka.h, "Admin API").
//!
//! This module only sends a request and waits for its event. The callers (`watch`, `snapshot`, `topics`, `groups`)
//! interpret the answers. Every request blocks, for at most the given time and half a second.

pub mod groups;
pub mod next_records;
pub mod topics;

use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::time::{Duration, Instant};

use rdkafka::admin::AdminClient;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};

/// The kind of request.
pub use rdkafka::bindings::rd_kafka_admin_op_t as Op;

/// An answer. References into it must not outlive it.
pub type Event = Owned<sys::rd_kafka_event_t>;

type Options = *const sys::rd_kafka_AdminOptions_t;
type Queue = *mut sys::rd_kafka_queue_t;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The principal lacks an ACL.
    #[error("not permitted ({0})")]
    Denied(String),
    /// Not in time, or not now. librdkafka words the reason differently from one time to the next.
    #[error("{0}")]
    Failed(String),
}

impl AdminError {
    /// Converts an error inside an answer; `None` if it is none.
    ///
    /// # Safety
    ///
    /// `error` must be null or valid.
    pub unsafe fn of(error: *const sys::rd_kafka_error_t) -> Option<Self> {
        unsafe { Self::new(sys::rd_kafka_error_code(error), || text(sys::rd_kafka_error_string(error))) }
    }

    pub fn new(code: sys::rd_kafka_resp_err_t, words: impl FnOnce() -> String) -> Option<Self> {
        use sys::rd_kafka_resp_err_t::*;
        match code {
            RD_KAFKA_RESP_ERR_NO_ERROR => None,
            RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
            | RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED
            | RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED => {
                // The name is a static string of librdkafka.
                Some(AdminError::Denied(unsafe { text(sys::rd_kafka_err2name(code)) }))
            }
            _ => Some(AdminError::Failed(words())),
        }
    }
}

/// Sends one request: `send` passes it to librdkafka with the options and the queue for its answer.
pub fn ask<C: ClientContext>(
    admin: &AdminClient<C>,
    op: Op,
    within: Duration,
    send: impl FnOnce(Options, Queue),
) -> Result<Event, AdminError> {
    let mut send = Some(send);
    let answers = ask_all(admin.inner(), op, within, 1, |_, options, queue| {
        if let Some(send) = send.take() {
            send(options, queue);
        }
    });
    answers.into_iter().next().unwrap_or_else(|| Err(silent()))
}

/// Sends `count` requests at once; `send` sends each by its number. The answers are in that order. The client may also be
/// that of a consumer or a producer.
pub fn ask_all<C: ClientContext>(
    client: &Client<C>,
    op: Op,
    within: Duration,
    count: usize,
    mut send: impl FnMut(usize, Options, Queue),
) -> Vec<Result<Event, AdminError>> {
    let mut answers: Vec<Result<Event, AdminError>> = (0..count).map(|_| Err(silent())).collect();
    let client = client.native_ptr();
    let until = Instant::now() + within + Duration::from_millis(500);
    // `Owned` destroys what is created here on every return path; librdkafka drops an answer that arrives later.
    unsafe {
        let queue = Owned::new(sys::rd_kafka_queue_new(client), sys::rd_kafka_queue_destroy);
        let options = Owned::new(sys::rd_kafka_AdminOptions_new(client, op), sys::rd_kafka_AdminOptions_destroy);
        let ms = within.as_millis() as i32;
        sys::rd_kafka_AdminOptions_set_request_timeout(options.pointer(), ms, ptr::null_mut(), 0);
        for number in 0..count {
            // Comes back with the answer: a failed request has no other mark.
            sys::rd_kafka_AdminOptions_set_opaque(options.pointer(), number as *mut c_void);
            send(number, options.pointer(), queue.pointer());
        }
        for _ in 0..count {
            let left = until.saturating_duration_since(Instant::now()).as_millis() as i32;
            let event = Owned::new(sys::rd_kafka_queue_poll(queue.pointer(), left.max(0)), sys::rd_kafka_event_destroy);
            if event.pointer().is_null() {
                break;
            }
            let number = sys::rd_kafka_event_opaque(event.pointer()) as usize;
            let code = sys::rd_kafka_event_error(event.pointer());
            let failed = AdminError::new(code, || text(sys::rd_kafka_event_error_string(event.pointer())));
            if let Some(answer) = answers.get_mut(number) {
                *answer = failed.map_or(Ok(event), Err);
            }
        }
    }
    answers
}

fn silent() -> AdminError {
    AdminError::Failed("no answer in time".into())
}

/// A pointer from librdkafka, and the function that destroys its target.
pub struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    /// # Safety
    ///
    /// `pointer` must be null or owned by nobody else, and `destroy` librdkafka's function for it.
    pub unsafe fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Self {
        Owned(pointer, destroy)
    }

    pub fn pointer(&self) -> *mut T {
        self.0
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            unsafe { (self.1)(self.0) }
        }
    }
}

/// Copies a string of librdkafka's; empty for null.
///
/// # Safety
///
/// `pointer` must be null or a valid C string.
pub unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// Borrows a list from librdkafka: `list` gets the place for its length.
///
/// # Safety
///
/// `list` must return null or a pointer to as many items as it says, and they must live as long as `'a`.
pub unsafe fn items<'a, T>(list: impl FnOnce(*mut usize) -> *mut T) -> &'a [T] {
    let mut count = 0;
    let first = list(&mut count);
    match first.is_null() || count == 0 {
        true => &[],
        false => unsafe { std::slice::from_raw_parts(first, count) },
    }
}

/// Borrows the partitions in a list.
///
/// # Safety
///
/// `list` must be null or valid as long as `'a`.
pub unsafe fn partitions<'a>(
    list: *const sys::rd_kafka_topic_partition_list_t,
) -> &'a [sys::rd_kafka_topic_partition_t] {
    match unsafe { list.as_ref() } {
        Some(list) if list.cnt > 0 => unsafe { std::slice::from_raw_parts(list.elems, list.cnt as usize) },
        _ => &[],
    }
}
