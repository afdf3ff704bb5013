//! The interface ioctls: flags, MTU, address, and those of ethtool.

use crate::ifname::IfName;
use crate::sys::check;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETH_SS_STATS: u32 = 1;
const ETH_SS_FEATURES: u32 = 4;
const NAME_LEN: usize = 32;
/// More features than any kernel has; bounds what is allocated for them.
const MAX_FEATURES: usize = 1024;
/// The same of statistics; drivers have some dozens for each queue.
const MAX_STATS: usize = 65_536;

#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

#[repr(C)]
struct SetInfo {
    cmd: u32,
    reserved: u32,
    mask: u64,
    count: u32,
    _pad: u32,
}

/// A socket to make the ioctls on.
pub(super) struct Control(OwnedFd);

impl Control {
    pub(super) fn new() -> io::Result<Control> {
        // SAFETY: takes integers only; a descriptor it returns is new and belongs to nobody else.
        unsafe {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
            check(fd)?;
            Ok(Control(OwnedFd::from_raw_fd(fd)))
        }
    }

    pub(super) fn ifindex(&self, name: IfName) -> io::Result<u32> {
        let request = self.request(name, libc::SIOCGIFINDEX)?;
        // SAFETY: this request fills in the index.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex } as u32)
    }

    pub(super) fn mtu(&self, name: IfName) -> io::Result<u32> {
        let request = self.request(name, libc::SIOCGIFMTU)?;
        // SAFETY: this request fills in the MTU.
        Ok(unsafe { request.ifr_ifru.ifru_mtu } as u32)
    }

    pub(super) fn is_up(&self, name: IfName) -> io::Result<bool> {
        let request = self.request(name, libc::SIOCGIFFLAGS)?;
        // SAFETY: this request fills in the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        Ok(i32::from(flags) & libc::IFF_UP != 0)
    }

    pub(super) fn mac(&self, name: IfName) -> io::Result<[u8; 6]> {
        let request = self.request(name, libc::SIOCGIFHWADDR)?;
        // SAFETY: this request fills in the address.
        let data = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
        Ok(std::array::from_fn(|i| data[i] as u8))
    }

    /// Names of the driver and of the device's place on its bus.
    pub(super) fn driver(&self, name: IfName) -> io::Result<(String, String)> {
        let mut info = DriverInfo {
            cmd: ETHTOOL_GDRVINFO,
            driver: [0; 32],
            version: [0; 32],
            firmware: [0; 32],
            bus: [0; 32],
            rom: [0; 32],
            reserved: [0; 12],
            counts: [0; 5],
        };
        // SAFETY: the kernel fills in a struct of this layout.
        unsafe { self.ethtool(name, (&raw mut info).cast())? };
        let bus = text(&info.bus);
        Ok((text(&info.driver), if bus == "N/A" { String::new() } else { bus }))
    }

    /// Receive and transmit queues in use.
    pub(super) fn queues(&self, name: IfName) -> io::Result<(u32, u32)> {
        let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
        // SAFETY: the kernel fills in a struct of this layout.
        unsafe { self.ethtool(name, (&raw mut channels).cast())? };
        let Channels { rx, tx, combined, .. } = channels;
        Ok(((rx.saturating_add(combined)).max(1), (tx.saturating_add(combined)).max(1)))
    }

    /// Receive queues that the device can have.
    pub(super) fn max_queues(&self, name: IfName) -> io::Result<u32> {
        let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
        // SAFETY: the kernel fills in a struct of this layout.
        unsafe { self.ethtool(name, (&raw mut channels).cast())? };
        let [rx, _, _, combined] = channels.max;
        Ok(rx.saturating_add(combined))
    }

