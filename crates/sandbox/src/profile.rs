//! What a program keeps, and how strictly.

use rustix::thread::CapabilitySet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// How far a program is confined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// What is not allowed fails.
    #[default]
    Enforce,
    /// System calls that are not expected are let through and written to the kernel's audit log; files are not confined.
    Log,
    /// Neither system calls nor files are confined. Capabilities are dropped all the same.
    Off,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Mode; 3] = [Mode::Enforce, Mode::Log, Mode::Off];

    /// The word in configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Log => "log",
            Mode::Off => "off",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No mode of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of enforce, log, off")]
pub struct UnknownMode(String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Mode, UnknownMode> {
        Mode::ALL.into_iter().find(|m| m.name() == text).ok_or_else(|| UnknownMode(text.to_owned()))
    }
}

/// Which system calls a program uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The gateway: BPF, AF_XDP, netlink. It runs no other program.
    Gateway,
    /// The agent. With `children` it runs DHCP clients, which do as they like with users and groups.
    Agent {
        /// Other programs are run.
        children: bool,
    },
    /// The cloud API: files and TCP.
    Cloud,
    /// The routing service, with FRR's daemons and tools, keepalived and pppd, which it runs.
    Routing,
}

/// What a program keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its system calls.
    pub program: Program,
    /// Its capabilities, as far as it has them.
    pub capabilities: CapabilitySet,
    /// Files and directories that it reads, beside the system's own.
    pub read: Vec<PathBuf>,
    /// Directories in which it makes, writes and removes files.
    pub write: Vec<PathBuf>,
    /// Directories below which it makes and removes entries without writing into files.
    pub entries: Vec<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_they_are_written() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("on".parse::<Mode>().is_err_and(|e| e.to_string().contains("enforce")));
    }
}
