//! SecurityLockThreshold: a gateway whose devices have been offline for too long is locked out of its network, until
//! UnlockSmartAccessGateway. Who cut them off may have them open on a table.

use std::sync::LazyLock;

use super::device::ONLINE_MS;
use super::gateway::Gateway;
use super::network::Network;
use crate::store::objects::{self, Stored};
use crate::store::{Result, Tx, devices};
use crate::time::{now_ms, now_us};

/// Since when this process could have heard of devices: its own absence is not theirs.
static LISTENING: LazyLock<i64> = LazyLock::new(now_ms);

/// The process listens from now on.
pub fn listening() {
    LazyLock::force(&LISTENING);
}

impl Gateway {
    /// Whether it is locked at this time, if its devices were heard last at `heard`; 0: never.
    pub fn is_locked(&self, heard: i64, now: i64) -> bool {
        self.locked == Some(true) || self.is_silent(heard, now, *LISTENING)
    }

    /// Whether its devices have been offline for longer than they may.
    fn is_silent(&self, heard: i64, now: i64, listening: i64) -> bool {
        let since = heard.max(self.unlocked.unwrap_or_default()).max(listening);
        let most = self.security_lock_threshold.saturating_mul(1000).saturating_add(ONLINE_MS);
        self.security_lock_threshold > 0 && heard > 0 && now.saturating_sub(since) > most
    }
}

/// A device of the gateway is heard: if that was not so for too long, the lock stays. Returns the serial numbers of devices
/// that have to know.
///
/// # Errors
/// The database fails.
pub async fn after_silence(tx: &mut Tx, gateway: &str, now: i64) -> Result<Vec<String>> {
    let Some(mut gw): Option<Stored<Gateway>> = objects::get(tx, gateway).await? else {
        return Ok(Vec::new());
    };
    if gw.security_lock_threshold <= 0 || gw.locked == Some(true) {
        return Ok(Vec::new());
    }
    let devices = devices::summaries(tx, &[gateway]).await?.remove(gateway).unwrap_or_default();
    let heard = devices.iter().map(|d| d.seen).max().unwrap_or_default();
    if !gw.is_locked(heard, now) {
        return Ok(Vec::new());
    }
    tracing::warn!(
        gateway,
        threshold = gw.security_lock_threshold,
        "locked: its devices were offline for too long"
    );
    gw.locked = Some(true);
    objects::put(tx, &gw).await?;
    let mut sns = devices::bump_revision(tx, gateway, now_us()).await?;
    // The members of another account's network have it with their next complete fetch.
    if let Some(network) = Network::of_gateway(tx, gateway).await?.filter(|n| n.ccn.uid == gw.uid) {
        sns.extend(network.renew(tx).await?);
    }
    Ok(sns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_offline_for_too_long_is_locked() {
        let (start, hour) = (1_000_000, 3_600_000);
        let mut gw = Gateway { security_lock_threshold: 3600, ..Gateway::default() };
        let silent = |gw: &Gateway, heard: i64, now: i64| gw.is_silent(heard, now, start);
        // It is offline a minute after it was heard, and may be that for an hour.
        assert!(
            !silent(&gw, start, start + hour + ONLINE_MS) && silent(&gw, start, start + hour + ONLINE_MS + 1)
        );
        assert!(!silent(&gw, 0, start + 9 * hour), "it was never there");
        assert!(!silent(&gw, start - 9 * hour, start + hour), "the cloud was away itself");
        gw.unlocked = Some(start + 2 * hour);
        assert!(!silent(&gw, start, start + 3 * hour) && silent(&gw, start, start + 4 * hour));
        gw.security_lock_threshold = 0;
        assert!(!silent(&gw, start, start + 99 * hour), "0 is never");
        gw.security_lock_threshold = i64::MAX;
        assert!(!silent(&gw, start, i64::MAX));
        gw.locked = Some(true);
        assert!(gw.is_locked(start, start));
    }
}
