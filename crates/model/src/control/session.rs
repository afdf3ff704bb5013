//! Sessions: what a client sees of one, how it picks some out of millions, and who uses most.
//!
//! [`Picker`] and [`TopCollector`] take borrowed [`SessionFacts`] in one pass over a table, so that
//! a gateway spells out only the sessions that it sends.

mod facts;
mod filter;
mod pick;
mod proto;
mod query;
mod top;

pub use facts::{Session, SessionFacts};
pub use filter::SessionFilter;
pub use pick::Picker;
pub use proto::{IpProto, ProtoError};
pub use query::{DEFAULT_LIMIT, Flushed, MAX_LIMIT, SessionFlush, SessionQuery, SessionSort, Sessions};
pub use top::{Top, TopBy, TopCollector, TopGroup, TopQuery, TopRow};
