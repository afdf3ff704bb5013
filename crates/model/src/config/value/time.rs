//! Moments.

use super::{Fault, fault, quote};
use crate::config::types::Timestamp;

/// RFC 3339; the API's `+0800` without colon is read too.
pub(crate) fn timestamp(text: &str) -> Result<Timestamp, Fault> {
    let with_colon = match text.as_bytes() {
        [head @ .., b'+' | b'-', a, b, c, d]
            if head.contains(&b':') && [a, b, c, d].iter().all(|x| x.is_ascii_digit()) =>
        {
            // The matched tail is ASCII, so this cut lies between characters.
            let (front, minutes) = text.split_at(text.len() - 2);
            format!("{front}:{minutes}")
        }
        _ => text.to_owned(),
    };
    let bad = |what: &str| {
        fault(
            format!("{}: {what}", quote(text)),
            "write date, time and offset as in \"2026-07-14T16:41:33+08:00\" or \"2026-07-14T08:41:33Z\"",
        )
    };
    let Ok(parsed) = with_colon.parse::<toml::value::Datetime>() else {
        return bad("is not a time");
    };
    let (Some(date), Some(time)) = (parsed.date, parsed.time) else {
        return bad("lacks the date or the time of day");
    };
    let Some(offset) = parsed.offset else {
        return bad("lacks the offset from UTC");
    };
    if !(1970..=9998).contains(&date.year) {
        return bad("is outside the years 1970 to 9998");
    }
    let offset_s = match offset {
        toml::value::Offset::Z => 0,
        toml::value::Offset::Custom { minutes } => i64::from(minutes) * 60,
    };
    let minute = i16::try_from(date.year).ok().and_then(|year| {
        let [month, day, hour, minute] =
            [date.month, date.day, time.hour, time.minute].map(|n| i8::try_from(n).unwrap_or(-1));
        jiff::civil::DateTime::new(year, month, day, hour, minute, 0, 0).ok()
    });
    match minute.and_then(|t| jiff::tz::Offset::UTC.to_timestamp(t).ok()) {
        // Added rather than part of the minute: a leap second is the first second of the next one.
        Some(t) => Ok(Timestamp(t.as_second() + i64::from(time.second.unwrap_or_default()) - offset_s)),
        None => bad("is not a time"),
    }
}
