//! Frames that XDP has sent and a device has not taken: counted, said, and acted upon where the device takes none at all.

use super::Devices;
use rustix::io::Errno;
use sag_bpf::{Gateway, Lost, LostFrames};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A loss is a warning for this time.
const RECENT: Duration = Duration::from_secs(60);
/// A device that has refused XDP's frames as such is tried again after this time.
pub(super) const REFUSED: Duration = Duration::from_secs(60);

/// What devices have not taken, by slot and error.
#[derive(Debug, Default)]
pub(super) struct LostByDevice {
    /// There once it is loaded.
    counter: Arc<OnceLock<LostFrames>>,
    seen: BTreeMap<(u8, i32), Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    frames: u64,
    /// When there were more of them for the last time.
    grown: Instant,
}

impl LostByDevice {
    /// Takes new counts in. Returns the devices that have lost more for a reason that is not said to have lost any lately.
    fn take(&mut self, counts: impl Iterator<Item = (u8, i32, u64)>, now: Instant) -> Vec<(u8, i32, u64)> {
        let mut news = Vec::new();
        for (slot, error, frames) in counts {
            let before = self.seen.get(&(slot, error)).copied();
            let more = frames.saturating_sub(before.map_or(0, |s| s.frames));
            if more == 0 {
                continue;
            }
            if before.is_none_or(|s| now.duration_since(s.grown) >= RECENT) {
                news.push((slot, error, more));
            }
            self.seen.insert((slot, error), Seen { frames, grown: now });
        }
        news
    }

    fn of(&self, slot: u8) -> u64 {
        self.seen.range((slot, i32::MIN)..=(slot, i32::MAX)).map(|(_, s)| s.frames).sum()
    }
}

/// The device has no way to take frames of XDP, or none at the moment.
fn takes_none(error: i32) -> bool {
    [Errno::NXIO, Errno::OPNOTSUPP].iter().any(|e| e.raw_os_error() == error)
}

/// In words of the operator.
fn reason(error: i32) -> String {
    match error {
        0 => "its queue is full, or they are too long for it".to_owned(),
        e if takes_none(e) => "it takes no XDP redirects".to_owned(),
        e if e == Errno::MSGSIZE.raw_os_error() => "they are longer than its MTU".to_owned(),
        e if e == Errno::NETDOWN.raw_os_error() => "it is down".to_owned(),
        e => std::io::Error::from_raw_os_error(e).to_string(),
    }
}

impl Devices {
    /// Begins to count, as soon as the program for it is loaded: a start does not wait for that.
    pub fn count_lost(&self, gateway: &Gateway) {
        let (counter, map) = (self.lost.counter.clone(), gateway.device_map());
        let load = move || match LostFrames::open(map) {
            Ok(loaded) => _ = counter.set(loaded),
            Err(error) => tracing::warn!(
                %error, "frames that devices do not take of XDP are not counted: the kernel lacks the tracepoints"
            ),
        };
        if let Err(error) = std::thread::Builder::new().name("lost".into()).spawn(load) {
            tracing::warn!(%error, "frames that devices do not take of XDP are not counted");
        }
    }

    /// Looks what was lost since the last time. Returns whether a device takes no redirects of which that was not known.
    pub(super) fn read_lost(&mut self) -> bool {
        let Some(counter) = self.lost.counter.get() else { return false };
        let by_slot = &self.by_slot;
        let slot_of = |l: &Lost| {
            let of_interface = |i| by_slot.iter().find(|(_, d)| d.xdp_device().0 == i).map(|(slot, _)| *slot);
            l.slot.or_else(|| l.ifindex.and_then(of_interface)).filter(|slot| by_slot.contains_key(slot))
        };
        let mut counts: BTreeMap<(u8, i32), u64> = BTreeMap::new();
        for l in counter.read() {
            if let Some(slot) = slot_of(&l) {
                *counts.entry((slot, l.error)).or_default() += l.frames;
            }
        }
        let now = Instant::now();
        let news = self.lost.take(counts.into_iter().map(|((slot, e), n)| (slot, e, n)), now);
        let mut refused = false;
        for (slot, error, frames) in news {
            let Some(d) = self.by_slot.get_mut(&slot) else { continue };
            let why = reason(error);
            tracing::warn!(
                event = "xdp-frames-lost",
                device = d.name,
                frames,
                "frames that XDP has sent: {why}"
            );
            // Before Linux 6.3 the kernel does not say it in advance.
            if takes_none(error) && d.attached.as_ref().is_some_and(|a| a.can_transmit.is_none()) {
                d.refused = Some(now);
                refused = true;
            }
        }
        refused
    }

    /// Frames that XDP has sent by the device in a slot and that it has not taken.
    pub fn lost_by(&self, slot: u8) -> u64 {
        self.lost.of(slot)
    }

    /// Devices that do not take what XDP sends, as warnings.
    pub(super) fn lost_warnings(&self) -> Vec<String> {
        let recent = self.lost.seen.iter().filter(|(_, s)| s.grown.elapsed() < RECENT);
        let line = |(&(slot, error), s): (&(u8, i32), &Seen)| {
            let device = &self.by_slot.get(&slot)?.name;
            Some(format!("{device} has lost {} frames that XDP sent by it: {}", s.frames, reason(error)))
        };
        recent.filter_map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_said_once_a_while_and_summed_by_device() {
        let mut lost = LostByDevice::default();
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        assert_eq!(lost.take([(1, 0, 5), (1, 6, 2), (2, 0, 0)].into_iter(), at(0)), [(1, 0, 5), (1, 6, 2)]);
        assert_eq!(lost.take([(1, 0, 9), (1, 6, 2)].into_iter(), at(30)), []);
        // The last of them half a minute ago, or longer than a minute.
        assert_eq!(lost.take([(1, 0, 10), (1, 6, 3)].into_iter(), at(60)), [(1, 6, 1)]);
        assert_eq!((lost.of(1), lost.of(2), lost.of(0)), (13, 0, 0));
    }

    #[test]
    fn only_devices_that_take_none_are_left_to_workers() {
        for (error, none) in
            [(Errno::NXIO.raw_os_error(), true), (Errno::OPNOTSUPP.raw_os_error(), true), (0, false)]
        {
            assert_eq!(takes_none(error), none, "{error}");
        }
        assert!(
            !takes_none(Errno::NETDOWN.raw_os_error())
                && reason(Errno::NETDOWN.raw_os_error()).contains("down")
        );
    }
}
