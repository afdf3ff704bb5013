//! Brings the settings of the ports' devices in line, and puts them back.

use super::record::{Entry, Place, Record};
use super::rules::{self, FORWARDING6, KEYS, Place as Where, REDIRECTS4, Target};
use super::sysctl::{Key, Sysctl};
use sag_model::control::KernelSetting;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What is to be done with which devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    pub targets: Vec<Target>,
    /// Settings are changed, not only looked at.
    pub write: bool,
    /// Packets go to the kernel's forwarding while no worker runs (`fail_action`): it stays as it is.
    pub pass_to_kernel: bool,
}

/// What is so now.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// By the number of the device.
    pub settings: BTreeMap<u32, Vec<KernelSetting>>,
    pub warnings: Vec<String>,
}

/// The settings, and what they were.
#[derive(Debug)]
pub struct Keeper {
    sysctl: Sysctl,
    record: Record,
    /// Settings of which the log has said that somebody else changes them.
    logged: BTreeSet<String>,
}

/// Settings of `all` that count beside those of a device: redirects are accepted if either says so.
const GLOBAL: (u32, &str, Key) = (0, "all", REDIRECTS4);

impl Keeper {
    pub fn open(sysctl: Sysctl, record: &Path) -> Keeper {
        Keeper { sysctl, record: Record::open(record), logged: BTreeSet::new() }
    }

    /// One round: settings that differ are written, those of devices that are no ports any more are put back.
    pub fn keep(&mut self, order: &Order, name_of: &dyn Fn(u32) -> Option<String>) -> Report {
        let mut report = Report::default();
        let written = order.write.then_some(order);
        self.put_back_others(written, name_of);
        if order.write
            && !order.targets.is_empty()
            && let Err(error) = self.write(order)
        {
            report
                .warnings
                .push(format!("kernel settings of the ports are not as a router needs them: {error}"));
        }
        for t in &order.targets {
            report.settings.insert(t.ifindex, self.rows(t, order));
        }
        if !order.write {
            report
                .warnings
                .extend(order.targets.iter().filter_map(|t| differing(t, report.settings.get(&t.ifindex)?)));
        }
        report.warnings.extend(rules::bypasses(&self.sysctl, &order.targets));
        report
    }

    /// Every setting as it was before the gateway, unless somebody has changed it since.
    pub fn put_back(&mut self, name_of: &dyn Fn(u32) -> Option<String>) -> usize {
        self.put_back_others(None, name_of)
    }

    fn wanted(&self, t: &Target, key: Key, order: &Order) -> Option<i32> {
        let all = self.sysctl.read(rules::RP_FILTER, "all").unwrap_or(0);
        rules::wanted(key, t, order.pass_to_kernel, all, &|key| self.before(t.ifindex, &t.name, key))
    }

    /// What a setting would be without the gateway: what others have written last.
    fn before(&self, ifindex: u32, name: &str, key: Key) -> Option<i32> {
        let value = self.sysctl.read(key, name)?;
        let ours = self.record.entries.get(&(ifindex, key)).filter(|e| e.set == value);
        Some(ours.map_or(value, |e| e.before))
    }

    fn write(&mut self, order: &Order) -> std::io::Result<()> {
        // Setting by setting, so that all devices have one before the next.
        let mut changes: Vec<(u32, String, Key, i32)> = Vec::new();
        let (ifindex, all, key) = GLOBAL;
        changes.push((ifindex, all.to_owned(), key, 0));
        for key in KEYS {
            for t in &order.targets {
                changes.extend(self.wanted(t, key, order).map(|want| (t.ifindex, t.name.clone(), key, want)));
            }
        }
        let now = |c: &(u32, String, Key, i32)| self.sysctl.read(c.2, &c.1);
        // A setting that the kernel does not have (no IPv6) is none to care for.
        changes.retain(|c| now(c).is_some_and(|v| v != c.3));
        if changes.is_empty() {
            return Ok(());
        }
        for (ifindex, name, key, want) in &changes {
            let Some(before) = self.before(*ifindex, name, *key) else { continue };
            let earlier = self.record.entries.insert((*ifindex, *key), Entry { before, set: *want });
            let name = key.name(name);
            if earlier.is_none() {
                tracing::info!(setting = name, before, now = want, "kernel setting");
            } else if earlier.is_some_and(|e| e.set == *want) && self.logged.insert(name.clone()) {
                tracing::warn!(event = "kernel-setting", "{name} was {before}, and is {want} again");
            }
        }
        // What was there before is on record before anything changes.
        self.record.save()?;
        let turns_router = changes.iter().any(|c| c.2 == FORWARDING6);
        let spared = if turns_router { self.spare_learned_routes(order) } else { Vec::new() };
        let mut failed = None;
        for (_, name, key, want) in &changes {
            if let Err(error) = self.sysctl.write(*key, name, *want) {
                failed
                    .get_or_insert(std::io::Error::new(error.kind(), format!("{}: {error}", key.name(name))));
            }
        }
        for name in spared {
            let _ = self.sysctl.write(rules::ACCEPT_RA, &name, 1);
        }
        failed.map_or(Ok(()), Err)
    }

