//! Numbers as people read them.

const STEPS: &[(f64, &str)] = &[(1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];

/// `1,234,567`
pub fn exact(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Exact below a million, then as in `12.34M`.
pub fn count(n: u64) -> String {
    if n < 1_000_000 { exact(n) } else { si(n as f64) }
}

/// Four significant digits and a decimal prefix: `950`, `1.234k`, `12.34M`.
pub fn si(x: f64) -> String {
    let (scaled, unit) =
        STEPS.iter().find(|(step, _)| x >= *step).map_or((x, ""), |(step, unit)| (x / step, *unit));
    if unit.is_empty() && (x.fract() == 0.0 || x >= 100.0) {
        return format!("{x:.0}");
    }
    let decimals = match scaled {
        s if s >= 100.0 => 1,
        s if s >= 10.0 => 2,
        _ => {
            if unit.is_empty() {
                1
            } else {
                3
            }
        }
    };
    format!("{scaled:.decimals$}{unit}")
}

/// `950 B`, `1.2 MB`: decimal, as line rates are.
pub fn bytes(n: u64) -> String {
    let x = n as f64;
    match STEPS.iter().find(|(step, _)| x >= *step) {
        Some((step, unit)) if x / step >= 100.0 => format!("{:.0} {unit}B", x / step),
        Some((step, unit)) => format!("{:.1} {unit}B", x / step),
        None => format!("{n} B"),
    }
}

/// `12s`, `3m 20s`, `5h 1m`, `2d 7h`
pub fn span(seconds: u64) -> String {
    let (d, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => format!("{m}m {s}s"),
        (0, _, _) => format!("{h}h {m}m"),
        _ => format!("{d}d {h}h"),
    }
}

/// `part` of `whole` in percent; nothing of nothing is `-`.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".into();
    }
    format!("{:.1}%", part as f64 * 100.0 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let shown: Vec<String> = [0, 999, 1000, 999_999, 1_000_000, 12_345_678, u64::MAX].map(count).into();
        assert_eq!(shown, ["0", "999", "1,000", "999,999", "1.000M", "12.35M", "18.45E"]);
        assert_eq!(exact(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn rates() {
        let shown: Vec<String> = [0.0, 0.25, 7.0, 12.34, 950.4, 1234.0, 99_999.0, 2.5e9].map(si).into();
        assert_eq!(shown, ["0", "0.2", "7", "12.34", "950", "1.234k", "100.00k", "2.500G"]);
    }

    #[test]
    fn sizes_spans_shares() {
        let shown: Vec<String> = [0, 999, 1000, 64_000_000, 123_456_789].map(bytes).into();
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "64.0 MB", "123 MB"]);
        let shown: Vec<String> = [0, 59, 60, 3599, 3600, 86_399, 86_400, 700_000].map(span).into();
        assert_eq!(shown, ["0s", "59s", "1m 0s", "59m 59s", "1h 0m", "23h 59m", "1d 0h", "8d 2h"]);
        assert_eq!((percent(1, 8), percent(0, 0)), ("12.5%".into(), "-".into()));
    }
}
