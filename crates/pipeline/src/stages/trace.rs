//! What `explain` records. The packet path uses [`NoTrace`], which compiles to nothing.

use super::{Disposition, Stage};

/// Receives what each stage found.
pub trait Tracer {
    /// A stage has passed the packet, or says why it does not. `detail` is called only if it is recorded.
    fn step(&mut self, stage: Stage, detail: impl FnOnce() -> String);

    /// A stage has stopped the packet.
    fn stopped(&mut self, stage: Stage, why: &Disposition);
}

/// Records nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoTrace;

impl Tracer for NoTrace {
    #[inline(always)]
    fn step(&mut self, _: Stage, _: impl FnOnce() -> String) {}

    #[inline(always)]
    fn stopped(&mut self, _: Stage, _: &Disposition) {}
}

/// Records every step. If the packet is stopped, the last step is that of the stage that stopped it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps(pub Vec<(Stage, String)>);

impl Tracer for Steps {
    fn step(&mut self, stage: Stage, detail: impl FnOnce() -> String) {
        self.0.push((stage, detail()));
    }

    fn stopped(&mut self, stage: Stage, why: &Disposition) {
        // A stage that has said why itself said it better.
        if self.0.last().is_none_or(|(last, _)| *last != stage) {
            self.0.push((stage, why.to_string()));
        }
    }
}
