//! One try to have a request answered by a server.
//!
//! Owns how the request and its body travel, and what becomes of the connections when the answer has ended. Never picks the
//! server, and never tries again: `exchange.rs` does. Read next: `forward.rs`, `body.rs`, `answer.rs`.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::answer::{self, Answering, End};
use super::body::{self, Upload, UploadEnd};
use super::exchange::{After, Exchange};
use super::failure::{Cause, Failure, Stage};
use super::forward::{self, Forwarding};
use super::session::Session;
use super::tunnel;
use super::upstream::Lane;
use crate::backend::{Backend, Server};
use crate::frontend::Frontend;
use crate::http::Span;
use crate::http::body::Framing;
use crate::http::h1::{Request, Upgrade};
use crate::limits::{BODY_INLINE_BYTES, CLIENT_CHECK_INTERVAL, LINGER_TIMEOUT};
use crate::reactor::{Buffer, Room, coarse};

/// One try: which server gets which request.
pub(super) struct Try<'a> {
    pub(super) exchange: Exchange<'a>,
    pub(super) request: &'a Request,
    /// The protocol that it asks to switch to, in its head.
    pub(super) upgrade: Option<Span>,
    pub(super) frontend: &'a Frontend,
    pub(super) backend: &'a Backend,
    pub(super) server: &'a Server,
    /// What makes the client stay with this server, as the value of a `Set-Cookie`.
    pub(super) cookie: Option<&'a [u8]>,
    /// On a connection that has carried nothing yet.
    pub(super) fresh: bool,
}

