//! Answers of our own, where no server's is passed on: what they are, and how they reach the client.
//!
//! Owns [`Own`]. Never decides that one is due: `exchange.rs` does. What their bytes are: `reply.rs`.

use std::borrow::Cow;
use std::rc::Rc;

use super::compress;
use super::connection::Client;
use super::core::Core;
use super::exchange::After;
use super::forward::{self, ToClient};
use super::reply::{self, Answer, Manner};
use super::session::Session;
use super::stream::Stream;
use crate::frontend::middleware::{self, Middleware};
use crate::http::Version;
use crate::http::body::{BodyReader, Framing};
use crate::http::h1::Request;
use crate::limits::SEND_STALL_TIMEOUT;
use crate::reactor::{Buffer, Room, coarse};

/// An answer of our own.
pub(super) enum Own<'a> {
    Answer(Answer),
    /// Instead of a server's, changed by the steps of the frontend.
    Instead(Answer, &'a [Middleware]),
    /// By a middleware.
    Made(Box<middleware::Answer>),
    /// 301 to the location that the lookup left in the session.
    Moved,
    Empty,
}

impl Own<'_> {
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Answer(own) | Self::Instead(own, _) => own.status,
            Self::Made(own) => own.status,
            Self::Moved => 301,
            Self::Empty => 200,
        }
    }

    /// How long its body is, but for the little page of a redirect, which nobody counts.
    fn body_bytes(&self) -> u64 {
        match self {
            Self::Answer(own) | Self::Instead(own, _) => own.body.len() as u64,
            Self::Made(own) => own.body.len() as u64,
            Self::Moved | Self::Empty => 0,
        }
    }

    /// The same with another status.
    pub(super) fn under(mut self, status: u16) -> Self {
        match &mut self {
            Self::Answer(own) | Self::Instead(own, _) => own.status = status,
            Self::Made(own) => own.status = status,
            Self::Moved | Self::Empty => {}
        }
        self
    }
}

/// Sends it, and says what becomes of the connection.
pub(super) async fn answer(
    core: &Rc<Core>,
    client: &Client,
    session: &mut Session,
    request: &Request,
    own: Own<'_>,
) -> After {
    if let Some(stream) = client.transport.stream() {
        return Box::pin(answer_stream(core, client, stream, session, own)).await;
    }
    let read = body_is_read(session, request);
    let keep = request.persistent && read && !core.draining();
    let manner = Manner {
        varies: core.entry_point(client.entry_point).compress,
        ..reply::manner(&session.request, keep)
    };
    let at = coarse();
    session.account.body_bytes += own.body_bytes();
    let mut out = Buffer::take(Room::Small);
    let status = match own {
        Own::Answer(own) => {
            reply::write(core, own, manner, at, out.vec_mut());
            own.status
        }
        Own::Instead(own, steps) => {
            reply::begin(own, &mut session.answer);
            forward::dress(
                core,
                client,
                steps,
                &session.request,
                &mut session.answer,
                &mut session.scratch,
            );
            reply::write_begun(core, own, &session.answer, manner, at, out.vec_mut());
            own.status
        }
        Own::Made(own) => {
            reply::write_made(core, &own, manner, at, out.vec_mut());
            own.status
        }
        Own::Moved => {
            let (location, method) = (session.scratch.location(), session.request.method());
            let own = middleware::Answer::page_to(301, location, method);
            reply::write_made(core, &own, manner, at, out.vec_mut());
            own.status
        }
        Own::Empty => {
            reply::write_empty(core, manner, at, out.vec_mut());
            200
        }
    };
    session.answer.set_status(status);
    if client.transport.send(out, &client.timer).await.is_err() {
        return After::Close;
    }
    match (keep, read) {
        (true, _) => After::Keep,
        (false, true) => After::last(request),
        (false, false) => After::Linger,
    }
}

/// As `answer`, over HTTP/2: other streams do not care what becomes of this one.
async fn answer_stream(
    core: &Rc<Core>,
    client: &Client,
    stream: &Stream,
    session: &mut Session,
    own: Own<'_>,
) -> After {
    session.account.body_bytes += own.body_bytes();
    let head = &mut session.answer;
    let body: Cow<'static, [u8]> = match own {
        Own::Answer(own) => {
            reply::begin(own, head);
            own.body.as_bytes().into()
        }
        Own::Instead(own, steps) => {
            reply::begin(own, head);
            let (request, scratch) = (&session.request, &mut session.scratch);
            forward::dress(core, client, steps, request, head, scratch);
            own.body.as_bytes().into()
        }
        Own::Made(own) => {
            reply::begin_made(&own, head);
            own.body
        }
        Own::Moved => {
            let (location, method) = (session.scratch.location(), session.request.method());
            let own = middleware::Answer::page_to(301, location, method);
            reply::begin_made(&own, head);
            own.body
        }
        Own::Empty => {
            head.clear();
            head.set_status(200);
            Cow::default()
        }
    };
    if core.entry_point(client.entry_point).compress {
        compress::vary(head);
    }
    let to_client = ToClient {
        version: Version::Http2,
        content_length: Some(body.len() as u64),
        chunked: false,
        close_delimited: false,
        keep: true,
    };
    let ends = body.is_empty() || session.request.method() == b"HEAD";
    let sent = match forward::answer_stream(core, stream, head, &to_client, coarse(), ends) {
        Ok(()) if !ends => stream.send(Buffer::with(&body), true, &client.timer).await,
        sent => sent,
    };
    match sent {
        Ok(()) => After::Keep,
        Err(_) => After::Close,
    }
}

/// Refuses a request over HTTP/2 that could not be read, with the answer that it would get over HTTP/1.1.
pub(super) async fn refuse_stream(
    core: &Rc<Core>,
    client: &Client,
    stream: &Stream,
    session: &mut Session,
    told: Answer,
) {
    client.timer.set(coarse() + SEND_STALL_TIMEOUT);
    answer_stream(core, client, stream, session, Own::Answer(told)).await;
}

/// Consumes the request's body if all of it is here. If not, the connection cannot carry another request.
pub(super) fn body_is_read(session: &mut Session, request: &Request) -> bool {
    if session.body_begun {
        return session.body_ended;
    }
    if request.framing == Framing::None {
        return true;
    }
    let Some(inbound) = &mut session.inbound else {
        return false;
    };
    let mut reader = BodyReader::new(request.framing);
    match reader.decode(inbound.bytes_mut(), &mut session.request_trailers) {
        Ok(decoded) => {
            inbound.advance(decoded.consumed);
            decoded.finished
        }
        Err(_) => false,
    }
}
