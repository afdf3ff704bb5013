//! What a network device is and can do, for the capability line of a port and for preflight checks.
//!
//! Read by ioctl, which sees the network namespace of the caller; `/sys/class/net` shows the namespace of
//! whoever mounted it, so only facts tied to the hardware are read from `/sys`.

use crate::binding::Binding;
use crate::ifname::IfName;
use std::fmt;

mod ethtool;

pub(crate) use ethtool::request_for;

/// The properties of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The name.
    pub name: IfName,
    /// The interface index.
    pub ifindex: u32,
    /// The driver; "unknown" if it does not say.
    pub driver: String,
    /// Bus address, such as `0000:00:05.0`; empty for virtual devices.
    pub bus: String,
    /// Queues that packets arrive on; each takes a socket.
    pub rx_queues: u32,
    /// Queues that packets are sent on.
    pub tx_queues: u32,
    /// The MTU in bytes.
    pub mtu: u32,
    /// The Ethernet address.
    pub mac: [u8; 6],
    /// Whether it is administratively up.
    pub up: bool,
    /// `None` for virtual devices and machines with one node.
    pub numa_node: Option<u32>,
    /// Offloads that are on and make XDP see something else than the frames on the wire, by the names that
    /// `ethtool -K` takes.
    pub conflicting_offloads: Vec<&'static str>,
}

impl Facts {
    /// Reads the properties of a device of the caller's network namespace.
    ///
    /// # Errors
    /// [`FactsError`]: a bad name, no such device, or an error of the kernel.
    pub fn read(name: &str) -> Result<Facts, FactsError> {
        let name = IfName::new(name).ok_or_else(|| FactsError::BadName(name.to_owned()))?;
        let control = ethtool::Control::new().map_err(|source| FactsError::Os { name, source })?;
        let ifindex = control.ifindex(name).map_err(|source| match source.raw_os_error() {
            Some(libc::ENODEV) => FactsError::NoDevice(name),
            _ => FactsError::Os { name, source },
        })?;
        let os = |source| FactsError::Os { name, source };
        let (driver, bus) = control.driver(name).unwrap_or_default();
        let (rx_queues, tx_queues) = queues(&control, name);
        Ok(Facts {
            name,
            ifindex,
            rx_queues,
            tx_queues,
            mtu: control.mtu(name).map_err(os)?,
            mac: control.mac(name).map_err(os)?,
            up: control.is_up(name).map_err(os)?,
            numa_node: numa_node(&bus),
            conflicting_offloads: control.active_features(name, &CONFLICTING_OFFLOADS),
            driver: if driver.is_empty() { "unknown".to_owned() } else { driver },
            bus,
        })
    }

    /// The same once a native XDP program is attached: without offloads that the driver then switches off by itself.
    #[must_use]
    pub fn with_native_xdp(mut self) -> Facts {
        if self.driver == VIRTIO_NET {
            self.conflicting_offloads.retain(|name| *name != HOST_GRO);
        }
        self
    }

    /// A one-line description of a port whose sockets are bound as `binding` says.
    pub fn line(&self, binding: Binding) -> Line<'_> {
        Line { facts: self, binding: Some(binding) }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Line { facts: self, binding: None }.fmt(f)
    }
}

/// A one-line description, see [`Facts::line`].
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    facts: &'a Facts,
    binding: Option<Binding>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = self.facts;
        let s = if facts.rx_queues == 1 { "" } else { "s" };
        write!(f, "{}: driver {}, {} queue{s}", facts.name, facts.driver, facts.rx_queues)?;
        if let Some(binding) = self.binding {
            write!(f, ", {binding}")?;
        }
        write!(f, ", MTU {}", facts.mtu)?;
        if let Some(node) = facts.numa_node {
            write!(f, ", NUMA node {node}")?;
        }
        if !facts.up {
            f.write_str(", down")?;
        }
        match facts.conflicting_offloads.as_slice() {
            [] => Ok(()),
            names => write!(f, ", conflicting offloads: {}", names.join(" ")),
        }
    }
}

/// Why the properties of a device cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// No device can have this name.
    #[error("device name {0:?} is empty, longer than 15 bytes or contains a slash")]
    BadName(String),
    /// There is no such device in this network namespace.
    #[error("no network device named {0} in this network namespace")]
    NoDevice(IfName),
    /// The kernel refuses.
    #[error("reading {name} from the kernel: {source}")]
    Os {
        /// The device.
        name: IfName,
        /// The kernel's error.
        source: std::io::Error,
    },
}

/// Kernel feature names and what `ethtool -K` calls them.
const CONFLICTING_OFFLOADS: [(&str, &str); 3] =
    [("rx-lro", "lro"), (HOST_GRO, HOST_GRO), ("rx-vlan-hw-parse", "rxvlan")];

