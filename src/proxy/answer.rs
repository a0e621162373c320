//! The answer of a server, relayed to the client.
//!
//! Owns the wait for it, the interim answers before it, and its body with back-pressure. A server's answer that is cut
//! short is cut short for the client too: never a final chunk, never a connection that goes on.
//! Read next: `forward.rs` (the heads), `http/body.rs` (the framing).

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use super::body::{self, COPY_BYTES_MAX, Upload};
use super::compress;
use super::connection::Client;
use super::core::Core;
use super::failure::{Cause, Failure, Retry, Side, Stage};
use super::forward::{self, ToClient};
use super::held::{Held, NotHeld};
use super::page::Instead;
use super::shared::Arrived;
use super::stream::Stream;
use super::upstream::Lane;
use crate::backend::buffering::{Attempt, Bounds, Buffering};
use crate::frontend::{Frontend, Scratch};
use crate::http::body::{BodyReader, Framing};
use crate::http::h1::encode;
use crate::http::h1::{self, Asked, Request, Response, ResponseError, Scan, Upgrade};
use crate::http::{Head, Version, websocket};
use crate::limits::{
    BUFFER_LARGE_BYTES, BUFFER_SMALL_BYTES, CLIENT_CHECK_INTERVAL, CONTINUE_WAIT, HEAD_BYTES_MAX,
    INTERIM_ANSWERS_MAX, SEND_STALL_TIMEOUT,
};
use crate::reactor::{Buffer, Peer, Room, Timer, limit};
use crate::reactor::{Instant, coarse};

const _: () = assert!(CLIENT_CHECK_INTERVAL.as_millis() <= CONTINUE_WAIT.as_millis());

/// What relaying an answer needs of its exchange.
pub(crate) struct Answering<'a> {
    pub(crate) request: &'a Request,
    pub(crate) head: &'a Head,
    pub(crate) answer: &'a mut Head,
    pub(crate) frontend: &'a Frontend,
    /// It is an error page.
    pub(crate) instead: Option<&'a mut Instead>,
    /// What its backend holds, and which attempt this is.
    pub(crate) buffering: Option<(&'a Buffering, u32)>,
    /// As in the session.
    pub(crate) takes_gzip: bool,
    /// What `Set-Cookie` tells the client of its server.
    pub(crate) cookie: Option<&'a [u8]>,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) trailers: &'a mut Head,
    /// Set to the first look at the client.
    pub(crate) watch: &'a Timer,
    pub(crate) upload: &'a Upload,
    pub(crate) sends: &'a mut Vec<Buffer>,
    /// How much of the answer's body was passed on.
    pub(crate) body_bytes: &'a mut u64,
    /// When the request's head had come.
    pub(crate) at: Instant,
}

/// How an answer ended, once the client has its head.
#[derive(Debug)]
pub(crate) enum End {
    Complete {
        keep_client: bool,
        keep_server: bool,
    },
    /// The client sees a broken answer. `is_told`: by its framing, so that the connection can end in order, and answers
    /// that are still on their way arrive.
    Cut { is_told: bool },
    /// From here on bytes pass untouched; `first` came behind the server's 101.
    Tunnel { first: Buffer },
}

