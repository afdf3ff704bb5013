//! What of the controller's configuration the document in force does not have.

use serde::{Deserialize, Serialize};

/// An object of the controller that the gateway has not been given as it is. Every text may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Deviation {
    /// Part of the controller's configuration, such as `StaticRoutes`.
    pub section: String,
    /// Which object it is, for people.
    pub object: String,
    /// `left-out`, `stricter` or `partial`.
    pub effect: String,
    /// Why.
    pub reason: String,
}

/// `rule acr-1 of ACL acl-1 is left out: why`.
impl std::fmt::Display for Deviation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let effect = match self.effect.as_str() {
            "stricter" => "is put in force in a stricter form",
            "partial" => "is put in force in part",
            "left-out" | "" => "is left out",
            word => word,
        };
        write!(f, "{} {effect}: {}", self.object, self.reason)
    }
}

/// `config-deviations`: all deviations of the document in force, in place of those before. The next document that says
/// something else has none until it is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigDeviations {
    /// At most [`MAX_DEVIATIONS`] are kept, the first ones.
    pub deviations: Vec<Deviation>,
}

/// Deviations that a gateway keeps.
pub const MAX_DEVIATIONS: usize = 256;

/// Characters of each text of a deviation that a gateway keeps.
const MAX_TEXT: usize = 512;

impl ConfigDeviations {
    /// What a gateway keeps of it.
    pub fn bounded(mut self) -> Vec<Deviation> {
        self.deviations.truncate(MAX_DEVIATIONS);
        for d in &mut self.deviations {
            for text in [&mut d.section, &mut d.object, &mut d.effect, &mut d.reason] {
                if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
                    text.truncate(end);
                }
            }
        }
        self.deviations
    }
}

/// Answer to `config-deviations`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviationsKept {
    /// How many the gateway shows from now on.
    pub kept: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded() {
        let long = Deviation { object: "\u{e4}".repeat(MAX_TEXT + 9), ..Deviation::default() };
        let kept = ConfigDeviations { deviations: vec![long; MAX_DEVIATIONS + 3] }.bounded();
        assert_eq!(kept.len(), MAX_DEVIATIONS);
        assert_eq!(kept[0].object.chars().count(), MAX_TEXT);
        assert!(kept[0].to_string().ends_with(" is left out: "));
    }
}