/// What drivers count of frames that XDP has sent and they have not taken, by the end of the name: that of the queue stands
/// before it. Only what counts nothing else is here: `xdp_drops` of virtio-net has what a program drops on purpose. ixgbe,
/// i40e and ice count none of it.
const LOSSES: [(&str, &[&str]); 4] = [
    ("veth", &["_xdp_xmit_errors", "_xdp_tx_errors"]),
    (VIRTIO_NET, &["_xdp_tx_drops"]),
    ("mlx5_core", &["tx_xdp_err", "tx_xdp_full", "rx_xdp_tx_err", "rx_xdp_tx_full"]),
    ("ena", &["_xdp_aborted", "_xdp_invalid"]),
];

/// Counters of a device's driver that tell of lost frames of XDP, those that are not zero.
pub fn loss_counters(name: &str) -> Vec<(String, u64)> {
    let Some(name) = IfName::new(name) else { return Vec::new() };
    let Ok(control) = ethtool::Control::new() else { return Vec::new() };
    let driver = control.driver(name).map(|(driver, _)| driver).unwrap_or_default();
    let Some(ends) = losses_of(&driver) else { return Vec::new() };
    only_losses(control.statistics(name).unwrap_or_default(), ends)
}

fn losses_of(driver: &str) -> Option<&'static [&'static str]> {
    LOSSES.iter().find(|(of, _)| *of == driver).map(|(_, ends)| *ends)
}

fn only_losses(all: Vec<(String, u64)>, ends: &[&str]) -> Vec<(String, u64)> {
    let is_one =
        |name: &str| ends.iter().any(|end| name == *end || (end.starts_with('_') && name.ends_with(end)));
    all.into_iter().filter(|(name, n)| *n > 0 && is_one(name)).collect()
}

const VIRTIO_NET: &str = "virtio_net";
/// Merging of packets by the host. virtio-net switches it off by itself while a native XDP program is attached, and then
/// refuses to have the feature changed.
const HOST_GRO: &str = "rx-gro-hw";

/// Whether an offload of a device is on, by the kernel's name for it (`rx-gro`); `None`: there is no such device or offload.
pub fn offload(name: IfName, feature: &str) -> Option<bool> {
    ethtool::Control::new().ok()?.feature(name, feature).ok()?
}

/// Turns an offload of a device on or off.
///
/// # Errors
/// The kernel's, and [`std::io::ErrorKind::Unsupported`] if the driver cannot change it.
pub fn set_offload(name: IfName, feature: &str, on: bool) -> std::io::Result<()> {
    ethtool::Control::new()?.set_feature(name, feature, on)
}

/// Index of a device of this network namespace.
pub fn ifindex(name: IfName) -> Option<u32> {
    // SAFETY: the name ends with a zero byte, being shorter than its array.
    match unsafe { libc::if_nametoindex(name.raw().as_ptr().cast()) } {
        0 => None,
        index => Some(index),
    }
}

/// Queues that a device can have sockets on, at least 1.
pub fn queue_count(name: IfName) -> u32 {
    let (rx, tx) = queues_of(name);
    rx.max(tx)
}

/// Queues that a worker of its own can have, at least 1: those on which sockets both receive and send.
pub fn worker_queue_count(name: IfName) -> u32 {
    let (rx, tx) = queues_of(name);
    rx.min(tx)
}

/// Queues that packets arrive on once a native XDP program is attached: virtio-net then takes as many more as there are cores,
/// to send for XDP, and the host delivers to these, too.
pub fn queue_count_with_xdp(name: IfName) -> u32 {
    let Ok(control) = ethtool::Control::new() else { return queue_count(name) };
    let (rx, tx) = queues(&control, name);
    let now = rx.max(tx);
    match control.driver(name) {
        Ok((driver, _)) if driver == VIRTIO_NET => {
            let most = control.max_queues(name).unwrap_or(now).max(now);
            most.min(now.saturating_add(cores()))
        }
        _ => now,
    }
}

fn queues_of(name: IfName) -> (u32, u32) {
    ethtool::Control::new().map_or((1, 1), |control| queues(&control, name))
}

/// Receive and transmit queues. Drivers count queues that only XDP sends on; the kernel sends nothing else there, and in
/// `/sys` they are not.
fn queues(control: &ethtool::Control, name: IfName) -> (u32, u32) {
    match (control.queues(name), queues_from_sysfs(name)) {
        (Ok((rx, tx)), Some((_, in_use))) => (rx, tx.min(in_use)),
        (Ok(both), None) | (Err(_), Some(both)) => both,
        (Err(_), None) => (1, 1),
    }
}

/// `None`: `/sys` belongs to another network namespace, hence the check of the index.
fn queues_from_sysfs(name: IfName) -> Option<(u32, u32)> {
    let dir = std::path::Path::new("/sys/class/net").join(name.as_str());
    let known = std::fs::read_to_string(dir.join("ifindex")).ok().and_then(|text| text.trim().parse().ok());
    let entries =
        (known.is_some() && known == ifindex(name)).then(|| std::fs::read_dir(dir.join("queues")).ok());
    let (mut rx, mut tx) = (0, 0);
    for entry in entries.flatten()?.flatten() {
        let file = entry.file_name();
        rx += u32::from(file.to_string_lossy().starts_with("rx-"));
        tx += u32::from(file.to_string_lossy().starts_with("tx-"));
    }
    Some((rx.max(1), tx.max(1)))
}

