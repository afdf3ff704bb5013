//! Sends frames by devices of the kernel, a batch in one system call (`send.bpf.c`).

use crate::error::LoadError;
use crate::skel::SendSkelBuilder;
use crate::sys;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapHandle};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

/// `GW_SEND_FRAMES` of `send.bpf.c`.
const FRAMES: usize = 64;
/// `GW_SEND_BYTES` of `send.bpf.c`.
const FRAME_BYTES: usize = 2032;
/// A link header, the least that a device takes.
const MIN_FRAME: usize = 14;
/// What the kernel makes its buffer of, which the program overwrites: an Ethernet header of an IPv4 packet and zeros.
const TEMPLATE: [u8; 60] = {
    let mut frame = [0; 60];
    frame[12] = 8;
    frame
};

/// `struct gw_send_slot`.
#[repr(C)]
struct Slot {
    ifindex: u32,
    len: u16,
    left: u16,
    unused: u64,
    frame: [u8; FRAME_BYTES],
}

/// Sends frames by devices as the kernel sends its own: queueing disciplines, filters at egress and packet sockets see
/// them. For one thread, in the network namespace of the devices.
#[derive(Debug)]
pub struct FrameSender {
    prog: OwnedFd,
    /// The map of the program, mapped for the life of the process. It is the program's only while [`FrameSender::flush`]
    /// runs it.
    slots: NonNull<Slot>,
    used: usize,
}

// SAFETY: the memory belongs to this value alone, whichever thread has it.
unsafe impl Send for FrameSender {}

impl FrameSender {
    /// Frames in one call of the kernel.
    pub const FRAMES: usize = FRAMES;
    /// Bytes of the longest frame.
    pub const MAX_FRAME: usize = FRAME_BYTES;

    /// Loads the program, and runs it without a frame. Its memory is never given back: one for each thread that sends.
    ///
    /// # Errors
    /// [`LoadError::Kernel`] if the kernel does not take the program, or does not run it.
    pub fn open() -> Result<FrameSender, LoadError> {
        let failed = |step| move |source| LoadError::Kernel { step, source };
        let mut store = MaybeUninit::uninit();
        let open = SendSkelBuilder::default().open(&mut store).map_err(failed("open"))?;
        let skel = open.load().map_err(failed("load"))?;
        let map = MapHandle::try_from(&skel.maps.gw_send_slots).map_err(failed("open maps"))?;
        let os = |step| move |e: io::Error| failed(step)(e.into());
        if map.value_size() as usize != size_of::<Slot>() || map.max_entries() as usize != FRAMES {
            return Err(os("open maps")(io::ErrorKind::InvalidData.into()));
        }
        let start = sys::map_forever(map.as_fd(), FRAMES * size_of::<Slot>()).map_err(os("map memory"))?;
        let slots =
            NonNull::new(start.cast()).ok_or_else(|| os("map memory")(io::ErrorKind::InvalidData.into()))?;
        let prog = skel.progs.gw_send.as_fd().try_clone_to_owned().map_err(os("duplicate a descriptor"))?;
        let sender = FrameSender { prog, slots, used: 0 };
        // All slots are zeros: it ends at the first.
        sys::skb_run(sender.prog.as_fd(), &TEMPLATE).map_err(os("run the program that sends"))?;
        Ok(sender)
    }

    /// Frames that wait for [`FrameSender::flush`].
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether no frame waits.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Copies a frame that is to be sent by a device. False: there is no room for it, or it has no link header.
    #[inline]
    pub fn push(&mut self, ifindex: u32, frame: &[u8]) -> bool {
        if self.used == FRAMES || !(MIN_FRAME..=FRAME_BYTES).contains(&frame.len()) {
            return false;
        }
        let slot = self.slot(self.used);
        (slot.ifindex, slot.len, slot.left) = (ifindex, frame.len() as u16, 1);
        slot.frame[..frame.len()].copy_from_slice(frame);
        self.used += 1;
        true
    }

    /// Sends the frames that wait, in their order. `refused` gets the number of each that its device did not take,
    /// counted from 0 in the order of the calls of [`FrameSender::push`].
    ///
    /// # Errors
    /// The kernel's, if the program did not run: then all were refused.
    pub fn flush(&mut self, mut refused: impl FnMut(usize)) -> io::Result<()> {
        let frames = std::mem::take(&mut self.used);
        if frames == 0 {
            return Ok(());
        }
        if frames < FRAMES {
            self.slot(frames).len = 0;
        }
        let result = sys::skb_run(self.prog.as_fd(), &TEMPLATE);
        (0..frames).filter(|n| self.slot(*n).left != 0).for_each(&mut refused);
        result
    }

    #[inline]
    fn slot(&mut self, n: usize) -> &mut Slot {
        assert!(n < FRAMES);
        // SAFETY: within the mapping, which is never unmapped and starts at a page; its bytes are integers, so any value
        // is one. `self` is borrowed exclusively, and the program runs only within `flush`, which holds no slot then.
        unsafe { self.slots.add(n).as_mut() }
    }
}
