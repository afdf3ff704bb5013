//! `[[vrf]]`.

use super::Seen;
use crate::config::keys::{RawVrf, Vrf};
use crate::config::report::{Path, Report};
use crate::config::scope::Scope;
use crate::config::value::quote;
use crate::ids::VrfNo;

/// What rules and filters call the VRF of what names none.
pub const DEFAULT_VRF: &str = "default";

/// The tables that the kernel consults under its default rules.
const KERNELS_OWN: [(i64, &str); 3] = [(255, "local"), (254, "main"), (253, "default")];

pub(super) fn vrfs(raw: &[RawVrf], report: &mut Report<'_>) -> Vec<Vrf> {
    let most = VrfNo::COUNT - 1;
    if let Some(extra) = raw.get(most) {
        let problem = format!("{} VRFs, which is above the limit of {most}", raw.len());
        report.error(&extra.span, &Path::ROOT.item("vrf", most), problem, "remove some", "");
    }
    let mut names = Seen::new();
    let mut tables = Seen::new();
    let mut out = Vec::with_capacity(raw.len());
    for (i, v) in raw.iter().enumerate() {
        let mut s = Scope::new(report, Path::ROOT.item("vrf", i), &v.span);
        if let Some(at) = &v.name
            && let Some(first) = names.repeated(at.get_ref().clone(), s.place(&at.span(), "name"))
        {
            s.repeated(&at.span(), "name", quote(at.get_ref()), &first, "");
        }
        if let Some(at) = v.name.as_ref().filter(|name| name.get_ref() == DEFAULT_VRF) {
            let problem = format!("{}: is the VRF of what names none", quote(DEFAULT_VRF));
            s.error(&at.span(), "name", problem, "give this one another name", "");
        }
        if let Some(at) = &v.table {
            let table = *at.get_ref();
            if let Some((_, name)) = KERNELS_OWN.iter().find(|(number, _)| *number == table) {
                let problem = format!(
                    "{table} is the kernel's table {name}, whose routes are those of the ports by which they lead"
                );
                s.error(&at.span(), "table", problem, "write the number of a table of the VRF's own", "");
            }
            if let Some(first) = tables.repeated(table, s.place(&at.span(), "table")) {
                s.repeated(&at.span(), "table", table, &first, "");
            }
        }
        out.extend(v.read(&mut s).finish());
    }
    out
}
