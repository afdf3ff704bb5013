//! The configuration in force.

use super::saver::Saver;
use crate::config_file;
use anyhow::{Result, anyhow};
use sag_model::config::{self, Change, Checked, Config};
use sag_model::control::{Deviation, Finding};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The document in force, where it came from, and what there is to say about it.
#[derive(Debug)]
pub struct RunningConfig {
    /// The file with which the daemon was started, and which a reload reads.
    pub path: PathBuf,
    pub config: Config,
    text: String,
    /// Name of the document: a file, or what the controller calls it.
    pub source: String,
    pub applied: SystemTime,
    pub warnings: Vec<String>,
    /// What the controller says that the document does not have of its configuration.
    pub deviations: Vec<Deviation>,
    /// What the analysis of the ACLs found, once a report has asked for it.
    findings: Option<Vec<Finding>>,
}

/// What came of a new document.
#[derive(Debug)]
pub struct Applied {
    /// Whether it says something else than the one before.
    pub changed: bool,
    pub warnings: Vec<String>,
}

impl RunningConfig {
    /// The document of the start.
    pub fn new(path: &Path, checked: Checked, text: String) -> RunningConfig {
        let warnings = checked.warnings.iter().map(|w| w.to_string());
        RunningConfig {
            path: path.to_owned(),
            text,
            source: path.display().to_string(),
            applied: SystemTime::now(),
            warnings: warnings.chain(config_file::exposed_keys(path, &checked.config)).collect(),
            deviations: Vec::new(),
            findings: None,
            config: checked.config,
        }
    }

    /// Another document, as it would be put in force, and what there is to say about that.
    fn read(&self, text: &str, name: &str) -> Result<(Config, Vec<String>)> {
        let mut checked = config::parse(text, name).map_err(|e| anyhow!("{e}"))?;
        checked.config.keep_numbers(|p| self.config.port_by_name(&p.name));
        let mut warnings: Vec<String> = checked.warnings.iter().map(|w| w.to_string()).collect();
        let fixed = self.config.needs_restart(&checked.config);
        warnings.extend(fixed.iter().map(|key| format!("{key} changes with the next start of the daemon")));
        if name == self.path.display().to_string() {
            warnings.extend(config_file::exposed_keys(&self.path, &checked.config));
        }
        Ok((checked.config, warnings))
    }

    /// What another document would change, and the warnings that it would bring.
    pub fn compare(&self, text: &str, name: &str) -> Result<(Vec<Change>, Vec<String>)> {
        let (config, warnings) = self.read(text, name)?;
        Ok((self.config.diff(&config), warnings))
    }

    /// Puts another document in force. One with an error changes nothing.
    pub fn replace(&mut self, text: String, name: &str) -> Result<Applied> {
        let (config, warnings) = self.read(&text, name)?;
        let changed = config != self.config;
        self.config = config;
        self.text = text;
        self.source = name.to_owned();
        self.applied = SystemTime::now();
        self.warnings.clone_from(&warnings);
        self.findings = None;
        if changed {
            // They were about another document.
            self.deviations.clear();
        }
        Ok(Applied { changed, warnings })
    }

    /// The analysis of the ACLs, made when it is first asked for. That of large ones would take seconds, which the control
    /// thread does not have.
    pub fn acl_findings(&mut self) -> &[Finding] {
        const MAX_RULES: usize = 5_000;
        let config = &self.config;
        self.findings.get_or_insert_with(|| {
            let rules: usize = config.acls.iter().map(|a| a.rules.len()).sum();
            if rules <= MAX_RULES {
                return crate::check::findings(config);
            }
            let text =
                format!("{rules} rules are too many to analyse while forwarding: run `sag-vcpe check`");
            vec![Finding { kind: "incomplete".to_owned(), text, ..Finding::default() }]
        })
    }

    /// Has the document written to where the next start finds it if its source is gone.
    pub fn save_last_good(&self, saver: &Saver) {
        let path = self.config.dataplane.state_dir.join("last-good.toml");
        saver.replace("last good configuration", path, self.text.clone());
    }
}
