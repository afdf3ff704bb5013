//! What a gateway is compared with: a redirect that looks at nothing, or at as much memory as a flow table must.

use crate::place::{Home, Place};
use crate::rig::{map, open, program};
use anyhow::{Context, Result, bail};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object};
use sag_bpf::attach_xdp;
use std::os::fd::{AsFd, OwnedFd};

/// Of every frame at memory; see `pg_look`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Looks {
    /// 0 to 2.
    pub each: u32,
    /// With a line for each look.
    pub flows: u32,
}

/// Where `struct pg_fixed` has `looks`, `places` and `known`: behind eight words and sixteen sizes.
const LOOKS: std::ops::Range<usize> = 96..108;

/// The redirect between two devices of a namespace, while the value lives.
#[derive(Debug)]
pub struct Bare {
    _object: Object,
    _links: Vec<OwnedFd>,
}

impl Bare {
    pub fn new(from: &Place, to: &Place, looks: Looks, host: bool) -> Result<Bare> {
        if from.namespace != to.namespace {
            bail!("{from} and {to} are in two namespaces");
        }
        let home = Home::new()?;
        let mut opened = open()?;
        // Places, of which flows have as many as there are flows.
        let places = looks.flows.max(2).checked_next_power_of_two().context("too many flows")?;
        let fixed = [looks.each, places.trailing_zeros(), looks.flows].map(u32::to_ne_bytes);
        for mut m in opened.maps_mut() {
            match m.name().to_string_lossy().as_ref() {
                ".rodata.fixed" => {
                    let data = m.initial_value_mut().context(".rodata.fixed")?;
                    data.get_mut(LOOKS).context(".rodata.fixed")?.copy_from_slice(fixed.as_flattened());
                }
                "pg_lines" => m.set_max_entries(if looks.each > 0 { places * looks.each } else { 1 })?,
                _ => {}
            }
        }
        let object = opened.load().context("the kernel refused the programs (needs root)")?;
        let (source, target) = (home.enter(from, host)?, home.enter(to, host)?);
        map(&object, "pg_devs")?.update(&1u32.to_ne_bytes(), &target.to_ne_bytes(), MapFlags::ANY)?;
        if looks.each > 1 {
            second_lines(&map(&object, "pg_lines")?, places)?;
        }
        let name = if looks.each > 0 { "pg_look" } else { "pg_bare" };
        let link = attach_xdp(program(&object, name)?.as_fd(), source)
            .with_context(|| format!("{from} takes no XDP program"))?;
        Ok(Bare { _object: object, _links: vec![link] })
    }
}

/// Every first line names its second one, in another order.
fn second_lines(lines: &MapHandle, places: u32) -> Result<()> {
    const AT_ONCE: u32 = 4096;
    // Odd, so that all are reached.
    const STRIDE: u64 = 1_299_709;
    for first in (0..places).step_by(AT_ONCE as usize) {
        let some = first..places.min(first + AT_ONCE);
        let count = some.len() as u32;
        let keys: Vec<u8> = some.clone().flat_map(u32::to_ne_bytes).collect();
        let mut values = vec![0u8; (count * lines.value_size()) as usize];
        for (value, place) in values.chunks_mut(lines.value_size() as usize).zip(some) {
            let next = u64::from(places) + u64::from(place) * STRIDE % u64::from(places);
            value[..8].copy_from_slice(&next.to_ne_bytes());
        }
        lines.update_batch(&keys, &values, count, MapFlags::ANY, MapFlags::ANY)?;
    }
    Ok(())
}
