//! Time as the cloud sees it: the server's `Date` header corrects a wrong clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Differences that nobody needs to hear of, seconds.
const WORTH_A_WORD: i64 = 60;

/// Seconds to add to the local clock.
#[derive(Debug, Default)]
pub struct Offset(AtomicI64);

impl Offset {
    pub fn now(&self) -> i64 {
        unix_now() + self.0.load(Ordering::Relaxed)
    }

    pub fn copy(&self) -> Offset {
        Offset(AtomicI64::new(self.seconds()))
    }

    pub fn seconds(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes over the time of a `Date` header; tells whether the difference changed much.
    pub fn learn(&self, date: &str) -> bool {
        let Ok(at) = httpdate::parse_http_date(date) else { return false };
        let Ok(at) = at.duration_since(UNIX_EPOCH) else { return false };
        let offset = at.as_secs() as i64 - unix_now();
        // The header has whole seconds and was a while on its way.
        let offset = if offset.abs() <= 2 { 0 } else { offset };
        let old = self.0.swap(offset, Ordering::Relaxed);
        let changed = (old - offset).abs() > WORTH_A_WORD;
        if changed {
            tracing::warn!(
                seconds = offset,
                "the clock of this machine differs from the cloud's; requests are signed with the cloud's time. \
                 Remedy: run an NTP client"
            );
        }
        changed
    }
}

pub fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

pub fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// `2026-07-14T08:41:33Z`.
pub fn rfc3339(unix: i64) -> String {
    let (days, secs) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
    let (y, m, d) = civil(days);
    format!("{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}Z", secs / 3600, secs / 60 % 60, secs % 60)
}

/// Year, month, day of a day since 1970, in the proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Counted from 1 March of year 0, so that leap days are last.
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year, month, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_784_018_493), "2026-07-14T08:41:33Z");
        assert_eq!(rfc3339(4_102_444_799), "2099-12-31T23:59:59Z");
    }

    #[test]
    fn a_date_header_corrects_the_clock() {
        let offset = Offset::default();
        let ahead = SystemTime::now() + std::time::Duration::from_secs(7200);
        assert!(offset.learn(&httpdate::fmt_http_date(ahead)));
        assert!((offset.now() - unix_now() - 7200).abs() <= 1);
        // Said once.
        assert!(!offset.learn(&httpdate::fmt_http_date(ahead)));
        assert!(!offset.learn("yesterday"));
    }
}
