//! What `explain` records. The packet path uses [`NoTrace`], which compiles to nothing.

use super::Stage;

pub trait Tracer {
    fn step(&mut self, stage: Stage, detail: impl FnOnce() -> String);
}

/// Records nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoTrace;

impl Tracer for NoTrace {
    #[inline]
    fn step(&mut self, _: Stage, _: impl FnOnce() -> String) {}
}

/// Keeps every step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps(pub Vec<(Stage, String)>);

impl Tracer for Steps {
    fn step(&mut self, stage: Stage, detail: impl FnOnce() -> String) {
        self.0.push((stage, detail()));
    }
}