impl Try<'_> {
    /// A connection, the request sent, the answer relayed.
    ///
    /// # Errors
    /// The client has seen nothing yet.
    pub(super) async fn run(&self, session: &mut Session) -> Result<After, Failure> {
        let Self {
            exchange: Exchange { core, client, at },
            request,
            upgrade,
            frontend,
            backend,
            server,
            cookie,
            fresh,
        } = *self;
        let pools = core.pools_for(frontend, client.entry_point);
        let mut lane = pools
            .lane(server, fresh, upgrade.is_some(), &core.settings)
            .await?;
        let body = Body::of(request, session);
        let forwarding = Forwarding {
            request,
            pass_host: frontend.pass_host_header,
            server,
            expect: body == Body::Streamed,
            upgrade,
            is_page: session.instead.is_some(),
            introduction: &session.introduction,
        };
        session.watch.set(at + CLIENT_CHECK_INTERVAL);
        let inline = match (body, &session.inbound) {
            (Body::Inline(bytes), Some(inbound)) => &inbound.bytes()[..bytes],
            _ => &[],
        };
        match &mut lane {
            Lane::Own(upstream) => {
                let mut out = Buffer::take(Room::Small);
                forward::request_head(core, client, &session.request, &forwarding, out.vec_mut());
                out.extend(inline);
                upstream
                    .transport
                    .send(out, &client.timer)
                    .await
                    .map_err(|error| Failure::io(Stage::Send, lane.retry(), error))?;
            }
            Lane::Shared(stream) => {
                let scheme = stream.scheme();
                let head =
                    forward::request_frames(core, client, &session.request, &forwarding, scheme)
                        .ok_or_else(|| Failure::client(Stage::Send, Cause::Unspeakable))?;
                let ends = !matches!(body, Body::Streamed | Body::Held);
                stream.begin(head, inline, ends)?;
            }
        }

        if body != Body::Held {
            session.body_begun = body == Body::Streamed;
        }
        let Session {
            inbound,
            request: head,
            answer,
            answer_trailers,
            request_trailers,
            scratch,
            watch,
            upload,
            sends,
            body_ended,
            held,
            attempt: number,
            takes_gzip,
            instead,
            account,
            ..
        } = session;
        let streamed = matches!(body, Body::Streamed | Body::Held);
        let uploading = Upload::new(streamed, request.expect_continue);
        let mut answering = Answering {
            request,
            head,
            answer,
            frontend,
            instead: instead.as_mut(),
            buffering: backend
                .buffering
                .as_ref()
                .filter(|_| upgrade.is_none())
                .map(|buffering| (buffering, *number)),
            takes_gzip: *takes_gzip,
            cookie,
            scratch,
            trailers: answer_trailers,
            watch,
            upload: &uploading,
            sends,
            body_bytes: &mut account.body_bytes,
            at,
        };
        let end = if streamed {
            let server_side = lane.outgoing();
            let sending = body::Sending {
                framing: request.framing,
                inbound,
                trailers: request_trailers,
                timer: upload,
                held: held.as_ref(),
            };
            let mut upload_task = pin!(body::upload(
                core,
                client,
                &server_side,
                sending,
                &uploading,
                at
            ));
            let mut answer_task = pin!(answer::relay(core, client, &mut lane, &mut answering));
            // Both go on at once: a server may answer before it has read everything.
            let mut uploaded = None;
            let end = poll_fn(|cx| {
                loop {
                    let answered = answer_task.as_mut().poll(cx);
                    // Also when the answer is through: the end of the body may have come in the same turn.
                    if uploaded.is_some() {
                        return answered;
                    }
                    let Poll::Ready(end) = upload_task.as_mut().poll(cx) else {
                        return answered;
                    };
                    if end.is_cut() {
                        // The server must not take what it has for the whole body; the answer's task ends by this.
                        server_side.sever();
                    }
                    uploaded = Some(end);
                    *body_ended |= end == UploadEnd::Done;
                    uploading.ended();
                    if answered.is_ready() {
                        return answered;
                    }
                }
            })
            .await;
            if uploaded.is_none() {
                // Answered before the body was through: nobody wants the rest.
                server_side.sever();
                if uploading.started() {
                    upload.set(coarse() + LINGER_TIMEOUT);
                    let _ = upload_task.await;
                }
            }
            match (end, uploaded) {
                // Whatever became of it, the client has sent it all.
                (Ok(End::Complete { keep_client, .. }), ended)
                    if body == Body::Held && ended != Some(UploadEnd::Done) =>
                {
                    Ok(End::Complete {
                        keep_client,
                        keep_server: false,
                    })
                }
                (end, _) if body == Body::Held => end,
                (Err(_), Some(UploadEnd::ClientGone)) => {
                    return Err(Failure::client(Stage::Send, Cause::ClientGone));
                }
                (Err(_), Some(UploadEnd::Malformed)) => {
                    return Err(Failure::client(Stage::Send, Cause::ClientBody));
                }
                (Err(_), Some(UploadEnd::TooSlow)) => {
                    return Err(Failure::client(Stage::Send, Cause::ClientSlow));
                }
                (end, Some(UploadEnd::Done)) => end,
                // The answer is complete, but where the client's body ends is not known.
                (end, _) => {
                    return Ok(match end? {
                        End::Complete { .. } | End::Cut { is_told: true } => After::Linger,
                        End::Cut { is_told: false } | End::Tunnel { .. } => After::Close,
                    });
                }
            }
        } else {
            answer::relay(core, client, &mut lane, &mut answering).await
        };
        let end = match end {
            Ok(end) => end,
            Err(failure) => {
                if let Cause::Discarded { whole: true, .. } = failure.cause
                    && let Lane::Own(upstream) = lane
                {
                    pools.keep(upstream).await;
                }
                return Err(failure);
            }
        };
        if let (Body::Inline(bytes), Some(inbound)) = (body, inbound.as_mut()) {
            inbound.advance(bytes);
        }
        Ok(match end {
            End::Complete {
                keep_client,
                keep_server,
            } => {
                if keep_server && let Lane::Own(upstream) = lane {
                    pools.keep(upstream).await;
                }
                if keep_client {
                    After::Keep
                } else {
                    After::last(request)
                }
            }
            End::Cut { is_told: true } => After::last(request),
            End::Cut { is_told: false } => After::Close,
            End::Tunnel { first } => {
                if let Lane::Own(upstream) = &mut lane {
                    Box::pin(tunnel::run(client, upstream, inbound.take(), first)).await;
                }
                After::Close
            }
        })
    }
}

/// How the request's body travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    None,
    /// It came with the head, so many bytes, and goes with the head.
    Inline(usize),
    /// It is relayed while the answer may already come.
    Streamed,
    /// It is here, whole, and sent while the answer may already come.
    Held,
}

impl Body {
    fn of(request: &Request, session: &Session) -> Self {
        if session.held.is_some() {
            return Self::Held;
        }
        match request.framing {
            Framing::None => Self::None,
            Framing::Length(length) => {
                let arrived = session.inbound.as_ref().map_or(0, Buffer::len);
                match usize::try_from(length) {
                    Ok(length) if length <= arrived && length <= BODY_INLINE_BYTES => {
                        Self::Inline(length)
                    }
                    _ => Self::Streamed,
                }
            }
            Framing::Chunked | Framing::UntilClose => Self::Streamed,
        }
    }
}

/// The whole request is still at hand. Once its body was begun, what waits in the session is the next request.
pub(super) fn repeatable(session: &Session, request: &Request) -> bool {
    (session.held.is_some() || !session.body_begun)
        && Body::of(request, session) != Body::Streamed
        && request.upgrade == Upgrade::None
}
