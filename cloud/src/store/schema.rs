//! The tables. A migration is a list of statements that both databases understand; new ones are
//! appended, old ones never change.

use std::collections::BTreeSet;

use sag_southbound::{EPOCH_AHEAD, StateReport};
use serde_json::{Map, Value, json};

use super::objects::Columns;
use super::{Kind, Result, Tx};
use crate::args;
use crate::time::{now_ms, now_us};

const MIGRATIONS: &[&[&str]] = &[
    &[
        "CREATE TABLE accounts (
        uid BIGINT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created BIGINT NOT NULL)",
        "CREATE TABLE access_keys (
        id TEXT PRIMARY KEY,
        uid BIGINT NOT NULL,
        user_name TEXT NOT NULL,
        secret TEXT NOT NULL,
        status TEXT NOT NULL,
        created BIGINT NOT NULL)",
        "CREATE TABLE policies (
        uid BIGINT NOT NULL,
        user_name TEXT NOT NULL,
        name TEXT NOT NULL,
        document TEXT NOT NULL,
        PRIMARY KEY (uid, user_name, name))",
        "CREATE TABLE nonces (
        key_id TEXT NOT NULL,
        nonce TEXT NOT NULL,
        expires BIGINT NOT NULL,
        PRIMARY KEY (key_id, nonce))",
        "CREATE INDEX nonces_expires ON nonces (expires)",
        "CREATE TABLE client_tokens (
        uid BIGINT NOT NULL,
        action TEXT NOT NULL,
        token TEXT NOT NULL,
        answer TEXT NOT NULL,
        expires BIGINT NOT NULL,
        PRIMARY KEY (uid, action, token))",
        "CREATE TABLE objects (
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        uid BIGINT NOT NULL,
        region TEXT NOT NULL,
        parent TEXT NOT NULL,
        name TEXT NOT NULL,
        seq BIGINT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (kind, id))",
        "CREATE INDEX objects_list ON objects (kind, uid, region, seq)",
        "CREATE INDEX objects_parent ON objects (kind, parent, seq)",
        "CREATE TABLE links (
        kind TEXT NOT NULL,
        a TEXT NOT NULL,
        b TEXT NOT NULL,
        created BIGINT NOT NULL,
        PRIMARY KEY (kind, a, b))",
        "CREATE INDEX links_back ON links (kind, b)",
        "CREATE TABLE devices (
        sn TEXT PRIMARY KEY,
        uid BIGINT NOT NULL,
        sag TEXT NOT NULL,
        revision BIGINT NOT NULL,
        applied BIGINT NOT NULL,
        failure TEXT NOT NULL,
        changed BIGINT NOT NULL,
        seen BIGINT NOT NULL,
        body TEXT NOT NULL,
        report TEXT NOT NULL)",
        "CREATE INDEX devices_sag ON devices (sag)",
        "CREATE INDEX devices_changed ON devices (changed)",
        "CREATE TABLE audit (
        request_id TEXT PRIMARY KEY,
        at BIGINT NOT NULL,
        uid BIGINT NOT NULL,
        user_name TEXT NOT NULL,
        key_id TEXT NOT NULL,
        source TEXT NOT NULL,
        action TEXT NOT NULL,
        params TEXT NOT NULL,
        code TEXT NOT NULL)",
        "CREATE INDEX audit_at ON audit (uid, at)",
    ],
    &["CREATE INDEX audit_time ON audit (at)"],
    // What lists filter and sort by; `fill_columns` copies it out of the documents.
    &[
        "ALTER TABLE objects ADD COLUMN variant TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE objects ADD COLUMN status TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE objects ADD COLUMN model TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE objects ADD COLUMN resource_group TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE objects ADD COLUMN description TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE objects ADD COLUMN code TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE objects ADD COLUMN priority BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE objects ADD COLUMN expires BIGINT NOT NULL DEFAULT 0",
        "CREATE INDEX objects_priority ON objects (kind, parent, priority, seq, id)",
        "ALTER TABLE devices ADD COLUMN slot BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE devices ADD COLUMN sealed_key TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE devices ADD COLUMN software_version TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE devices ADD COLUMN version_order TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE devices ADD COLUMN monitor_version TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE devices ADD COLUMN dpi_version TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE devices ADD COLUMN ipsec_status TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE devices ADD COLUMN optimized BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE devices ADD COLUMN traffic_rate DOUBLE PRECISION",
        "ALTER TABLE devices ADD COLUMN drop_rate DOUBLE PRECISION",
        "DROP INDEX devices_sag",
        "CREATE INDEX devices_sag ON devices (sag, slot, sn)",
    ],
    // Refused calls are counted apart, so that they cannot push what was done out of the audit log.
    &[
        "ALTER TABLE audit ADD COLUMN refused BIGINT NOT NULL DEFAULT 0",
        "UPDATE audit SET refused = 1 WHERE code <> 'OK'",
        "CREATE INDEX audit_retention ON audit (uid, refused, at)",
        "ALTER TABLE access_keys ADD COLUMN nonce_floor BIGINT NOT NULL DEFAULT 0",
    ],
    // What was the word of devices is now the word of the networks' owners; `adopt_networks` writes it down.
    &[],
    &["ALTER TABLE audit ADD COLUMN resources TEXT NOT NULL DEFAULT ''"],
    // Filled by the next report of each device.
    &[
        "ALTER TABLE devices ADD COLUMN address TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE devices ADD COLUMN vpn_state TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE devices ADD COLUMN ha_state TEXT NOT NULL DEFAULT ''",
    ],
    &[
        "CREATE TABLE access_points (
        id BIGINT PRIMARY KEY,
        region TEXT NOT NULL,
        address TEXT NOT NULL,
        latitude TEXT NOT NULL,
        longitude TEXT NOT NULL)",
        "CREATE TABLE versions (
        kind TEXT NOT NULL,
        code TEXT NOT NULL,
        name TEXT NOT NULL,
        created BIGINT NOT NULL,
        retired BIGINT NOT NULL,
        PRIMARY KEY (kind, code))",
    ],
];

