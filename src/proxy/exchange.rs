//! THE STORY of one request, top to bottom. Each leaf is called once and never calls back.
//!
//! Owns the order of the steps and what happens after a failure. Never parses bytes, never picks a server itself.
//! Read next, in this order: `frontend/trie.rs`, `backend/balancer.rs`, `upstream.rs`, `forward.rs`, `answer.rs`.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use super::account::{self, Account};
use super::answer::{self, Answering, End};
use super::asking;
use super::body::{self, Upload, UploadEnd};
use super::compress;
use super::connection::Client;
use super::core::Core;
use super::failure::{Cause, Failure, Retry, Side, Stage};
use super::forward::{self, Forwarding, ToClient};
use super::guard::{self, CLIENT_GONE};
use super::page;
use super::reply::{self, Answer, Manner};
use super::session::Session;
use super::stream::Stream;
use super::tunnel;
use super::upstream::Lane;
use crate::backend::balancer::{Ask, Choice, NoServer};
use crate::backend::buffering::{Attempt, Buffering};
use crate::backend::limit::{Full, Place};
use crate::backend::{Backend, Scheme, Server, ServerId};
use crate::frontend::Frontend;
use crate::frontend::error_page::ErrorPage;
use crate::frontend::internal::{Found, Internal};
use crate::frontend::middleware::{self, Middleware, Verdict, client_certificate};
use crate::frontend::trie::Lookup;
use crate::http::body::{BodyReader, Framing};
use crate::http::h1::{Request, Upgrade};
use crate::http::{FieldId, Head, Span, Version};
use crate::limits::{BODY_INLINE_BYTES, CLIENT_CHECK_INTERVAL, LINGER_TIMEOUT, SEND_STALL_TIMEOUT};
use crate::reactor::{Buffer, Room};
use crate::reactor::{Instant, coarse, now};
use crate::snapshot::Snapshot;

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The next request may come.
    Keep,
    Close,
    /// Close, but let the client finish what it is sending.
    Linger,
}

impl After {
    /// After the last answer, when the client can see by its framing where it ends, or that it is cut short. A client that
    /// did not ask for an end may have sent its next request already: a plain close would then be a reset, which overtakes
    /// this answer and those before it that are still on their way.
    fn last(request: &Request) -> Self {
        if request.persistent {
            Self::Linger
        } else {
            Self::Close
        }
    }
}

/// One exchange, from a request's head to the last byte of its answer; counted where somebody may ask.
#[inline]
pub(crate) async fn run(
    core: &Rc<Core>,
    client: &Client,
    session: &mut Session,
    request: &Request,
) -> After {
    let began = core.counts_answers.then(now);
    session.account = Account::default();
    let after = exchange(core, client, session, request).await;
    if let Some(began) = began {
        account::settle(core, session, began);
    }
    after
}

