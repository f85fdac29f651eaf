//! What is known of a request while it is answered: its id, and when it began.

use std::time::Instant;

use rocket::Request;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::event::EventId;

/// What is kept with a request.
pub struct Trace {
    pub id: String,
    begun: Instant,
    /// Counts the request as open until its answer is made. A stream outlives it.
    _open: Option<TaskTrackerToken>,
}

impl Trace {
    /// The client's `X-Request-Id`, if it is 1 to 128 visible ASCII characters, else a new one.
    pub fn of<'r>(request: &'r Request<'_>) -> &'r Trace {
        request.local_cache(|| {
            let given = request.headers().get_one("X-Request-Id").filter(|id| EventId::is_valid(id));
            let open = request.rocket().state::<TaskTracker>();
            Trace {
                id: given.map_or_else(|| EventId::new().to_string(), str::to_owned),
                begun: Instant::now(),
                _open: open.map(TaskTracker::token),
            }
        })
    }

    pub fn begun(&self) -> Instant {
        self.begun
    }
}
