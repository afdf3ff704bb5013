//! Numbers of VRFs. They are part of the keys of flows, so a number means the same VRF as long as there may be sessions of it.

use sag_model::VrfNo;
use sag_model::config::Config;
use std::collections::{BTreeMap, BTreeSet};

/// The numbers of VRFs by their names. A VRF that is gone keeps its number until there is no other for a new one.
#[derive(Debug, Default)]
pub struct VrfNumbers {
    by_name: BTreeMap<String, VrfNo>,
    /// Those of the configuration.
    current: BTreeSet<String>,
}

impl VrfNumbers {
    /// Takes over those of an earlier daemon, whose sessions are still there.
    pub fn restore(&mut self, earlier: impl IntoIterator<Item = (String, VrfNo)>) {
        for (name, no) in earlier {
            if !no.is_default() && !self.by_name.values().any(|taken| *taken == no) {
                self.by_name.insert(name, no);
            }
        }
    }

    /// Gives every VRF of a configuration a number. There are enough: the configuration has no more VRFs than numbers.
    pub(crate) fn assign(&mut self, config: &Config) {
        self.current = config.vrfs.iter().map(|v| v.name.clone()).collect();
        for v in config.vrfs.iter().filter(|v| !self.by_name.contains_key(&v.name)).collect::<Vec<_>>() {
            let taken = |no: &VrfNo| self.by_name.values().any(|taken| taken == no);
            let free = (1..VrfNo::COUNT as u8).filter_map(VrfNo::new).find(|no| !taken(no));
            let gone = || self.by_name.keys().find(|name| !self.current.contains(*name)).cloned();
            let no = match free {
                Some(no) => Some(no),
                None => gone().and_then(|name| self.by_name.remove(&name)),
            };
            if let Some(no) = no {
                self.by_name.insert(v.name.clone(), no);
            }
        }
    }

    /// The number of the VRF that an entry names.
    pub fn number(&self, name: Option<&str>) -> VrfNo {
        name.and_then(|name| self.by_name.get(name)).copied().unwrap_or_default()
    }

    /// The number of this very name; `None`: no VRF has it.
    pub fn number_of(&self, name: &str) -> Option<VrfNo> {
        self.by_name.get(name).copied()
    }

    /// The name of a number; `None`: it is that of the default VRF, or of none.
    pub fn name(&self, no: VrfNo) -> Option<&str> {
        self.by_name.iter().find(|(_, n)| **n == no).map(|(name, _)| name.as_str())
    }

    /// The numbers of the configuration's VRFs.
    pub(crate) fn current(&self) -> impl Iterator<Item = VrfNo> + '_ {
        self.current.iter().filter_map(|name| self.by_name.get(name).copied())
    }

    /// All names with their numbers, those of VRFs that are gone included: for a later daemon.
    pub fn all(&self) -> impl Iterator<Item = (&str, VrfNo)> {
        self.by_name.iter().map(|(name, no)| (name.as_str(), *no))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vrfs: &[&str]) -> Config {
        let vrf = |name: &&str| sag_model::config::Vrf { name: (*name).to_owned(), table: None };
        Config { vrfs: vrfs.iter().map(vrf).collect(), ..Config::default() }
    }

    fn numbers(n: &VrfNumbers) -> Vec<(&str, u8)> {
        n.all().map(|(name, no)| (name, no.get())).collect()
    }

    #[test]
    fn a_number_stays_with_its_name_and_is_not_given_out_again_soon() {
        let mut n = VrfNumbers::default();
        n.assign(&config(&["b", "a"]));
        assert_eq!(numbers(&n), [("a", 2), ("b", 1)]);
        n.assign(&config(&["a", "c"]));
        assert_eq!(numbers(&n), [("a", 2), ("b", 1), ("c", 3)], "b's may have sessions");
        assert_eq!(n.current().map(VrfNo::get).collect::<Vec<_>>(), [2, 3]);
        assert_eq!((n.number(Some("a")).get(), n.number(None)), (2, VrfNo::DEFAULT));
        assert_eq!((n.name(n.number(Some("c"))), n.name(VrfNo::DEFAULT)), (Some("c"), None));
        let many: Vec<_> = (0..VrfNo::COUNT - 1).map(|i| format!("v{i:02}")).collect();
        n.assign(&config(&many.iter().map(String::as_str).collect::<Vec<_>>()));
        let all: BTreeSet<_> = n.current().map(VrfNo::get).collect();
        assert_eq!(all, (1..VrfNo::COUNT as u8).collect(), "then all of them");
    }

    #[test]
    fn numbers_outlive_the_daemon() {
        let mut n = VrfNumbers::default();
        let no = |n| VrfNo::new(n).unwrap();
        n.restore([("b".to_owned(), no(1)), ("a".to_owned(), no(7)), ("twice".to_owned(), no(7))]);
        n.assign(&config(&["a", "b", "new"]));
        assert_eq!(numbers(&n), [("a", 7), ("b", 1), ("new", 2)]);
    }
}
