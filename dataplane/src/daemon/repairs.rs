//! What somebody has changed in the kernel behind the daemon's back, and what was done about it: XDP programs taken off
//! devices, pins removed, entries of maps deleted.

use sag_bpf::{Attachment, Gateway};
use sag_model::control::RepairCount;

/// Kinds of things that are put right.
const KINDS: [&str; 4] = ["attachment", "program", "pin", "map"];

/// What was put right since the daemon started, and what cannot be.
#[derive(Debug, Default)]
pub struct Repairs {
    counts: [u64; KINDS.len()],
    /// Why pins are missing, and how many.
    pins_missing: Option<(String, usize)>,
}

impl Repairs {
    /// Counts programs that were put back on devices.
    pub fn note_attachments(&mut self, lost: &[(String, Attachment)]) {
        for (_, what) in lost {
            self.counts[usize::from(matches!(what, Attachment::Exchanged(_)))] += 1;
        }
    }

    /// Counts kinds of entries of maps that were written again.
    pub fn note_maps(&mut self, missing: usize) {
        self.counts[3] += missing as u64;
    }

    /// Makes pins that are missing. Traffic does not depend on them, the next start does.
    pub fn repair_pins(&mut self, gateway: &Gateway) {
        match gateway.repair_pins() {
            Ok(made) => {
                self.counts[2] += made.len() as u64;
                if !made.is_empty() {
                    tracing::warn!(
                        event = "pins-lost",
                        pins = made.join(", "),
                        "pins of XDP's programs, maps or links were removed from outside; made again"
                    );
                }
                self.pins_missing = None;
            }
            Err(error) => {
                let text = format!(
                    "{error}; traffic goes on, but a restart of the daemon would end all sessions (mount the BPF file \
                     system again, as in `mount -t bpf bpf /sys/fs/bpf`: the pins follow by themselves)"
                );
                if self.pins_missing.as_ref().is_none_or(|(t, _)| *t != text) {
                    tracing::error!(event = "pins-lost", "{text}");
                }
                self.pins_missing = Some((text, error.missing.len()));
            }
        }
    }

    /// What cannot be put right, for `status`.
    pub fn warnings(&self) -> Vec<String> {
        self.pins_missing.iter().map(|(text, _)| text.clone()).collect()
    }

    /// Pins that are missing now.
    pub fn pins_missing(&self) -> u64 {
        self.pins_missing.as_ref().map_or(0, |(_, n)| *n as u64)
    }

    /// For the metrics.
    pub fn counts(&self) -> Vec<RepairCount> {
        let row = |(kind, n): (&&str, &u64)| RepairCount { kind: (*kind).to_owned(), count: *n };
        KINDS.iter().zip(&self.counts).map(row).collect()
    }
}