/// The migration whose columns are filled from documents.
const COLUMNS_ADDED: usize = 3;

/// The migration after which networks have hubs, grants and announcements of their own.
const NETWORKS_ADOPTED: usize = 5;

/// Brings the tables of this database up to date.
pub async fn migrate(tx: &mut Tx) -> Result<()> {
    tx.execute("CREATE TABLE IF NOT EXISTS migrations (version BIGINT PRIMARY KEY)", Vec::new()).await?;
    let sql = "SELECT COALESCE(MAX(version), 0) FROM migrations";
    let done = tx.row(sql, Vec::new(), |row| row.int(0)).await?.unwrap_or_default();
    for (version, statements) in (1..).zip(MIGRATIONS).filter(|(v, _)| *v > done as usize) {
        for sql in statements.iter() {
            tx.execute(sql, Vec::new()).await?;
        }
        if version == COLUMNS_ADDED {
            fill_object_columns(tx).await?;
            fill_device_columns(tx).await?;
        }
        if version == NETWORKS_ADOPTED {
            adopt_networks(tx).await?;
        }
        tx.execute("INSERT INTO migrations (version) VALUES ($1)", args![version as i64]).await?;
    }
    Ok(())
}

/// Documents that are read at once.
const BATCH: i64 = 1000;

async fn fill_object_columns(tx: &mut Tx) -> Result<()> {
    for kind in Kind::ALL {
        let mut last = String::new();
        loop {
            let sql =
                format!("SELECT id, body FROM objects WHERE kind = $1 AND id > $2 ORDER BY id LIMIT {BATCH}");
            let rows = tx
                .query(&sql, args![kind.as_str(), &last], |row| {
                    let body: Map<String, Value> = serde_json::from_str(row.text(1)?)?;
                    Ok((row.string(0)?, body))
                })
                .await?;
            for (id, body) in &rows {
                let c = column_fields(*kind, body);
                let sql = "UPDATE objects SET variant = $1, status = $2, model = $3, resource_group = $4,
                         description = $5, code = $6, priority = $7, expires = $8
                     WHERE kind = $9 AND id = $10";
                let args = args![
                    c.variant,
                    c.status,
                    c.model,
                    c.resource_group,
                    c.description,
                    c.code,
                    c.priority,
                    c.expires,
                    kind.as_str(),
                    id
                ];
                tx.execute(sql, args).await?;
            }
            match rows.into_iter().next_back() {
                Some((id, _)) => last = id,
                None => break,
            }
        }
    }
    Ok(())
}