async fn exchange(
    core: &Rc<Core>,
    client: &Client,
    session: &mut Session,
    request: &Request,
) -> After {
    let at = coarse();
    core.counters.requests.add(1);
    client
        .timer
        .set(at + core.settings.timeouts.write.unwrap_or(SEND_STALL_TIMEOUT));
    if session.request.target() == b"*" {
        return answer(core, client, session, request, Own::Empty).await;
    }
    // Now, so that rules, steps and servers see the same request, and nothing that is set from here on is taken off.
    session.request.obey_connection();
    if session.request.has_any(client_certificate::FIELDS) {
        session.request.remove(FieldId::XForwardedTlsClientCert);
        session
            .request
            .remove(FieldId::XForwardedTlsClientCertInfos);
    }
    let snapshot = core.snapshot(); // One snapshot for the whole exchange, even across a reload.
    if let Some(proofs) = &snapshot.proofs
        && let Some(own) = proofs.answer(client.entry_point, session.request.target())
    {
        let own = own.map_or(Own::Answer(reply::NOT_FOUND), |told| {
            Own::Made(middleware::Answer::text(200, told.to_owned()))
        });
        return answer(core, client, session, request, own).await;
    }
    let entry_point = core.entry_point(client.entry_point);
    if let Some(internal) = &entry_point.internal
        && let Some(found) = internal.find(session.request.method(), session.request.target())
    {
        // Boxed: an exchange that asks for something else does not carry the room for it.
        return Box::pin(about_ourselves(
            core, client, session, request, &snapshot, internal, found, at,
        ))
        .await;
    }
    session.takes_gzip =
        entry_point.compress && middleware::compress::is_accepted(&session.request);
    let steps = &entry_point.middlewares;
    if !steps.is_empty()
        && let Some(refusal) = middlewares(core, client, session, &snapshot, steps).await
    {
        return answer(core, client, session, request, Own::Made(refusal)).await;
    }
    let trie = snapshot.trie(client.entry_point);
    if core.settings.flattens_hosts
        && let Some(trie) = trie
    {
        Box::pin(core.aliases.look_up(session, trie)).await;
    }
    let found = trie.map(|trie| trie.lookup(&session.request, &mut session.scratch));
    let frontend = match found {
        Some(Lookup::Frontend(id)) => snapshot.frontend(id),
        Some(Lookup::Redirect) => return answer(core, client, session, request, Own::Moved).await,
        Some(Lookup::None) | None => {
            return answer(
                core,
                client,
                session,
                request,
                Own::Answer(reply::NOT_FOUND),
            )
            .await;
        }
    };
    if !client.trusted {
        session.request.remove(FieldId::XForwardedPrefix);
        session.request.remove(FieldId::XReplacedPath);
    }
    if frontend
        .modifiers
        .apply(&mut session.request, &mut session.scratch)
        .is_err()
    {
        return answer(
            core,
            client,
            session,
            request,
            Own::Answer(reply::NOT_FOUND),
        )
        .await;
    }
    let own = match within(core, client, session, request, &snapshot, frontend, at).await {
        Ok(after) => return after,
        Err(own) => own,
    };
    let status = own.status();
    match frontend.page_for(status) {
        // Boxed: an exchange that needs no page does not carry the room for one.
        Some(page) => {
            account::note(core, session, status);
            let page = (page, status);
            Box::pin(show(
                core, client, session, request, &snapshot, frontend, page, at,
            ))
            .await
        }
        None => answer(core, client, session, request, own).await,
    }
}

/// A page about ourselves: control makes it, as a server would.
#[expect(
    clippy::too_many_arguments,
    reason = "the story's whole cast; a struct would only be taken apart here"
)]
async fn about_ourselves(
    core: &Rc<Core>,
    client: &Client,
    session: &mut Session,
    request: &Request,
    snapshot: &Snapshot,
    internal: &Internal,
    found: Found,
    at: Instant,
) -> After {
    session.takes_gzip = false;
    session.account.is_settled = true;
    let refusal = match found {
        Found::Ping if core.leaving() => Some(middleware::Answer::text(503, "Service Unavailable")),
        Found::Ping => Some(middleware::Answer::text(200, "OK")),
        Found::Moved => {
            let (method, target) = (session.request.method(), session.request.target());
            let location = Internal::location(target);
            Some(middleware::Answer::page_to(301, &location, method))
        }
        Found::Guarded => middlewares(core, client, session, snapshot, &internal.middlewares).await,
    };
    if let Some(own) = refusal {
        return answer(core, client, session, request, Own::Made(own)).await;
    }
    if !client.trusted {
        session.request.remove(FieldId::XForwardedPrefix);
    }
    let ourselves = &core.ourselves;
    let Some(_place) = ourselves.enter() else {
        return answer(
            core,
            client,
            session,
            request,
            Own::Answer(reply::UNAVAILABLE),
        )
        .await;
    };
    let (frontend, backend) = (&ourselves.frontend, &ourselves.backend);
    match serve(core, client, session, request, frontend, backend, at).await {
        Ok(after) => after,
        Err(own) => answer(core, client, session, request, own).await,
    }
}

/// The exchange from its frontend on, up to what error pages may stand for. The error is an answer of ours.
async fn within<'a>(
    core: &Rc<Core>,
    client: &Client,
    session: &mut Session,
    request: &Request,
    snapshot: &Snapshot,
    frontend: &'a Frontend,
    at: Instant,
) -> Result<After, Own<'a>> {
    if !frontend.middlewares.is_empty()
        && let Some(refusal) =
            middlewares(core, client, session, snapshot, &frontend.middlewares).await
    {
        return Err(Own::Made(refusal));
    }
    let backend = snapshot.backend(frontend.backend);
    serve(core, client, session, request, frontend, backend, at).await
}

