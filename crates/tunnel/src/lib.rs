//! What a tunnel needs beside its header: ESP with its keys and windows, the agreement of keys,
//! what makes good for losses, whether the far end answers, how large a packet it takes, and which tunnel of several to use.
//!
//! Bytes, numbers and moments in, decisions out: no socket, no thread, no clock. Moments are
//! nanoseconds of the caller's monotonic clock.

#![forbid(unsafe_code)]

pub mod esp;
pub mod fec;
pub mod group;
pub mod keys;
pub mod liveness;
pub mod plpmtud;
pub mod probe;