/// Relays the answer that comes on `lane`.
///
/// # Errors
/// Nothing was sent to the client yet, except interim answers: it can be told, or the request tried again.
pub(crate) async fn relay(
    core: &Core,
    client: &Client,
    lane: &mut Lane,
    answering: &mut Answering<'_>,
) -> Result<End, Failure> {
    let (mut piece, mut response) = match lane {
        Lane::Own(_) => head(core, client, lane, answering).await?,
        Lane::Shared(_) => Box::pin(shared_head(core, client, lane, answering)).await?,
    };
    answering.upload.answered();
    let stream = client.transport.stream();
    let mut out = match stream {
        None => Buffer::take(Room::Small),
        Some(_) => Buffer::empty(),
    };
    if answering.answer.status == 101 {
        if let Some(stream) = stream {
            let (answer, cookie) = (&mut *answering.answer, answering.cookie);
            if !websocket::accepts(answering.head, answer) {
                let cause = Cause::Unproven;
                return Err(Failure::server(Stage::Answer, Retry::Never, cause));
            }
            let begun = forward::tunnel_stream(core, stream, answer, cookie, answering.at);
            return Ok(match begun {
                Ok(()) => End::Tunnel { first: piece },
                Err(_) => End::Cut { is_told: false },
            });
        }
        forward::switching_head(answering.answer, answering.cookie, out.vec_mut());
        return Ok(match client.transport.send(out, &client.timer).await {
            Ok(()) => End::Tunnel { first: piece },
            Err(_) => End::Cut { is_told: false },
        });
    }
    if let Some((buffering, number)) = answering.buffering {
        let attempt = Attempt {
            number,
            status: answering.answer.status,
            method: answering.head.method(),
        };
        if buffering.wants_retry(attempt) {
            return Err(discard(piece, &response, answering));
        }
    }
    match &mut answering.instead {
        Some(instead) => instead.take_over(answering.answer, &mut response),
        None if answering
            .frontend
            .page_for(answering.answer.status)
            .is_some() =>
        {
            return Err(discard(piece, &response, answering));
        }
        None => {}
    }
    let held = match answering.buffering {
        Some((buffering, _)) if response.framing != Framing::None => {
            let (piece, response) = (&mut piece, &mut response);
            let holding = hold(
                core,
                client,
                lane,
                answering,
                buffering.answer,
                piece,
                response,
            );
            Some(Box::pin(holding).await?)
        }
        _ => None,
    };
    let mut passed = 0;
    let unread = answering
        .instead
        .as_ref()
        .is_some_and(|instead| instead.unread);
    answering.answer.strip_hop_by_hop();
    forward::dress(
        core,
        client,
        &answering.frontend.middlewares,
        answering.head,
        answering.answer,
        answering.scratch,
    );
    forward::tell_server(answering.answer, answering.cookie);
    let mut reader = BodyReader::new(response.framing);
    let mut compressing = None;
    if core.entry_point(client.entry_point).compress {
        // After the steps of the frontend: they must not say what it becomes here.
        if answering.takes_gzip {
            let (compressors, answer) = (&core.compressors, &mut *answering.answer);
            compressing = compressors.begin(answer, &mut response, piece.bytes());
        }
        compress::vary(answering.answer);
    }
    let to_client = ToClient::of(
        answering.head.version,
        &response,
        answering.request.persistent && !unread && !core.draining(),
    );
    if stream.is_none() {
        forward::answer_head(
            core,
            answering.answer,
            &to_client,
            answering.at,
            out.vec_mut(),
        );
    }
    // The head waits for the first piece of the body: both go in one operation.
    let mut out = Some(out);
    let mut clean = true;
    answering.trailers.clear();
    loop {
        let Ok(decoded) = reader.decode(piece.bytes_mut(), answering.trailers) else {
            tracing::warn!("server sent a malformed body");
            return Ok(cut(client, &to_client));
        };
        clean &= decoded.consumed == piece.len();
        let data = decoded.data.len();
        *answering.body_bytes += data as u64;
        piece.truncate(decoded.data.end);
        piece.advance(decoded.data.start);
        let finished = decoded.finished;
        if let Some(compressing) = &mut compressing {
            piece = Box::pin(compressing.next(piece, finished)).await;
        }
        let sent = match stream {
            None => {
                frame(answering, &to_client, out.take(), piece, finished);
                let sends = &mut *answering.sends;
                client.transport.send_all(sends, &client.timer).await
            }
            Some(stream) => {
                let is_first = out.take().is_some();
                let passing = Passing {
                    is_first,
                    piece,
                    finished,
                };
                pass_on(core, client, stream, answering, &to_client, passing).await
            }
        };
        if sent.is_err() {
            return Ok(cut(client, &to_client));
        }
        if finished {
            break;
        }
        if data >= BUFFER_SMALL_BYTES / 2
            || reader
                .remaining()
                .is_some_and(|left| left > BUFFER_SMALL_BYTES as u64)
        {
            let is_few = stream.is_none_or(Stream::is_one_of_few);
            lane.set_room(if is_few { Room::Large } else { Room::Small });
        }
        if core.settings.timeouts.write.is_none() {
            client.timer.set(coarse() + SEND_STALL_TIMEOUT);
        }
        passed += data as u64;
        let arrived = match &held {
            None => next(core, client, lane, answering, None).await,
            Some(held) => Box::pin(held.read(passed)).await.map_err(lost),
        };
        piece = match arrived {
            Ok(piece) if piece.is_empty() => {
                if reader.end_of_stream().is_err() || lane.trailers(answering.trailers).is_err() {
                    tracing::warn!("server closed before its answer was complete");
                    return Ok(cut(client, &to_client));
                }
                clean = false;
                piece
            }
            Ok(piece) => piece,
            Err(failure) => {
                tracing::debug!("answer cut: {failure}");
                return Ok(cut(client, &to_client));
            }
        };
    }
    let keep_server = clean && response.persistent && !answering.upload.running();
    Ok(End::Complete {
        keep_client: to_client.keep,
        keep_server,
    })
}