/// The columns of an object, from the fields of its document.
pub fn column_fields(kind: Kind, body: &Map<String, Value>) -> Columns<'_> {
    let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
    let int = |field: &str| body.get(field).and_then(Value::as_i64).unwrap_or_default();
    let mut c = Columns {
        resource_group: text("ResourceGroupId"),
        description: text("Description"),
        ..Columns::default()
    };
    match kind {
        Kind::Gateway => {
            c.variant = if text("InstanceType") == "software" { "software" } else { "hardware" };
            c.status = text("Status");
            c.model = text("HardwareVersion");
            c.code = text("EnterpriseCode");
            c.expires = int("EndTime");
        }
        Kind::AclRule => {
            c.variant = text("Direction");
            c.priority = int("Priority");
        }
        Kind::QosPolicy | Kind::QosCar => c.priority = int("Priority"),
        Kind::DnatEntry => c.variant = text("Type"),
        Kind::RouteStrategy => c.variant = text("SourceType"),
        Kind::FlowLog => {
            c.variant = text("OutputType");
            c.status = text("Status");
        }
        Kind::AppUser => c.code = text("UserMail"),
        Kind::EnterpriseCode => {
            let default = body.get("IsDefault") == Some(&Value::Bool(true));
            c.variant = if default { "default" } else { "" };
        }
        Kind::VbrGrant => c.variant = text("VbrInstanceId"),
        _ => {}
    }
    c
}

/// A gateway in a network.
struct Membership {
    gateway: String,
    ccn: String,
    uid: i64,
    blocks: String,
    owner: i64,
    region: String,
    since: i64,
}

/// Networks go on as they are: what another account's gateway announces counts as granted, announcements that are in order
/// stay, and the hub is the first member of the owner's own account that has reported to be one. The word of another
/// account's member makes no hub.
async fn adopt_networks(tx: &mut Tx) -> Result<()> {
    let sql = "SELECT l.a, l.b, g.uid, g.body, n.uid, n.region, l.created FROM links l
         JOIN objects g ON g.kind = 'gateway' AND g.id = l.a
         JOIN objects n ON n.kind = 'ccn' AND n.id = l.b
         WHERE l.kind = 'ccn' ORDER BY l.created, l.a";
    let members = tx
        .query(sql, Vec::new(), |row| {
            let body: Map<String, Value> = serde_json::from_str(row.text(3)?)?;
            Ok(Membership {
                gateway: row.string(0)?,
                ccn: row.string(1)?,
                uid: row.int(2)?,
                blocks: body.get("CidrBlock").and_then(Value::as_str).unwrap_or_default().to_owned(),
                owner: row.int(4)?,
                region: row.string(5)?,
                since: row.int(6)? / 1000,
            })
        })
        .await?;
    for m in members.iter().filter(|m| m.uid != m.owner) {
        let body = json!({"SmartAGId": m.gateway, "CcnId": m.ccn, "CidrBlock": m.blocks});
        let id = format!("{}/{}", m.gateway, m.ccn);
        put_new(tx, Kind::CcnMember, &id, (m.owner, &m.region, &m.ccn), &body).await?;
    }
    let capable = adopt_announcements(tx, &members).await?;
    for (n, m) in members.iter().enumerate() {
        let is_hub = |m: &Membership| m.uid == m.owner && capable.contains(&m.gateway);
        if is_hub(m) && !members[..n].iter().any(|before| before.ccn == m.ccn && is_hub(before)) {
            set_hub(tx, m).await?;
        }
    }
    Ok(())
}

