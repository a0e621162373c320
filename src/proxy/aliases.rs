//! Other names of the hosts that clients ask for, from a core's side: what is known of them, and who waits to know.
//!
//! Owns the names that this core was told, each for its lifetime. Control finds them out; an exchange waits for that no
//! longer than [`ALIAS_WAIT`], and then goes on without. Only where `hostResolver` is on, and only for hosts that no rule names.
//! Read next: `control/aliases.rs`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crossbeam::channel::Sender;

use super::session::Session;
use crate::frontend::trie::Trie;
use crate::limits::{ALIAS_WAIT, ALIASES_ASKED_MAX, ALIASES_KNOWN_MAX};
use crate::mailbox::{MailboxSender, Report};
use crate::reactor::{Instant, Timer, coarse, limit};

/// Bytes of a name (RFC 1035 2.3.4).
const NAME_BYTES_MAX: usize = 253;

/// The aliases that one core knows.
pub(crate) struct Aliases {
    known: RefCell<HashMap<Box<str>, Known>>,
    asked: RefCell<HashMap<Box<str>, Vec<Waker>>>,
    reports: Sender<Report>,
    /// This core's own.
    mailbox: MailboxSender,
}

struct Known {
    name: Option<Box<str>>,
    until: Instant,
}

impl Aliases {
    pub(crate) fn new(reports: Sender<Report>, mailbox: MailboxSender) -> Self {
        Self {
            known: RefCell::default(),
            asked: RefCell::default(),
            reports,
            mailbox,
        }
    }

    /// Tells the lookup of another name of the request's host, where that may matter.
    pub(crate) async fn look_up(&self, session: &mut Session, trie: &Trie) {
        session.scratch.alias.clear();
        let host = trie.unnamed_host(&session.request, &mut session.scratch);
        let Some(host) = host.filter(|host| is_name(host)) else {
            return;
        };
        let Ok(host) = std::str::from_utf8(host) else {
            return;
        };
        let host = Box::<str>::from(host);
        if !self.is_known(&host) && self.ask(&host) {
            let timer = Timer::new();
            timer.set(coarse() + ALIAS_WAIT);
            let mut answer = poll_fn(|context| self.poll(&host, context));
            let _ = limit(&timer, Pin::new(&mut answer)).await;
        }
        if let Some(Known {
            name: Some(name), ..
        }) = self.known.borrow().get(&host)
        {
            session.scratch.alias.extend_from_slice(name.as_bytes());
        }
    }

    fn is_known(&self, host: &str) -> bool {
        let known = self.known.borrow();
        known.get(host).is_some_and(|known| known.until > coarse())
    }

    /// Has control asked, unless it is. False if too much is asked already.
    fn ask(&self, host: &str) -> bool {
        let mut asked = self.asked.borrow_mut();
        if asked.contains_key(host) {
            return true;
        }
        let report = Report::Host {
            host: host.to_owned(),
            asker: self.mailbox.clone(),
        };
        let is_asked = asked.len() < ALIASES_ASKED_MAX && self.reports.send(report).is_ok();
        if is_asked {
            asked.insert(host.into(), Vec::new());
        }
        is_asked
    }

    fn poll(&self, host: &str, context: &mut Context<'_>) -> Poll<()> {
        let mut asked = self.asked.borrow_mut();
        let Some(wakers) = asked.get_mut(host) else {
            return Poll::Ready(());
        };
        if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            wakers.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// An answer has come.
    pub(crate) fn told(&self, host: String, name: Option<String>, lifetime: Duration) {
        let at = coarse();
        let wakers = self.asked.borrow_mut().remove(host.as_str());
        let mut known = self.known.borrow_mut();
        if known.len() >= ALIASES_KNOWN_MAX {
            // Whoever asks for ever new hosts costs others a question each, and no memory.
            known.clear();
        }
        known.insert(
            host.into(),
            Known {
                name: name.map(String::into_boxed_str),
                until: at + lifetime,
            },
        );
        drop(known);
        for waker in wakers.unwrap_or_default() {
            waker.wake();
        }
    }
}

/// Whether name servers can know it: labels of letters, digits, hyphens and underscores, and no address.
fn is_name(host: &[u8]) -> bool {
    let is_label = |label: &[u8]| {
        (1..64).contains(&label.len())
            && label
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let mut labels = host.split(|byte| *byte == b'.');
    host.len() <= NAME_BYTES_MAX
        && labels.clone().all(is_label)
        && labels
            .next_back()
            .is_some_and(|last| !last.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_other_hosts() {
        for name in ["a", "a.test", "A-1._x.test", "1.2.3.x"] {
            assert!(is_name(name.as_bytes()), "{name}");
        }
        let long = "a.".repeat(150) + "a";
        for other in [
            "",
            "10.0.0.1",
            "::1",
            "a..b",
            "a.",
            ".a",
            "a b",
            "é",
            &long,
            &"x".repeat(64),
        ] {
            assert!(!is_name(other.as_bytes()), "{other}");
        }
    }
}
