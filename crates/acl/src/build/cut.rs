//! Choosing where a node cuts.
//!
//! A window of key bits is grown bit by bit from the best single bit, a second one beside it where
//! that helps. What counts is how many rules a packet still meets afterwards, against how many
//! copies of rules it takes. Packets are assumed to fall where the rules are.

use super::cell::Cell;
use super::span::{MAX_DIMS, Span, dim_bits, dims};
use crate::addr::Addr;
use crate::forest::Window;
use crate::generate::Rng;

/// A node looks at this many of its rules, evenly spread, to choose.
const SAMPLE: usize = 1024;

/// Most bits of a cut.
const MAX_BITS: u32 = 13;

/// How many bits a window may grow at once, to get past bits that do not separate rules.
const STRIDE: u8 = 3;

/// Other words that are tried for the second window.
const SECONDS: usize = 6;

/// What a doubling of the rule copies may cost, in halvings of the rules met.
const COPY_COST: f32 = 0.2;

/// Halvings of the rules met that a bit has to bring.
const BIT_GAIN: f32 = 0.1;

/// The share of the room for copies that one cut may take, as an exponent.
const ROOM_AT_ONCE: f32 = 0.7;

/// Fewer rules than this in a child are worth nothing: they share a block.
const ENOUGH: f32 = 5.0;

impl Window {
    /// Cuts nothing.
    pub const NONE: Window = Window { dim: 0, shift: 0, bits: 0 };

    pub fn mask(self) -> u32 {
        (1 << self.bits) - 1
    }

    /// Values of the window that occur in `span`: one range, or two where it wraps.
    fn touched(self, span: Span) -> ((u32, u32), Option<(u32, u32)>) {
        let mask = self.mask();
        let (lo, hi) = (span.lo >> self.shift, span.hi >> self.shift);
        if hi - lo >= mask {
            return ((0, mask), None);
        }
        let (lo, hi) = (lo & mask, hi & mask);
        if lo <= hi { ((lo, hi), None) } else { ((lo, mask), Some((0, hi))) }
    }
}

/// Two windows; the second may be empty. They share no bits.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    pub a: Window,
    pub b: Window,
}

impl Cut {
    pub fn children(self) -> usize {
        1 << (self.a.bits + self.b.bits)
    }

    /// Rules in all children together.
    fn copies(self, spans: &[[Span; MAX_DIMS]], ids: &[u32], hull: &[Span; MAX_DIMS]) -> usize {
        let values = |w: Window, of: &[Span; MAX_DIMS]| {
            let d = usize::from(w.dim);
            let (first, second) = w.touched(of[d].clip(hull[d]));
            let count = |(lo, hi): (u32, u32)| (hi - lo + 1) as usize;
            count(first) + second.map_or(0, count)
        };
        ids.iter().map(|&id| &spans[id as usize]).map(|s| values(self.a, s) * values(self.b, s)).sum()
    }

    /// Calls `with` for each child that a rule touches, given its ranges in both words.
    pub fn touched(self, a: Span, b: Span, mut with: impl FnMut(usize)) {
        let (b_first, b_second) = self.b.touched(b);
        let (a_first, a_second) = self.a.touched(a);
        for (b_lo, b_hi) in std::iter::once(b_first).chain(b_second) {
            for y in b_lo..=b_hi {
                for (a_lo, a_hi) in std::iter::once(a_first).chain(a_second) {
                    for x in a_lo..=a_hi {
                        with((y << self.a.bits | x) as usize);
                    }
                }
            }
        }
    }
}

/// What a cut does to the rules looked at.
#[derive(Clone, Copy)]
struct Effect {
    /// Rule copies for each rule.
    copies: f32,
    /// Halvings of the rules that a packet meets, less the cost of the copies.
    score: f32,
    gain: f32,
}

/// Finds cuts; its buffers are reused from node to node.
pub struct Cutter {
    dims: usize,
    bits: [u32; MAX_DIMS],
    /// The rules looked at.
    picked: Vec<u32>,
    /// Their ranges, a column for each word; empty if the word is the same in all of them.
    columns: Vec<Vec<Span>>,
    counts: Vec<i32>,
}

