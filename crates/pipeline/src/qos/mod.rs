//! Quality of service: which rates a flow passes (`policy`), and the arithmetic of a rate (`meter`).

pub mod meter;
