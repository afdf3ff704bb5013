//! `Condition` of a statement: `{"IpAddress": {"acs:SourceIp": ["10.0.0.0/8"]}}`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::document::texts;
use crate::time;

/// What conditions are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Where the call comes from.
    pub source: IpAddr,
    /// When it is made, in milliseconds since 1970.
    pub now: i64,
}

/// What became of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Holds,
    Fails,
    Unknown,
}

/// One key of one operator.
#[derive(Debug)]
pub enum Condition {
    /// `acs:SourceIp` is in one of the blocks, or in none of them.
    Source { blocks: Vec<IpNet>, inside: bool },
    /// `acs:CurrentTime` compares like this with one of the times, in seconds since 1970.
    Time { times: Vec<i64>, comparison: Comparison },
    /// An operator, a key or a value that is not known here.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    fn by_name(name: &str) -> Option<Comparison> {
        Some(match name {
            "DateEquals" => Comparison::Equal,
            "DateNotEquals" => Comparison::NotEqual,
            "DateLessThan" => Comparison::Less,
            "DateLessThanEquals" => Comparison::LessOrEqual,
            "DateGreaterThan" => Comparison::Greater,
            "DateGreaterThanEquals" => Comparison::GreaterOrEqual,
            _ => return None,
        })
    }

    fn holds(self, now: i64, times: &[i64]) -> bool {
        match self {
            Comparison::Equal => times.contains(&now),
            Comparison::NotEqual => !times.contains(&now),
            Comparison::Less => times.iter().any(|t| now < *t),
            Comparison::LessOrEqual => times.iter().any(|t| now <= *t),
            Comparison::Greater => times.iter().any(|t| now > *t),
            Comparison::GreaterOrEqual => times.iter().any(|t| now >= *t),
        }
    }
}

/// An address, or a block of addresses.
fn block(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

impl Condition {
    /// The condition of one operator on one key. The error says what of it is wrong; such a condition is unknown.
    pub fn new(operator: &str, key: &str, values: &Value) -> Result<Condition, String> {
        let values = texts(values);
        if values.is_empty() {
            return Err(format!("{operator} of {key} has no values"));
        }
        if key.eq_ignore_ascii_case("acs:SourceIp") {
            let inside = match operator {
                "IpAddress" => true,
                "NotIpAddress" => false,
                _ => return Ok(Condition::Unknown),
            };
            let blocks = values.iter().map(|v| block(v).ok_or_else(|| format!("{v} is no address block")));
            return Ok(Condition::Source { blocks: blocks.collect::<Result<_, _>>()?, inside });
        }
        if key.eq_ignore_ascii_case("acs:CurrentTime")
            && let Some(comparison) = Comparison::by_name(operator)
        {
            let times = values.iter().map(|v| {
                time::parse(v)
                    .ok_or_else(|| format!("{v} is no time (2026-11-22T05:00:00Z, or +0800 at its end)"))
            });
            return Ok(Condition::Time { times: times.collect::<Result<_, _>>()?, comparison });
        }
        Ok(Condition::Unknown)
    }

    pub fn evaluate(&self, call: &Context) -> Outcome {
        let holds = match self {
            Condition::Source { blocks, inside } => {
                // An IPv4 address that came over an IPv6 socket is an IPv4 address.
                let source = call.source.to_canonical();
                blocks.iter().any(|b| b.contains(&source)) == *inside
            }
            Condition::Time { times, comparison } => comparison.holds(call.now.div_euclid(1000), times),
            Condition::Unknown => return Outcome::Unknown,
        };
        if holds { Outcome::Holds } else { Outcome::Fails }
    }
}
