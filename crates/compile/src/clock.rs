//! The time of a compilation.

use sag_model::Nanos;
use sag_model::config::Timestamp;

/// What both clocks show when a configuration is compiled. The caller reads them, so that compiling stays pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// Nanoseconds of the monotonic clock, by which meters and tunnels measure time.
    pub monotonic: Nanos,
    /// Seconds since 1970, for the time windows of QoS policies.
    pub wall: Timestamp,
}
