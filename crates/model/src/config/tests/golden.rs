//! The wording and the place of findings, line for line: `golden/NAME.toml` is a document with
//! mistakes, `golden/NAME.txt` what is said about it; `UPDATE=1` records it, and the change is to be read.

use crate::config::parse;
use std::path::Path;

/// All errors, or the warnings of a document without errors; what merely announces sections
/// without effect is left out.
fn findings(text: &str, file: &str) -> String {
    let found = match parse(text, file) {
        Ok(checked) => checked.warnings,
        Err(errors) => errors.0,
    };
    let shown = found.iter().filter(|d| !d.problem.contains("not enforced"));
    shown.map(|d| format!("{d}\n")).collect()
}

#[test]
fn findings_are_as_recorded() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/tests/golden");
    let mut count = 0;
    for entry in std::fs::read_dir(dir).expect("directory") {
        let path = entry.expect("entry").path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("document");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path.with_extension("txt"), findings(&text, &name)).expect("writable");
        }
        let recorded = std::fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
        let got = findings(&text, &name);
        assert!(!got.is_empty(), "{name}: nothing found");
        assert_eq!(got, recorded, "{name} (left: found, right: recorded):\n{got}");
        count += 1;
    }
    assert!(count >= 20, "only {count} documents");
}
