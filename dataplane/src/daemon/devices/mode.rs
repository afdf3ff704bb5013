//! How XDP is attached to a device.

use anyhow::{Result, bail};
use sag_bpf::AttachMode;
use sag_model::config::XdpMode;

/// Of a device that is a bond, or is none. The kernel would attach native XDP to a bond's members, and the frames would be
/// those of the members, which are no ports and have no sockets of the workers.
pub(super) fn attach_mode(mode: XdpMode, is_bond: bool) -> Result<AttachMode> {
    Ok(match mode {
        XdpMode::Native if is_bond => bail!(
            "native XDP would see the frames of the bond's members, which are no ports; set dataplane.mode to \"auto\""
        ),
        // Of the end of a pair, which is a veth.
        XdpMode::Native | XdpMode::Tc => AttachMode::Native,
        XdpMode::Auto if is_bond => AttachMode::Generic,
        XdpMode::Auto => AttachMode::Auto,
        XdpMode::Generic => AttachMode::Generic,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bonds_are_attached_in_generic_mode() {
        let of = |mode, is_bond| attach_mode(mode, is_bond).ok();
        assert_eq!(of(XdpMode::Auto, false), Some(AttachMode::Auto));
        assert_eq!(of(XdpMode::Auto, true), Some(AttachMode::Generic));
        assert_eq!(of(XdpMode::Generic, true), Some(AttachMode::Generic));
        assert_eq!(of(XdpMode::Native, false), Some(AttachMode::Native));
        let refused = attach_mode(XdpMode::Native, true).unwrap_err().to_string();
        assert!(refused.contains("dataplane.mode"), "{refused}");
    }
}
