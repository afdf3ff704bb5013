//! How much stack the program needs. Kernels differ in how they count it, so what one takes another may refuse.

use libbpf_rs::libbpf_sys::bpf_insn;
use std::collections::{BTreeMap, BTreeSet};

/// What the frame of a function is rounded up to by kernels that are strict about it, Linux 6.1 among them. Later ones
/// with a JIT take 16.
const FRAME: u32 = 32;

/// The number of the frame pointer.
const R10: u8 = 10;

/// The stack of the longest chain of calls, in bytes: `MAX_BPF_STACK`, 512, is what a kernel takes. `insns` is the program
/// with its functions behind it, as libbpf has it after loading.
pub(crate) fn deepest(insns: &[bpf_insn]) -> u32 {
    let starts: BTreeSet<usize> = std::iter::once(0).chain(calls(insns).map(|(_, to)| to)).collect();
    let function = |at: usize| starts.range(..=at).next_back().copied().unwrap_or(0);
    let mut frames: BTreeMap<usize, u32> = starts.iter().map(|&s| (s, 1)).collect();
    for (at, used) in uses(insns) {
        let frame = frames.entry(function(at)).or_insert(1);
        *frame = used.max(*frame);
    }
    let mut callees: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (at, to) in calls(insns) {
        callees.entry(function(at)).or_default().insert(to);
    }
    from(0, &frames, &callees)
}

/// The verifier lets no function call itself, so this ends.
fn from(function: usize, frames: &BTreeMap<usize, u32>, callees: &BTreeMap<usize, BTreeSet<usize>>) -> u32 {
    let below = callees.get(&function).into_iter().flatten();
    let below = below.map(|&f| from(f, frames, callees)).max().unwrap_or(0);
    frames.get(&function).copied().unwrap_or(1).next_multiple_of(FRAME) + below
}

/// Calls from one function to another: where, and where to.
fn calls(insns: &[bpf_insn]) -> impl Iterator<Item = (usize, usize)> {
    /// BPF_JMP | BPF_CALL; of a function, not a helper, by its source.
    const CALL: u8 = 0x85;
    const PSEUDO_CALL: u8 = 1;
    let call = |i: &bpf_insn| i.code == CALL && i.src_reg() == PSEUDO_CALL;
    let called = insns.iter().enumerate().filter(move |(_, i)| call(i));
    called.filter_map(|(at, i)| Some((at, (at + 1).checked_add_signed(i.imm as isize)?)))
}

/// How far below the frame pointer instructions read, write or point.
fn uses(insns: &[bpf_insn]) -> impl Iterator<Item = (usize, u32)> {
    /// Classes of instructions, and two whole ones: r = r10, r += number.
    const LDX: u8 = 1;
    const ST: u8 = 2;
    const STX: u8 = 3;
    const MOV64: u8 = 0xBF;
    const ADD64: u8 = 0x07;
    insns.iter().enumerate().filter_map(|(at, i)| {
        let below = match i.code & 7 {
            LDX if i.src_reg() == R10 => i32::from(i.off),
            ST | STX if i.dst_reg() == R10 => i32::from(i.off),
            _ if i.code == MOV64 && i.src_reg() == R10 => {
                let next = insns.get(at + 1).filter(|n| n.code == ADD64 && n.dst_reg() == i.dst_reg());
                next.map_or(0, |n| n.imm)
            }
            _ => 0,
        };
        (below < 0).then(|| (at, below.unsigned_abs()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> bpf_insn {
        bpf_insn { code, off, imm, _bitfield_1: bpf_insn::new_bitfield_1(dst, src), ..bpf_insn::default() }
    }

    #[test]
    fn frames_of_a_chain_are_rounded_up_each() {
        let exit = insn(0x95, 0, 0, 0, 0);
        let program = [
            insn(0x7B, R10, 1, -144, 0), // *(u64 *)(r10 - 144) = r1
            insn(0x85, 0, 1, 0, 2),      // call 4
            insn(0x85, 0, 0, 0, 1),      // a helper
            exit,
            insn(0xBF, 2, R10, 0, 0), // r2 = r10
            insn(0x07, 2, 0, 0, -40), // r2 += -40
            insn(0x85, 0, 1, 0, 1),   // call 8
            exit,
            insn(0x61, 1, R10, -4, 0), // r1 = *(u32 *)(r10 - 4)
            exit,
        ];
        assert_eq!(deepest(&program), 160 + 64 + 32);
        assert_eq!(deepest(&program[8..]), 32);
    }
}
