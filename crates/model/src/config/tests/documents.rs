//! The files in `configs/` and the manual keep pace with the code.

use super::ok;
use crate::config::SECTIONS;
use std::path::Path;

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn every_file_in_configs_is_right() {
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("configs")).expect("configs") {
        let path = entry.expect("entry").path();
        // Other programs keep their samples here too.
        let is_agent = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("agent"));
        if path.extension().is_some_and(|e| e == "toml") && !is_agent {
            ok(&std::fs::read_to_string(&path).expect("readable"));
            count += 1;
        }
    }
    assert!(count >= 2, "only {count} files");
}

#[test]
fn every_key_is_in_the_manual_and_in_the_example() {
    let manual = std::fs::read_to_string(root().join("docs/configuration.md")).expect("manual");
    for (section, keys) in SECTIONS {
        let heading = format!("`[{section}]`");
        let list_heading = format!("`[[{section}]]`");
        let part = manual
            .split("\n## ")
            .find(|p| p.lines().next().is_some_and(|l| l.contains(&heading) || l.contains(&list_heading)))
            .unwrap_or_else(|| panic!("docs/configuration.md has no section on {section}"));
        for key in *keys {
            if SECTIONS.iter().any(|(s, _)| *s == format!("{section}.{key}")) {
                continue;
            }
            assert!(
                part.contains(&format!("| `{key}` |")),
                "docs/configuration.md: {section}.{key} is missing"
            );
            assert!(
                super::EXAMPLE.lines().any(|l| l.split('=').next().is_some_and(|k| k.trim() == *key)),
                "configs/vcpe.example.toml: {section}.{key} is missing"
            );
        }
    }
}