    /// Which of some features are on; `features` pairs the kernel's name with the one to report.
    pub(super) fn active_features(
        &self,
        name: IfName,
        features: &[(&str, &'static str)],
    ) -> Vec<&'static str> {
        let (Ok(names), Ok(active)) = (self.feature_names(name), self.feature_bits(name)) else {
            return Vec::new();
        };
        let is_on = |feature: &str| {
            names
                .iter()
                .position(|name| name == feature)
                .is_some_and(|bit| active.get(bit / 32).is_some_and(|word| word & (1 << (bit % 32)) != 0))
        };
        features.iter().filter(|(feature, _)| is_on(feature)).map(|&(_, shown)| shown).collect()
    }

    /// Whether a feature is on, by the kernel's name; `None`: the device has no such feature.
    pub(super) fn feature(&self, name: IfName, feature: &str) -> io::Result<Option<bool>> {
        let Some(bit) = self.feature_names(name)?.iter().position(|n| n == feature) else { return Ok(None) };
        let words = self.feature_bits(name)?;
        Ok(words.get(bit / 32).map(|word| word & (1 << (bit % 32)) != 0))
    }

    /// Turns a feature on or off.
    pub(super) fn set_feature(&self, name: IfName, feature: &str, on: bool) -> io::Result<()> {
        let none = || io::Error::from(io::ErrorKind::Unsupported);
        let names = self.feature_names(name)?;
        let bit = names.iter().position(|n| n == feature).ok_or_else(none)?;
        // A header of two words, then two words for each 32 features: which are meant, and what they shall be.
        let mut words = vec![0u32; 2 + 2 * names.len().div_ceil(32)];
        words[..2].copy_from_slice(&[ETHTOOL_SFEATURES, names.len().div_ceil(32) as u32]);
        let mask = 1 << (bit % 32);
        words[2 + 2 * (bit / 32)] = mask;
        words[3 + 2 * (bit / 32)] = if on { mask } else { 0 };
        // SAFETY: the kernel reads the number of blocks that the header states, and writes nothing.
        unsafe { self.ethtool(name, words.as_mut_ptr().cast())? };
        // What the driver cannot change the kernel leaves out without an error.
        if self.feature(name, feature)? == Some(on) { Ok(()) } else { Err(none()) }
    }

    fn feature_count(&self, name: IfName) -> io::Result<usize> {
        Ok(self.count(name, ETH_SS_FEATURES)?.min(MAX_FEATURES))
    }

    /// Strings in a set.
    fn count(&self, name: IfName, set: u32) -> io::Result<usize> {
        let mut info = SetInfo { cmd: ETHTOOL_GSSET_INFO, reserved: 0, mask: 1 << set, count: 0, _pad: 0 };
        // SAFETY: for one set requested, the kernel writes one count.
        unsafe { self.ethtool(name, (&raw mut info).cast())? };
        Ok(info.count as usize)
    }

    /// The driver's statistics, by name. A driver that has more of them the next moment, since somebody changes its
    /// queues, is an error.
    pub(super) fn statistics(&self, name: IfName) -> io::Result<Vec<(String, u64)>> {
        let count = self.count(name, ETH_SS_STATS)?;
        if count > MAX_STATS {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // Room for twice as many: the kernel writes as many as there are by now, whatever the header says.
        let room = 2 * count + 64;
        let mut names = vec![0u32; 3 + room * NAME_LEN / 4];
        names[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_STATS, count as u32]);
        // SAFETY: the buffer holds the header and more names than the kernel has.
        unsafe { self.ethtool(name, names.as_mut_ptr().cast())? };
        // A header of two words, which is as long as one number.
        let mut values = vec![0u64; 1 + room];
        values[0] = u64::from_ne_bytes(header([ETHTOOL_GSTATS, count as u32]));
        // SAFETY: the buffer holds the header and more numbers than the kernel has.
        unsafe { self.ethtool(name, values.as_mut_ptr().cast())? };
        if self.count(name, ETH_SS_STATS)? != count {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let bytes: Vec<u8> = names[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let names = bytes.chunks_exact(NAME_LEN).take(count).map(text);
        Ok(names.zip(values.into_iter().skip(1)).collect())
    }

    fn feature_names(&self, name: IfName) -> io::Result<Vec<String>> {
        let count = self.feature_count(name)?;
        // A header of three words, then a name of 32 bytes for each feature. The kernel writes as
        // many as it has, whatever the header says, so there is room for the most it may have.
        let mut words = vec![0u32; 3 + MAX_FEATURES * NAME_LEN / 4];
        words[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count as u32]);
        // SAFETY: the buffer holds the header and more names than the kernel has.
        unsafe { self.ethtool(name, words.as_mut_ptr().cast())? };
        let bytes: Vec<u8> = words[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
        Ok(bytes.chunks_exact(NAME_LEN).take(count).map(text).collect())
    }

    fn feature_bits(&self, name: IfName) -> io::Result<Vec<u32>> {
        let blocks = self.feature_count(name)?.div_ceil(32);
        // A header of two words, then four words for each 32 features: available, requested,
        // active, never changed.
        let mut words = vec![0u32; 2 + 4 * blocks];
        words[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks as u32]);
        // SAFETY: the kernel writes at most the number of blocks that the header states.
        unsafe { self.ethtool(name, words.as_mut_ptr().cast())? };
        Ok(words[2..].chunks_exact(4).map(|block| block[2]).collect())
    }

    fn request(&self, name: IfName, request: libc::Ioctl) -> io::Result<libc::ifreq> {
        let mut data = request_for(name);
        // SAFETY: all requests made here read the name and write into the ifreq itself.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), request, &raw mut data) })?;
        Ok(data)
    }

    /// # Safety
    /// `command` must begin with an ethtool command number and be as long as that command writes.
    unsafe fn ethtool(&self, name: IfName, command: *mut libc::c_char) -> io::Result<()> {
        let mut data = request_for(name);
        data.ifr_ifru.ifru_data = command;
        // SAFETY: the caller vouches for what the pointer leads to.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCETHTOOL, &raw mut data) })
    }
}

/// An `ifreq` that names a device.
pub(crate) fn request_for(name: IfName) -> libc::ifreq {
    // SAFETY: an ifreq is plain data, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.raw()) {
        *to = *from as libc::c_char;
    }
    request
}

fn header(words: [u32; 2]) -> [u8; 8] {
    let [a, b] = words.map(u32::to_ne_bytes);
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
}

fn text(bytes: &[u8]) -> String {
    let len = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}
