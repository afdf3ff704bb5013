//! Devices: a row each, with the configuration and the agent's last report as documents. What lists show and filter by
//! stands in columns, so that lists read no document.

use std::collections::HashMap;

use sag_southbound::StateReport;

use super::objects::{CHUNK, placeholders};
use super::{Arg, Result, Row, Tx};
use crate::args;

/// A device without its documents.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub sn: String,
    pub uid: i64,
    /// The gateway that it belongs to.
    pub sag: String,
    /// Its place in the pair of devices of a gateway, from 0.
    pub slot: i64,
    /// Grows with every change of the configuration.
    pub revision: i64,
    /// The last revision that the agent put in force, or failed to.
    pub applied: i64,
    /// Why the revision `applied` failed, or empty.
    pub failure: String,
    /// When its agent was heard last, in milliseconds since 1970; 0 for never.
    pub seen: i64,
    /// The key of the device, sealed.
    pub sealed_key: String,
    /// The address by which its last report came; empty for none.
    pub address: String,
    pub reported: Reported,
}

/// What lists show of an agent's report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    pub software_version: String,
    pub monitor_version: String,
    pub dpi_version: String,
    /// `up` or `down`.
    pub ipsec_status: String,
    /// `Normal` or `Abnormal`.
    pub vpn_state: String,
    /// `Active` or `Standby`.
    pub ha_state: String,
    pub optimized: bool,
    /// Bits a second.
    pub traffic_rate: Option<f64>,
    pub drop_rate: Option<f64>,
}

impl Reported {
    pub fn of(report: &StateReport) -> Reported {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Reported {
            software_version: text(&report.software_version),
            monitor_version: text(&report.monitor_version),
            dpi_version: text(&report.dpi_signature_db_version),
            ipsec_status: text(&report.ipsec_status),
            vpn_state: text(&report.vpn_state),
            ha_state: text(&report.ha_state),
            optimized: report.enable_optimization == Some(true),
            traffic_rate: report.traffic_rate,
            drop_rate: report.drop_rate,
        }
    }
}

/// A version such as `2.3.0` as text that sorts like its numbers.
pub fn version_order(version: &str) -> String {
    let numbers = version.split('.').map(|n| n.parse().unwrap_or(0_u32));
    numbers.map(|n| format!("{n:010}")).collect::<Vec<_>>().join(".")
}

const SUMMARY: &str = "sn, uid, sag, slot, revision, applied, failure, seen, sealed_key, software_version,
    monitor_version, dpi_version, ipsec_status, optimized, traffic_rate, drop_rate, address, vpn_state, ha_state";

impl Summary {
    fn from_row(row: &Row<'_>) -> Result<Summary> {
        Ok(Summary {
            sn: row.string(0)?,
            uid: row.int(1)?,
            sag: row.string(2)?,
            slot: row.int(3)?,
            revision: row.int(4)?,
            applied: row.int(5)?,
            failure: row.string(6)?,
            seen: row.int(7)?,
            sealed_key: row.string(8)?,
            address: row.string(16)?,
            reported: Reported {
                software_version: row.string(9)?,
                monitor_version: row.string(10)?,
                dpi_version: row.string(11)?,
                ipsec_status: row.string(12)?,
                optimized: row.int(13)? != 0,
                traffic_rate: row.real(14)?,
                drop_rate: row.real(15)?,
                vpn_state: row.string(17)?,
                ha_state: row.string(18)?,
            },
        })
    }
}

/// Configuration and report, as they are stored.
pub type Documents<'a> = (&'a str, &'a str);