/// The gateways with a device that has reported to be a point of presence.
async fn adopt_announcements(tx: &mut Tx, members: &[Membership]) -> Result<BTreeSet<String>> {
    let mut capable = BTreeSet::new();
    let sql = "SELECT sn, sag, uid, report FROM devices";
    let rows = tx
        .query(sql, Vec::new(), |row| {
            let report: StateReport = serde_json::from_str(row.text(3)?).unwrap_or_default();
            Ok((row.string(0)?, row.string(1)?, row.int(2)?, report.overlay))
        })
        .await?;
    let clock = now_ms().div_euclid(1000).unsigned_abs();
    for (sn, sag, uid, overlay) in rows {
        let Some(mut overlay) = overlay else { continue };
        let hub_capable = overlay.pop.take() == Some(true);
        if hub_capable {
            capable.insert(sag.clone());
        }
        let good = overlay.check(&sag, &sn).is_ok_and(|e| e.epoch <= clock.saturating_add(EPOCH_AHEAD));
        let since = members.iter().find(|m| m.gateway == sag).map_or(0, |m| m.since);
        let accepted = good.then(|| serde_json::to_value(&overlay)).transpose()?;
        let body = json!({"Announcement": accepted, "Since": since, "HubCapable": hub_capable});
        put_new(tx, Kind::Announcement, &sn, (uid, "", &sag), &body).await?;
    }
    Ok(capable)
}

async fn put_new(tx: &mut Tx, kind: Kind, id: &str, of: (i64, &str, &str), body: &Value) -> Result<()> {
    let (uid, region, parent) = of;
    let sql = "INSERT INTO objects (kind, id, uid, region, parent, name, seq, body)
         VALUES ($1, $2, $3, $4, $5, '', $6, $7)";
    let args = args![kind.as_str(), id, uid, region, parent, now_us(), body.to_string()];
    tx.execute(sql, args).await.map(|_| ())
}

async fn set_hub(tx: &mut Tx, m: &Membership) -> Result<()> {
    let sql = "SELECT body FROM objects WHERE kind = 'ccn' AND id = $1";
    let found =
        tx.row(sql, args![&m.ccn], |row| Ok(serde_json::from_str::<Map<String, Value>>(row.text(0)?)?));
    let Some(mut body) = found.await? else { return Ok(()) };
    body.insert("HubSmartAGId".to_owned(), m.gateway.as_str().into());
    let text = serde_json::to_string(&body)?;
    tx.execute("UPDATE objects SET body = $1 WHERE kind = 'ccn' AND id = $2", args![text, &m.ccn]).await?;
    tracing::info!(network = m.ccn, hub = m.gateway, "the hub of the network, by its earlier reports");
    Ok(())
}

async fn fill_device_columns(tx: &mut Tx) -> Result<()> {
    let rows = tx
        .query("SELECT sn, body, report FROM devices", Vec::new(), |row| {
            let body: Map<String, Value> = serde_json::from_str(row.text(1)?)?;
            Ok((row.string(0)?, body, serde_json::from_str::<Value>(row.text(2)?)?))
        })
        .await?;
    for (sn, mut body, report) in rows {
        let slot = body.remove("Slot").and_then(|v| v.as_i64()).unwrap_or_default();
        let key = body.remove("SealedKey");
        let key = key.as_ref().and_then(Value::as_str).unwrap_or_default();
        let text = serde_json::to_string(&body)?;
        let sql = "UPDATE devices SET slot = $1, sealed_key = $2, body = $3 WHERE sn = $4";
        tx.execute(sql, args![slot, key, text, &sn]).await?;
        let report = serde_json::from_value(report).unwrap_or_default();
        super::devices::put_reported(tx, &sn, &super::devices::Reported::of(&report)).await?;
    }
    Ok(())
}
