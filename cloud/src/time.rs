//! Time as the API prints it.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::Offset;

/// Milliseconds since 1970, the unit of the documented time stamps.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// Microseconds since 1970.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

/// So many calendar months later, in UTC: a month after 31 January is the last day of February.
pub fn months_later(ms: i64, months: i64) -> i64 {
    let later = Timestamp::from_millisecond(ms).and_then(|t| {
        let months = jiff::Span::new().try_months(months)?;
        Offset::UTC.to_timestamp(Offset::UTC.to_datetime(t).checked_add(months)?)
    });
    // Only times some thousand years off cannot be had.
    later.map_or(ms, Timestamp::as_millisecond)
}

fn print(ms: i64, format: &str) -> String {
    // Only times some ten thousand years off cannot be printed.
    Timestamp::from_millisecond(ms).map(|t| t.strftime(format).to_string()).unwrap_or_default()
}

/// `2021-06-15 17:33:43`, in UTC, of milliseconds since 1970.
pub fn stamp(ms: i64) -> String {
    print(ms, "%Y-%m-%d %H:%M:%S")
}

/// `202106`, in UTC, of milliseconds since 1970.
pub fn month(ms: i64) -> String {
    print(ms, "%Y%m")
}

/// `YYYY-MM-DDThh:mm:ss+0800` (or `Z`, or `+08:00`) as seconds since 1970.
pub fn parse(text: &str) -> Option<i64> {
    let (date, zone) = text.split_at_checked(19)?;
    let digits = |s: &str| s.bytes().map(|b| if b.is_ascii_digit() { b'0' } else { b }).collect::<Vec<u8>>();
    let zones: [&[u8]; 5] = [b"Z", b"+0000", b"-0000", b"+00:00", b"-00:00"];
    if digits(date) != b"0000-00-00T00:00:00" || !zones.contains(&digits(zone).as_slice()) {
        return None;
    }
    text.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

/// Like [`parse`], with a fraction of a second or without (`2026-11-22T05:00:00.123Z`), in milliseconds since 1970: the
/// time stamps of signatures, which some SDKs write so.
pub fn parse_fraction(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(19)?;
    let Some(fraction) = rest.strip_prefix('.') else { return Some(parse(text)? * 1000) };
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || digits > 9 {
        return None;
    }
    let (digits, zone) = fraction.split_at_checked(digits)?;
    let ms: i64 = format!("{digits:0<3}").get(..3)?.parse().ok()?;
    Some(parse(&format!("{date}{zone}"))? * 1000 + ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_and_parsing_agree() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:30:05Z", 951_827_405_000),
            ("2026-11-22T05:00:00Z", 1_795_323_600_000),
        ] {
            assert_eq!(parse(text), Some(ms / 1000));
            assert_eq!(stamp(ms), text.replace('T', " ").trim_end_matches('Z'));
        }
        for zone in ["+0800", "+08:00"] {
            assert_eq!(parse(&format!("1970-01-01T08:00:00{zone}")), Some(0));
        }
        for bad in ["1970-01-01", "1970-01-01 00:00:00Z", "1970-01-01T00:00:00", "1970-13-01T00:00:00Z", "é"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(month(1_795_323_600_000), "202611");
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let at = |text: &str| parse(text).expect("a time") * 1000;
        for (from, months, to) in [
            ("2026-01-31T12:00:00Z", 1, "2026-02-28T12:00:00Z"),
            ("2028-01-31T12:00:00Z", 1, "2028-02-29T12:00:00Z"),
            ("2026-11-30T05:00:00Z", 12, "2027-11-30T05:00:00Z"),
            ("2026-11-30T05:00:00Z", 3, "2027-02-28T05:00:00Z"),
        ] {
            assert_eq!(stamp(months_later(at(from), months)), stamp(at(to)), "{from} and {months}");
        }
        assert_eq!(months_later(i64::MAX, 1), i64::MAX);
    }

    #[test]
    fn fractions_of_a_second() {
        let ms = 1_795_323_600_000;
        for (text, more) in [
            ("2026-11-22T05:00:00Z", 0),
            ("2026-11-22T05:00:00.5Z", 500),
            ("2026-11-22T05:00:00.123456789Z", 123),
            ("2026-11-22T05:00:00.123456789+00:00", 123),
            ("2026-11-22T13:00:00.999+0800", 999),
        ] {
            assert_eq!(parse_fraction(text), Some(ms + more), "{text}");
        }
        for bad in
            ["2026-11-22T05:00:00.Z", "2026-11-22T05:00:00.1234567890Z", "2026-11-22T05:00:00.5", "é", "x.5Z"]
        {
            assert_eq!(parse_fraction(bad), None, "{bad}");
        }
    }
}
