//! Standard output.

use crate::client::Failure;
use std::io::{self, IsTerminal, Write};

/// Writes the text and flushes it, so that a watching reader sees it at once.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Whether somebody looks at it, instead of another program.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}