    /// A device that becomes a router's has the kernel forget the default routes that all devices have learned by router
    /// advertisements, but those with `accept_ra` 2. So devices that are no ports have that for a moment.
    fn spare_learned_routes(&self, order: &Order) -> Vec<String> {
        let learns = |d: &String| {
            !order.targets.iter().any(|t| t.name == *d && t.place != Where::Below)
                && self.sysctl.read(rules::ACCEPT_RA, d) == Some(1)
                && self.sysctl.read(FORWARDING6, d) == Some(0)
        };
        let others = self.sysctl.devices().into_iter().filter(learns);
        others.filter(|d| self.sysctl.write(rules::ACCEPT_RA, d, 2).is_ok()).collect()
    }

    /// Puts back what is recorded of devices that are none of these, and what is not wanted of these any more.
    fn put_back_others(&mut self, order: Option<&Order>, name_of: &dyn Fn(u32) -> Option<String>) -> usize {
        let keeps = |(ifindex, key): Place| {
            let Some(order) = order else { return false };
            let of_all = ifindex == 0 && !order.targets.is_empty();
            let mut targets = order.targets.iter().filter(|t| t.ifindex == ifindex);
            of_all || targets.any(|t| self.wanted(t, key, order).is_some())
        };
        let mut over: Vec<_> =
            self.record.entries.iter().filter(|(p, _)| !keeps(**p)).map(|(p, e)| (*p, *e)).collect();
        if over.is_empty() {
            return 0;
        }
        // Forwarding first: only then are router advertisements accepted as before.
        over.sort_by_key(|((_, key), _)| std::cmp::Reverse(KEYS.iter().position(|k| k == key)));
        let mut done = 0;
        for ((ifindex, key), e) in over {
            let name = if ifindex == 0 { Some("all".to_owned()) } else { name_of(ifindex) };
            if let Some(name) = name
                && self.sysctl.read(key, &name) == Some(e.set)
            {
                match self.sysctl.write(key, &name, e.before) {
                    Ok(()) => done += 1,
                    // The device has just gone.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => {
                        tracing::warn!(setting = key.name(&name), %error, "the kernel setting cannot be put back");
                    }
                }
            }
            self.record.entries.remove(&(ifindex, key));
        }
        if let Err(error) = self.record.save() {
            tracing::warn!(%error, "the record of the kernel's settings cannot be written");
        }
        done
    }

    fn rows(&self, t: &Target, order: &Order) -> Vec<KernelSetting> {
        let row = |key: Key| {
            Some(KernelSetting {
                name: key.name(&t.name),
                value: self.sysctl.read(key, &t.name)?,
                wanted: self.wanted(t, key, order),
                before: self.record.entries.get(&(t.ifindex, key)).map(|e| e.before),
            })
        };
        KEYS.into_iter().filter(|key| t.has(*key)).filter_map(row).collect()
    }
}

/// A line about a device whose settings are not those of a router.
fn differing(t: &Target, rows: &[KernelSetting]) -> Option<String> {
    let differs = |r: &&KernelSetting| r.wanted.is_some_and(|w| w != r.value);
    let words: Vec<_> = rows.iter().filter(differs).map(|r| format!("{} = {}", r.name, r.value)).collect();
    (!words.is_empty()).then(|| {
        let words = words.join(", ");
        format!(
            "kernel settings of {} are not as a router needs them, and dataplane.kernel_settings is \"keep\": {words}",
            t.name
        )
    })
}