/// Adds a piece of the body to what is sent next, behind the `head` if that waits for it.
#[inline]
fn frame(
    answering: &mut Answering<'_>,
    to_client: &ToClient,
    head: Option<Buffer>,
    mut piece: Buffer,
    finished: bool,
) {
    let sends = &mut *answering.sends;
    if to_client.chunked {
        let mut frame = head.unwrap_or_else(|| Buffer::take(Room::Small));
        body::chunk(sends, &mut frame, piece);
        if finished {
            encode::trailers(frame.vec_mut(), answering.trailers);
        }
        sends.push(frame);
    } else {
        if let Some(mut head) = head {
            if head.len() + piece.len() <= COPY_BYTES_MAX {
                head.extend(piece.bytes());
                piece = Buffer::empty();
            }
            sends.push(head);
        }
        sends.push(piece);
    }
}

/// A piece of a body on its way to a stream.
struct Passing {
    /// The head goes before it.
    is_first: bool,
    piece: Buffer,
    finished: bool,
}

/// As `frame` and a send, over HTTP/2: waits until the client has room for the piece.
async fn pass_on(
    core: &Core,
    client: &Client,
    stream: &Stream,
    answering: &mut Answering<'_>,
    to_client: &ToClient,
    passing: Passing,
) -> io::Result<()> {
    let Passing {
        is_first,
        piece,
        finished,
    } = passing;
    let has_trailers = finished && answering.trailers.fields().next().is_some();
    let ends = finished && !has_trailers;
    if is_first {
        let ends = ends && piece.is_empty();
        forward::answer_stream(
            core,
            stream,
            answering.answer,
            to_client,
            answering.at,
            ends,
        )?;
        if ends {
            return Ok(());
        }
    }
    stream.send(piece, ends, &client.timer).await?;
    if has_trailers {
        stream.finish_with(answering.trailers)?;
    }
    Ok(())
}

/// Takes the body of an answer in whole, before its client gets anything. `piece` came behind its head, and becomes the
/// first of what is held; the framing becomes a length.
async fn hold(
    core: &Core,
    client: &Client,
    lane: &mut Lane,
    answering: &mut Answering<'_>,
    bounds: Bounds,
    piece: &mut Buffer,
    response: &mut Response,
) -> Result<Held, Failure> {
    let failed = |cause| Failure::server(Stage::Answer, Retry::Never, cause);
    if let (Framing::Length(length), Some(max)) = (response.framing, bounds.max)
        && length > max
    {
        return Err(failed(Cause::AnswerTooLong));
    }
    let mut held = Held::new(&core.disk, bounds, core.settings.held);
    let mut reader = BodyReader::new(response.framing);
    let mut arrived = std::mem::replace(piece, Buffer::empty());
    loop {
        let decoded = reader
            .decode(arrived.bytes_mut(), answering.trailers)
            .map_err(|_| failed(Cause::Closed))?;
        response.persistent &= decoded.consumed == arrived.len();
        held.push(&arrived.bytes()[decoded.data])
            .await
            .map_err(|error| match error {
                NotHeld::TooLong => failed(Cause::AnswerTooLong),
                NotHeld::NoRoom(error) => lost(error),
            })?;
        if decoded.finished {
            break;
        }
        arrived = next(core, client, lane, answering, None).await?;
        if arrived.is_empty() {
            reader.end_of_stream().map_err(|_| failed(Cause::Closed))?;
            response.persistent = false;
        }
    }
    response.framing = Framing::Length(held.len());
    response.content_length = Some(held.len());
    *piece = held.read(0).await.map_err(lost)?;
    if core.settings.timeouts.write.is_none() {
        client.timer.set(coarse() + SEND_STALL_TIMEOUT);
    }
    Ok(held)
}

fn lost(error: io::Error) -> Failure {
    Failure {
        side: Side::Proxy,
        stage: Stage::Answer,
        retry: Retry::Never,
        cause: Cause::NotHeld(error),
    }
}

