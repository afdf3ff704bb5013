//! What the kernel does for the routes: it keeps routers resolved, answers by the line of the question, and goes by the
//! routes of the file itself.

use super::core::Daemon;
use super::{kernel_routes, source_routes};
use sag_model::{Nanos, VrfNo};
use sag_xsk::sys;
use std::collections::BTreeSet;

impl Daemon {
    /// Has the kernel look after the routers of the routes, and no others.
    pub(super) fn keep_routers(&mut self) {
        let numbers = &self.compiler.numbers.nexthops;
        self.kernel.release_routers(&self.publisher.bindings, |key| numbers.is_router(key));
        self.keep_shared_routers();
    }

    pub(super) fn set_source_routes(&mut self, links: bool) {
        let default: Vec<_> = self.compiler.routes.default_routes().collect();
        let wanted = source_routes::wanted(&default, &self.publisher.bindings);
        self.kernel.set_source_routes(&wanted, links);
    }

    /// Packets go by those routers of a multipath route that are resolved, so nobody asks for the others: the kernel keeps
    /// them resolved, and one that has not answered is used again as soon as it does.
    pub(super) fn keep_shared_routers(&mut self) {
        let routers = self.compiler.numbers.nexthops.shared_routers();
        self.kernel.keep_routers(routers, &self.publisher.bindings, Nanos(sys::now()));
    }

    /// Has the kernel go by the routes of the file.
    pub fn keep_kernel_routes(&mut self) {
        let (tables, config) = (self.kernel.tables(), &self.running.config);
        let wanted = match config.dataplane.kernel_routes {
            true => {
                let has_default = kernel_routes::default_routes(tables);
                let device_of =
                    |no| self.tunnel_devices.name(no).and_then(|n| Some(tables.link_named(n)?.ifindex));
                let of_file: BTreeSet<_> = config.routes.iter().map(|r| r.destination.trunc()).collect();
                let row = |dst| self.compiler.routes.get(VrfNo::DEFAULT, dst);
                let rows: Vec<_> = of_file.iter().filter_map(row).collect();
                kernel_routes::wanted(&rows, &self.publisher.bindings, &device_of, has_default)
            }
            false => BTreeSet::new(),
        };
        self.tunnel_devices.keep_routes(wanted);
    }
}
