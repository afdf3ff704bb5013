//! Conditions on gateways that other tables answer.

use super::devices::version_order;
use super::objects::{Column, Filter};
use super::{Arg, Link};
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
