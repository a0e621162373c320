//! THE STORY of one request, top to bottom. Each leaf is called once and never calls back.
//!
//! Owns the order of the steps and what happens after a failure. Never parses bytes, never picks a server itself.
//! Read next, in this order: `frontend/trie.rs`, `backend/balancer.rs`, `attempt.rs`, `own.rs`.

use std::rc::Rc;

use super::account::{self, Account};
use super::asking;
use super::attempt::{Try, repeatable};
use super::body;
use super::connection::Client;
use super::core::Core;
use super::failure::{Cause, Failure, Retry, Side, Stage};
use super::guard::{self, CLIENT_GONE};
use super::ourselves;
use super::own::{self, Own};
use super::page;
use super::reply;
use super::session::Session;
use crate::backend::balancer::{Ask, Choice, NoServer};
use crate::backend::buffering::{Attempt, Buffering};
use crate::backend::limit::{Full, Place};
use crate::backend::{Backend, Scheme, ServerId};
use crate::frontend::Frontend;
use crate::frontend::error_page::ErrorPage;
use crate::frontend::internal::{Found, Internal};
use crate::frontend::middleware::{self, Middleware, Verdict, client_certificate};
use crate::frontend::trie::Lookup;
use crate::http::body::Framing;
use crate::http::h1::{Request, Upgrade};
use crate::http::{FieldId, Head};
use crate::limits::SEND_STALL_TIMEOUT;
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
    pub(super) fn last(request: &Request) -> Self {
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
    let at = coarse();
    let after = Exchange { core, client, at }.run(session, request).await;
    if let Some(began) = began {
        account::settle(core, session, began);
    }
    after
}

/// What stays the same from the beginning of an exchange to its end.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub(super) core: &'a Rc<Core>,
    pub(super) client: &'a Client,
    /// When the head of the request had come.
    pub(super) at: Instant,
}

/// Where an exchange goes.
struct Destination<'a> {
    frontend: &'a Frontend,
    backend: &'a Backend,
    /// The answer of a step of the frontend, for which an error page may stand.
    refused: Option<Box<middleware::Answer>>,
    /// Only of pages about ourselves.
    _place: Option<ourselves::Place<'a>>,
}

/// What has become of a request when a page of another backend is asked for instead.
struct Replaced {
    /// What the client is told, whatever the page says.
    status: u16,
    was_head: bool,
    /// All of its body was read.
    read: bool,
}

impl Replaced {
    /// There is no page: what is said of that stands in its place, as in the reference.
    fn put_back<'a>(self, session: &mut Session, own: Own<'a>) -> Own<'a> {
        if self.was_head {
            session.request.set_method(b"HEAD");
        }
        session.body_ended = self.read;
        session.body_begun = !self.read;
        own.under(self.status)
    }
}

impl<'a> Exchange<'a> {
    async fn run(&self, session: &mut Session, request: &Request) -> After {
        self.core.counters.requests.add(1);
        let time_limit = self.core.settings.timeouts.write;
        self.client
            .timer
            .set(self.at + time_limit.unwrap_or(SEND_STALL_TIMEOUT));
        let snapshot = self.core.snapshot(); // One snapshot for the whole exchange, even across a reload.
        // For an error page it becomes another one.
        let mut request = *request;
        let told = match self.route(session, &snapshot).await {
            Err(own) => own,
            Ok(Destination {
                frontend,
                mut backend,
                mut refused,
                _place,
            }) => {
                let mut replaced: Option<Replaced> = None;
                loop {
                    let own = match refused.take() {
                        Some(refusal) => Own::Made(refusal),
                        None => match self.serve(session, &request, frontend, backend).await {
                            Ok(after) => {
                                session.instead = None;
                                return after;
                            }
                            Err(own) => own,
                        },
                    };
                    session.instead = None;
                    if let Some(replaced) = replaced {
                        break replaced.put_back(session, own);
                    }
                    let Some(page) = frontend.page_for(own.status()) else {
                        break own;
                    };
                    replaced = Some(self.replace(session, &mut request, page, own.status()));
                    backend = snapshot.backend(page.backend);
                }
            }
        };
        own::answer(self.core, self.client, session, &request, told).await
    }

