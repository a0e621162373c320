//! The memory of a connection that has something to do: heads, buffers, timers.
//!
//! Borrowed from the core while a client is active and given back when it falls quiet, so an idle connection holds none
//! of it and a busy one allocates nothing.

use super::account::Account;
use super::held::Held;
use super::page::Instead;
use crate::frontend::Scratch;
use crate::http::Head;
use crate::http::h1::Scan;
use crate::reactor::{Buffer, Timer};

/// A head that grew beyond this gives its memory back when its connection falls quiet.
pub(crate) const HEAD_TEXT_KEPT: usize = 16 * 1024;

/// See the file's header.
#[derive(Default)]
pub(crate) struct Session {
    /// Received from the client and not consumed yet: the rest of a head, a body's beginning, a pipelined request.
    pub(crate) inbound: Option<Buffer>,
    /// How far `inbound` was searched for the end of a head.
    pub(crate) scan: Scan,
    /// Part of the request's body was consumed: what is left in `inbound` is not its beginning.
    pub(crate) body_begun: bool,
    /// All of it was consumed: what is left in `inbound` is the next request.
    pub(crate) body_ended: bool,
    /// The entry point compresses answers, and the client can read it.
    pub(crate) takes_gzip: bool,
    /// The request's body, where its backend wants it whole before it is sent.
    pub(crate) held: Option<Held>,
    /// Which attempt this is of a request that is held, from 1.
    pub(crate) attempt: u32,
    /// The answer under way is an error page.
    pub(crate) instead: Option<Instead>,
    /// What is counted of the exchange.
    pub(crate) account: Account,
    pub(crate) request: Head,
    pub(crate) answer: Head,
    /// Trailers of the request, then of the answer.
    pub(crate) request_trailers: Head,
    pub(crate) answer_trailers: Head,
    pub(crate) scratch: Scratch,
    /// What is said of the client to every server, made when the client becomes active: see `forward.rs`.
    pub(crate) introduction: Vec<u8>,
    /// Several buffers on their way in one operation.
    pub(crate) sends: Vec<Buffer>,
    /// Ticks while an exchange waits for its server.
    pub(crate) watch: Timer,
    /// The limit of what the client sends as a body.
    pub(crate) upload: Timer,
}

impl Session {
    /// Makes it ready for another connection: nothing of the last client is left in it.
    pub(crate) fn clear(&mut self) {
        self.inbound = None;
        self.scan = Scan::default();
        self.body_begun = false;
        self.body_ended = false;
        self.takes_gzip = false;
        self.held = None;
        self.attempt = 0;
        self.instead = None;
        for head in [
            &mut self.request,
            &mut self.answer,
            &mut self.request_trailers,
            &mut self.answer_trailers,
        ] {
            head.clear();
            head.shrink_if_large(HEAD_TEXT_KEPT);
        }
        self.watch.clear();
        self.upload.clear();
    }
}
