//! The circuit breaker of a backend, asked before an exchange and told after it.
//!
//! Owns the clock it is asked by, and what the log hears of it. Never decides anything itself.
//! Read next: `backend/breaker.rs`.

use super::core::Core;
use crate::backend::Backend;
use crate::backend::breaker::{Breaker, Seen, State};
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