/// What a backend does for a request: its circuit breaker is asked, and sees the rest as one.
async fn serve<'a>(
    core: &Rc<Core>,
    client: &Client,
    session: &mut Session,
    request: &Request,
    frontend: &'a Frontend,
    backend: &Backend,
    at: Instant,
) -> Result<After, Own<'a>> {
    let Some(watch) = guard::admit(backend, at) else {
        return Err(Own::Answer(reply::UNAVAILABLE));
    };
    let served = match &backend.buffering {
        // Bytes that are no message pass through.
        Some(buffering) if request.upgrade == Upgrade::None => {
            Box::pin(buffered(
                core, client, session, request, frontend, backend, buffering, at,
            ))
            .await
        }
        _ => limited(core, client, session, request, frontend, backend, at).await,
    };
    let status = match &served {
        Ok(_) => page::status_of_server(session),
        Err(own) => own.status(),
    };
    watch.ended(core, backend, status);
    served
}

/// With the whole request at hand: as often as the retry expression of the backend wants it.
#[expect(
    clippy::too_many_arguments,
    reason = "the story's whole cast; a struct would only be taken apart here"
)]
async fn buffered<'a>(
    core: &Rc<Core>,
    client: &Client,
    session: &mut Session,
    request: &Request,
    frontend: &'a Frontend,
    backend: &Backend,
    buffering: &Buffering,
    at: Instant,
) -> Result<After, Own<'a>> {
    let mut request = *request;
    if request.framing != Framing::None {
        match body::hold(core, client, session, &request, buffering.request, at).await {
            Ok(held) => {
                request.framing = Framing::Length(held.len());
                request.expect_continue = false;
                session.held = Some(held);
                if core.settings.timeouts.write.is_none() {
                    client.timer.set(coarse() + SEND_STALL_TIMEOUT);
                }
            }
            Err(failure) => return failed(core, session, frontend, &failure),
        }
    }
    session.attempt = 1;
    let served = loop {
        let served = limited(core, client, session, &request, frontend, backend, at).await;
        let Err(own) = &served else {
            break served;
        };
        let attempt = Attempt {
            number: session.attempt,
            status: own.status(),
            method: session.request.method(),
        };
        if !buffering.wants_retry(attempt) {
            break served;
        }
        session.attempt += 1;
        core.counters.retries.add(1);
        tracing::debug!("backend {}: trying again: {}", backend.name, own.status());
    };
    session.held = None;
    served
}

/// Within the limits, the servers. What is relayed leaves its status in the head of the answer.
async fn limited<'a>(
    core: &Rc<Core>,
    client: &Client,
    session: &mut Session,
    request: &Request,
    frontend: &'a Frontend,
    backend: &Backend,
    at: Instant,
) -> Result<After, Own<'a>> {
    // Held to the end of the exchange, however it ends, and of the tunnel that it may become.
    let _place = enter(client, session, backend).map_err(Own::Made)?;
    if let Some(limit) = &frontend.rate_limit
        && session.instead.is_none()
        && let Err(exceeded) = limit.take(&session.request, client.ip, at.nanoseconds())
    {
        return Err(Own::Made(exceeded.answer()));
    }
    match ask(core, client, session, request, frontend, backend, at).await {
        Ok(after) => Ok(after),
        Err(failure) => failed(core, session, frontend, &failure),
    }
}

/// Answers with a page of another backend instead of what there was, under the status that this had.
#[expect(
    clippy::too_many_arguments,
    reason = "the story's whole cast; a struct would only be taken apart here"
)]
async fn show(
    core: &Rc<Core>,
    client: &Client,
    session: &mut Session,
    request: &Request,
    snapshot: &Snapshot,
    frontend: &Frontend,
    (page, status): (&ErrorPage, u16),
    at: Instant,
) -> After {
    let read = body_is_read(session, request);
    let method_was_head = session.request.method() == b"HEAD";
    let request = page::request(page, status, session, request, !read);
    let backend = snapshot.backend(page.backend);
    let shown = serve(core, client, session, &request, frontend, backend, at).await;
    session.instead = None;
    match shown {
        Ok(after) => after,
        // There is no page: what is said of that stands in its place, as in the reference.
        Err(own) => {
            if method_was_head {
                session.request.set_method(b"HEAD");
            }
            session.body_ended = read;
            session.body_begun = !read;
            answer(core, client, session, &request, own.under(status)).await
        }
    }
}

