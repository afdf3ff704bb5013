//! From options to a running gateway: loads the program with fresh maps, or takes over the maps,
//! links and traffic of an earlier run.

use crate::abi::ABI_VERSION;
use crate::error::LoadError;
use crate::gateway::Gateway;
use crate::inject::Injector;
use crate::lock::Lock;
use crate::mapped::Mapped;
use crate::maps::{Maps, open_maps};
use crate::pins::{self, PinDir};
use crate::skel::{GwSkelBuilder, OpenGwMaps, types};
use crate::sys;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle, libbpf_sys};
use sag_model::flow::{RECORD_BITS, RECORD_BLOCK, RecordNo};
use sag_model::meter::METER_GROUPS;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// Sessions that record numbers have room for, without session 0, which is never used.
const MAX_SESSIONS: u32 = (1 << (RECORD_BITS - 1)) - 1;
const _: () = assert!((MAX_SESSIONS + 1).is_multiple_of(RECORD_BLOCK));

/// What a gateway is opened with.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Where maps, program and links are pinned; below a BPF file system.
    pub pin_dir: PathBuf,
    /// Held while the gateway is open, so that there is one daemon at a time.
    pub lock_file: PathBuf,
    /// Capacity in IPv4 sessions.
    pub sessions4: u32,
    /// Capacity in IPv6 sessions.
    pub sessions6: u32,
}

impl OpenOptions {
    fn check(&self) -> Result<(), LoadError> {
        for (what, value, max) in
            [("IPv4 sessions", self.sessions4, MAX_SESSIONS), ("IPv6 sessions", self.sessions6, MAX_SESSIONS)]
        {
            if value == 0 || value > max {
                return Err(LoadError::OutOfRange { what, value: value.into(), max: max.into() });
            }
        }
        Ok(())
    }
}

/// Buckets of an index slab. The largest index is half full at capacity; every power of two up to it
/// has its own region, the one of size S at S.
fn buckets(sessions: u32) -> u32 {
    2 * sessions.div_ceil(4).next_power_of_two()
}

fn size_maps(maps: &mut OpenGwMaps<'_>, o: &OpenOptions) -> libbpf_rs::Result<()> {
    let cpus = libbpf_rs::num_possible_cpus()? as u32;
    maps.gw_passed.set_max_entries(cpus.saturating_mul(METER_GROUPS as u32))?;
    maps.gw_flows4.set_max_entries(RecordNo::needed(o.sessions4))?;
    maps.gw_flows6.set_max_entries(RecordNo::needed(o.sessions6))?;
    // By session number, from 0, which is none.
    maps.gw_sequences4.set_max_entries(o.sessions4 + 1)?;
    maps.gw_sequences6.set_max_entries(o.sessions6 + 1)?;
    maps.gw_index4.set_max_entries(buckets(o.sessions4))?;
    maps.gw_index6.set_max_entries(buckets(o.sessions6))
}

fn kernel(step: &'static str) -> impl FnOnce(libbpf_rs::Error) -> LoadError {
    move |source| LoadError::Kernel { step, source }
}

impl Gateway {
    /// Loads the gateway's program and maps, or takes over those pinned in `pin_dir`. Traffic of
    /// attached devices goes on through a takeover; each device's program is exchanged in one step.
    ///
    /// # Errors
    /// Each of [`LoadError`], with its remedy; what was there is as it was.
    pub fn open(o: &OpenOptions) -> Result<Gateway, LoadError> {
        o.check()?;
        let lock = Lock::take(&o.lock_file)?;
        let pins = PinDir::new(&o.pin_dir);
        pins.prepare()?;
        let reused = !pins.entries()?.is_empty();

        let mut store = MaybeUninit::uninit();
        let mut open = GwSkelBuilder::default().open(&mut store).map_err(kernel("open"))?;
        size_maps(&mut open.maps, o).map_err(kernel("size"))?;
        if reused {
            take_over(&mut open.maps, &pins)?;
        }
        let skel = open.load().map_err(kernel("load"))?;
        let maps = Maps::from_skel(&skel.maps).map_err(kernel("open maps"))?;
        let own =
            |prog: BorrowedFd<'_>| prog.try_clone_to_owned().map_err(|e| kernel("open program")(e.into()));
        let prog = own(skel.progs.gw_ingress.as_fd())?;
        let inject = Injector::new(own(skel.progs.gw_inject.as_fd())?);
        let mapped = Mapped::new(&maps).map_err(|e| kernel("map memory")(e.into()))?;

        if reused {
            exchange_program(&pins, &prog)?;
        } else {
            mapped.shared.control.abi_version.store(ABI_VERSION, Ordering::Release);
            pin_all(&pins, &maps, &prog, std::iter::empty())?;
        }
        Ok(Gateway::new(pins, maps, mapped, prog, inject, lock, reused))
    }
}