impl Cutter {
    pub fn new<A: Addr>() -> Cutter {
        Cutter {
            dims: dims::<A>(),
            bits: std::array::from_fn(|d| dim_bits::<A>(d)),
            picked: Vec::new(),
            columns: vec![Vec::new(); MAX_DIMS],
            counts: Vec::new(),
        }
    }

    /// The cut for a node, or `None` if no cut pays. Subtracts what the search cost from `work`.
    pub fn choose(
        &mut self,
        spans: &[[Span; MAX_DIMS]],
        ids: &[u32],
        cell: &Cell,
        hull: &[Span; MAX_DIMS],
        room: usize,
        work: &mut u64,
    ) -> Option<Cut> {
        let every = ids.len().div_ceil(SAMPLE);
        // One rule out of every so many, at changing places: rule sets have periods.
        let n = ids.len() / every;
        let mut rng = Rng::new(ids.len() as u64);
        self.picked.clear();
        self.picked.extend((0..n).map(|i| ids[i * every + rng.below(every)]));
        self.load(spans, hull);
        // In a sample, a rule stands for `every` rules.
        let enough = ENOUGH / every as f32;
        // Not all of the room at once: cuts further down need some, too.
        let max_copies = (room as f32 / ids.len() as f32).powf(ROOM_AT_ONCE);
        let max_bits = (ids.len().ilog2() + 2).min(MAX_BITS);
        let mut spend = |candidates: usize| {
            let cost = (candidates * n) as u64;
            *work = work.saturating_sub(cost);
            *work > 0
        };

        let singles = self.single_bits(n, cell, enough);
        if !spend(singles.len() / 4) {
            return None;
        }
        let (first, mut effect) = *singles.iter().find(|(_, e)| e.copies <= max_copies)?;
        let mut cut = Cut { a: first, b: Window::NONE };
        let mut moves: Vec<Cut> = Vec::new();
        loop {
            moves.clear();
            self.grow(cut.a, cell, |a| moves.push(Cut { a, b: cut.b }));
            if cut.b.bits > 0 {
                self.grow(cut.b, cell, |b| moves.push(Cut { a: cut.a, b }));
            } else {
                self.seconds(&singles, cut.a, |b| moves.push(Cut { a: cut.a, b }));
            }
            moves.retain(|c| u32::from(c.a.bits + c.b.bits) <= max_bits && !c.overlaps());
            let bits = cut.a.bits + cut.b.bits;
            let mut best: Option<(f32, Cut, Effect)> = None;
            for &c in &moves {
                let e = self.effect(c, n, enough);
                let per_bit = (e.score - effect.score) / f32::from(c.a.bits + c.b.bits - bits);
                if e.copies <= max_copies
                    && per_bit > BIT_GAIN
                    && best.as_ref().is_none_or(|(b, ..)| per_bit > *b)
                {
                    best = Some((per_bit, c, e));
                }
            }
            let enough_work = spend(moves.len());
            let Some((_, c, e)) = best else { break };
            (cut, effect) = (c, e);
            if !enough_work {
                break;
            }
        }
        (effect.score > 0.1 && effect.gain > 0.2 && cut.copies(spans, ids, hull) <= room).then_some(cut)
    }

    /// Fills the columns.
    fn load(&mut self, spans: &[[Span; MAX_DIMS]], hull: &[Span; MAX_DIMS]) {
        for d in 0..self.dims {
            let column = &mut self.columns[d];
            column.clear();
            column.extend(self.picked.iter().map(|&id| spans[id as usize][d].clip(hull[d])));
            let same = column.windows(2).all(|w| w[0] == w[1]);
            if same {
                column.clear();
            }
        }
    }

    /// Every free bit, best first.
    fn single_bits(&mut self, n: usize, cell: &Cell, enough: f32) -> Vec<(Window, Effect)> {
        let mut out = Vec::new();
        for d in 0..self.dims {
            let column = &self.columns[d];
            if column.is_empty() {
                continue;
            }
            for bit in (0..self.bits[d]).filter(|&b| cell.is_free(d, b)) {
                let (mut zeros, mut ones) = (0u32, 0u32);
                for s in column {
                    let (lo, hi) = (s.lo >> bit, s.hi >> bit);
                    let both = u32::from(lo != hi);
                    zeros += both | (!lo & 1);
                    ones += both | (lo & 1);
                }
                let e = Effect::of([zeros, ones], n, enough);
                out.push((Window { dim: d as u8, shift: bit as u8, bits: 1 }, e));
            }
        }
        out.sort_by(|x, y| y.1.score.total_cmp(&x.1.score));
        out
    }

