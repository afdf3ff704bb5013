//! How a socket was bound to its device queue.

use std::fmt;

/// How a socket was bound, for the port's capability line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// The device reads and writes the packet memory.
    ZeroCopy,
    /// The kernel copies packets.
    Copy {
        /// The error by which the driver refused zero-copy, if that was tried.
        refused: Option<i32>,
    },
}

impl Binding {
    /// Whether it is zero-copy.
    pub fn is_zero_copy(self) -> bool {
        self == Binding::ZeroCopy
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Binding::ZeroCopy => f.write_str("zero-copy"),
            Binding::Copy { refused: None } => f.write_str("copy mode"),
            Binding::Copy { refused: Some(errno) } => {
                write!(f, "copy mode (zero-copy refused: {})", errno_name(*errno))
            }
        }
    }
}

/// The symbolic name of an error number that drivers answer a zero-copy request with.
fn errno_name(errno: i32) -> String {
    let name = match errno {
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EINVAL => "EINVAL",
        libc::ENOMEM => "ENOMEM",
        libc::ENOSPC => "ENOSPC",
        libc::ENETDOWN => "ENETDOWN",
        libc::EBUSY => "EBUSY",
        libc::EBADF => "EBADF",
        libc::ENOENT => "ENOENT",
        libc::EIO => "EIO",
        libc::EAGAIN => "EAGAIN",
        _ => return std::io::Error::from_raw_os_error(errno).to_string(),
    };
    name.to_owned()
}
