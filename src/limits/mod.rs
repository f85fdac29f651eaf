//! How much one address may do. Knows neither HTTP nor Kafka: callers turn a refusal into their answer.

mod heavy;
mod rate;

pub use heavy::{HeavyWork, HeavyWorkError};
pub use rate::RateLimit;
