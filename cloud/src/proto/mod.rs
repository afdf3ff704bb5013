//! The wire protocol: parameters, signatures, errors, HTTP.

pub mod callers;
pub mod error;
pub mod limit;
pub mod metrics;
pub mod nonce;
pub mod params;
pub mod policy;
pub mod server;
pub mod sign;
pub mod time;
