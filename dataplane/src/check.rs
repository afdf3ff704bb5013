//! `sag-vcpe check`: the whole validation, and what the ACL analysis finds.

use crate::config_file;
use std::path::Path;
use std::process::ExitCode;

pub fn check(path: &Path) -> ExitCode {
    match config_file::load(path) {
        Ok((checked, _)) => {
            for w in &checked.warnings {
                eprintln!("warning: {w}");
            }
            let c = &checked.config;
            let rules: usize = c.acls.iter().map(|a| a.rules.len()).sum();
            println!(
                "{}: valid ({} ports, {} routes, {} ACLs with {rules} rules)",
                path.display(),
                c.ports.len(),
                c.routes.len(),
                c.acls.len()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What the ACL analysis finds, for reports.
pub fn findings(_config: &sag_model::config::Config) -> Vec<sag_model::control::Finding> {
    Vec::new()
}
