//! Quality of service: which meters a packet passes (`policy`), the arithmetic of a meter (`meter`),
//! and who has which of them (`book`).

pub mod book;
pub mod meter;
pub mod policy;

pub use book::{Car, Counted, MeterBook, MeteredPort, Owner, Wanted, Way};
pub use meter::{Policed, Rate};
pub use policy::{Classified, Mark, QosPolicy, SetNo};
