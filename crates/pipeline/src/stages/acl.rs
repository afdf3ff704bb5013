//! The ACL stage: the rules decide once for a session, and again when they have changed.

use super::decision::{Draft, drop_packet};
use super::{Disposition, Known, PacketContext, Stage, Tracer};
use crate::ids::RuleSlot;
use crate::policy::{AclVerdict, Tuple};
use crate::snapshot::Snapshot;
use sag_model::DropReason;
use sag_packet::L4;

/// The ACLs, unless they have admitted the session already. Notes the rule that admits the packet.
#[inline(always)]
pub(super) fn acl<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    draft: &mut Draft,
    trace: &mut T,
) -> Result<(), Disposition> {
    let session = match ctx.leaves_to {
        // Rerouted across another border: what admitted the session does not speak for this one.
        Some(zone) if zone != draft.zone => Known::New,
        _ => ctx.session,
    };
    let verdict = match session {
        Known::Established | Known::Related => {
            trace.step(Stage::Acl, || "passed with its session".into());
            return Ok(());
        }
        Known::Revalidate { initiator, from, to } => snap.acl.check(from, to, &initiator),
        Known::New => {
            let (sport, dport) = match ctx.p.l4 {
                L4::Echo { .. } | L4::IcmpError { .. } | L4::IcmpOther { .. } => (0, 0),
                _ => ctx.p.ports(),
            };
            let dport = draft.dnat.map_or(dport, |d| d.to.port);
            let tuple = Tuple { proto: ctx.p.proto, src: draft.src, dst: draft.dst, sport, dport };
            snap.acl.check(ctx.zone, draft.zone, &tuple)
        }
    };
    match verdict {
        AclVerdict::Accept { slot } => {
            trace.step(Stage::Acl, || match slot {
                Some(s) => format!("accepted by {}", rule_name(snap, s)),
                None => "no rule matched: accepted".into(),
            });
            draft.rule = slot;
            Ok(())
        }
        AclVerdict::Deny { slot: Some(s) } => {
            trace.step(Stage::Acl, || format!("denied by {}", rule_name(snap, s)));
            Err(Disposition::Drop { reason: DropReason::AclDenied, icmp: None, rule: Some(s) })
        }
        AclVerdict::Deny { slot: None } => {
            trace.step(Stage::Acl, || "no rule matched: denied".into());
            Err(drop_packet(DropReason::AclDefaultDenied, None))
        }
    }
}

fn rule_name(snap: &Snapshot, slot: RuleSlot) -> String {
    snap.acl.name(slot).map_or_else(|| format!("rule slot {}", slot.0), |n| format!("rule {n}"))
}