/// A place at the backend, if those are limited.
#[inline]
fn enter<'a>(
    client: &Client,
    session: &Session,
    backend: &'a Backend,
) -> Result<Option<Place<'a>>, Box<middleware::Answer>> {
    let Some(limit) = &backend.max_conn else {
        return Ok(None);
    };
    match limit.enter(&session.request, client.ip) {
        Ok(place) => Ok(Some(place)),
        Err(Full { amount }) => {
            let told = format!("max connections reached: {amount}");
            Err(middleware::Answer::text(429, told))
        }
    }
}

/// What the steps of an entry point or a frontend answer, if one does.
async fn middlewares(
    core: &Core,
    client: &Client,
    session: &mut Session,
    snapshot: &Snapshot,
    mut steps: &[Middleware],
) -> Option<Box<middleware::Answer>> {
    let context = client.context();
    loop {
        let (head, scratch) = (&mut session.request, &mut session.scratch);
        match middleware::on_request(steps, head, context, scratch) {
            Verdict::Pass => return None,
            Verdict::Answer(answer) => return Some(answer),
            Verdict::Ask(at) => {
                let refusal = asking::ask(core, client, session, snapshot, &steps[at]).await;
                if refusal.is_some() {
                    return refusal;
                }
                steps = &steps[at + 1..];
            }
        }
    }
}

/// Asks one server after another until one answers, as often as the operator allows, or once more where that is safe.
async fn ask(
    core: &Rc<Core>,
    client: &Client,
    session: &mut Session,
    request: &Request,
    frontend: &Frontend,
    backend: &Backend,
    at: Instant,
) -> Result<After, Failure> {
    let upgrade = match request.upgrade {
        Upgrade::None => None,
        Upgrade::WebSocket | Upgrade::Other => session.request.first_span(FieldId::Upgrade),
    };
    session.request.remove_hop_by_hop();
    let idempotent = is_idempotent(&session.request);
    let tries_max = match core.settings.retry_attempts {
        Some(0) => backend.servers.len(),
        Some(attempts) => attempts as usize,
        None => 1 + usize::from(idempotent),
    };
    core.retries.earn();
    let mut tries = 1;
    let mut tried = Vec::new(); // Holds nothing, and so allocates nothing, unless a try fails.
    let mut choice = pick(backend, client, session, &tried, at)?;
    let mut fresh = false;
    loop {
        let server = backend.server(choice.id);
        let cookie = choice.cookie;
        let failure = match attempt(
            core, client, session, request, upgrade, frontend, backend, server, cookie, fresh, at,
        )
        .await
        {
            Ok(after) => {
                guard::tried(backend, choice.id, page::status_of_server(session));
                return Ok(after);
            }
            Err(failure) => failure,
        };
        match failure.retry {
            // Its server closed it while it was kept: that says nothing of the server.
            Retry::Stale if !fresh && idempotent && repeatable(session, request) => fresh = true,
            // The server did not look at it, so the method does not matter. Another connection, as this one is over.
            Retry::Unprocessed if !fresh && repeatable(session, request) => fresh = true,
            retry => {
                if failure.side == Side::Server
                    && let Some(told) = reply::of_failure(&failure)
                {
                    guard::tried(backend, choice.id, told.status);
                }
                let is_safe = match retry {
                    Retry::Safe => true,
                    Retry::Unprocessed => repeatable(session, request),
                    Retry::Stale | Retry::Never => false,
                };
                if !is_safe || tries >= tries_max || !core.retries.spend() {
                    return Err(failure);
                }
                tries += 1;
                tried.push(choice.id);
                choice = pick(backend, client, session, &tried, at)?;
            }
        }
        core.counters.retries.add(1);
        tracing::debug!("backend {}: trying again: {failure}", backend.name);
    }
}

