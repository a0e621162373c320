//! The circuit breaker of a backend, asked before an exchange and told after it; and its servers, told how tries end.
//!
//! Owns the clock it is asked by, and what the log hears of it. Never decides anything itself.
//! Read next: `backend/breaker.rs`, `backend/ejection.rs`.

use std::time::Duration;

use super::core::Core;
use crate::backend::breaker::{Breaker, Seen, State};
use crate::backend::ejection::Ejection;
use crate::backend::{Backend, ServerId};
use crate::reactor::{Instant, coarse, now};

/// The status of an exchange whose client left before it was told anything, as the reference counts it.
pub(crate) const CLIENT_GONE: u16 = 499;

/// An exchange that was let through.
#[must_use = "the breaker is to hear how it ends"]
pub(crate) struct Watch {
    /// Where the breaker asks how long it takes.
    begun: Option<Instant>,
}

/// Asks the breaker, if there is one. `None`: nobody may be asked, answer 503.
#[inline]
pub(crate) fn admit(backend: &Backend, at: Instant) -> Option<Watch> {
    if let Some(ejection) = &backend.ejection
        && ejection.is_due(at.nanoseconds())
    {
        welcome(backend, ejection, at);
    }
    let Some(breaker) = &backend.breaker else {
        return Some(Watch { begun: None });
    };
    let admission = breaker.admit(at.nanoseconds());
    if let Some(entered) = admission.entered {
        tell(backend, breaker, entered);
    }
    admission.passes.then(|| Watch {
        begun: breaker.times().then(now),
    })
}

/// Lets servers back whose time is over.
#[cold]
fn welcome(backend: &Backend, ejection: &Ejection, at: Instant) {
    ejection.back(at.nanoseconds(), |id| {
        let url = &backend.server(id).url;
        tracing::warn!("Server {url} of backend {} is asked again", backend.name);
    });
}

/// Tells which status the try at a server came to: its own, or what stands for a failure of it.
#[inline]
pub(crate) fn tried(backend: &Backend, id: ServerId, status: u16) {
    let now = || coarse().nanoseconds();
    backend.balancer.answered(id, status, now);
    let Some(ejection) = &backend.ejection else {
        return;
    };
    let has_failed = matches!(status, 502..=504);
    if ejection.tried(id, has_failed, coarse().nanoseconds()) {
        let (url, rule) = (&backend.server(id).url, ejection.rule());
        tracing::warn!(
            "Server {url} of backend {} failed {} times in a row, leaving it alone for {:?}",
            backend.name,
            rule.failures,
            Duration::from_millis(rule.time)
        );
    }
}

impl Watch {
    /// Tells the breaker, if there is one, with which status the exchange has ended.
    #[inline]
    pub(crate) fn ended(self, core: &Core, backend: &Backend, status: u16) {
        if let Some(breaker) = &backend.breaker {
            self.record(core, backend, breaker, status);
        }
    }

    fn record(self, core: &Core, backend: &Backend, breaker: &Breaker, status: u16) {
        // How long a tunnel was open says nothing of the server.
        let begun = self.begun.filter(|_| status != 101);
        let milliseconds = begun.map(|begun| {
            let taken = begun.elapsed().as_millis();
            u64::try_from(taken).unwrap_or(u64::MAX)
        });
        let seen = Seen {
            status,
            milliseconds,
        };
        if breaker.record(core.index, seen, coarse().nanoseconds()) {
            tell(backend, breaker, State::Tripped);
        }
    }
}

/// Tells the log about a change, once for all cores.
#[cold]
fn tell(backend: &Backend, breaker: &Breaker, entered: State) {
    let name = &backend.name;
    match entered {
        State::Tripped => {
            let figures: Vec<String> = breaker.figures().iter().map(ToString::to_string).collect();
            tracing::warn!(
                "Circuit breaker of backend {name} tripped, answering 503 for 10 s: {} ({})",
                breaker.expression(),
                figures.join("; ")
            );
        }
        State::Recovering => tracing::warn!(
            "Circuit breaker of backend {name} is recovering: a growing part of the requests passes for 10 s"
        ),
        State::Standby => {
            tracing::warn!(
                "Circuit breaker of backend {name} has recovered: all requests pass again"
            );
        }
    }
}
