//! The ACL stage: the rules decide once for a session, and again when they have changed. Packets of a session that a drop
//! rule names by their header are dropped all the same.

use super::decision::Draft;
use super::{Disposition, Known, PacketContext, Stage, Tracer, nat64};
use crate::ids::RuleSlot;
use crate::policy::{AclVerdict, Header, Judged, Tuple};
use crate::snapshot::Snapshot;
use sag_model::{DropReason, VrfZone};
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
        Some(side) if side != VrfZone::new(draft.zone, draft.egress_vrf) => Known::New,
        _ => ctx.session,
    };
    let (verdict, judged) = match session {
        Known::Established | Known::Related => {
            by_header(snap, ctx, draft, trace)?;
            trace.step(Stage::Acl, || "passed with its session".into());
            return Ok(());
        }
        Known::Revalidate { initiator, from, to } => {
            (snap.acl.check_session(from, to, &initiator), Judged::FLOW)
        }
        Known::New => snap.acl.check(from(ctx), draft.zone, &tuple(ctx, draft), header(ctx, draft)),
    };
    match verdict {
        AclVerdict::Accept { slot } => {
            match session {
                Known::Revalidate { .. } => by_header(snap, ctx, draft, trace)?,
                _ => draft.watched = judged.watched,
            }
            trace.step(Stage::Acl, || match slot {
                Some(s) => {
                    let limit = snap.acl.limit(s).map(|l| format!(", {}", l.text(draft.src)));
                    format!("accepted by {}{}", rule_name(snap, s), limit.unwrap_or_default())
                }
                None => "no rule matched: accepted".into(),
            });
            draft.rule = slot;
            Ok(())
        }
        AclVerdict::Deny { slot: Some(s) } => {
            trace.step(Stage::Acl, || format!("denied by {}", rule_name(snap, s)));
            Err(denied(s, !judged.flow))
        }
        AclVerdict::Deny { slot: None } => {
            trace.step(Stage::Acl, || "no rule matched: denied".into());
            let (reason, alone) = (DropReason::AclDefaultDenied, !judged.flow);
            Err(Disposition::Drop { reason, icmp: None, rule: None, alone })
        }
    }
}

/// A packet of an admitted session, or an error about one: dropped if the rules name it by its header. Answers pass with
/// their session.
#[inline(always)]
fn by_header<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    draft: &mut Draft,
    trace: &mut T,
) -> Result<(), Disposition> {
    if ctx.reply && snap.options.acl_stateful {
        return Ok(());
    }
    let (rule, watched) =
        snap.acl.check_packet(from(ctx), draft.zone, || tuple(ctx, draft), header(ctx, draft));
    draft.watched = watched;
    let Some(rule) = rule else { return Ok(()) };
    trace.step(Stage::Acl, || format!("of an admitted session, but denied by {}", rule_name(snap, rule)));
    Err(denied(rule, true))
}

/// Where the packet comes from.
#[inline(always)]
fn from(ctx: &PacketContext<'_>) -> VrfZone {
    VrfZone::new(ctx.zone, ctx.vrf)
}

/// The five-tuple that rules see.
#[inline(always)]
fn tuple(ctx: &PacketContext<'_>, draft: &Draft) -> Tuple {
    if let Some(seen) = &draft.seen64 {
        return nat64::tuple(seen, ctx);
    }
    let (sport, dport) = match ctx.p.l4 {
        L4::Echo { .. } | L4::IcmpError { .. } | L4::IcmpOther { .. } => (0, 0),
        _ => ctx.p.ports(),
    };
    let dport = ctx.to_port.or(draft.dnat.map(|d| d.to.port)).unwrap_or(dport);
    Tuple { proto: ctx.p.proto, src: draft.src, dst: draft.dst, sport, dport }
}

/// What rules see of the header.
#[inline(always)]
fn header(ctx: &PacketContext<'_>, draft: &Draft) -> Header {
    if draft.seen64.is_some() { nat64::header(ctx) } else { Header::of(ctx.p) }
}

fn denied(rule: RuleSlot, alone: bool) -> Disposition {
    Disposition::Drop { reason: DropReason::AclDenied, icmp: None, rule: Some(rule), alone }
}

fn rule_name(snap: &Snapshot, slot: RuleSlot) -> String {
    snap.acl.name(slot).map_or_else(|| format!("rule slot {}", slot.0), |n| format!("rule {n}"))
}