/// The server that is asked: one that was not tried for this request, while there is such a one.
fn pick<'a>(
    backend: &'a Backend,
    client: &Client,
    session: &Session,
    tried: &[ServerId],
    at: Instant,
) -> Result<Choice<'a>, Failure> {
    let ask = Ask {
        request: &session.request,
        client: client.ip,
        now: at.nanoseconds(),
    };
    let cause = match backend.balancer.choose(&ask, tried) {
        Ok(choice) => match backend.server(choice.id).scheme {
            Scheme::Http | Scheme::Https | Scheme::H2c | Scheme::Control => {
                return Ok(choice);
            }
            Scheme::Unsupported => Cause::Scheme,
        },
        Err(NoServer::Empty) => Cause::NoServer,
        Err(NoServer::AllZero) => Cause::NoWeight,
    };
    Err(Failure {
        side: Side::Proxy,
        stage: Stage::Pick,
        retry: Retry::Never,
        cause,
    })
}

/// One try: a connection, the request sent, the answer relayed. Fails only while the client has seen nothing.
#[expect(
    clippy::too_many_arguments,
    reason = "the story's whole cast; a struct would only be taken apart here"
)]
async fn attempt(
    core: &Rc<Core>,
    client: &Client,
    session: &mut Session,
    request: &Request,
    upgrade: Option<Span>,
    frontend: &Frontend,
    backend: &Backend,
    server: &Server,
    cookie: Option<&[u8]>,
    fresh: bool,
    at: Instant,
) -> Result<After, Failure> {
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
            let head = forward::request_frames(core, client, &session.request, &forwarding, scheme)
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
            let mut answered = answer_task.as_mut().poll(cx);
            // Also when the answer is through: the end of the body may have come in the same turn.
            if uploaded.is_none()
                && let Poll::Ready(end) = upload_task.as_mut().poll(cx)
            {
                if end.is_cut() {
                    // The server must not take what it has for the whole body; the answer's task ends by this.
                    server_side.sever();
                }
                uploaded = Some(end);
                *body_ended |= end == UploadEnd::Done;
                uploading.ended();
                if answered.is_pending() {
                    answered = answer_task.as_mut().poll(cx);
                }
            }
            answered
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
fn repeatable(session: &Session, request: &Request) -> bool {
    (session.held.is_some() || !session.body_begun)
        && Body::of(request, session) != Body::Streamed
        && request.upgrade == Upgrade::None
}

/// RFC 9110 9.2.2.
fn is_idempotent(request: &Head) -> bool {
    matches!(
        request.method(),
        b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE" | b"TRACE"
    )
}

/// What the client is told of a failure, if there is one; the log is told here.
fn failed<'a>(
    core: &Core,
    session: &mut Session,
    frontend: &'a Frontend,
    failure: &Failure,
) -> Result<After, Own<'a>> {
    match failure.side {
        _ if matches!(failure.cause, Cause::Discarded { .. }) => {}
        Side::Client => {
            core.counters.failures_client.add(1);
            tracing::debug!("frontend {}: {failure}", frontend.name);
        }
        Side::Proxy => {
            core.counters.failures_own.add(1);
            tracing::warn!("frontend {}: {failure}", frontend.name);
        }
        Side::Server => {
            core.counters.failures_server.add(1);
            tracing::warn!("frontend {}: {failure}", frontend.name);
        }
    }
    match (reply::of_failure(failure), &failure.cause) {
        (Some(told), Cause::NoServer) => Err(Own::Answer(told)),
        // It stands for the answer of a server, so it gets the fields that one would get.
        (Some(told), _) => Err(Own::Instead(told, &frontend.middlewares)),
        (None, _) => {
            session.answer.set_status(CLIENT_GONE);
            Ok(After::Close)
        }
    }
}

/// An answer of our own.
enum Own<'a> {
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
    fn status(&self) -> u16 {
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
    fn under(mut self, status: u16) -> Self {
        match &mut self {
            Self::Answer(own) | Self::Instead(own, _) => own.status = status,
            Self::Made(own) => own.status = status,
            Self::Moved | Self::Empty => {}
        }
        self
    }
}

async fn answer(
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
pub(crate) async fn refuse_stream(
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
fn body_is_read(session: &mut Session, request: &Request) -> bool {
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