    /// `w`, larger by up to [`STRIDE`] bits at either end.
    fn grow(&self, w: Window, cell: &Cell, mut with: impl FnMut(Window)) {
        let d = usize::from(w.dim);
        for by in 1..=STRIDE {
            if w.shift < by || !cell.is_free(d, u32::from(w.shift - by)) {
                break;
            }
            with(Window { shift: w.shift - by, bits: w.bits + by, ..w });
        }
        for by in 1..=STRIDE {
            if !cell.is_free(d, u32::from(w.shift + w.bits + by - 1)) {
                break;
            }
            with(Window { bits: w.bits + by, ..w });
        }
    }

    /// Single bits worth trying beside `a`, one or two a word.
    fn seconds(&self, singles: &[(Window, Effect)], a: Window, mut with: impl FnMut(Window)) {
        let mut tried = [0u8; MAX_DIMS];
        let mut left = SECONDS;
        for (w, _) in singles {
            let d = usize::from(w.dim);
            if left == 0 {
                break;
            }
            if tried[d] < 2 && !(Cut { a, b: *w }).overlaps() {
                tried[d] += 1;
                left -= 1;
                with(*w);
            }
        }
    }

    fn effect(&mut self, cut: Cut, n: usize, enough: f32) -> Effect {
        let (wide, high) = (1usize << cut.a.bits, 1usize << cut.b.bits);
        let row = wide + 1;
        let counts = &mut self.counts;
        counts.clear();
        counts.resize(row * (high + 1), 0);
        let column_a = &self.columns[usize::from(cut.a.dim)];
        let column_b = &self.columns[usize::from(cut.b.dim)];
        let whole = ((0, 0), None);
        // Each rule marks the corners of its rectangles of children; summing up fills them.
        for i in 0..n {
            let (a, a2) = cut.a.touched(column_a[i]);
            let (b, b2) = if cut.b.bits == 0 { whole } else { cut.b.touched(column_b[i]) };
            let mut mark = |a: (u32, u32), b: (u32, u32)| {
                let (x0, x1) = (a.0 as usize, a.1 as usize + 1);
                let (y0, y1) = (b.0 as usize, b.1 as usize + 1);
                counts[y0 * row + x0] += 1;
                counts[y0 * row + x1] -= 1;
                counts[y1 * row + x0] -= 1;
                counts[y1 * row + x1] += 1;
            };
            mark(a, b);
            if let Some(a2) = a2 {
                mark(a2, b);
            }
            if let Some(b2) = b2 {
                mark(a, b2);
                if let Some(a2) = a2 {
                    mark(a2, b2);
                }
            }
        }
        let (mut copies, mut met) = (0f32, 0f32);
        for y in 0..high {
            let mut sum = 0;
            for x in 0..wide {
                sum += counts[y * row + x];
                let below = if y == 0 { 0 } else { counts[(y - 1) * row + x] };
                counts[y * row + x] = sum + below;
                let c = (sum + below) as f32;
                copies += c;
                met += c * c.max(enough);
            }
        }
        Effect::new(copies, met, n)
    }
}

impl Cut {
    fn overlaps(self) -> bool {
        self.a.dim == self.b.dim
            && self.b.bits > 0
            && self.a.mask() << self.a.shift & self.b.mask() << self.b.shift != 0
    }
}

impl Effect {
    fn of(children: [u32; 2], n: usize, enough: f32) -> Effect {
        let c = children.map(|c| c as f32);
        Effect::new(c[0] + c[1], c[0] * c[0].max(enough) + c[1] * c[1].max(enough), n)
    }

    /// `met`: for each copy, the copies in its child, summed.
    fn new(copies: f32, met: f32, n: usize) -> Effect {
        let n = n as f32;
        let gain = (n * copies / met).log2();
        let copies = copies / n;
        Effect { copies, gain, score: gain - COPY_COST * copies.log2() }
    }
}
