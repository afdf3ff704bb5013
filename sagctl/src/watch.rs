//! `--watch`: repeats a request and shows rates per second.

use crate::cli::{Cli, Watch};
use crate::client::{Client, Failure};
use crate::output::print;
use crate::page::Page;
use crate::render::Before;
use sag_model::control::Op;
use serde::de::DeserializeOwned;
use std::io::IsTerminal;
use std::time::Instant;

/// Sends the request once, or as often as `watch` says.
pub fn run<T: DeserializeOwned>(
    cli: &Cli,
    client: &mut Client,
    page: &Page,
    watch: &Watch,
    op: Op,
    render: fn(&T, Option<Before<'_, T>>, &Page) -> String,
) -> Result<(), Failure> {
    let clear = watch.watch.is_some() && !cli.json && std::io::stdout().is_terminal();
    let mut before: Option<(T, Instant)> = None;
    let mut round = 0;
    loop {
        let answer = client.call(op.clone())?;
        let at = Instant::now();
        let mut text = if clear { "\x1b[H\x1b[2J".to_owned() } else { String::new() };
        if cli.json {
            text.push_str(&answer.pretty());
        } else {
            let now: T = answer.read()?;
            let earlier = before
                .as_ref()
                .map(|(then, time)| Before { then, seconds: at.duration_since(*time).as_secs_f64() });
            if round > 0 && !clear {
                text.push('\n');
            }
            text.push_str(&render(&now, earlier, page));
            before = Some((now, at));
        }
        print(&text)?;
        round += 1;
        let Some(pause) = watch.watch else { return Ok(()) };
        if watch.rounds.is_some_and(|n| round >= n) {
            return Ok(());
        }
        std::thread::sleep(pause);
    }
}