/// Points every map of the unloaded program at its pinned twin, after making sure that it is one.
fn take_over(maps: &mut OpenGwMaps<'_>, pins: &PinDir) -> Result<(), LoadError> {
    let present = pins.entries()?;
    // The version first: another version may well have other maps.
    if present.iter().any(|n| n == "gw_shared") {
        check_version(pins)?;
    }
    for (name, map) in open_maps(maps) {
        if !present.iter().any(|n| n == name) {
            return Err(LoadError::Incomplete { pin_dir: pins.path().to_owned(), missing: name.to_owned() });
        }
        let pinned = open_pin(pins, name)?;
        let info = pinned.info().map_err(kernel("inspect pinned maps"))?.info;
        let differs = |what, found: u32, wanted: u32| LoadError::OtherSize {
            pin_dir: pins.path().to_owned(),
            map: name.to_owned(),
            what,
            found: found.into(),
            wanted: wanted.into(),
        };
        // The kernel adds this flag to device maps of its own accord.
        let flags = info.map_flags & !libbpf_sys::BPF_F_RDONLY_PROG;
        for (what, found, wanted) in [
            ("the map type", info.type_, u32::from(map.map_type())),
            ("the key size", info.key_size, map.key_size()),
            ("the value size", info.value_size, map.value_size()),
            ("the set of map flags", flags, map.map_flags()),
        ] {
            if found != wanted {
                return Err(differs(what, found, wanted));
            }
        }
        if info.max_entries != map.max_entries() {
            return Err(differs("the number of entries", info.max_entries, map.max_entries()));
        }
        map.reuse_fd(pinned.as_fd()).map_err(kernel("take over maps"))?;
    }
    Ok(())
}

fn check_version(pins: &PinDir) -> Result<(), LoadError> {
    let other =
        |found: String| LoadError::OtherVersion { pin_dir: pins.path().to_owned(), found, ours: ABI_VERSION };
    let shared = open_pin(pins, "gw_shared")?;
    if shared.value_size() as usize != size_of::<types::gw_shared>() || shared.key_size() != 4 {
        return Err(other("unknown".to_owned()));
    }
    let value =
        shared.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).map_err(kernel("read the pinned version"))?;
    let found = value.as_deref().and_then(|v| v.first_chunk::<4>()).map(|b| u32::from_ne_bytes(*b));
    match found {
        Some(ABI_VERSION) => Ok(()),
        Some(v) => Err(other(v.to_string())),
        None => Err(other("unknown".to_owned())),
    }
}

fn open_pin(pins: &PinDir, name: &str) -> Result<MapHandle, LoadError> {
    MapHandle::from_pinned_path(pins.join(name)).map_err(kernel("open pinned maps"))
}

/// Fills a directory beside the pin directory and renames it: the set of pins is whole or absent. `links` are pins of
/// attached devices, by their names in the directory.
pub(crate) fn pin_all<'a>(
    pins: &PinDir,
    maps: &'a Maps,
    prog: &'a OwnedFd,
    links: impl Iterator<Item = (String, BorrowedFd<'a>)>,
) -> Result<(), LoadError> {
    let staging = pins.staging()?;
    let fixed = maps.all().chain([(pins::PROGRAM, prog.as_fd())]).map(|(name, fd)| (name.to_owned(), fd));
    for (name, fd) in fixed.chain(links) {
        pins::pin(&staging.join(&name), fd)?;
    }
    pins.adopt(staging)
}

/// Every attached device goes over to the new program, then the pin does.
fn exchange_program(pins: &PinDir, prog: &OwnedFd) -> Result<(), LoadError> {
    for ifname in pins.links()? {
        let path = pins.link(&ifname);
        let io = |what| {
            let path = path.clone();
            move |source| LoadError::Io { what, path, source }
        };
        let link = sys::obj_get(&path).map_err(io("cannot open"))?;
        if sys::xdp_link_info(link.as_fd()).map_err(io("cannot inspect"))?.0 == 0 {
            // The device is gone, and with it what the link was for.
            fs::remove_file(&path).map_err(io("cannot remove"))?;
            continue;
        }
        sys::link_update(link.as_fd(), prog.as_fd()).map_err(io("cannot exchange the program of"))?;
    }
    let (new, old) = (pins.join("gw_ingress-new"), pins.join(pins::PROGRAM));
    let _ = fs::remove_file(&new);
    pins::pin(&new, prog.as_fd())?;
    fs::rename(&new, &old).map_err(|source| LoadError::Io {
        what: "cannot replace the pinned program",
        path: old,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack;

    /// 512 bytes are `MAX_BPF_STACK`. This kernel may take more than Linux 6.1 does.
    #[test]
    fn the_stack_is_one_that_all_kernels_take() {
        let none = PathBuf::new();
        let o = OpenOptions { pin_dir: none.clone(), lock_file: none, sessions4: 1000, sessions6: 100 };
        let mut store = MaybeUninit::uninit();
        let mut open = GwSkelBuilder::default().open(&mut store).unwrap();
        size_maps(&mut open.maps, &o).unwrap();
        let skel = match open.load() {
            Err(e) if e.kind() == libbpf_rs::ErrorKind::PermissionDenied => return println!("SKIP {e}"),
            loaded => loaded.unwrap(),
        };
        let bytes = stack::deepest(skel.progs.gw_ingress.insns());
        assert!((1..=512).contains(&bytes), "{bytes} bytes of stack");
    }

    #[test]
    fn slabs_are_sized_for_both_directions() {
        assert_eq!(RecordNo::needed(MAX_SESSIONS), 1 << RECORD_BITS);
        // Regions of 1, 2, .. largest buckets start at 1, 2, .. largest, so the end is at twice that.
        for s in [1, 100, 65_535, 1 << 20] {
            let largest = buckets(s) / 2;
            assert!(largest.is_power_of_two());
            assert!(largest * 16 >= 2 * 2 * s, "half full at capacity");
        }
    }
}
