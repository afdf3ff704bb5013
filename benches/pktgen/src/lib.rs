//! Traffic for measuring a gateway, and the count of what comes out behind it:
//!
//! ```text
//! source ─► device ═ [gateway] ═ device [sink]
//! ```
//!
//! Source and sink are XDP programs; the source runs with live frames, so it needs no kernel module.
//! docs/benchmarks.md tells how measurements are made with it.

#![forbid(unsafe_code)]

pub mod bare;
pub mod capture;
pub mod hist;
pub mod outcome;
pub mod outer;
pub mod place;
pub mod plan;
pub mod rig;
pub mod rules;
pub mod search;
pub mod units;
