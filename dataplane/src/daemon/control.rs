//! The operations of the control socket.

use super::core::Daemon;
use super::keys;
use super::report::explain;
use crate::config_file;
use crate::server::{Handler, rfc3339};
use sag_model::config::{Sandbox, Secrets};
use sag_model::control::{self, Error, Picker, TopCollector};
use sag_pipeline::nat::Events;

/// Sessions that are ended before their events are passed on.
const FLUSH_CHUNK: usize = 1024;

impl Handler for Daemon {
    fn status(&mut self) -> Result<control::Status, Error> {
        Ok(self.view().status())
    }

    fn ports(&mut self) -> Result<control::Ports, Error> {
        // The answer is the kernel's word, not what was true at the last look.
        self.repair_attachments();
        Ok(control::Ports { ports: self.view().port_rows_with_drivers() })
    }

    fn drops(&mut self) -> Result<control::Drops, Error> {
        Ok(control::Drops { drops: self.view().drop_rows() })
    }

    fn acl(&mut self, query: &control::AclQuery) -> Result<control::AclReport, Error> {
        let findings = self.running.acl_findings().to_vec();
        self.view().acl(query, findings)
    }

    fn routes(&mut self, query: &control::RouteQuery) -> Result<control::Routes, Error> {
        self.view().routes(query)
    }

    fn sessions(&mut self, query: &control::SessionQuery) -> Result<control::Sessions, Error> {
        let mut picker = Picker::new(query);
        let view = self.view();
        view.each_session(|r, s| picker.offer(s, r));
        let (selected, total) = picker.finish();
        Ok(control::Sessions { sessions: view.session_rows(&selected), total })
    }

    fn sessions_flush(&mut self, filter: &control::SessionFilter) -> Result<control::Flushed, Error> {
        let mut selected = Vec::new();
        self.view().each_session(|r, s| {
            if filter.matches(s) {
                selected.push(r);
            }
        });
        let mut flushed = 0;
        let mut events = Events::default();
        for chunk in selected.chunks(FLUSH_CHUNK) {
            for r in chunk {
                let ended = self.flows.end_session(r.family, r.number, &self.publisher.snapshot, &mut events);
                flushed += u64::from(ended);
            }
            self.telemetry.journal.journal.take(&mut events);
        }
        Ok(control::Flushed { flushed })
    }

    fn top(&mut self, query: &control::TopQuery) -> Result<control::Top, Error> {
        let mut top = TopCollector::new(query);
        self.view().each_session(|_, s| top.offer(s));
        Ok(top.finish())
    }

    fn nat(&mut self) -> Result<control::Nat, Error> {
        Ok(self.view().nat_report())
    }

    fn nat_bindings(&mut self, query: &control::NatBindingQuery) -> Result<control::NatBindings, Error> {
        Ok(self.view().nat_bindings(query))
    }

    fn nat_mappings(&mut self) -> Result<control::NatMappings, Error> {
        Ok(self.port_mapping.report(&self.compiler.vrfs))
    }

    fn ha(&mut self, query: &control::HaQuery) -> Result<control::Ha, Error> {
        let view = self.view();
        Ok(if query.state_only { view.ha_state() } else { view.ha_report() })
    }

    fn qos(&mut self) -> Result<control::Qos, Error> {
        Ok(self.view().qos_report())
    }

    fn tunnels(&mut self) -> Result<control::Tunnels, Error> {
        Ok(self.view().tunnels_report())
    }

    fn explain(&mut self, query: &control::ExplainQuery) -> Result<control::Explain, Error> {
        explain::explain(&self.view(), query)
    }

    fn config_show(&mut self) -> Result<control::ConfigShow, Error> {
        let running = &self.running;
        let text = running.config.to_toml(Secrets::Masked).map_err(|e| Error::internal(e.to_string()))?;
        Ok(control::ConfigShow {
            name: running.source.clone(),
            epoch: self.publisher.epoch(),
            applied: rfc3339(running.applied),
            text,
        })
    }

    fn config_diff(&mut self, text: &str, name: &str) -> Result<control::ConfigDiff, Error> {
        let compared = self.running.compare(text, name);
        let (changes, warnings) = compared.map_err(|e| Error::invalid_config(format!("{e:#}")))?;
        Ok(control::ConfigDiff { changes, warnings })
    }

    fn tunnels_rekey(&mut self, query: &control::TunnelRekey) -> Result<control::Rekeyed, Error> {
        keys::rekey(&mut self.keys, query)
    }

    fn tunnels_confirm(&mut self, query: &control::TunnelConfirm) -> Result<control::Rekeyed, Error> {
        keys::confirm(&mut self.keys, query)
    }

    fn tunnels_key(&mut self, query: &control::TunnelKeyQuery) -> Result<control::PublicKey, Error> {
        keys::public_key(&mut self.keys, query)
    }

    fn tunnels_peers(&mut self, query: &control::TunnelPeers) -> Result<control::Rekeyed, Error> {
        keys::accept_peers(&mut self.keys, query)
    }

    fn config_apply(&mut self, text: &str, name: &str) -> Result<control::ConfigApplied, Error> {
        let applied =
            self.apply_config(text.to_owned(), name).map_err(|e| Error::invalid_config(format!("{e:#}")))?;
        let (changed, warnings) = (applied.changed, applied.warnings);
        Ok(control::ConfigApplied { epoch: self.publisher.epoch(), changed, warnings })
    }

    fn config_deviations(
        &mut self,
        deviations: control::ConfigDeviations,
    ) -> Result<control::DeviationsKept, Error> {
        self.running.deviations = deviations.bounded();
        let kept = u32::try_from(self.running.deviations.len()).unwrap_or(u32::MAX);
        Ok(control::DeviationsKept { kept })
    }

    fn reload(&mut self) -> Result<control::ConfigApplied, Error> {
        let path = self.running.path.clone();
        let text =
            config_file::read(&path).map_err(|e| unreadable(&e, self.running.config.dataplane.sandbox))?;
        self.config_apply(&text, &path.display().to_string())
    }
}

/// A configuration file that cannot be read again. Outside of what it was confined to at the start, the daemon is refused
/// what its user may read.
fn unreadable(error: &anyhow::Error, sandbox: Sandbox) -> Error {
    let denied = |e: &std::io::Error| e.kind() == std::io::ErrorKind::PermissionDenied;
    let mut refusal = Error::invalid_config(format!("{error:#}"));
    if sandbox == Sandbox::Enforce && error.downcast_ref().is_some_and(denied) {
        refusal.remedy = "make the file readable for the daemon; if its path leads elsewhere than when the daemon started, \
                          restart the daemon (dataplane.sandbox confines what it reads); the running configuration is \
                          unchanged"
            .into();
    }
    refusal
}
