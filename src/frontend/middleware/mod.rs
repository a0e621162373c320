//! What a frontend or an entry point does to a request on its way, beside choosing and rewriting: the closed set of steps.
//!
//! Owns the order in which a list of steps is walked and what a step may say ([`Verdict`]). The values are made by
//! `compile`, once; a list without steps costs a look at its length.
//! Never does I/O, never reads a clock: what a step must know comes in as [`Context`].
//! Read next: `white_list.rs`.

pub mod redirect;
pub mod white_list;

use std::borrow::Cow;
use std::net::IpAddr;

use self::redirect::Redirect;
use self::white_list::WhiteList;
use super::Scratch;
use crate::http::Head;

/// One step. The order of a list is that of spec frontends 2.1 and 2.2.
#[derive(Clone, Debug)]
pub enum Middleware {
    WhiteList(WhiteList),
    Redirect(Box<Redirect>),
}

/// What a step may know of a request beside its head.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Index of the entry point that the request came in on.
    pub entry_point: u16,
    /// Address of the client's side of the connection, IPv4 also where it came through an IPv6 socket.
    pub peer: IpAddr,
    /// The client speaks TLS to us.
    pub is_tls: bool,
}

/// What a step says of a request.
#[derive(Debug)]
pub enum Verdict {
    Pass,
    /// Send this; the request goes no further.
    Answer(Box<Answer>),
}

/// An answer made by a step.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Cow<'static, [u8]>,
    /// Further fields; the values hold nothing that could end a line.
    pub fields: Vec<(&'static str, Vec<u8>)>,
}

impl Answer {
    /// An answer with a text that never changes.
    fn text(status: u16, body: &'static str) -> Box<Self> {
        Box::new(Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: Cow::Borrowed(body.as_bytes()),
            fields: Vec::new(),
        })
    }
}

/// Walks the steps in order, until one answers.
pub fn on_request(
    steps: &[Middleware],
    head: &mut Head,
    context: Context,
    scratch: &mut Scratch,
) -> Verdict {
    for step in steps {
        let verdict = match step {
            Middleware::WhiteList(list) => list.on_request(head, context),
            Middleware::Redirect(redirect) => redirect.on_request(head, context, scratch),
        };
        if let Verdict::Answer(_) = verdict {
            return verdict;
        }
    }
    Verdict::Pass
}

#[cfg(test)]
impl Context {
    /// A request from this address, without TLS, on the first entry point.
    fn of(peer: &str) -> Self {
        Self {
            entry_point: 0,
            peer: peer.parse().expect("an address"),
            is_tls: false,
        }
    }
}
