//! What libbpf-cargo makes of the C sources: handles of the maps and the program, and their types.

mod generated {
    #![allow(unsafe_code, dead_code, missing_docs, rust_2018_idioms)]
    #![allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::unwrap_used, clippy::expect_used)]
    include!(concat!(env!("OUT_DIR"), "/gw.skel.rs"));
}

mod generated_lost {
    #![allow(unsafe_code, dead_code, missing_docs, rust_2018_idioms)]
    #![allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::unwrap_used, clippy::expect_used)]
    include!(concat!(env!("OUT_DIR"), "/lost.skel.rs"));
}

/// The tc programs. They have no skeleton: it would not know a map of global variables by the name of another object.
pub(crate) const TC_OBJECT: &[u8] = &ALIGNED.0;

/// As libbpf reads words of it.
#[repr(align(16))]
struct Aligned<T: ?Sized>(T);

const ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/tc.bpf.o")));

mod generated_send {
    #![allow(unsafe_code, dead_code, missing_docs, rust_2018_idioms)]
    #![allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::unwrap_used, clippy::expect_used)]
    include!(concat!(env!("OUT_DIR"), "/send.skel.rs"));
}

pub(crate) use generated_lost::LostSkelBuilder;
pub(crate) use generated_send::SendSkelBuilder;

pub(crate) use generated::{GwMaps, GwSkelBuilder, OpenGwMaps, types};
