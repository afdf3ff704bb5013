//! Fuzz targets: each takes any bytes, and panics where something that must always hold does not.
//!
//! `corpus/TARGET` holds seed inputs and every input that once failed. The tests of this crate replay them and
//! try a fixed number of changed ones ([`Mutator`]); `scripts/fuzz.sh` runs the same targets under libFuzzer,
//! guided by coverage (`libfuzzer/`, a workspace of its own).
//!
//! ```
//! use sag_fuzz::Target;
//!
//! Target::Parse.run(&[0xFF; 60]);
//! for (path, input) in sag_fuzz::corpus(Target::Config).unwrap() {
//!     println!("{}", path.display());
//!     Target::Config.run(&input);
//! }
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod ha;
mod messages;
mod mutate;
mod pcp;
mod targets;

pub use mutate::Mutator;
pub use targets::Target;

use std::io;
use std::path::{Path, PathBuf};

/// The committed inputs of a target as (file, content), in order of their names.
///
/// # Errors
/// If the corpus cannot be read: there is one only in a checkout of the sources.
pub fn corpus(target: Target) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(corpus_dir(target))?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<io::Result<_>>()?;
    files.sort();
    files.into_iter().map(|path| std::fs::read(&path).map(|data| (path, data))).collect()
}

/// The folder of a target's committed inputs.
pub fn corpus_dir(target: Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name())
}
