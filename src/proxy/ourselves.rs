//! The way from a core to the control plane of its own process, which makes the pages about ourselves.
//!
//! Owns a frontend and a backend that no configuration names. A request for a page is served by them like any other, by
//! a server that is reached over a pair of sockets, one pair for each exchange: so a page of any length streams to a slow
//! client, and nothing here knows what it says. Bounds how many exchanges are under way. Never waits for control itself.
//! Read next: `exchange.rs`, then `api/mod.rs` (the far end).

use std::cell::Cell;
use std::sync::Arc;

use crate::backend::availability::{Availability, Changes};
use crate::backend::balancer::{Balancer, Method};
use crate::backend::shard::Shard;
use crate::backend::{Backend, BackendId, PoolKey, Scheme, Server};
use crate::frontend::Frontend;
use crate::frontend::modifier::Modifiers;
use crate::limits::OWN_PAGES_MAX;

/// What one core serves pages about ourselves by.
pub(crate) struct Ourselves {
    pub(crate) frontend: Frontend,
    pub(crate) backend: Backend,
    under_way: Cell<usize>,
}

/// An exchange that is under way, until this is dropped.
pub(crate) struct Place<'a>(&'a Cell<usize>);

impl Ourselves {
    /// `None` if too many are under way.
    pub(crate) fn enter(&self) -> Option<Place<'_>> {
        let before = self.under_way.get();
        (before < OWN_PAGES_MAX).then(|| {
            self.under_way.set(before + 1);
            Place(&self.under_way)
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Default for Ourselves {
    fn default() -> Self {
        let name = "coreway".to_owned();
        let changes = Arc::<Changes>::default();
        let availability = Arc::new(Availability::new(Arc::clone(&changes)));
        let server = Server {
            name: name.clone(),
            url: String::new(),
            scheme: Scheme::Control,
            authority: name.as_bytes().into(),
            host: name.as_str().into(),
            addresses: Vec::new(),
            pool: PoolKey::NEVER,
            availability: Arc::clone(&availability),
        };
        let balancer = Balancer {
            method: Method::RoundRobin,
            weights: [1].into(),
            availability: [availability].into(),
            changes,
            slow_start: None,
            sticky: None,
            shard: Arc::new(Shard::new(0, 1, false, false)),
        };
        Self {
            frontend: Frontend {
                name: name.clone(),
                provider: name.clone(),
                backend: BackendId(0),
                pass_host_header: true,
                pass_tls_cert: false,
                modifiers: Modifiers::default(),
                middlewares: Box::default(),
                rate_limit: None,
                error_pages: Box::default(),
            },
            backend: Backend {
                name,
                servers: vec![server],
                balancer,
                breaker: None,
                ejection: None,
                max_conn: None,
                buffering: None,
            },
            under_way: Cell::new(0),
        }
    }
}
