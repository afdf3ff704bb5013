//! `qos` and its metrics.

use crate::daemon::view::View;
use sag_compile::limit_text;
use sag_model::config::protocol_name;
use sag_model::control::{CarCounters, Qos, QosCar, QosCounters, QosLink, QosPolicy};
use sag_pipeline::qos::{Direction, MeterCounts, Owner};

impl View<'_> {
    fn measured(&self, owner: &Owner) -> QosCounters {
        let meters = &self.publisher.records.meters;
        let found = meters.owners().find(|(o, _)| *o == owner).map(|(_, n)| meters.counted(n));
        let MeterCounts { passed, over_car, over_link } = found.unwrap_or_default();
        QosCounters {
            passed_bytes: passed,
            over_ceiling_bytes: over_car,
            over_link_bytes: over_link,
            rate_bps: self.telemetry.rates.bps(owner),
        }
    }

    pub fn qos_report(&self) -> Qos {
        Qos { links: self.qos_links(), cars: self.qos_cars(), policies: self.qos_policies() }
    }

    fn qos_links(&self) -> Vec<QosLink> {
        let b = &self.running.config.bandwidth;
        let mut rows = vec![
            ("overlay".to_owned(), Owner::Overlay(Direction::Up), "up", b.ccn),
            ("overlay".to_owned(), Owner::Overlay(Direction::Down), "down", b.ccn),
            ("internet".to_owned(), Owner::Internet, "up", b.internet_up),
        ];
        for p in &self.running.config.ports {
            for direction in [Direction::Up, Direction::Down] {
                let owner = Owner::Port(p.name.clone(), direction);
                rows.push((format!("port {}", p.name), owner, direction.name(), p.bandwidth));
            }
        }
        let row = |(link, owner, direction, rate): (String, Owner, &str, Option<_>)| {
            let rate: sag_model::config::Mbps = rate?;
            let counters = self.measured(&owner);
            let direction = direction.to_owned();
            Some(QosLink { link, direction, limit_bps: u64::from(rate.0) * 1_000_000, counters })
        };
        rows.into_iter().filter_map(row).collect()
    }

    fn qos_cars(&self) -> Vec<QosCar> {
        let all = self.running.config.qos.iter().flat_map(|q| q.cars.iter().map(move |c| (q, c)));
        let row = |(q, c): (&sag_model::config::Qos, &sag_model::config::QosCar)| {
            let (floor, ceiling) = c.limit.hundredths(&self.running.config.bandwidth);
            QosCar {
                qos: q.id.clone(),
                id: c.id.clone(),
                name: c.name.clone(),
                priority: c.priority,
                limit: limit_text(&c.limit),
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
        let all = self.running.config.qos.iter().flat_map(|q| q.policies.iter().map(move |p| (q, p)));
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
                vrf: p.vrf.clone(),
                start_time: p.start.map(|t| t.to_string()),
                end_time: p.end.map(|t| t.to_string()),
                active: *active,
            }
        };
        all.zip(active).map(row).collect()
    }

    /// Both directions of each CAR.
    pub fn car_counters(&self) -> Vec<CarCounters> {
        let row = |c: QosCar| CarCounters {
            passed_bytes: c.up.passed_bytes + c.down.passed_bytes,
            dropped_bytes: c.up.dropped_bytes() + c.down.dropped_bytes(),
            car: c.id,
        };
        self.qos_cars().into_iter().map(row).collect()
    }
}
