//! Quality of service: which meters a packet passes (`policy`), the arithmetic of a meter (`meter`),
//! and who has which of them (`meter_table`).

pub mod meter;
pub mod meter_table;
pub mod policy;

pub use meter::{Policed, Rate};
pub use meter_table::{
    Car, Direction, MeterCounts, MeterNumbers, MeterPlan, MeterTable, MeteredPort, Owner, QosSpec,
};
pub use policy::{Classified, Mark, MeterGroupNo, QosPolicy};
