//! Documents that commands read: configurations, keys, peers.

use crate::client::Failure;
use sag_model::control::{ConfigText, KeyText, TunnelRekey};
use std::io::{self, Read};
use std::path::Path;

/// Keys for a tunnel: spi_in, spi_out, key_in and key_out in JSON, or in lines as in the configuration.
pub fn rekey(tunnel: &str, file: &Path, now: bool, wait: u32) -> Result<TunnelRekey, Failure> {
    let mut document = document(file)?;
    let text = std::mem::take(&mut document.text);
    let text = if text.trim_start().starts_with('{') { text } else { lines_to_json(&text) };
    let read: KeyPair =
        from_json(&ConfigText { text, name: document.name }, "spi_in, spi_out, key_in and key_out")?;
    let KeyPair { spi_in, spi_out, key_in, key_out } = read;
    Ok(TunnelRekey { tunnel: tunnel.to_owned(), spi_in, spi_out, key_in, key_out, now, wait })
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyPair {
    spi_in: u32,
    spi_out: u32,
    key_in: KeyText,
    key_out: KeyText,
}

/// Converts `key = value` lines to a JSON object; comments behind `#` are removed.
fn lines_to_json(text: &str) -> String {
    let line = |l: &str| {
        let (key, value) = l.split('#').next()?.split_once('=')?;
        Some(format!("\"{}\":{}", key.trim(), value.trim()))
    };
    format!("{{{}}}", text.lines().filter_map(line).collect::<Vec<_>>().join(","))
}

/// Parses JSON. The error names the line and never quotes the text, which may be a key.
pub fn from_json<T: serde::de::DeserializeOwned>(document: &ConfigText, what: &str) -> Result<T, Failure> {
    serde_json::from_str(&document.text)
        .map_err(|e| Failure::Usage(format!("{}, line {}: not {what}", document.name, e.line())))
}

/// Reads a configuration from a file, or from standard input if that is `-`.
pub fn document(file: &Path) -> Result<ConfigText, Failure> {
    let name = file.display().to_string();
    let text = if name == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    match text {
        Ok(text) => Ok(ConfigText { text, name }),
        Err(e) => Err(Failure::Usage(format!("cannot read {name}: {e}"))),
    }
}
