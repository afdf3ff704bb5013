//! Quality of service: what is to be metered (`spec`), the numbers and meters for it (`meter_plan`), the shared memory of
//! the meters (`meter_table`), which of them a packet passes (`policy`) and the arithmetic of one (`meter`).

pub mod meter;
pub mod meter_plan;
pub mod meter_table;
pub mod policy;
pub mod spec;

pub use meter::{Policed, Rate};
pub use meter_plan::{MeterNumbers, MeterPlan, Owner};
pub use meter_table::{MeterCounts, MeterTable};
pub use policy::{Classified, Mark, MeterGroupNo, QosPolicy};
pub use spec::{Car, Direction, MeteredPort, QosSpec};
