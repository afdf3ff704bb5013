//! The files in `configs/` and the manual follow from the declarations.

use super::ok;
use crate::config::{SECTIONS, example, parse, reference, with_references};
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

/// The file is as the declarations have it; `UPDATE=1` writes it.
fn up_to_date(path: &str, expected: &str) {
    let file = root().join(path);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, expected).expect("writable");
    }
    let found = std::fs::read_to_string(&file).expect("readable");
    assert!(
        found == expected,
        "{path} is not what the declarations in crates/model/src/config/keys give; write it by\n    \
         UPDATE=1 cargo test -p sag-model documents"
    );
}

#[test]
fn the_example_follows_from_the_declarations() {
    up_to_date("configs/vcpe.example.toml", &example());
}

#[test]
fn the_tables_of_the_manual_follow_from_the_declarations() {
    let manual = std::fs::read_to_string(root().join("docs/configuration.md")).expect("manual");
    up_to_date("docs/configuration.md", &with_references(&manual).expect("markers"));
}

#[test]
fn every_key_is_declared_whole_and_in_the_example() {
    let example = example();
    for section in SECTIONS {
        for key in section.keys {
            let at = format!("{}.{}", section.name, key.name);
            assert!(!key.meaning().is_empty(), "{at}: has no meaning");
            assert!(!key.at_start || !section.list, "{at}: entries of lists change with a reload");
            assert!(
                example.lines().any(|l| l.split('=').next().is_some_and(|k| k.trim() == key.name)),
                "{at} is not in the example: give it a default or .example(value)"
            );
        }
    }
}

#[test]
fn markers_in_the_manual_that_are_wrong_are_found() {
    for bad in ["", "<!-- keys of", "<!-- keys of port -->", "<!-- keys of colour --><!-- end of keys -->"] {
        assert!(with_references(bad).is_err(), "{bad}");
    }
    assert!(reference("colour").is_none());
    let table = reference("dataplane").expect("section");
    assert!(
        table.contains("| `workers` | integer | 1..64 | one per core, at most one per queue |"),
        "{table}"
    );
}

#[test]
fn keys_that_need_a_restart() {
    let old =
        ok("dataplane.flows = 1024\nport = [{ name = \"0\", device = \"eth1\", role = \"lan\" }]\n").config;
    let mut new = old.clone();
    assert!(old.needs_restart(&new).is_empty());
    new.dataplane.icmp_rate = 7;
    new.timeouts.udp = 400;
    assert!(old.needs_restart(&new).is_empty());
    new.dataplane.flows = Some(2048);
    new.dataplane.workers = Some(3);
    assert_eq!(old.needs_restart(&new), ["dataplane.workers", "dataplane.flows"]);
}

#[test]
fn old_names_of_keys_are_accepted_with_a_warning() {
    let port = "port = [{ name = \"0\", device = \"eth1\", role = \"lan\" }]\n";
    let old = format!("{port}[dataplane]\non_daemon_loss = \"pass_to_kernel\"\nrejudge_window = 7\n");
    let new = format!("{port}[dataplane]\nfail_action = \"pass_to_kernel\"\nrevalidation_credit = 7\n");
    let checked = ok(&old);
    assert_eq!(checked.config, ok(&new).config);
    let warnings: Vec<_> = checked.warnings.iter().map(|w| (w.line, w.path.as_str())).collect();
    assert_eq!(warnings, [(3, "dataplane.on_daemon_loss"), (4, "dataplane.rejudge_window")]);
    assert!(checked.warnings[0].remedy.contains("write fail_action"), "{}", checked.warnings[0]);
    assert!(ok(&new).warnings.is_empty());
    let both = parse(&format!("{new}rejudge_window = 7\n"), "f").expect_err("both").to_string();
    assert!(
        both.contains("f:5:1: dataplane.rejudge_window: is the old name of revalidation_credit"),
        "{both}"
    );
}
