//! The data of a request while it is answered: its id, and when it started.

use std::time::Instant;

use rocket::Request;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::event::EventId;

/// The data kept with a request.
pub struct Trace {
    pub id: String,
    started: Instant,
    /// Counts the request as open until its answer is made. A stream may outlive it.
    _open: Option<TaskTrackerToken>,
}

impl Trace {
    /// The client's `X-Request-Id` if it is 1 to 128 visible ASCII characters, otherwise a new one.
    pub fn of<'r>(request: &'r Request<'_>) -> &'r Trace {
        request.local_cache(|| {
            let given = request.headers().get_one("X-Request-Id").filter(|id| EventId::is_valid(id));
            let open = request.rocket().state::<TaskTracker>();
            Trace {
                id: given.map_or_else(|| EventId::new().to_string(), str::to_owned),
                started: Instant::now(),
                _open: open.map(TaskTracker::token),
            }
        })
    }

    pub fn started(&self) -> Instant {
        self.started
    }
}
