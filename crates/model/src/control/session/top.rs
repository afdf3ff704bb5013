//! `top`: who uses most, sessions summed by host, service or port.

use super::facts::SessionFacts;
use super::filter::SessionFilter;
use super::proto::IpProto;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

/// What one line of `top` stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopGroup {
    /// Source address of the first packet.
    #[default]
    Src,
    /// By destination address.
    Dst,
    /// Protocol and destination port.
    Service,
    /// One session.
    Session,
}

/// What the order goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopBy {
    /// Both directions.
    #[default]
    Bytes,
    /// Packets, both directions.
    Packets,
    /// Number of sessions.
    Sessions,
}

/// Arguments of `top`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopQuery {
    /// What sessions are added up by.
    pub group: TopGroup,
    /// What rows are ordered by.
    pub by: TopBy,
    /// What is selected.
    pub filter: SessionFilter,
    /// Absent: 20; at most 10,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl TopQuery {
    /// How many rows to list.
    pub fn wanted(&self) -> usize {
        self.limit.unwrap_or(20).min(10_000) as usize
    }
}

/// Answer to `top`. Counters are those of live sessions since their start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Top {
    /// What sessions are added up by.
    pub group: TopGroup,
    /// What rows are ordered by.
    pub by: TopBy,
    /// The largest first.
    pub rows: Vec<TopRow>,
    /// Number of groups before `limit`; an estimate beyond 262,144.
    pub total: u64,
}

/// Sums over the sessions of one group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TopRow {
    /// As in `192.0.2.7`, `tcp/443` or `tcp 192.0.2.7:5000 > 198.51.100.1:443`.
    pub key: String,
    /// Number of sessions.
    pub sessions: u64,
    /// Packets of the forward direction.
    pub packets: u64,
    /// IP bytes of the forward direction.
    pub bytes: u64,
    /// Packets of the replies.
    pub reply_packets: u64,
    /// IP bytes of the replies.
    pub reply_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Host(IpAddr),
    Service(IpProto, u16),
    Session(IpProto, IpAddr, u16, IpAddr, u16),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Key::Host(a) => write!(f, "{a}"),
            Key::Service(p, port) if p.has_ports() => write!(f, "{p}/{port}"),
            Key::Service(p, _) => write!(f, "{p}"),
            Key::Session(p, src, sport, dst, dport) => {
                write!(f, "{p} {} > {}", Endpoint(p, src, sport), Endpoint(p, dst, dport))
            }
        }
    }
}

struct Endpoint(IpProto, IpAddr, u16);

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.has_ports(), self.1) {
            (true, IpAddr::V4(a)) => write!(f, "{a}:{}", self.2),
            (true, IpAddr::V6(a)) => write!(f, "[{a}]:{}", self.2),
            (false, a) => write!(f, "{a}"),
        }
    }
}

/// Groups that are summed apart at a time; beyond it, the least are forgotten. Bounds the memory
/// that a question may take, however full the table.
const MAX_GROUPS: usize = 1 << 18;

/// Sums sessions in one pass over a table.
#[derive(Debug)]
pub struct TopCollector<'q> {
    query: &'q TopQuery,
    groups: HashMap<Key, TopRow>,
    left_out: u64,
}

impl<'q> TopCollector<'q> {
    /// For one query.
    pub fn new(query: &'q TopQuery) -> TopCollector<'q> {
        TopCollector { query, groups: HashMap::new(), left_out: 0 }
    }

    /// Adds a session if the filter admits it.
    pub fn offer(&mut self, s: &SessionFacts<'_>) {
        if !self.query.filter.matches(s) {
            return;
        }
        let key = match self.query.group {
            TopGroup::Src => Key::Host(s.src),
            TopGroup::Dst => Key::Host(s.dst),
            TopGroup::Service => Key::Service(s.proto, if s.proto.has_ports() { s.dport } else { 0 }),
            TopGroup::Session => Key::Session(s.proto, s.src, s.sport, s.dst, s.dport),
        };
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
            self.make_room();
        }
        let row = self.groups.entry(key).or_default();
        row.sessions += 1;
        row.packets = row.packets.saturating_add(s.packets);
        row.bytes = row.bytes.saturating_add(s.bytes);
        row.reply_packets = row.reply_packets.saturating_add(s.reply_packets);
        row.reply_bytes = row.reply_bytes.saturating_add(s.reply_bytes);
    }

    /// Forgets at least the lesser half: the large users are what is asked for.
    fn make_room(&mut self) {
        let by = self.query.by;
        let mut ranks: Vec<u64> = self.groups.values().map(|r| rank(by, r)).collect();
        let middle = ranks.len() / 2;
        let (_, median, _) = ranks.select_nth_unstable(middle);
        let (median, before) = (*median, self.groups.len());
        self.groups.retain(|_, r| rank(by, r) > median);
        self.left_out += (before - self.groups.len()) as u64;
    }

    /// The answer.
    pub fn finish(self) -> Top {
        let TopQuery { group, by, .. } = *self.query;
        let total = self.groups.len() as u64 + self.left_out;
        let mut rows: Vec<(Key, TopRow)> = self.groups.into_iter().collect();
        rows.sort_by(|(ka, a), (kb, b)| rank(by, b).cmp(&rank(by, a)).then(ka.cmp(kb)));
        rows.truncate(self.query.wanted());
        let rows = rows.into_iter().map(|(key, row)| TopRow { key: key.to_string(), ..row }).collect();
        Top { group, by, rows, total }
    }
}

fn rank(by: TopBy, r: &TopRow) -> u64 {
    match by {
        TopBy::Bytes => r.bytes.saturating_add(r.reply_bytes),
        TopBy::Packets => r.packets.saturating_add(r.reply_packets),
        TopBy::Sessions => r.sessions,
    }
}
