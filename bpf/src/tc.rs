//! tc mode: the tc programs (`tc.bpf.c`) on a port and on the pair of devices by which XDP gets what they leave.

use crate::error::MapError;
use crate::gateway::Gateway;
use crate::held::lock;
use crate::pins;
use crate::sys;
use crate::tc_programs::{Interface, Programs};
use crate::testrun::TestFrame;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// A port in tc mode and the pair of devices (veth) beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcPair<'n> {
    /// The port's device.
    pub port: Interface<'n>,
    /// The end of the pair that tc sends to.
    pub tc_end: Interface<'n>,
    /// The end that has XDP.
    pub xdp_end: Interface<'n>,
    /// The longest frame that the pair carries, without a tag.
    pub limit: u32,
}

impl<'n> TcPair<'n> {
    fn all(&self) -> [Interface<'n>; 3] {
        [self.port, self.tc_end, self.xdp_end]
    }
}

/// What the tc program of a port did with a buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcRun {
    /// `TC_ACT_UNSPEC` -1 (to the kernel), `TC_ACT_SHOT` 2, `TC_ACT_REDIRECT` 7.
    pub action: i32,
    /// The buffer afterwards.
    pub frame: Vec<u8>,
}

impl Gateway {
    /// Attaches the tc programs to a port and its pair, or exchanges those of an earlier run. The port's comes last: what
    /// it leaves to XDP has a way by then.
    ///
    /// # Errors
    /// [`MapError::Tc`] if the kernel has no tcx or refuses the programs, [`MapError::Pin`] if the link of an earlier run
    /// cannot be opened.
    pub fn attach_tc(&self, pair: &TcPair<'_>) -> Result<(), MapError> {
        let mut loaded = lock(&self.tc.programs);
        let programs = self.tc_programs(pair.port.1, &mut loaded)?;
        programs.join(pair.xdp_end, pair.port.0, 0)?;
        programs.join(pair.tc_end, pair.port.0, 0)?;
        programs.join(pair.port, pair.tc_end.0, pair.limit)?;
        self.link_tc(pair.xdp_end, programs.to_kernel.as_fd())?;
        self.link_tc(pair.tc_end, programs.from_xdp.as_fd())?;
        self.link_tc(pair.port, programs.port.as_fd())
    }

    fn tc_programs<'l>(
        &self,
        ifname: &str,
        loaded: &'l mut Option<Programs>,
    ) -> Result<&'l Programs, MapError> {
        if loaded.is_none() {
            let load = Programs::load(&self.maps);
            *loaded = Some(load.map_err(|e| failed(ifname, "loading the programs")(io::Error::other(e)))?);
        }
        loaded.as_ref().ok_or_else(|| failed(ifname, "loading the programs")(io::ErrorKind::NotFound.into()))
    }

    /// Runs the tc program of a port once on a buffer, of segments with `gso_size` bytes each behind their headers (0: of
    /// one); its device counts as joined with itself. A redirect is not carried out.
    ///
    /// # Errors
    /// [`MapError::Tc`] if the programs cannot be loaded, [`MapError::TestRun`] if the kernel does not take the buffer.
    pub fn test_run_tc(&self, f: TestFrame<'_>, gso_size: u32, limit: u32) -> Result<TcRun, MapError> {
        let mut loaded = lock(&self.tc.programs);
        let programs = self.tc_programs("test run", &mut loaded)?;
        programs.join((f.ifindex, "test run"), f.ifindex, limit)?;
        let segments = (f.bytes.len() as u32).checked_div(gso_size).map_or(0, |n| n + 1);
        let ctx = sys::SkBuff::received(f.ifindex, segments, gso_size);
        let run = sys::test_run(programs.port.as_fd(), f.bytes, ctx);
        let (action, frame, _) = run.map_err(|source| MapError::TestRun { source })?;
        Ok(TcRun { action: action as i32, frame })
    }

    fn link_tc(&self, (ifindex, ifname): Interface<'_>, prog: BorrowedFd<'_>) -> Result<(), MapError> {
        let path = self.pins.join(&pins::tc_name(ifname));
        let pin = |what, source| MapError::Pin { what, path: path.clone(), source };
        let pinned = match sys::obj_get(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            other => Some(other.map_err(|e| pin("cannot open", e))?),
        };
        let held = lock(&self.tc.links).remove(ifname);
        for link in held.into_iter().chain(pinned) {
            if sys::xdp_link_info(link.as_fd()).is_ok_and(|(on, _)| on == ifindex) {
                sys::link_update(link.as_fd(), prog).map_err(failed(ifname, "exchanging the program"))?;
                lock(&self.tc.links).insert(ifname.to_owned(), link);
                return Ok(());
            }
            // Another device's, or one that is gone.
            let _ = sys::link_detach(link.as_fd());
        }
        let link = sys::tcx_link_create(prog, ifindex).map_err(failed(ifname, "attaching"))?;
        // The link is held all the same; without the pin it ends with the daemon.
        if let Err(error) = self.pins.put(&pins::tc_name(ifname), link.as_fd()) {
            return Err(pin("cannot pin", io::Error::other(error)));
        }
        lock(&self.tc.links).insert(ifname.to_owned(), link);
        Ok(())
    }

    /// Whether the tc programs of a port are where [`Gateway::attach_tc`] has put them.
    pub fn tc_is_intact(&self, pair: &TcPair<'_>) -> bool {
        let links = lock(&self.tc.links);
        pair.all().iter().all(|(ifindex, ifname)| {
            let link = links.get(*ifname).and_then(|l| sys::xdp_link_info(l.as_fd()).ok());
            link.is_some_and(|(on, _)| on == *ifindex)
        })
    }

    /// Takes the tc programs off a device, the port's or an end of its pair; it may be gone.
    ///
    /// # Errors
    /// [`MapError::Pin`] if the pin cannot be removed.
    pub fn detach_tc(&self, ifname: &str) -> Result<(), MapError> {
        let path = self.pins.join(&pins::tc_name(ifname));
        let held = lock(&self.tc.links).remove(ifname);
        for link in held.into_iter().chain(sys::obj_get(&path).ok()) {
            // Fails only if the device is gone, and then there is nothing to detach.
            let _ = sys::link_detach(link.as_fd());
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(MapError::Pin { what: "cannot remove", path, source: e })
            }
            _ => Ok(()),
        }
    }
}

fn failed(ifname: &str, step: &'static str) -> impl FnOnce(io::Error) -> MapError {
    let ifname = ifname.to_owned();
    move |source| MapError::Tc { ifname, step, source }
}
