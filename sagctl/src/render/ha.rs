//! The peer to which sessions follow.

use super::Page;
use crate::page::Paint;
use crate::table::{Cell, Column, Table};
use crate::units::bytes;
use sag_model::control::Ha;
use std::fmt::Write as _;

/// `ha`.
pub fn ha(answer: &Ha, page: &Page) -> String {
    let (Some(listen), Some(peer)) = (&answer.listen, &answer.peer) else {
        return match &answer.last_error {
            Some(error) => format!("no peer: {error}\n"),
            None => "no peer is configured\n".into(),
        };
    };
    let mut table = Table::new([Column::text(""), Column::text("")]);
    let mut row = |name: &str, value: Cell| table.row([name.into(), value]);
    let good =
        |good: bool, text: String| Cell::from(text).paint(if good { Paint::Plain } else { Paint::Bad });
    row("peer", peer.as_str().into());
    row("this end", listen.as_str().into());
    let state = if answer.linked { "linked" } else { "no link" };
    row("link", good(answer.linked, format!("{state} for {} s", answer.since)));
    if let Some(heard) = answer.heard_ms {
        row("last heard", format!("{heard} ms ago").into());
    }
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    row("in sync", good(answer.in_sync, yes(answer.in_sync)));
    row("peer in sync", good(answer.peer_in_sync, yes(answer.peer_in_sync)));
    row("ready", good(answer.ready, yes(answer.ready)));
    row("own sessions", answer.own.to_string().into());
    row("the peer's", answer.replicas.to_string().into());
    let t = &answer.totals;
    row("sent", format!("{} messages, {}", t.sent, bytes(t.bytes_sent)).into());
    row("received", format!("{} messages, {}", t.received, bytes(t.bytes_received)).into());
    for (name, n) in t.events().into_iter().filter(|(_, n)| *n > 0) {
        row(name, n.to_string().into());
    }
    let mut text = table.render(page);
    if let Some(error) = &answer.last_error {
        let _ = writeln!(text, "last error: {error}");
    }
    text
}
