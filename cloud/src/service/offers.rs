//! What the operator offers to every account, as he enters it: access points, and versions of the software of devices.

use std::net::IpAddr;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::domain::regions;
use crate::repeated;
use crate::store::Store;
use crate::store::offers::{self, AccessPoint, Version};
use crate::time::{now_ms, stamp};

/// The longest identifier and name.
const LONGEST: usize = 128;

fn coordinate(text: &str, largest: f64, what: &str) -> anyhow::Result<()> {
    let ok = text.parse::<f64>().is_ok_and(|n| (-largest..=largest).contains(&n));
    ensure!(ok, "{what} {text:?} is not a number of degrees between -{largest} and {largest}");
    Ok(())
}

/// Adds an access point, or replaces the one of its number.
///
/// # Errors
/// Something of it is not allowed, or the database fails.
pub async fn add_access_point(store: &Store, point: &AccessPoint) -> anyhow::Result<()> {
    ensure!(point.id > 0, "the number of an access point is 1 or more");
    let address: IpAddr =
        point.address.parse().with_context(|| format!("{:?} is no IPv4 or IPv6 address", point.address))?;
    let usable = !(address.is_unspecified() || address.is_multicast());
    ensure!(usable, "{address} is no address of a host");
    ensure!(
        point.region.is_empty() || regions::known(&point.region),
        "there is no region {:?}",
        point.region
    );
    coordinate(&point.latitude, 90.0, "--latitude")?;
    coordinate(&point.longitude, 180.0, "--longitude")?;
    Ok(repeated!(async {
        let mut tx = store.write().await?;
        offers::put_access_point(&mut tx, point).await?;
        tx.commit().await
    })?)
}

/// # Errors
/// There is no such access point, or the database fails.
pub async fn remove_access_point(store: &Store, id: i64) -> anyhow::Result<()> {
    let found = repeated!(async {
        let mut tx = store.write().await?;
        let found = offers::remove_access_point(&mut tx, id).await?;
        tx.commit().await.map(|()| found)
    })?;
    ensure!(found, "there is no access point {id}");
    Ok(())
}

/// All access points.
///
/// # Errors
/// The database fails.
pub async fn access_points(store: &Store) -> anyhow::Result<Vec<AccessPoint>> {
    let mut tx = store.read().await?;
    let found = offers::access_points(&mut tx, None).await?;
    tx.commit().await?;
    Ok(found)
}

/// Offers a version.
///
/// # Errors
/// Something of it is not allowed, or the database fails.
pub async fn add_version(store: &Store, kind: &str, code: &str, name: &str) -> anyhow::Result<()> {
    for (what, text) in [("--code", code), ("--name", name)] {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.+~".contains(&b);
        let ok = !text.is_empty() && text.len() <= LONGEST && text.bytes().all(plain);
        ensure!(ok, "{what} {text:?} is not of letters, digits and -_.+~ alone");
    }
    let (kind, code, name) = (kind.to_owned(), code.to_owned(), name.to_owned());
    let version = Version { kind, code, name, created: now_ms(), retired: false };
    Ok(repeated!(async {
        let mut tx = store.write().await?;
        offers::put_version(&mut tx, &version).await?;
        tx.commit().await
    })?)
}

/// # Errors
/// There is no such version, or the database fails.
pub async fn retire_version(store: &Store, kind: &str, code: &str) -> anyhow::Result<()> {
    let found = repeated!(async {
        let mut tx = store.write().await?;
        let found = offers::retire_version(&mut tx, kind, code).await?;
        tx.commit().await.map(|()| found)
    })?;
    ensure!(found, "there is no version {code} of {kind}");
    Ok(())
}

/// All versions, retired ones included.
///
/// # Errors
/// The database fails.
pub async fn versions(store: &Store) -> anyhow::Result<Vec<Version>> {
    let mut tx = store.read().await?;
    let found = offers::versions(&mut tx).await?;
    tx.commit().await?;
    Ok(found)
}

/// An access point in a line.
pub fn point_line(p: &AccessPoint) -> String {
    let region = if p.region.is_empty() { "every region" } else { &p.region };
    format!("{}\t{}\t{region}\t{}\t{}", p.id, p.address, p.latitude, p.longitude)
}

/// The same as JSON.
pub fn point_json(p: &AccessPoint) -> Value {
    json!({
        "AccessPointId": p.id, "Address": p.address, "RegionId": p.region, "Latitude": p.latitude,
        "Longitude": p.longitude,
    })
}

/// A version in a line.
pub fn version_line(v: &Version) -> String {
    let state = if v.retired { "retired" } else { "offered" };
    format!("{}\t{}\t{}\t{}Z\t{state}", v.kind, v.code, v.name, stamp(v.created))
}

/// The same as JSON.
pub fn version_json(v: &Version) -> Value {
    json!({
        "VersionType": v.kind, "VersionCode": v.code, "VersionName": v.name, "CreateTime": v.created,
        "Retired": v.retired,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn store(dir: &tempfile::TempDir) -> Store {
        let url = format!("sqlite://{}/cloud.db", dir.path().display());
        Store::open(&url, None, 1).await.expect("opened")
    }

    #[tokio::test]
    async fn access_points_are_checked_kept_and_removed() {
        let dir = tempfile::tempdir().expect("dir");
        let store = store(&dir).await;
        let good = AccessPoint {
            id: 101,
            region: "cn-shanghai".into(),
            address: "2001:db8::1".into(),
            latitude: "31.23".into(),
            longitude: "121.47".into(),
        };
        for (bad, said) in [
            (AccessPoint { address: "pop.example".into(), ..good.clone() }, "no IPv4 or IPv6 address"),
            (AccessPoint { address: "0.0.0.0".into(), ..good.clone() }, "no address of a host"),
            (AccessPoint { region: "moon".into(), ..good.clone() }, "no region"),
            (AccessPoint { latitude: "91".into(), ..good.clone() }, "--latitude"),
            (AccessPoint { longitude: "east".into(), ..good.clone() }, "--longitude"),
            (AccessPoint { id: 0, ..good.clone() }, "1 or more"),
        ] {
            let e = add_access_point(&store, &bad).await.expect_err("refused").to_string();
            assert!(e.contains(said), "{e}");
        }
        add_access_point(&store, &AccessPoint { address: "192.0.2.1".into(), ..good.clone() })
            .await
            .expect("added");
        add_access_point(&store, &good).await.expect("replaced");
        assert_eq!(access_points(&store).await.expect("list"), [good]);
        remove_access_point(&store, 101).await.expect("removed");
        assert!(remove_access_point(&store, 101).await.is_err());
    }

    #[tokio::test]
    async fn versions_are_retired_and_stay_in_the_list() {
        let dir = tempfile::tempdir().expect("dir");
        let store = store(&dir).await;
        add_version(&store, "Device", "0.2.0", "sag-vcpe-0.2.0").await.expect("added");
        assert!(add_version(&store, "Device", "", "x").await.is_err());
        assert!(add_version(&store, "Device", "1 0", "x").await.is_err());
        retire_version(&store, "Device", "0.2.0").await.expect("retired");
        assert!(retire_version(&store, "Dpi", "0.2.0").await.is_err());
        let all = versions(&store).await.expect("list");
        assert_eq!((all.len(), all[0].retired), (1, true));
        add_version(&store, "Device", "0.2.0", "sag-vcpe-0.2.0").await.expect("offered again");
        assert!(!versions(&store).await.expect("list")[0].retired);
    }
}
