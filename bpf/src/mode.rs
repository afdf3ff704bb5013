//! In which of two ways a program is attached to a device.

use libbpf_rs::libbpf_sys as raw;

/// How it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the network stack, after the driver made a socket buffer.
    Generic,
}

impl Mode {
    /// The name in the configuration and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Native => "native",
            Mode::Generic => "generic",
        }
    }

    pub(crate) const fn flags(self) -> u32 {
        match self {
            Mode::Native => raw::XDP_FLAGS_DRV_MODE,
            Mode::Generic => raw::XDP_FLAGS_SKB_MODE,
        }
    }
}