    /// Makes the request the one for an error page.
    fn replace(
        &self,
        session: &mut Session,
        request: &mut Request,
        page: &ErrorPage,
        status: u16,
    ) -> Replaced {
        account::note(self.core, session, status);
        let replaced = Replaced {
            status,
            was_head: session.request.method() == b"HEAD",
            read: own::body_is_read(session, request),
        };
        *request = page::request(page, status, session, request, !replaced.read);
        replaced
    }

    /// Finds out where a request goes, past the steps of its entry point. The error is an answer of ours.
    async fn route<'s>(
        &self,
        session: &mut Session,
        snapshot: &'s Snapshot,
    ) -> Result<Destination<'s>, Own<'s>>
    where
        'a: 's,
    {
        let Self { core, client, .. } = *self;
        if session.request.target() == b"*" {
            return Err(Own::Empty);
        }
        // Now, so that rules, steps and servers see the same request, and nothing that is set from here on is taken off.
        session.request.obey_connection();
        if session.request.has_any(client_certificate::FIELDS) {
            session.request.remove(FieldId::XForwardedTlsClientCert);
            session
                .request
                .remove(FieldId::XForwardedTlsClientCertInfos);
        }
        if let Some(proofs) = &snapshot.proofs
            && let Some(own) = proofs.answer(client.entry_point, session.request.target())
        {
            return Err(own.map_or(Own::Answer(reply::NOT_FOUND), |told| {
                Own::Made(middleware::Answer::text(200, told.to_owned()))
            }));
        }
        let entry_point = core.entry_point(client.entry_point);
        if let Some(internal) = &entry_point.internal
            && let Some(found) = internal.find(session.request.method(), session.request.target())
        {
            // Boxed: an exchange that asks for something else does not carry the room for it.
            return Box::pin(self.about_ourselves(session, snapshot, internal, found)).await;
        }
        session.takes_gzip =
            entry_point.compress && middleware::compress::is_accepted(&session.request);
        let steps = &entry_point.middlewares;
        if !steps.is_empty()
            && let Some(refusal) = self.refusal(session, snapshot, steps).await
        {
            return Err(Own::Made(refusal));
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
            Some(Lookup::Redirect) => return Err(Own::Moved),
            Some(Lookup::None) | None => return Err(Own::Answer(reply::NOT_FOUND)),
        };
        if !client.trusted {
            session.request.remove(FieldId::XForwardedPrefix);
            session.request.remove(FieldId::XReplacedPath);
        }
        frontend
            .modifiers
            .apply(&mut session.request, &mut session.scratch)
            .map_err(|_| Own::Answer(reply::NOT_FOUND))?;
        let steps = &frontend.middlewares;
        Ok(Destination {
            frontend,
            backend: snapshot.backend(frontend.backend),
            refused: match steps.is_empty() {
                true => None,
                false => self.refusal(session, snapshot, steps).await,
            },
            _place: None,
        })
    }

    /// A page about ourselves: control makes it, as a server would.
    async fn about_ourselves<'s>(
        &self,
        session: &mut Session,
        snapshot: &Snapshot,
        internal: &Internal,
        found: Found,
    ) -> Result<Destination<'s>, Own<'s>>
    where
        'a: 's,
    {
        let Self { core, client, .. } = *self;
        session.takes_gzip = false;
        session.account.is_settled = true;
        match found {
            Found::Ping if core.leaving() => {
                let told = middleware::Answer::text(503, "Service Unavailable");
                return Err(Own::Made(told));
            }
            Found::Ping => return Err(Own::Made(middleware::Answer::text(200, "OK"))),
            Found::Moved => {
                let (method, target) = (session.request.method(), session.request.target());
                let location = Internal::location(target);
                let told = middleware::Answer::page_to(301, &location, method);
                return Err(Own::Made(told));
            }
            Found::Guarded => {
                let steps = &internal.middlewares;
                if let Some(refusal) = self.refusal(session, snapshot, steps).await {
                    return Err(Own::Made(refusal));
                }
            }
        }
        if !client.trusted {
            session.request.remove(FieldId::XForwardedPrefix);
        }
        let ourselves = &core.ourselves;
        let place = ourselves.enter().ok_or(Own::Answer(reply::UNAVAILABLE))?;
        Ok(Destination {
            frontend: &ourselves.frontend,
            backend: &ourselves.backend,
            refused: None,
            _place: Some(place),
        })
    }

    /// What the steps of an entry point or a frontend answer, if one does.
    async fn refusal(
        &self,
        session: &mut Session,
        snapshot: &Snapshot,
        mut steps: &[Middleware],
    ) -> Option<Box<middleware::Answer>> {
        loop {
            let (head, scratch) = (&mut session.request, &mut session.scratch);
            match middleware::on_request(steps, head, self.client.context(), scratch) {
                Verdict::Pass => return None,
                Verdict::Answer(answer) => return Some(answer),
                Verdict::Ask(at) => {
                    let (core, client) = (self.core, self.client);
                    let refusal = asking::ask(core, client, session, snapshot, &steps[at]).await;
                    if refusal.is_some() {
                        return refusal;
                    }
                    steps = &steps[at + 1..];
                }
            }
        }
    }

    /// What a backend does for a request: its circuit breaker is asked, and sees the rest as one.
    async fn serve<'s>(
        &self,
        session: &mut Session,
        request: &Request,
        frontend: &'s Frontend,
        backend: &Backend,
    ) -> Result<After, Own<'s>> {
        let Some(watch) = guard::admit(backend, self.at) else {
            return Err(Own::Answer(reply::UNAVAILABLE));
        };
        // Bytes that are no message pass through.
        let buffering = match &backend.buffering {
            Some(buffering) if request.upgrade == Upgrade::None => Some(buffering),
            _ => None,
        };
        // Boxed: an exchange without does not carry the room for it.
        let served = match buffering {
            None => self.limited(session, request, frontend, backend).await,
            Some(buffering) => {
                Box::pin(self.buffered(session, request, frontend, backend, buffering)).await
            }
        };
        let status = match &served {
            Ok(_) => page::status_of_server(session),
            Err(own) => own.status(),
        };
        watch.ended(self.core, backend, status);
        served
    }

    /// With the whole request at hand: as often as the retry expression of the backend wants it.
    async fn buffered<'s>(
        &self,
        session: &mut Session,
        request: &Request,
        frontend: &'s Frontend,
        backend: &Backend,
        buffering: &Buffering,
    ) -> Result<After, Own<'s>> {
        let Self { core, client, at } = *self;
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
            let served = self.limited(session, &request, frontend, backend).await;
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
    async fn limited<'s>(
        &self,
        session: &mut Session,
        request: &Request,
        frontend: &'s Frontend,
        backend: &Backend,
    ) -> Result<After, Own<'s>> {
        // Held to the end of the exchange, however it ends, and of the tunnel that it may become.
        let _place = enter(self.client, session, backend).map_err(Own::Made)?;
        if let Some(limit) = &frontend.rate_limit
            && session.instead.is_none()
            && let Err(exceeded) =
                limit.take(&session.request, self.client.ip, self.at.nanoseconds())
        {
            return Err(Own::Made(exceeded.answer()));
        }
        match self.ask(session, request, frontend, backend).await {
            Ok(after) => Ok(after),
            Err(failure) => failed(self.core, session, frontend, &failure),
        }
    }

    /// Asks one server after another until one answers, as often as the operator allows, or once more where that is safe.
    async fn ask(
        &self,
        session: &mut Session,
        request: &Request,
        frontend: &Frontend,
        backend: &Backend,
    ) -> Result<After, Failure> {
        let Self { core, client, at } = *self;
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
            let one_try = Try {
                exchange: *self,
                request,
                upgrade,
                frontend,
                backend,
                server: backend.server(choice.id),
                cookie: choice.cookie,
                fresh,
            };
            let failure = match one_try.run(session).await {
                Ok(after) => {
                    guard::tried(backend, choice.id, page::status_of_server(session));
                    return Ok(after);
                }
                Err(failure) => failure,
            };
            match failure.retry {
                // Its server closed it while it was kept: that says nothing of the server.
                Retry::Stale if !fresh && idempotent && repeatable(session, request) => {
                    fresh = true;
                }
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
