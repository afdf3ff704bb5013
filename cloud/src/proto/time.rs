//! Time as the API prints it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, the unit of the documented time stamps.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

pub fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

/// Year, month, day, hour, minute, second of a time in UTC.
pub fn civil(ms: i64) -> (i64, i64, i64, i64, i64, i64) {
    let secs = ms.div_euclid(1000);
    let days = secs.div_euclid(86_400) + 719_468;
    let era = days.div_euclid(146_097);
    let doe = days.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    let s = secs.rem_euclid(86_400);
    (year, month, day, s / 3600, s / 60 % 60, s % 60)
}

/// `2021-06-15 17:33:43`.
pub fn stamp(ms: i64) -> String {
    let (y, mo, d, h, mi, s) = civil(ms);
    format!("{y:04}-{mo:02}-{d:02} {h:02}:{mi:02}:{s:02}")
}

/// `202106`.
pub fn month(ms: i64) -> String {
    let (y, mo, ..) = civil(ms);
    format!("{y:04}{mo:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::validate::parse_time;

    #[test]
    fn stamps_and_parsing_agree() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:30:05Z", 951_827_405_000),
            ("2026-11-22T05:00:00Z", 1_795_323_600_000),
        ] {
            assert_eq!(parse_time(text), Some(ms / 1000));
            assert_eq!(stamp(ms), text.replace('T', " ").trim_end_matches('Z'));
        }
        assert_eq!(parse_time("1970-01-01T08:00:00+0800"), Some(0));
        assert_eq!(month(1_795_323_600_000), "202611");
    }
}