/// One device with its documents, as `read` makes it.
pub async fn get<T>(
    tx: &mut Tx,
    sn: &str,
    mut read: impl FnMut(Summary, Documents<'_>) -> Result<T>,
) -> Result<Option<T>> {
    let sql = format!("SELECT {SUMMARY}, body, report FROM devices WHERE sn = $1");
    tx.row(&sql, args![sn], |row| read(Summary::from_row(row)?, (row.text(19)?, row.text(20)?))).await
}

/// The devices of a gateway with their documents, the first one of a pair in front.
pub async fn of_gateway<T>(
    tx: &mut Tx,
    sag: &str,
    mut read: impl FnMut(Summary, Documents<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let sql = format!("SELECT {SUMMARY}, body, report FROM devices WHERE sag = $1 ORDER BY slot, sn");
    tx.query(&sql, args![sag], |row| read(Summary::from_row(row)?, (row.text(19)?, row.text(20)?))).await
}

/// All devices with their documents, by serial number.
pub async fn all<T>(
    tx: &mut Tx,
    mut read: impl FnMut(Summary, Documents<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let sql = format!("SELECT {SUMMARY}, body, report FROM devices ORDER BY sn");
    tx.query(&sql, args![], |row| read(Summary::from_row(row)?, (row.text(19)?, row.text(20)?))).await
}

/// The devices of each of the gateways without their documents, the first one of a pair in front.
pub async fn summaries(tx: &mut Tx, sags: &[&str]) -> Result<HashMap<String, Vec<Summary>>> {
    let mut out: HashMap<String, Vec<Summary>> = HashMap::new();
    for part in sags.chunks(CHUNK) {
        let places = placeholders(1, part.len());
        let sql = format!("SELECT {SUMMARY} FROM devices WHERE sag IN ({places}) ORDER BY sag, slot, sn");
        let args = part.iter().map(|s| Arg::from(*s)).collect();
        for d in tx.query(&sql, args, Summary::from_row).await? {
            out.entry(d.sag.clone()).or_default().push(d);
        }
    }
    Ok(out)
}

/// A device that was never heard of. `changed` is in microseconds since 1970.
pub async fn insert(tx: &mut Tx, d: &Summary, config: String, changed: i64) -> Result<()> {
    let sql = "INSERT INTO devices
             (sn, uid, sag, slot, revision, applied, failure, changed, seen, sealed_key, body, report)
         VALUES ($1, $2, $3, $4, $5, 0, '', $6, 0, $7, $8, '{}')";
    let args = args![&d.sn, d.uid, &d.sag, d.slot, d.revision, changed, &d.sealed_key, config];
    tx.execute(sql, args).await.map(|_| ())
}

/// Stores a changed configuration with its revision.
pub async fn put_config(tx: &mut Tx, d: &Summary, config: String, changed: i64) -> Result<()> {
    let sql = "UPDATE devices SET revision = $1, changed = $2, body = $3, sealed_key = $4 WHERE sn = $5";
    tx.execute(sql, args![d.revision, changed, config, &d.sealed_key, &d.sn]).await.map(|_| ())
}

/// Stores how far the agent has come.
pub async fn put_result(tx: &mut Tx, d: &Summary, config: String) -> Result<()> {
    let sql = "UPDATE devices SET applied = $1, failure = $2, seen = $3, body = $4 WHERE sn = $5";
    tx.execute(sql, args![d.applied, &d.failure, d.seen, config, &d.sn]).await.map(|_| ())
}

/// Stores what the agent reported, and from which address.
pub async fn put_report(tx: &mut Tx, sn: &str, report: &StateReport, seen: i64, from: &str) -> Result<()> {
    let r = Reported::of(report);
    let sql = "UPDATE devices SET report = $1, seen = $2, address = $3, vpn_state = $4, ha_state = $5 WHERE sn = $6";
    tx.execute(sql, args![serde_json::to_string(report)?, seen, from, &r.vpn_state, &r.ha_state, sn]).await?;
    put_reported(tx, sn, &r).await
}

pub(super) async fn put_reported(tx: &mut Tx, sn: &str, r: &Reported) -> Result<()> {
    let sql = "UPDATE devices SET software_version = $1, version_order = $2, monitor_version = $3,
             dpi_version = $4, ipsec_status = $5, optimized = $6, traffic_rate = $7, drop_rate = $8
         WHERE sn = $9";
    let args = args![
        &r.software_version,
        version_order(&r.software_version),
        &r.monitor_version,
        &r.dpi_version,
        &r.ipsec_status,
        i64::from(r.optimized),
        r.traffic_rate,
        r.drop_rate,
        sn
    ];
    tx.execute(sql, args).await.map(|_| ())
}

/// The agent was heard.
pub async fn put_seen(tx: &mut Tx, sn: &str, seen: i64) -> Result<()> {
    tx.execute("UPDATE devices SET seen = $1 WHERE sn = $2", args![seen, sn]).await.map(|_| ())
}

/// Gives each device of the gateway a new revision; returns their serial numbers.
pub async fn bump_revision(tx: &mut Tx, sag: &str, changed: i64) -> Result<Vec<String>> {
    let sns = tx.texts("SELECT sn FROM devices WHERE sag = $1", args![sag]).await?;
    if !sns.is_empty() {
        let sql = "UPDATE devices SET revision = revision + 1, changed = $1 WHERE sag = $2";
        tx.execute(sql, args![changed, sag]).await?;
    }
    Ok(sns)
}

pub async fn delete(tx: &mut Tx, sn: &str) -> Result<()> {
    tx.execute("DELETE FROM devices WHERE sn = $1", args![sn]).await.map(|_| ())
}

/// Removes the devices of a gateway; returns their serial numbers.
pub async fn delete_of_gateway(tx: &mut Tx, sag: &str) -> Result<Vec<String>> {
    let sns = tx.texts("SELECT sn FROM devices WHERE sag = $1", args![sag]).await?;
    tx.execute("DELETE FROM devices WHERE sag = $1", args![sag]).await?;
    Ok(sns)
}

/// Serial numbers of the devices that changed since (microseconds since 1970), and when.
pub async fn changed_since(tx: &mut Tx, since: i64) -> Result<Vec<(String, i64)>> {
    let sql = "SELECT sn, changed FROM devices WHERE changed >= $1";
    tx.query(sql, args![since], |row| Ok((row.string(0)?, row.int(1)?))).await
}
