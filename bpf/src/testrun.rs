//! Runs the loaded program on a frame in memory (`BPF_PROG_TEST_RUN`): for tests that compare it
//! with the Rust pipeline, and for seeing where a frame would go. The maps, counters included, are
//! the live ones.

use crate::abi::PuntMeta;
use crate::error::MapError;
use crate::gateway::Gateway;
use crate::sys;
use libbpf_rs::libbpf_sys;
use std::os::fd::AsFd;

/// A frame to run the program on, of 14 bytes at least (the kernel's minimum).
#[derive(Debug, Clone, Copy)]
pub struct TestFrame<'a> {
    /// From the link header on.
    pub bytes: &'a [u8],
    /// Device that it arrives on; 0 means the loopback device of the network namespace.
    pub ifindex: u32,
    /// Receive queue.
    pub queue: u32,
}

/// What the program did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRun {
    /// `XDP_ABORTED` 0, `XDP_DROP` 1, `XDP_PASS` 2, `XDP_TX` 3, `XDP_REDIRECT` 4.
    pub action: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// What was left for a worker.
    pub note: Option<PuntMeta>,
}

impl Gateway {
    /// Runs the program once on a frame. A redirect is not carried out.
    ///
    /// # Errors
    /// [`MapError::TestRun`] if the kernel does not take the frame.
    pub fn test_run(&self, f: TestFrame<'_>) -> Result<TestRun, MapError> {
        let ctx = libbpf_sys::xdp_md {
            data_end: f.bytes.len() as u32,
            ingress_ifindex: f.ifindex,
            rx_queue_index: f.queue,
            ..Default::default()
        };
        let (action, mut frame, ctx) =
            sys::test_run(self.prog.as_fd(), f.bytes, ctx).map_err(|source| MapError::TestRun { source })?;
        // The output starts with the metadata, whose length is where the frame's data starts.
        let meta = (ctx.data as usize).min(frame.len());
        let note = frame.get(..meta).and_then(|m| m.last_chunk()).and_then(|m| PuntMeta::read(*m));
        frame.drain(..meta);
        Ok(TestRun { action, frame, note })
    }
}
