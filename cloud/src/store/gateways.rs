//! Conditions on gateways that other tables answer, and their ranking.

use super::devices::version_order;
use super::objects::{Column, Filter};
use super::{Arg, Kind, Link, Result, Tx};
use crate::args;

/// Which versions fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    Greater,
    Less,
}

impl Filter {
    /// The gateway has this device.
    pub fn with_device(self, sn: &str) -> Filter {
        self.condition("id IN (SELECT sag FROM devices WHERE sn = ?)", args![sn])
    }

    /// The network has a gateway of this account.
    pub fn with_member_of(self, uid: i64) -> Filter {
        let sql = format!(
            "id IN (SELECT b FROM links WHERE kind = '{}' AND a IN
                 (SELECT id FROM objects WHERE kind = '{}' AND uid = ?))",
            Link::Ccn.as_str(),
            Kind::Gateway.as_str()
        );
        self.condition(sql, args![uid])
    }

    /// Whether the gateway's devices were heard once, but not since (milliseconds since 1970).
    pub fn silent_since(self, since: i64, silent: bool) -> Filter {
        let not = if silent { "" } else { "NOT " };
        let sql = format!(
            "{not}(EXISTS (SELECT 1 FROM devices WHERE sag = objects.id AND seen > 0)
                 AND NOT EXISTS (SELECT 1 FROM devices WHERE sag = objects.id AND seen > 0 AND seen >= ?))"
        );
        self.condition(sql, args![since])
    }

    /// Whether it is paid at this time (milliseconds since 1970).
    pub fn paid_at(self, now: i64, paid: bool) -> Filter {
        self.condition(if paid { "expires >= ?" } else { "expires < ?" }, args![now])
    }

    /// The software of its first device compares like this with `version`.
    pub fn with_version(self, comparison: Comparison, version: &str) -> Filter {
        let sign = match comparison {
            Comparison::Equal => "=",
            Comparison::Greater => ">",
            Comparison::Less => "<",
        };
        let sql = format!(
            "(SELECT version_order FROM devices WHERE sag = objects.id ORDER BY slot, sn LIMIT 1) {sign} ?"
        );
        self.condition(sql, args![version_order(version)])
    }

    /// Whether a QoS container could be put on it: a device without one.
    pub fn can_take_qos(self, can: bool) -> Filter {
        if can {
            return self.has_links(Link::Qos, false).equals(Column::Variant, Some(Arg::from("hardware")));
        }
        let sql =
            "(variant = 'software' OR EXISTS (SELECT 1 FROM links WHERE kind = 'qos' AND a = objects.id))";
        self.condition(sql, Vec::new())
    }
}

/// What devices report and gateways are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    Traffic,
    Drops,
}

/// A gateway in a ranking.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    pub id: String,
    pub region: String,
    pub name: String,
    /// The sum over its devices.
    pub rate: f64,
}

/// The gateways with the highest rates, counting devices that were heard since then (milliseconds since 1970).
pub async fn ranking(
    tx: &mut Tx,
    uid: i64,
    region: &str,
    rate: Rate,
    since: i64,
    limit: i64,
) -> Result<Vec<Ranked>> {
    let column = match rate {
        Rate::Traffic => "traffic_rate",
        Rate::Drops => "drop_rate",
    };
    let sql = format!(
        "SELECT o.id, o.region, o.name, SUM(d.{column}) AS rate
         FROM objects o JOIN devices d ON d.sag = o.id
         WHERE o.kind = $1 AND o.uid = $2 AND o.region = $3
             AND d.seen > 0 AND d.seen >= $4 AND d.{column} IS NOT NULL
         GROUP BY o.id, o.region, o.name, o.seq
         ORDER BY rate DESC, o.seq, o.id LIMIT $5"
    );
    tx.query(&sql, args![Kind::Gateway.as_str(), uid, region, since, limit], |row| {
        Ok(Ranked {
            id: row.string(0)?,
            region: row.string(1)?,
            name: row.string(2)?,
            rate: row.real(3)?.unwrap_or_default(),
        })
    })
    .await
}
