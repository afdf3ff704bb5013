//! What libbpf-cargo makes of the C sources: handles of the maps and the program, and their types.

mod generated {
    #![allow(unsafe_code, dead_code, clippy::all, clippy::undocumented_unsafe_blocks, rust_2018_idioms)]
    include!(concat!(env!("OUT_DIR"), "/gw.skel.rs"));
}

pub(crate) use generated::{GwMaps, GwSkelBuilder, OpenGwMaps, types};
