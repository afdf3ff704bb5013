//! Paths.

use super::Codec;
use crate::config::schema::info::KeyInfo;
use crate::config::value::{Fault, fault, quote};
use std::path::PathBuf;

/// A path; a relative one is accepted with a warning.
impl Codec for PathBuf {
    type Value = PathBuf;
    type Raw = String;
    const KIND: &'static str = "path";

    fn parse(raw: &String, _: &KeyInfo) -> Result<PathBuf, Fault> {
        if raw.is_empty() || raw.contains('\0') {
            return fault(
                format!("{}: is not a path", quote(raw)),
                "write an absolute path, or leave the key out",
            );
        }
        Ok(PathBuf::from(raw))
    }

    fn write(value: &PathBuf) -> Option<String> {
        // Paths come from the text of a file, so nothing is lost here.
        Some(value.to_string_lossy().into_owned())
    }

    fn remark(raw: &String, value: &PathBuf, _: &KeyInfo) -> Option<Fault> {
        (!value.is_absolute()).then(|| Fault {
            problem: format!("{}: depends on the directory that the program is started in", quote(raw)),
            remedy: "write an absolute path".to_owned(),
        })
    }
}

/// Path of a Unix socket.
pub(crate) struct SocketPath;

impl Codec for SocketPath {
    type Value = PathBuf;
    type Raw = String;
    const KIND: &'static str = "path";

    fn parse(raw: &String, key: &KeyInfo) -> Result<PathBuf, Fault> {
        /// `sun_path` of unix(7) less its terminator.
        const MAX: usize = 107;
        let path = PathBuf::parse(raw, key)?;
        if raw.len() > MAX {
            return fault(
                format!("{}: is {} bytes long", quote(raw), raw.len()),
                format!("a Unix socket's path has at most {MAX}"),
            );
        }
        Ok(path)
    }

    fn write(value: &PathBuf) -> Option<String> {
        <PathBuf as Codec>::write(value)
    }

    fn remark(raw: &String, value: &PathBuf, key: &KeyInfo) -> Option<Fault> {
        <PathBuf as Codec>::remark(raw, value, key)
    }
}
