//! What the operator of the cloud offers to every account: access points, and versions of the software of devices.

use super::{Result, Row, Tx};
use crate::args;

/// A point of presence by which gateways can reach the network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccessPoint {
    pub id: i64,
    /// Empty: it is offered in every region.
    pub region: String,
    /// An IPv4 or IPv6 address that answers echo requests.
    pub address: String,
    pub latitude: String,
    pub longitude: String,
}

impl AccessPoint {
    fn from_row(row: &Row<'_>) -> Result<AccessPoint> {
        Ok(AccessPoint {
            id: row.int(0)?,
            region: row.string(1)?,
            address: row.string(2)?,
            latitude: row.string(3)?,
            longitude: row.string(4)?,
        })
    }
}

/// A version of the software of devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Version {
    /// `Device` or `Dpi`.
    pub kind: String,
    pub code: String,
    pub name: String,
    /// When it was added, in milliseconds since 1970.
    pub created: i64,
    /// No longer offered.
    pub retired: bool,
}

impl Version {
    fn from_row(row: &Row<'_>) -> Result<Version> {
        Ok(Version {
            kind: row.string(0)?,
            code: row.string(1)?,
            name: row.string(2)?,
            created: row.int(3)?,
            retired: row.int(4)? != 0,
        })
    }
}

/// The access points of a region, or all, by number.
pub async fn access_points(tx: &mut Tx, region: Option<&str>) -> Result<Vec<AccessPoint>> {
    let sql = "SELECT id, region, address, latitude, longitude FROM access_points
         WHERE region = $1 OR region = '' OR $1 = '' ORDER BY id";
    tx.query(sql, args![region.unwrap_or_default()], AccessPoint::from_row).await
}

/// Stores an access point; one of the same number is replaced.
pub async fn put_access_point(tx: &mut Tx, point: &AccessPoint) -> Result<()> {
    remove_access_point(tx, point.id).await?;
    let sql =
        "INSERT INTO access_points (id, region, address, latitude, longitude) VALUES ($1, $2, $3, $4, $5)";
    let args = args![point.id, &point.region, &point.address, &point.latitude, &point.longitude];
    tx.execute(sql, args).await.map(|_| ())
}

/// Removes an access point; whether there was one.
pub async fn remove_access_point(tx: &mut Tx, id: i64) -> Result<bool> {
    Ok(tx.execute("DELETE FROM access_points WHERE id = $1", args![id]).await? > 0)
}

/// Versions in the order in which they were added, retired ones included.
pub async fn versions(tx: &mut Tx) -> Result<Vec<Version>> {
    let sql = "SELECT kind, code, name, created, retired FROM versions ORDER BY created, kind, code";
    tx.query(sql, Vec::new(), Version::from_row).await
}

/// Stores a version; one of the same kind and code is replaced.
pub async fn put_version(tx: &mut Tx, version: &Version) -> Result<()> {
    tx.execute("DELETE FROM versions WHERE kind = $1 AND code = $2", args![&version.kind, &version.code])
        .await?;
    let sql = "INSERT INTO versions (kind, code, name, created, retired) VALUES ($1, $2, $3, $4, $5)";
    let retired = i64::from(version.retired);
    let args = args![&version.kind, &version.code, &version.name, version.created, retired];
    tx.execute(sql, args).await.map(|_| ())
}

/// No longer offers a version; whether there was one.
pub async fn retire_version(tx: &mut Tx, kind: &str, code: &str) -> Result<bool> {
    let sql = "UPDATE versions SET retired = 1 WHERE kind = $1 AND code = $2";
    Ok(tx.execute(sql, args![kind, code]).await? > 0)
}
