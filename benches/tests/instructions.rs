//! Instructions a packet, counted by valgrind, held to a budget: times are noisy, counts are not.
//!
//! A change that costs more is either a mistake or worth it; in the latter case the budget is raised here,
//! in the same commit. One that costs much less lowers it.

use std::process::Command;

/// Case; instructions a packet as built for tests (`opt-level = 1`, rustc 1.95). Copying the frame and
/// looking at the clock, which the harness does, are part of it; of ESP, AES-GCM of 64 bytes.
const BUDGET: [(&str, u64); 7] = [
    ("established", 1303),
    ("established6", 1307),
    ("first", 7693),
    ("denied", 3736),
    ("denied-quiet", 3541),
    ("esp-seal", 3910),
    ("esp-open", 4133),
];
/// Percent that a count may be off: other compilers, other processors.
const MARGIN: u64 = 15;

fn skip(why: &str) {
    println!("SKIP {why}");
    eprintln!("SKIP {why}");
}

fn instructions(case: &str, batches: u64) -> Result<u64, String> {
    let o = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(env!("CARGO_BIN_EXE_count"))
        .args([case, &batches.to_string()])
        // A small table: what is laid out before the first packet is emulated too.
        .env("SAG_BENCH_SESSIONS", "16384")
        .output()
        .map_err(|e| format!("cannot run valgrind: {e} (apt-get install valgrind)"))?;
    let text = String::from_utf8_lossy(&o.stderr);
    let line =
        text.lines().find(|l| l.contains("I   refs:") || l.contains("I refs:")).ok_or(text.to_string())?;
    let digits: String = line.rsplit(':').next().unwrap_or("").chars().filter(char::is_ascii_digit).collect();
    digits.parse().map_err(|_| line.to_owned())
}

#[test]
fn instructions_stay_within_the_budget() {
    if let Err(e) = Command::new("valgrind").arg("--version").output() {
        return skip(&format!("cannot run valgrind: {e} (apt-get install valgrind)"));
    }
    if !cfg!(debug_assertions) {
        return skip("the budget is for the test profile: cargo test without --release");
    }
    let mut over = Vec::new();
    for (case, budget) in BUDGET {
        // The difference of two runs: what comes before the batches falls out, but for what differs with the
        // seeds of hash tables.
        let more = if matches!(case, "first" | "esp-open") { 48 } else { 512 };
        let (few, many) = (instructions(case, 16).unwrap(), instructions(case, 16 + more).unwrap());
        let each = (many - few) / (more * 64);
        println!("{case}: {each} instructions a packet, budget {budget}");
        if each * 100 > budget * (100 + MARGIN) || each * 100 < budget * (100 - MARGIN) {
            over.push(format!("{case}: {each} instructions a packet, budget {budget} ± {MARGIN} %"));
        }
    }
    assert!(over.is_empty(), "{}", over.join("\n"));
}
