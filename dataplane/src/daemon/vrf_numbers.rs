//! Which number each VRF has: flow keys have the numbers, and outlive the daemon in pinned memory. So the names of the numbers
//! are kept in a file beside the last good configuration.

use super::saver::Saver;
use sag_compile::VrfNumbers;
use sag_model::VrfNo;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The file's name in `dataplane.state_dir`.
const FILE: &str = "vrf-numbers";

/// The names of the numbers, for the thread that writes what workers have noted.
#[derive(Debug, Clone, Default)]
pub struct VrfNames(Arc<Mutex<BTreeMap<VrfNo, String>>>);

impl VrfNames {
    /// Takes over the names, before workers meet the VRFs.
    pub fn set(&self, numbers: &VrfNumbers) {
        let names = numbers.all().map(|(name, no)| (no, name.to_owned())).collect();
        // Nobody panics with it, and the map is replaced as a whole.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// The name of a VRF; `None`: the default one.
    pub fn name(&self, no: VrfNo) -> Option<String> {
        if no.is_default() {
            return None;
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&no).cloned()
    }
}

/// The numbers that an earlier daemon has given out. Sessions of other VRFs than these are nobody's.
pub fn load(state_dir: &Path) -> BTreeMap<String, VrfNo> {
    let path = state_dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => parse(&text),
        Err(error) if error.kind() == ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the numbers of VRFs cannot be read: their sessions begin anew");
            BTreeMap::new()
        }
    }
}

/// Has the numbers written down, if there are any.
pub fn save(numbers: &VrfNumbers, saver: &Saver, state_dir: &Path) {
    let text = text_of(numbers.all());
    if !text.is_empty() {
        saver.replace("numbers of VRFs", state_dir.join(FILE), text);
    }
}

fn text_of<'n>(numbers: impl Iterator<Item = (&'n str, VrfNo)>) -> String {
    numbers.map(|(name, no)| format!("{} {name}\n", no.get())).collect()
}

/// Lines that make no sense are passed over.
fn parse(text: &str) -> BTreeMap<String, VrfNo> {
    let line = |l: &str| {
        let (no, name) = l.split_once(' ')?;
        let no = VrfNo::new(no.parse().ok()?).filter(|no| !no.is_default())?;
        Some((name.to_owned(), no))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let numbers = BTreeMap::from([("a".to_owned(), VrfNo::new(2)), ("b-1".to_owned(), VrfNo::new(63))]);
        let numbers: BTreeMap<_, _> = numbers.into_iter().map(|(name, no)| (name, no.unwrap())).collect();
        let text = text_of(numbers.iter().map(|(name, no)| (name.as_str(), *no)));
        assert_eq!(parse(&text), numbers);
        assert_eq!(parse("0 zero\n64 many\nx y\nz\n\n63 b-1\n2 a"), numbers);
    }
}
