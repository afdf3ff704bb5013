//! The flow record as the daemon sees it: plain atomics over memory that the XDP program reads and
//! counts in at the same time. The layout's only definition is `bpf/include/gw_abi.h`; the `bpf`
//! crate asserts these offsets against it at compile time.
//!
//! Protocol (docs/abi.md): a record is filled while nothing points at it, then published by storing
//! its index word; it is taken back by clearing the index word and reused only after every reader
//! that may have seen the word has gone on. Fields that change while a record is live change by one
//! store each: the action word, then the epoch.

mod action;
mod index;
mod key;
mod number;
mod record;
mod shared;

pub use action::{
    Action, EPOCH_NUMBER, EPOCH_REVALIDATING, EPOCH_SESSION, FLOW_DNAT, FLOW_METER, FLOW_PUNT_ALL, FLOW_SNAT,
    FLOW_STATE_SHIFT, FlowAct, IP_ID_COUNTERS, NAT_SLOT_WORDS, NAT_SLOTS, nat_port_bit, next_epoch,
};
pub use index::{BUCKET_WORDS, Bucket, Geometry, Probe, RECORD_BITS};
pub use key::{HASH_M1, HASH_M2, IngressId, Key4, Key6, L4_KEY, l4_word, vrf_zone};
pub use number::{RECORD_BLOCK, RecordNo};
pub use record::{FlowRecord, FlowRecord4, FlowRecord6};
pub use shared::{
    ControlBlock, FAST_PATH_NAT64, FAST_PATH_ON, FAST_PATH_SUMS, NH_VALID, NextHopRecord, RevalidationQueue,
    SYN_SERVICES, SynCookieControl,
};
