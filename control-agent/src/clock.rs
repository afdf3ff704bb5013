//! Time as the cloud sees it: the server's `Date` header corrects a wrong clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds; smaller differences are not logged.
const NOTICEABLE: i64 = 60;

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

    /// Takes over the time of a `Date` header; returns whether the difference changed much.
    pub fn learn(&self, date: &str) -> bool {
        let Ok(at) = httpdate::parse_http_date(date) else { return false };
        let Ok(at) = at.duration_since(UNIX_EPOCH) else { return false };
        let offset = at.as_secs() as i64 - unix_now();
        // The header has whole seconds and was a while on its way.
        let offset = if offset.abs() <= 2 { 0 } else { offset };
        let old = self.0.swap(offset, Ordering::Relaxed);
        let changed = (old - offset).abs() > NOTICEABLE;
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

/// `2026-07-14T08:41:33Z`; `None`: no year of four digits.
pub fn rfc3339(unix: i64) -> Option<String> {
    jiff::Timestamp::from_second(unix).ok().map(|t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar() {
        assert_eq!(rfc3339(0).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(rfc3339(951_782_400).as_deref(), Some("2000-02-29T00:00:00Z"));
        assert_eq!(rfc3339(1_784_018_493).as_deref(), Some("2026-07-14T08:41:33Z"));
        assert_eq!(rfc3339(4_102_444_799).as_deref(), Some("2099-12-31T23:59:59Z"));
        assert_eq!(rfc3339(i64::MAX), None);
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
