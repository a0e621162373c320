//! A server that decides who may pass, asked about one request over this core's own connections.
//!
//! Owns the exchange with it: one head there, one answer back, within a time limit. Its refusal is held whole and within a
//! bound, since it becomes an answer of ours. Fails closed: whatever goes wrong, the client gets 500 and the request goes
//! no further. Never decides what its answer means for the request: `frontend/middleware/auth/forward.rs` does.

use super::connection::Client;
use super::core::Core;
use super::failure::{Cause, Failure, Retry, Stage};
use super::session::Session;
use crate::frontend::middleware::Answer;
use crate::frontend::middleware::auth::forward::Forward;
use crate::http::body::BodyReader;
use crate::http::h1::{self, Asked, Response, ResponseError, Scan};
use crate::limits::{
    AUTH_ANSWER_BYTES_MAX, AUTH_SERVER_TIMEOUT, HEAD_BYTES_MAX, INTERIM_ANSWERS_MAX,
};
use crate::reactor::{Buffer, Room, Timer, coarse};
use crate::snapshot::AuthServer;
use std::borrow::Cow;
use std::net::Shutdown;

use super::upstream::Upstream;

/// Asks about the request of a session. `None`: it passes, with what the server says of it.
pub(crate) async fn ask(
    core: &Core,
    client: &Client,
    session: &mut Session,
    server: Option<&AuthServer>,
    forward: &Forward,
) -> Option<Box<Answer>> {
    let Some(server) = server else {
        tracing::warn!("there is no way to ask the authentication server");
        return Some(failed());
    };
    let body = match exchange(core, client, session, server, forward).await {
        Ok(body) => body,
        Err(failure) => {
            tracing::warn!("error calling {}: {failure}", server.server.url);
            return Some(failed());
        }
    };
    let answer = &session.answer;
    if (200..300).contains(&answer.status) {
        forward.accept(&mut session.request, answer);
        return None;
    }
    let text = |name: &[u8]| Cow::Owned(String::from_utf8_lossy(name).into_owned());
    let fields = forward.refusal(answer);
    Some(Box::new(Answer {
        status: answer.status,
        content_type: "",
        body: Cow::Owned(body),
        fields: fields.map(|(name, value)| (text(name), value)).collect(),
    }))
}

fn failed() -> Box<Answer> {
    let mut answer = Answer::text(500, "");
    answer.content_type = "";
    answer
}

/// Asks, once more where a kept connection was closed meanwhile. The head of the answer is in the session, and here is its
/// body.
async fn exchange(
    core: &Core,
    client: &Client,
    session: &mut Session,
    server: &AuthServer,
    forward: &Forward,
) -> Result<Vec<u8>, Failure> {
    let mut fresh = false;
    loop {
        let settings = &core.settings;
        let mut upstream = core
            .pools
            .open_with(&server.server, fresh, settings, server.tls.as_ref())
            .await?;
        let timer = Timer::new();
        timer.set(coarse() + AUTH_SERVER_TIMEOUT);
        match attempt(client, session, forward, &mut upstream, &timer).await {
            Ok((body, keep)) => {
                if keep {
                    core.pools.keep(upstream).await;
                }
                return Ok(body);
            }
            Err(failure) if failure.retry == Retry::Stale && !fresh => fresh = true,
            Err(failure) => return Err(failure),
        }
    }
}

/// One try: the body of the answer, and whether the connection can be used again.
async fn attempt(
    client: &Client,
    session: &mut Session,
    forward: &Forward,
    upstream: &mut Upstream,
    timer: &Timer,
) -> Result<(Vec<u8>, bool), Failure> {
    let mut out = Buffer::take(Room::Small);
    let (head, context) = (&mut session.request, client.context());
    forward.question(head, context, &client.address, out.vec_mut());
    let retry = if upstream.reused {
        Retry::Stale
    } else {
        Retry::Never
    };
    upstream
        .transport
        .send(out, timer)
        .await
        .map_err(|error| Failure::io(Stage::Send, retry, error))?;
    let (mut piece, response) = self::head(session, upstream, timer, retry).await?;
    let mut reader = BodyReader::new(response.framing);
    let mut body = Vec::new();
    let mut clean = true;
    session.answer_trailers.clear();
    let malformed = || Failure::server(Stage::Answer, Retry::Never, Cause::Closed);
    loop {
        let decoded = reader
            .decode(piece.bytes_mut(), &mut session.answer_trailers)
            .map_err(|_| malformed())?;
        clean &= decoded.consumed == piece.len();
        let data = &piece.bytes()[decoded.data];
        if body.len() + data.len() > AUTH_ANSWER_BYTES_MAX {
            return Err(malformed());
        }
        body.extend_from_slice(data);
        if decoded.finished {
            break;
        }
        piece = next(upstream, timer).await?;
        if piece.is_empty() {
            reader.end_of_stream().map_err(|_| malformed())?;
            clean = false;
        }
    }
    Ok((body, clean && response.persistent))
}

/// The head of the final answer, and what came behind it.
async fn head(
    session: &mut Session,
    upstream: &mut Upstream,
    timer: &Timer,
    mut retry: Retry,
) -> Result<(Buffer, Response), Failure> {
    let malformed = |error| Failure::server(Stage::Answer, Retry::Never, Cause::Malformed(error));
    let asked = Asked {
        head: false,
        upgrade: false,
    };
    let mut scan = Scan::default();
    let mut interim = 0;
    let mut buffer = Buffer::empty();
    loop {
        let read = h1::response(buffer.bytes(), &mut scan, &mut session.answer, asked);
        if let Some(response) = read.map_err(malformed)? {
            buffer.advance(response.head_bytes);
            if session.answer.status >= 200 {
                return Ok((buffer, response));
            }
            interim += 1;
            if interim > INTERIM_ANSWERS_MAX {
                return Err(Failure::server(Stage::Answer, Retry::Never, Cause::Closed));
            }
            continue;
        }
        let more = next(upstream, timer)
            .await
            .map_err(|failure| match failure.cause {
                Cause::TimedOut => failure,
                _ => Failure { retry, ..failure },
            })?;
        if more.is_empty() {
            return Err(Failure::server(Stage::Answer, retry, Cause::Closed));
        }
        retry = Retry::Never;
        if buffer.is_empty() {
            buffer = more;
        } else if buffer.len() + more.len() > HEAD_BYTES_MAX {
            return Err(malformed(ResponseError::HeadTooLarge));
        } else {
            buffer.extend(more.bytes());
        }
    }
}

async fn next(upstream: &mut Upstream, timer: &Timer) -> Result<Buffer, Failure> {
    match upstream.next(timer).await {
        Some(next) => next.map_err(|error| Failure::io(Stage::Answer, Retry::Never, error)),
        None => {
            upstream.transport.shutdown(Shutdown::Both);
            Err(Failure::server(
                Stage::Answer,
                Retry::Never,
                Cause::TimedOut,
            ))
        }
    }
}
