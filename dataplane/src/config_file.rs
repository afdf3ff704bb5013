//! Reading the configuration file.

use anyhow::{Context, Result, anyhow};
use sag_model::config::{self, Checked};
use std::path::Path;

/// Larger documents are a mistake (a hundred thousand rules are about 20 MB).
const MAX_BYTES: u64 = 256 << 20;

/// The text of a file, with a clear error if there is none.
pub fn read(path: &Path) -> Result<String> {
    let meta = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if meta.len() > MAX_BYTES {
        return Err(anyhow!(
            "{}: {} bytes are more than a configuration may have",
            path.display(),
            meta.len()
        ));
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A validated file; every problem is a line of the error.
pub fn load(path: &Path) -> Result<(Checked, String)> {
    let text = read(path)?;
    let checked = config::parse(&text, &path.display().to_string()).map_err(|e| anyhow!("{e}"))?;
    Ok((checked, text))
}
