//! The version of the protocol, and what a reader does with one that it does not know.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::wire::{Wire, WireError, deserialize_by_wire};

/// Version of the southbound protocol: `major.minor` on the wire.
///
/// A minor version adds members and words that older readers ignore or report as unknown. A major version changes the
/// meaning of something, so a reader refuses a major version above its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Raised when something changes its meaning.
    pub major: u16,
    /// Raised when something is added.
    pub minor: u16,
}

impl Version {
    /// What a message without a version is: versions were introduced with 1.1.
    pub const UNVERSIONED: Version = Version { major: 1, minor: 0 };
    /// What this crate writes.
    pub const CURRENT: Version = Version { major: 1, minor: 5 };

    /// Whether this program can read a message of that version.
    ///
    /// # Errors
    /// [`ReadError::NewerMajor`] if the major version is above that of [`Version::CURRENT`].
    pub fn check(self) -> Result<(), ReadError> {
        if self.major > Version::CURRENT.major {
            return Err(ReadError::NewerMajor { theirs: self, ours: Version::CURRENT });
        }
        Ok(())
    }
}

/// A message without a version is [`Version::UNVERSIONED`]; what is written is [`Version::CURRENT`] unless said
/// otherwise.
impl Default for Version {
    fn default() -> Version {
        Version::CURRENT
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Version, WireError> {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        match (major.parse(), minor.parse()) {
            (Ok(major), Ok(minor)) => Ok(Version { major, minor }),
            _ => Err(WireError::new(format!("{text:?} is not a version such as {}", Version::CURRENT))),
        }
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl Wire for Version {
    fn from_json(value: Value) -> Result<Version, WireError> {
        match value {
            Value::Null => Ok(Version::UNVERSIONED),
            other => String::from_json(other)?.parse(),
        }
    }
}

deserialize_by_wire!(Version);

/// Member of every message that has a version.
pub const VERSION_MEMBER: &str = "ProtocolVersion";

/// Why a message cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The writer is newer than this program in a way that this program cannot know.
    #[error(
        "the message is of version {theirs} of the southbound protocol and this program knows version {ours}; update this program"
    )]
    NewerMajor {
        /// Version of the message.
        theirs: Version,
        /// Version of this program.
        ours: Version,
    },
    /// The message is not what its version says.
    #[error("{0}")]
    Malformed(#[from] WireError),
}

/// Reads a message after a look at its version.
///
/// # Errors
/// [`ReadError::NewerMajor`] before anything else is looked at, [`ReadError::Malformed`] with the place of what cannot
/// be read.
pub fn read<T: Wire>(message: Value) -> Result<T, ReadError> {
    let version = message.get(VERSION_MEMBER).cloned().unwrap_or_default();
    Version::from_json(version)?.check()?;
    Ok(T::from_json(message)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceDocument, StateReport};
    use serde_json::json;

    #[test]
    fn versions_as_text() {
        for (text, version) in [("1.1", (1, 1)), ("2", (2, 0)), ("10.20", (10, 20))] {
            assert_eq!(text.parse(), Ok(Version { major: version.0, minor: version.1 }));
        }
        for bad in ["", "x", "1.", "1.x", "-1.0", "1.2.3"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_newer_major_version_is_refused_with_both_versions() {
        // Its other members mean nothing to this reader.
        let message = json!({"ProtocolVersion": "2.0", "StaticRoutes": 7, "Capabilities": 7});
        let e = read::<DeviceDocument>(message.clone()).expect_err("newer");
        assert!(matches!(e, ReadError::NewerMajor { .. }));
        let said = e.to_string();
        assert!(said.contains("2.0") && said.contains(&Version::CURRENT.to_string()), "{said}");
        assert!(read::<StateReport>(message).is_err());
    }

    #[test]
    fn newer_minor_versions_and_unversioned_messages_are_read() {
        let newer = read::<DeviceDocument>(json!({"ProtocolVersion": "1.99", "Revision": 4, "New": {}}));
        assert_eq!(newer.expect("read").version, Version { major: 1, minor: 99 });
        let old = read::<DeviceDocument>(json!({"Revision": 4})).expect("read");
        assert_eq!((old.version, old.revision), (Version::UNVERSIONED, 4));
    }
}
