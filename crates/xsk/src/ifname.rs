//! Names of network devices.

use std::fmt;

/// Name of a network device: at most 15 bytes, no allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfName([u8; libc::IFNAMSIZ]);

impl IfName {
    /// The name, unless it is one that no device can have: empty, longer than 15 bytes, or with a slash or a zero byte.
    pub fn new(name: &str) -> Option<IfName> {
        let mut bytes = [0; libc::IFNAMSIZ];
        if name.is_empty() || name.len() >= bytes.len() || name.bytes().any(|b| b == 0 || b == b'/') {
            return None;
        }
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Some(IfName(bytes))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|&b| b == 0).unwrap_or(self.0.len());
        // Made from a str and cut at a zero byte, so always valid.
        std::str::from_utf8(&self.0[..len]).unwrap_or("?")
    }

    pub(crate) fn raw(&self) -> &[u8; libc::IFNAMSIZ] {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
