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

pub(crate) use generated_lost::LostSkelBuilder;

pub(crate) use generated::{GwMaps, GwSkelBuilder, OpenGwMaps, types};
