//! One case for counting instructions: `count established|established6|first|denied BATCHES`, batches of 64
//! packets; of first packets there are at most 64. What comes before them does not depend on their number.

#![forbid(unsafe_code)]

use sag_benches::*;

/// Batches with packets of their own; then the same ones come again.
const MOST: usize = 64;

fn main() {
    let mut args = std::env::args().skip(1);
    let case = args.next().unwrap_or_else(|| "established".into());
    let batches = args.next().and_then(|a| a.parse().ok()).unwrap_or(MOST);
    let ip = if case.ends_with('6') { Ip::V6 } else { Ip::V4 };
    let first = case.starts_with("first");
    let batches = if first { batches.min(MOST) } else { batches };
    let frames = Frozen::new(ip, MOST * 64);
    let mut load = Load::new(if case.starts_with("denied") { closed_gateway(1000) } else { gateway(1000) });
    let order = shuffled(MOST * 64);
    for chunk in order.chunks(64).filter(|_| !first) {
        load.batch(chunk.iter().map(|&n| frames.get(n)));
    }
    for chunk in order.chunks(64).cycle().take(batches) {
        load.batch(chunk.iter().map(|&n| frames.get(n)));
    }
}