fn cores() -> u32 {
    // SAFETY: no memory is passed.
    let configured = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
    u32::try_from(configured).unwrap_or(1).max(1)
}

fn numa_node(bus: &str) -> Option<u32> {
    // Also keeps anything but a bus address out of the path.
    if bus.is_empty() || bus.contains('/') {
        return None;
    }
    let node = std::fs::read_to_string(format!("/sys/bus/pci/devices/{bus}/numa_node")).ok()?;
    // -1 where the machine has no notion of nodes.
    node.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_facts() {
        let facts = Facts::read("lo").unwrap();
        assert_eq!((facts.ifindex, facts.numa_node), (1, None));
        assert!(facts.mtu > 0 && facts.rx_queues >= 1);
        assert!(facts.to_string().starts_with("lo: driver "), "{facts}");
    }

    #[test]
    fn absent_and_impossible_names_are_distinguished() {
        assert!(matches!(Facts::read("no-such-dev0"), Err(FactsError::NoDevice(_))));
        assert!(matches!(Facts::read("a-name-too-long-"), Err(FactsError::BadName(_))));
        assert!(matches!(Facts::read("a/b"), Err(FactsError::BadName(_))));
        assert!(matches!(Facts::read(""), Err(FactsError::BadName(_))));
    }

    #[test]
    fn queues_are_at_least_one() {
        let name = IfName::new("lo").unwrap();
        assert!(worker_queue_count(name) >= 1 && worker_queue_count(name) <= queue_count(name));
        assert!(queue_count_with_xdp(name) >= queue_count(name));
        let absent = IfName::new("no-such-dev0").unwrap();
        assert_eq!(
            (queue_count(absent), worker_queue_count(absent), queue_count_with_xdp(absent)),
            (1, 1, 1)
        );
    }

    #[test]
    fn offloads_are_read_by_the_kernels_names() {
        let lo = IfName::new("lo").unwrap();
        // Fixed on for the loopback device.
        assert_eq!(offload(lo, "loopback"), Some(true));
        assert!(set_offload(lo, "loopback", false).is_err());
        assert_eq!(offload(lo, "no-such-offload"), None);
        assert_eq!(offload(IfName::new("no-such-dev0").unwrap(), "rx-gro"), None);
    }

    #[test]
    fn what_a_driver_switches_off_for_xdp_is_no_conflict() {
        let mut facts = Facts::read("lo").unwrap();
        facts.conflicting_offloads = vec!["lro", HOST_GRO];
        assert_eq!(facts.clone().with_native_xdp().conflicting_offloads, ["lro", HOST_GRO]);
        facts.driver = VIRTIO_NET.into();
        assert_eq!(facts.with_native_xdp().conflicting_offloads, ["lro"]);
    }

    #[test]
    fn of_the_drivers_counters_only_losses_are_named() {
        let all = [
            ("rx_queue_0_xdp_drops", 5),
            ("tx_queue_0_xdp_tx_drops", 3),
            ("tx1_xdp_tx_drops", 4),
            ("tx2_xdp_tx_drops", 0),
        ];
        let all = all.map(|(name, n)| (name.to_owned(), n)).to_vec();
        let losses = only_losses(all, losses_of(VIRTIO_NET).unwrap());
        assert_eq!(losses, [("tx_queue_0_xdp_tx_drops".to_owned(), 3), ("tx1_xdp_tx_drops".to_owned(), 4)]);
        let whole = only_losses(
            vec![("tx_xdp_full".into(), 1), ("tx0_xdp_full".into(), 1)],
            losses_of("mlx5_core").unwrap(),
        );
        assert_eq!(whole, [("tx_xdp_full".to_owned(), 1)]);
        assert!(
            losses_of("e1000").is_none()
                && loss_counters("lo").is_empty()
                && loss_counters("no-such").is_empty()
        );
    }

    #[test]
    fn the_line_names_every_downgrade() {
        let facts = Facts {
            name: IfName::new("eth1").unwrap(),
            ifindex: 7,
            driver: "veth".into(),
            bus: String::new(),
            rx_queues: 2,
            tx_queues: 2,
            mtu: 1500,
            mac: [0; 6],
            up: true,
            numa_node: None,
            conflicting_offloads: vec!["lro"],
        };
        let refused = Binding::Copy { refused: Some(libc::EOPNOTSUPP) };
        assert_eq!(
            facts.line(refused).to_string(),
            "eth1: driver veth, 2 queues, copy mode (zero-copy refused: EOPNOTSUPP), MTU 1500, \
             conflicting offloads: lro"
        );
        let better =
            Facts { conflicting_offloads: vec![], rx_queues: 1, numa_node: Some(1), up: false, ..facts };
        assert_eq!(
            better.line(Binding::ZeroCopy).to_string(),
            "eth1: driver veth, 1 queue, zero-copy, MTU 1500, NUMA node 1, down"
        );
    }
}
