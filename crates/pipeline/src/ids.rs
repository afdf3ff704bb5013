//! Numbers by which the parts of the pipeline name each other's objects.

/// Number of a tunnel, for the daemon's life; 0 is none.
pub type TunnelNo = u8;

/// Index into the next-hop records.
pub type NhIdx = u16;

/// Number of a meter group; 0: nothing is metered.
pub type MeterGroupNo = u16;
