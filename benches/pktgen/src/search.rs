//! The method of RFC 2544: which rates and bursts to try.

use anyhow::Result;
use serde::Serialize;

/// What a trial at a rate found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// Frames a second that were asked for, and that were sent.
    pub asked: f64,
    pub offered: f64,
    pub sent: u64,
    pub lost: u64,
}

impl Sample {
    pub fn loss(&self) -> f64 {
        if self.sent == 0 { 1.0 } else { self.lost as f64 / self.sent as f64 }
    }
}

/// The search of section 26.1.
#[derive(Debug, Clone, Copy)]
pub struct Throughput {
    /// Frames a second: no less, and what the source can at most.
    pub min: f64,
    pub max: f64,
    /// Share of frames that may be lost: 0 for the non-drop rate, 0.005 for the partial drop rate.
    pub loss: f64,
    /// The interval of the result is at most this part of it.
    pub precision: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Found {
    /// The highest rate sent with no more loss than allowed; 0 if there is none.
    pub rate: f64,
    /// All trials, in their order.
    pub trials: Vec<Sample>,
}

impl Throughput {
    /// The highest rate first: where nothing is lost there, that is all.
    pub fn search(&self, mut trial: impl FnMut(f64) -> Result<Sample>) -> Result<Found> {
        let mut found = Found { rate: 0.0, trials: Vec::new() };
        let (mut low, mut high) = (self.min, self.max);
        let mut next = self.max;
        while found.trials.len() < 64 {
            let s = trial(next)?;
            found.trials.push(s);
            if s.loss() <= self.loss {
                found.rate = found.rate.max(s.offered);
                // A source that cannot send more has shown what there is to show.
                if next >= self.max || s.offered < next * 0.98 {
                    break;
                }
                low = next;
            } else {
                high = next;
            }
            if high - low <= self.precision * high.max(1.0) || high <= self.min {
                break;
            }
            next = (low + high) / 2.0;
        }
        Ok(found)
    }
}

/// Section 26.3: from the full rate down in steps, until two trials in a row have lost nothing.
pub fn loss_curve(max: f64, steps: u32, mut trial: impl FnMut(f64) -> Result<Sample>) -> Result<Vec<Sample>> {
    let mut curve: Vec<Sample> = Vec::new();
    for n in (1..=steps.max(1)).rev() {
        curve.push(trial(max * f64::from(n) / f64::from(steps.max(1)))?);
        if let [.., a, b] = curve.as_slice()
            && a.lost == 0
            && b.lost == 0
        {
            break;
        }
    }
    Ok(curve)
}

/// Section 26.4: the longest burst at full rate of which nothing is lost; `trial` says whether all
/// arrived.
pub fn back_to_back(max: u64, mut trial: impl FnMut(u64) -> Result<bool>) -> Result<u64> {
    if trial(max)? {
        return Ok(max);
    }
    let (mut low, mut high) = (0, max);
    while high - low > (high / 50).max(1) {
        let n = low + (high - low) / 2;
        if trial(n)? { low = n } else { high = n }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that forwards `capacity` frames a second and loses the rest.
    fn device(capacity: f64, source: f64) -> impl FnMut(f64) -> Result<Sample> {
        move |asked| {
            let offered = asked.min(source);
            let sent = (offered * 10.0) as u64;
            let lost = ((offered - capacity).max(0.0) * 10.0) as u64;
            Ok(Sample { asked, offered, sent, lost })
        }
    }

    fn search(loss: f64) -> Throughput {
        Throughput { min: 1e3, max: 1e6, loss, precision: 0.005 }
    }

    #[test]
    fn finds_the_capacity() {
        let f = search(0.0).search(device(377_777.0, 1e9)).unwrap();
        assert!((370_000.0..=377_777.0).contains(&f.rate), "{f:?}");
        assert!(f.trials.len() <= 12, "{}", f.trials.len());
    }

    #[test]
    fn allows_the_loss_that_it_is_given() {
        let f = search(0.005).search(device(377_777.0, 1e9)).unwrap();
        assert!((377_777.0..=379_676.0).contains(&f.rate), "{f:?}");
    }

    #[test]
    fn the_source_is_the_limit() {
        let f = search(0.0).search(device(1e9, 555e3)).unwrap();
        assert_eq!((f.rate, f.trials.len()), (555e3, 1));
        let f = search(0.0).search(device(1e9, 1e9)).unwrap();
        assert_eq!((f.rate, f.trials.len()), (1e6, 1));
    }

    #[test]
    fn nothing_passes() {
        let f = search(0.0).search(device(0.0, 1e9)).unwrap();
        assert_eq!(f.rate, 0.0);
        assert!(f.trials.len() < 20);
        assert!(search(0.0).search(|_| anyhow::bail!("no device")).is_err());
    }

    #[test]
    fn curve_ends_where_nothing_is_lost() {
        let c = loss_curve(1e6, 10, device(650e3, 1e9)).unwrap();
        let lost: Vec<bool> = c.iter().map(|s| s.lost > 0).collect();
        assert_eq!(lost, [true, true, true, true, false, false]);
        assert_eq!(loss_curve(1e6, 10, device(1e9, 1e9)).unwrap().len(), 2);
    }

    #[test]
    fn bursts() {
        let n = back_to_back(10_000, |n| Ok(n <= 700)).unwrap();
        assert!((686..=700).contains(&n), "{n}");
        assert_eq!(back_to_back(10_000, |_| Ok(true)).unwrap(), 10_000);
        assert_eq!(back_to_back(10_000, |_| Ok(false)).unwrap(), 0);
    }
}
