//! Chunks on their way into the rings of sockets and back.

use super::Umem;
use super::ledger::{Owner, SocketEntry};
use crate::frame::Frame;

impl Umem {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn registration(&self) -> libc::xdp_umem_reg {
        // SAFETY: plain integers, for which zero is a value; later kernels' fields stay zero.
        let mut reg: libc::xdp_umem_reg = unsafe { std::mem::zeroed() };
        reg.addr = self.area.addr().as_ptr() as u64;
        reg.len = u64::from(self.frames) << self.chunk.shift();
        reg.chunk_size = u32::from(self.chunk.bytes());
        reg.headroom = u32::from(self.headroom);
        reg
    }

    pub(crate) fn sockets(&self) -> impl Iterator<Item = &SocketEntry> {
        self.sockets.iter().flatten()
    }

    pub(crate) fn socket_count(&self) -> usize {
        self.sockets.iter().filter(|socket| socket.is_some()).count()
    }

    pub(crate) fn add_socket(&mut self, socket: SocketEntry) -> u16 {
        let vacant = self.sockets.iter().position(Option::is_none);
        let number = vacant.unwrap_or(self.sockets.len());
        match vacant {
            Some(number) => self.sockets[number] = Some(socket),
            None => self.sockets.push(Some(socket)),
        }
        // `open` refuses more than MAX_SOCKETS sockets.
        number as u16
    }

    /// A free chunk for the kernel to receive into, as a ring address.
    #[inline]
    pub(crate) fn post_rx(&mut self, to: Owner) -> Option<u64> {
        let index = self.pop_free(to)?;
        Some(u64::from(index) << self.chunk.shift())
    }

    /// A packet that the kernel received into a chunk posted by `from`.
    #[inline]
    pub(crate) fn received(&mut self, desc: libc::xdp_desc, from: Owner) -> Option<Frame> {
        let size = u64::from(self.chunk.bytes());
        let index = desc.addr >> self.chunk.shift();
        let start = desc.addr & (size - 1);
        let fits = start + u64::from(desc.len) <= size;
        match self.owners.get_mut(index as usize) {
            Some(owner) if *owner == from && fits => *owner = Owner::USER,
            _ => {
                self.count_foreign();
                return None;
            }
        }
        // SAFETY: the ledger said the kernel had the chunk, so there was no frame of it; it has
        // returned it and the user owns it now. The index was found in the ledger, and the range
        // was checked.
        Some(unsafe { self.frame(index as u32, start as u16, desc.len as u16) })
    }

    /// Takes a frame to be sent and makes it a ring entry; a frame of another memory comes back.
    #[inline]
    pub(crate) fn sending(&mut self, frame: Frame, to: Owner) -> Result<libc::xdp_desc, Frame> {
        let Some(index) = self.index_of(&frame) else {
            self.count_foreign();
            return Err(frame);
        };
        self.owners[index as usize] = to;
        let addr = (u64::from(index) << self.chunk.shift()) + u64::from(frame.start());
        let desc = libc::xdp_desc { addr, len: frame.len() as u32, options: 0 };
        frame.disarm();
        Ok(desc)
    }

    /// A chunk that the kernel has finished sending.
    #[inline]
    pub(crate) fn sent(&mut self, addr: u64, from: Owner) {
        let index = addr >> self.chunk.shift();
        match self.owners.get(index as usize) {
            Some(owner) if *owner == from => self.push_free(index as u32),
            _ => self.count_foreign(),
        }
    }
}
