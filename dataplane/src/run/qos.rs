//! Meters in the daemon's life: time windows, measured rates, `qos` and its metrics.

use super::Daemon;
use crate::compile::{Moment, limit_of};
use sag_model::Nanos;
use sag_model::config::protocol_name;
use sag_model::control::{CarCounters, Qos, QosCar, QosCounters, QosLink, QosPolicy};
use sag_pipeline::qos::{Direction, MeterCounts, Owner};
use sag_xsk::sys;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Over how long a rate is measured.
const SAMPLE: Duration = Duration::from_secs(1);

/// What each meter let pass in the last full second.
#[derive(Debug, Default)]
pub struct Rates {
    taken: Option<Instant>,
    passed: HashMap<Owner, u64>,
    bps: HashMap<Owner, u64>,
}

impl Daemon {
    /// Time windows that begin or end, rates of the last second, moments long past.
    pub(super) fn keep_meters(&mut self) {
        let moment = Moment::at(Nanos(sys::now()));
        if self.compiler.qos.is_due(&self.config, moment.wall) {
            self.recompile(self.epoch);
            tracing::info!(epoch = self.epoch, "a time window of a QoS policy began or ended");
        }
        let elapsed = self.rates.taken.map(|t| t.elapsed());
        if elapsed.is_some_and(|e| e < SAMPLE) {
            return;
        }
        self.compiler.qos.book.refresh(moment.now);
        let book = &self.compiler.qos.book;
        let passed: HashMap<_, _> = book.owners().map(|(o, n)| (o.clone(), book.counted(n).passed)).collect();
        let bps = |(owner, now): (&Owner, &u64)| {
            let then = self.rates.passed.get(owner)?;
            let bits = now.saturating_sub(*then) as f64 * 8.0;
            Some((owner.clone(), (bits / elapsed?.as_secs_f64()).round() as u64))
        };
        let bps = passed.iter().filter_map(bps).collect();
        self.rates = Rates { taken: Some(Instant::now()), passed, bps };
    }

    fn measured(&self, owner: &Owner) -> QosCounters {
        let book = &self.compiler.qos.book;
        let found = book.owners().find(|(o, _)| *o == owner).map(|(_, n)| book.counted(n));
        let MeterCounts { passed, over_car, over_link } = found.unwrap_or_default();
        QosCounters {
            passed_bytes: passed,
            over_ceiling_bytes: over_car,
            over_link_bytes: over_link,
            rate_bps: self.rates.bps.get(owner).copied().unwrap_or(0),
        }
    }

    pub(super) fn qos_report(&self) -> Qos {
        Qos { links: self.qos_links(), cars: self.qos_cars(), policies: self.qos_policies() }
    }

    fn qos_links(&self) -> Vec<QosLink> {
        let b = &self.config.bandwidth;
        let mut wanted = vec![
            ("overlay".to_owned(), Owner::Overlay(Direction::Up), "up", b.ccn),
            ("overlay".to_owned(), Owner::Overlay(Direction::Down), "down", b.ccn),
            ("internet".to_owned(), Owner::Internet, "up", b.internet_up),
        ];
        for p in &self.config.ports {
            for way in [Direction::Up, Direction::Down] {
                let owner = Owner::Port(p.name.clone(), way);
                wanted.push((format!("port {}", p.name), owner, way.name(), p.bandwidth));
            }
        }
        let row = |(link, owner, direction, rate): (String, Owner, &str, Option<_>)| {
            let rate: sag_model::config::Mbps = rate?;
            let counters = self.measured(&owner);
            let direction = direction.to_owned();
            Some(QosLink { link, direction, limit_bps: u64::from(rate.0) * 1_000_000, counters })
        };
        wanted.into_iter().filter_map(row).collect()
    }

    fn qos_cars(&self) -> Vec<QosCar> {
        let all = self.config.qos.iter().flat_map(|q| q.cars.iter().map(move |c| (q, c)));
        let row = |(q, c): (&sag_model::config::Qos, &sag_model::config::QosCar)| {
            let (floor, ceiling) = c.limit.hundredths(&self.config.bandwidth);
            QosCar {
                qos: q.id.clone(),
                id: c.id.clone(),
                name: c.name.clone(),
                priority: c.priority,
                limit: limit_of(&c.limit),
                floor_bps: floor * 10_000,
                ceiling_bps: ceiling.map(|n| n * 10_000),
                burst_ms: c.burst_ms,
                remark_dscp: c.remark_dscp,
                up: self.measured(&Owner::Car(c.id.clone(), Direction::Up)),
                down: self.measured(&Owner::Car(c.id.clone(), Direction::Down)),
            }
        };
        all.map(row).collect()
    }

    fn qos_policies(&self) -> Vec<QosPolicy> {
        let all = self.config.qos.iter().flat_map(|q| q.policies.iter().map(move |p| (q, p)));
        let active = self.compiler.qos.active().iter();
        let row = |((q, p), active): ((&sag_model::config::Qos, &sag_model::config::QosPolicy), &bool)| {
            let car = q.cars.iter().find(|c| c.priority == p.priority);
            QosPolicy {
                qos: q.id.clone(),
                id: p.id.clone(),
                name: p.name.clone(),
                priority: p.priority,
                car: car.map(|c| c.id.clone()).unwrap_or_default(),
                ip_protocol: protocol_name(p.tuple.protocol),
                source_cidr: p.tuple.source.to_string(),
                dest_cidr: p.tuple.dest.to_string(),
                source_port_range: p.tuple.source_ports.to_string(),
                dest_port_range: p.tuple.dest_ports.to_string(),
                dscp: p.dscp,
                start_time: p.start.map(|t| t.to_string()),
                end_time: p.end.map(|t| t.to_string()),
                active: *active,
            }
        };
        all.zip(active).map(row).collect()
    }

    /// Both directions of each CAR.
    pub(super) fn car_counters(&self) -> Vec<CarCounters> {
        let row = |c: QosCar| CarCounters {
            passed_bytes: c.up.passed_bytes + c.down.passed_bytes,
            dropped_bytes: c.up.dropped_bytes() + c.down.dropped_bytes(),
            car: c.id,
        };
        self.qos_cars().into_iter().map(row).collect()
    }
}
