//! What is counted of an exchange once it is over, where the API may be asked for it.
//!
//! Owns which exchanges count: not those for pages about ourselves (spec api-metrics-logs 1). Adds to this core's counters,
//! and hands errors to whoever shows them. Read next: `telemetry/counter.rs`.

use time::OffsetDateTime;

use super::core::Core;
use super::session::Session;
use crate::reactor::{Instant, now};
use crate::telemetry::recent::RecentError;

/// Statuses from here on are errors.
const ERROR_STATUS: u16 = 400;

/// Bytes of a host or path that are remembered of an error.
const TEXT_MAX: usize = 1024;

/// What is known of an exchange under way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Account {
    /// How much of the answer's body was passed on.
    pub(crate) body_bytes: u64,
    /// It does not count.
    pub(crate) is_settled: bool,
    /// Its error was noted already, before another request took the place of the client's.
    is_noted: bool,
}

/// The exchange is over, however it ended.
pub(crate) fn settle(core: &Core, session: &mut Session, began: Instant) {
    let (account, status) = (session.account, session.answer.status);
    if account.is_settled {
        return;
    }
    let time = now().since(began).as_nanos();
    let answers = &core.counters.answers;
    answers.add(
        status,
        u64::try_from(time).unwrap_or(u64::MAX),
        account.body_bytes,
    );
    note(core, session, status);
}

/// Remembers an error, if somebody wants to know.
pub(crate) fn note(core: &Core, session: &mut Session, status: u16) {
    let Some(recent) = &core.settings.recent_errors else {
        return;
    };
    if status < ERROR_STATUS || session.account.is_noted {
        return;
    }
    session.account.is_noted = true;
    let head = &session.request;
    let target = session.scratch.original_target();
    let target = target.map_or_else(|| head.target(), |span| head.text(span));
    let path = target
        .split(|byte| *byte == b'?')
        .next()
        .unwrap_or_default();
    let text =
        |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT_MAX)]).into_owned();
    recent.note(RecentError {
        status,
        method: text(head.method()),
        host: text(head.authority()),
        path: text(path),
        at: OffsetDateTime::now_utc().into(),
    });
}