/// Lets go of an answer that an error page stands for, or another attempt. `piece` came behind its head.
fn discard(mut piece: Buffer, response: &Response, answering: &mut Answering<'_>) -> Failure {
    let mut reader = BodyReader::new(response.framing);
    let ended = match reader.decode(piece.bytes_mut(), answering.trailers) {
        Ok(decoded) => decoded.finished && decoded.consumed == piece.len(),
        Err(_) => false,
    };
    let cause = Cause::Discarded {
        status: answering.answer.status,
        whole: ended && response.persistent && !answering.upload.running(),
    };
    Failure::server(Stage::Answer, Retry::Never, cause)
}

/// Ends a broken answer so that the client sees that it is broken.
fn cut(client: &Client, to_client: &ToClient) -> End {
    if to_client.close_delimited {
        // A plain close would look like the end of the body.
        client.transport.reset_on_close();
    }
    End::Cut {
        is_told: !to_client.close_delimited,
    }
}

/// The head of the final answer (or a 101), and what came behind it.
async fn head(
    core: &Core,
    client: &Client,
    lane: &mut Lane,
    answering: &mut Answering<'_>,
) -> Result<(Buffer, Response), Failure> {
    let deadline = head_deadline(core, answering);
    let asked = Asked {
        head: answering.head.method() == b"HEAD",
        upgrade: answering.request.upgrade != Upgrade::None,
    };
    let malformed = |error| Failure::server(Stage::Answer, Retry::Never, Cause::Malformed(error));
    let mut retry = lane.retry();
    let mut scan = Scan::default();
    let mut interim = 0;
    let mut buffer = Buffer::empty();
    loop {
        match h1::response(buffer.bytes(), &mut scan, answering.answer, asked).map_err(malformed)? {
            Some(response) => {
                buffer.advance(response.head_bytes);
                let status = answering.answer.status;
                if status >= 200 || status == 101 {
                    return Ok((buffer, response));
                }
                interim += 1;
                if interim > INTERIM_ANSWERS_MAX {
                    return Err(Failure::server(Stage::Answer, Retry::Never, Cause::Closed));
                }
                forward_interim(client, answering).await?;
            }
            None => {
                let more = next(core, client, lane, answering, deadline)
                    .await
                    .map_err(|failure| Failure { retry, ..failure })?;
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
    }
}

/// As [`head`], of an answer in frames. What came behind it is the whole body if the framing has a length.
async fn shared_head(
    core: &Core,
    client: &Client,
    lane: &mut Lane,
    answering: &mut Answering<'_>,
) -> Result<(Buffer, Response), Failure> {
    let deadline = head_deadline(core, answering);
    let to_head = answering.head.method() == b"HEAD";
    let mut interim = 0;
    loop {
        let Lane::Shared(stream) = lane else {
            unreachable!("asked for a stream only");
        };
        let arrived = {
            let mut arriving =
                poll_fn(|context| stream.poll_head(to_head, answering.answer, context));
            let mut arrived = limit(answering.watch, Pin::new(&mut arriving));
            match client.transport.stream() {
                None => arrived.await,
                Some(stream) => unless_gone(stream, Pin::new(&mut arrived)).await,
            }
        };
        match arrived {
            None => look(core, client, lane, answering, deadline).await?,
            Some(Err(failure)) => return Err(failure),
            Some(Ok(Arrived::Interim)) => {
                interim += 1;
                if interim > INTERIM_ANSWERS_MAX {
                    return Err(Failure::server(Stage::Answer, Retry::Never, Cause::Closed));
                }
                forward_interim(client, answering).await?;
            }
            Some(Ok(Arrived::Final(mut response))) => {
                let piece = stream.take_arrived().await;
                if response.framing == Framing::UntilClose && stream.has_ended() {
                    // A short answer is here as a whole: it needs no chunks.
                    let length = piece.len() as u64;
                    response.framing = Framing::Length(length);
                    response.content_length = Some(length);
                }
                return Ok((piece, response));
            }
        }
    }
}

/// When the head must be here. Sets the first look accordingly.
fn head_deadline(core: &Core, answering: &Answering<'_>) -> Option<Instant> {
    let limit = core.settings.timeouts.response_header?;
    let deadline = coarse() + limit;
    answering
        .watch
        .set(deadline.min(answering.at + CLIENT_CHECK_INTERVAL));
    Some(deadline)
}

/// Passes a 1xx on. A `100` only to a client that waits for one; none to HTTP/1.0, which knows no interim answers.
async fn forward_interim(client: &Client, answering: &mut Answering<'_>) -> Result<(), Failure> {
    if answering.head.version == Version::Http10 {
        return Ok(());
    }
    if answering.answer.status == 100 {
        if answering.upload.awaits_continue() {
            return go_on(client, answering.upload).await;
        }
        return Ok(());
    }
    if let Some(stream) = client.transport.stream() {
        return forward::interim_stream(stream, answering.answer).map_err(|_| client_gone());
    }
    let mut out = Buffer::take(Room::Small);
    forward::interim_head(answering.answer, out.vec_mut());
    client
        .transport
        .send(out, &client.timer)
        .await
        .map_err(|_| client_gone())
}

/// Tells a client that waits for it to send its body.
pub(crate) async fn go_on(client: &Client, upload: &Upload) -> Result<(), Failure> {
    if let Some(stream) = client.transport.stream() {
        stream.go_on().map_err(|_| client_gone())?;
        upload.start();
        return Ok(());
    }
    let mut out = Buffer::take(Room::Small);
    out.extend(b"HTTP/1.1 100 Continue\r\n\r\n");
    client
        .transport
        .send(out, &client.timer)
        .await
        .map_err(|_| client_gone())?;
    upload.start();
    Ok(())
}

fn client_gone() -> Failure {
    Failure::client(Stage::Answer, Cause::ClientGone)
}

/// What the server sends next. While it says nothing, looks once a second whether its client is still there.
async fn next(
    core: &Core,
    client: &Client,
    lane: &mut Lane,
    answering: &Answering<'_>,
    deadline: Option<Instant>,
) -> Result<Buffer, Failure> {
    loop {
        let received = match client.transport.stream() {
            None => lane.next(answering.watch).await,
            Some(stream) => unless_gone(stream, pin!(lane.next(answering.watch))).await,
        };
        if let Some(result) = received {
            return result
                .map_err(|error: io::Error| Failure::io(Stage::Answer, Retry::Never, error));
        }
        look(core, client, lane, answering, deadline).await?;
    }
}

/// Waits, or ends with `None` once a client has reset its stream: no need to look for that.
async fn unless_gone<T>(
    stream: &Stream,
    mut wait: Pin<&mut impl Future<Output = Option<T>>>,
) -> Option<T> {
    poll_fn(|context| match stream.poll_gone(context) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => wait.as_mut().poll(context),
    })
    .await
}

/// One look at what a wait for the server has to end for, and when the next one is due.
async fn look(
    core: &Core,
    client: &Client,
    lane: &Lane,
    answering: &Answering<'_>,
    deadline: Option<Instant>,
) -> Result<(), Failure> {
    let write_deadline = core
        .settings
        .timeouts
        .write
        .map(|limit| answering.at + limit);
    let at = coarse();
    if write_deadline.is_none() {
        // What is sent next gets its whole time, however long the server has thought.
        client.timer.set(at + SEND_STALL_TIMEOUT);
    }
    if deadline.is_some_and(|deadline| at >= deadline) {
        lane.sever();
        return Err(Failure::server(
            Stage::Answer,
            Retry::Never,
            Cause::TimedOut,
        ));
    }
    if write_deadline.is_some_and(|deadline| at >= deadline) {
        lane.sever();
        return Err(client_gone());
    }
    match client.transport.peer() {
        Peer::Present => {}
        // It may wait with its sending side closed, or have left: ask its kernel, without a byte on the wire that
        // the client could see. If nobody is there, the next look says `Gone`.
        Peer::HalfClosed => client.transport.probe_peer(),
        Peer::Gone => {
            lane.sever();
            return Err(client_gone());
        }
    }
    if answering.upload.awaits_continue() && at >= answering.at + CONTINUE_WAIT {
        go_on(client, answering.upload).await?;
    }
    let look = at + CLIENT_CHECK_INTERVAL;
    let due = [deadline, write_deadline]
        .into_iter()
        .flatten()
        .fold(look, Instant::min);
    answering.watch.set(due);
    Ok(())
}

const _: () = assert!(BUFFER_LARGE_BYTES >= 2 * BUFFER_SMALL_BYTES);
const _: () = assert!(SEND_STALL_TIMEOUT.as_secs() > Duration::from_secs(10).as_secs());

impl ToClient {
    fn of(version: Version, response: &Response, persistent: bool) -> Self {
        let no_end = matches!(response.framing, Framing::Chunked | Framing::UntilClose)
            && response.content_length.is_none();
        // HTTP/2 needs neither: its frames say where a body ends.
        let chunked = no_end && version == Version::Http11;
        let close_delimited = no_end && version == Version::Http10;
        Self {
            version,
            content_length: response.content_length,
            chunked,
            close_delimited,
            keep: persistent && !close_delimited,
        }
    }
}
