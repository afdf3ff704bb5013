//! How rates, sizes and loads are written on the command line.

use std::str::FromStr;

/// Bytes of the frame check sequence, which sizes include and memory does not.
pub const FCS: u32 = 4;
/// Simple IMIX as FD.io CSIT has it: 7 of 64 bytes, 4 of 570, 1 of 1518 (28:16:4), spread evenly.
pub const IMIX: [u32; 12] = [64, 570, 64, 64, 570, 64, 1518, 64, 570, 64, 64, 570];

/// Frame sizes with FCS that take turns: one number, several with commas, or `imix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes(pub Vec<u32>);

impl FromStr for Sizes {
    type Err = String;

    fn from_str(s: &str) -> Result<Sizes, String> {
        if s.eq_ignore_ascii_case("imix") {
            return Ok(Sizes(IMIX.to_vec()));
        }
        let sizes: Vec<u32> = s
            .split(',')
            .map(|n| match n.trim().parse() {
                Ok(n @ 64..=1518) => Ok(n),
                _ => Err(format!("'{n}' is no frame size: 64 to 1518 bytes with FCS, or imix")),
            })
            .collect::<Result<_, _>>()?;
        if sizes.len() > 16 { Err("at most 16 sizes take turns".into()) } else { Ok(Sizes(sizes)) }
    }
}

/// Frames a second: `max` (0), or a number with an optional `k` or `M`.
pub fn rate(s: &str) -> Result<f64, String> {
    if s == "max" {
        return Ok(0.0);
    }
    let (digits, unit) = match s.strip_suffix(['k', 'K']) {
        Some(d) => (d, 1e3),
        None => s.strip_suffix('M').map_or((s, 1.0), |d| (d, 1e6)),
    };
    match digits.parse::<f64>() {
        Ok(n) if n > 0.0 && (n * unit).is_finite() => Ok(n * unit),
        _ => Err(format!("'{s}' is no rate: frames a second as in 250000, 250k, 1.5M, or max")),
    }
}

/// Percent, as in `0.5`.
pub fn percent(s: &str) -> Result<f64, String> {
    match s.trim_end_matches('%').parse::<f64>() {
        Ok(n) if (0.0..=100.0).contains(&n) => Ok(n / 100.0),
        _ => Err(format!("'{s}' is no percentage: 0 to 100")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(rate("max"), Ok(0.0));
        assert_eq!(rate("250k"), Ok(250e3));
        assert_eq!(rate("1.5M"), Ok(1.5e6));
        assert_eq!(rate("12"), Ok(12.0));
        for bad in ["", "k", "-1", "0", "1G", "nan", "inf"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!("64".parse(), Ok(Sizes(vec![64])));
        assert_eq!("64, 1518".parse(), Ok(Sizes(vec![64, 1518])));
        let imix: Sizes = "IMIX".parse().unwrap();
        let count = |n| imix.0.iter().filter(|s| **s == n).count();
        assert_eq!([count(64), count(570), count(1518)], [7, 4, 1]);
        for bad in ["", "63", "1519", "64,", "a"] {
            assert!(bad.parse::<Sizes>().is_err(), "{bad}");
        }
    }

    #[test]
    fn percentages() {
        assert_eq!(percent("0.5"), Ok(0.005));
        assert_eq!(percent("100%"), Ok(1.0));
        assert!(percent("101").is_err());
    }
}
