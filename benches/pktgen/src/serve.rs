//! Trials on request: loading the programs once makes short trials in turns possible.

use anyhow::Result;
use sag_pktgen::rig::{Rig, Trial};
use serde_json::{Value, json};
use std::io::{BufRead, Write, stdin, stdout};

/// A line in, a line out: what `run --json` prints, or `{"error": …}`. The line `"count"` asks for the
/// frames that the sink has received since the last trial began.
pub fn serve(rig: &Rig) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{}", json!({ "ready": true }))?;
    out.flush()?;
    for line in stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let answer = answer(rig, &line).unwrap_or_else(|e| json!({ "error": format!("{e:#}") }));
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn answer(rig: &Rig, line: &str) -> Result<Value> {
    if line.trim() == "\"count\"" {
        return Ok(json!({ "received": rig.received()?.packets }));
    }
    let trial: Trial = serde_json::from_str(line)?;
    Ok(serde_json::to_value(rig.run(&trial)?)?)
}
