//! The log of a program: one line an event on standard error, whatever texts are in it.

use std::fmt;
use std::io::IsTerminal as _;

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{DefaultFields, Format, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, SubscriberBuilder};
use tracing_subscriber::registry::LookupSpan;

use crate::{Escaping, escape_json};

/// Starts the log of this process: lines of text, or one JSON object a line. Levels are coloured on a terminal, unless
/// `NO_COLOR` is set.
///
/// # Errors
/// The process has a log already.
pub fn start(filter: EnvFilter, json: bool) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let color = std::io::stderr().is_terminal() && !plain;
    if json {
        let lines = SubscriberBuilder::default().json().event_format(JsonEvents(Format::default().json()));
        lines.with_env_filter(filter).with_writer(std::io::stderr).try_init()
    } else {
        text(std::io::stderr).with_env_filter(filter).with_ansi(color).try_init()
    }
}

type Lines<W> = SubscriberBuilder<EscapedFields, Format, tracing::level_filters::LevelFilter, W>;

fn text<W: for<'w> MakeWriter<'w> + 'static>(to: W) -> Lines<W> {
    SubscriberBuilder::default().fmt_fields(EscapedFields).with_writer(to)
}

/// Fields and messages with everything escaped that acts on a line or a terminal.
struct EscapedFields;

/// Bytes of an event's or span's fields; longer ones are cut.
const LONGEST: usize = 8 * 1024;

impl<'w> FormatFields<'w> for EscapedFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut text = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut Escaping(&mut text)), fields)?;
        let end = (0..=LONGEST.min(text.len())).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
        writer.write_str(&text[..end])?;
        if end < text.len() {
            write!(writer, "… ({} bytes)", text.len())?;
        }
        Ok(())
    }
}

/// Events as JSON, in which active characters are escaped too.
struct JsonEvents(Format<Json>);

impl<S, N> FormatEvent<S, N> for JsonEvents
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        cx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(cx, Writer::new(&mut line), event)?;
        writer.write_str(&escape_json(&line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Buffer {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    const FORGED: &str =
        "x\n2026-01-01T00:00:00Z ERROR forged\r\u{1b}[2J\u{9b}2J\u{2028}\u{2029}\u{202e}\u{2066}";

    /// By every way in which a text can come into an event.
    fn write_events() {
        tracing::info!("{FORGED}");
        tracing::info!(name = FORGED, shown = %FORGED, quoted = ?FORGED, "message");
        let error = std::io::Error::other(FORGED);
        tracing::warn!(%error, error = &error as &dyn std::error::Error, "{}", FORGED);
        let span = tracing::info_span!("span", name = FORGED);
        span.in_scope(|| tracing::info!("inside"));
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        for color in [false, true] {
            let buffer = Buffer::default();
            let to = buffer.clone();
            let log = text(move || to.clone()).with_ansi(color).finish();
            tracing::subscriber::with_default(log, write_events);
            let text = buffer.text();
            assert_eq!(text.lines().count(), 4, "{text}");
            // Colours of the log itself stand in front of the message.
            let acts = |c: char| crate::is_active(c) && c != '\n' && !(color && c == '\u{1b}');
            assert!(!text.contains(acts) && !text.contains("\u{1b}[2J"), "{text:?}");
            assert!(text.contains(r"x\n2026-01-01"), "{text}");
        }
    }

    #[test]
    fn an_event_is_not_longer_than_a_page() {
        let buffer = Buffer::default();
        let to = buffer.clone();
        let log = text(move || to.clone()).finish();
        tracing::subscriber::with_default(log, || tracing::info!(name = "é".repeat(1_000_000), "message"));
        assert!(buffer.text().len() < LONGEST + 200);
        assert!(buffer.text().ends_with(" bytes)\n"), "{}", buffer.text());
    }

    #[test]
    fn json_lines_too() {
        let buffer = Buffer::default();
        let to = buffer.clone();
        let log = SubscriberBuilder::default()
            .json()
            .event_format(JsonEvents(Format::default().json()))
            .with_writer(move || to.clone());
        tracing::subscriber::with_default(log.finish(), write_events);
        let text = buffer.text();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(!text.contains(|c| crate::is_active(c) && c != '\n'), "{text:?}");
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(first["fields"]["message"], FORGED);
    }
}
