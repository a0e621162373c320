//! The session with a ZooKeeper ensemble: one connection at a time, its requests in flight, its watches.
//!
//! Owns the task that holds the connection. A lost connection fails everything under way; the session is taken up again by
//! the next one, so that what lives with it (locks) outlasts a short loss. Never decides to ask again.
//! Read next: `wire.rs` for the bytes, `mod.rs` for what is asked.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::wire::{Reader, Writer, code, frame, op, xid};
use crate::limits::{STORE_ANSWER_BYTES_MAX, STORE_EVENTS_MAX};
use crate::store::connect::{Dialer, Endpoint, Stream};
use crate::store::{Credentials, Error};

/// How long the ensemble is asked to remember us without hearing anything: as long as other stores keep a lock. It may shorten
/// that.
pub(super) const SESSION_TIMEOUT: Duration = Duration::from_secs(20);

/// Time for the ensemble to take a session up, on one endpoint.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests on their way. Few enough that both sides always have room for their bytes.
const IN_FLIGHT_MAX: usize = 256;

/// Requests that wait for room.
pub(super) const ORDERS_MAX: usize = 1024;

/// The answer to one request: how far the ensemble had come, and what it says.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) zxid: i64,
    pub(super) code: i32,
    pub(super) body: Bytes,
}

/// Something to do for the task that holds the connection.
pub(super) struct Order {
    pub(super) kind: i32,
    pub(super) body: Vec<u8>,
    pub(super) reply: oneshot::Sender<Result<Answered, Error>>,
    /// Where events about a path and what is below it go, from now on.
    pub(super) watch: Option<(String, mpsc::Sender<String>)>,
}

/// A channel for the paths of events.
pub(super) fn events() -> (mpsc::Sender<String>, mpsc::Receiver<String>) {
    mpsc::channel(STORE_EVENTS_MAX)
}

/// Who we are to the ensemble.
#[derive(Clone, Debug, Default)]
struct Session {
    id: i64,
    password: Vec<u8>,
    timeout: Duration,
}

/// What the task needs to connect.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) credentials: Option<Credentials>,
}

/// Holds a connection whenever something is asked, until nobody can ask any more. Says how long the ensemble remembers us.
pub(super) async fn serve(
    address: Address,
    granted: watch::Sender<Duration>,
    mut orders: mpsc::Receiver<Order>,
) {
    let mut session = Session::default();
    let mut first = 0;
    while let Some(order) = orders.recv().await {
        if order.reply.is_closed() {
            continue;
        }
        match connect(&address, &mut session, &mut first).await {
            Err(error) => {
                // Whoever waits behind it would wait for the same.
                fail(order, &error);
                while let Ok(order) = orders.try_recv() {
                    fail(order, &error);
                }
            }
            Ok(stream) => {
                granted.send_replace(session.timeout);
                let mut connection = Connection::new(stream, session.timeout);
                connection.take(order);
                let error = connection.run(&mut orders).await;
                connection.fail(&error);
                if orders.is_closed() && orders.is_empty() {
                    return;
                }
            }
        }
    }
}

fn fail(order: Order, error: &Error) {
    // Whoever asked may be gone.
    let _ = order.reply.send(Err(error.clone()));
}

/// Asks the endpoints in turn to take the session up, or a new one if it is over.
async fn connect(
    address: &Address,
    session: &mut Session,
    first: &mut usize,
) -> Result<Stream, Error> {
    let count = address.endpoints.len();
    let mut said = String::new();
    for offset in 0..count {
        let index = (*first + offset) % count;
        let endpoint = &address.endpoints[index];
        let greeting = greet(endpoint, address.credentials.as_ref(), session);
        let result = timeout(HELLO_TIMEOUT, greeting).await.unwrap_or_else(|_| {
            Err(Error::Unreachable(format!(
                "did not answer within {HELLO_TIMEOUT:?}"
            )))
        });
        match result {
            Ok(stream) => {
                *first = index;
                return Ok(stream);
            }
            Err(error @ Error::Denied(_)) => return Err(error),
            Err(error) => {
                let separator = if said.is_empty() { "" } else { "; " };
                write!(said, "{separator}{endpoint} {error}").expect("a string takes everything");
            }
        }
    }
    Err(Error::Unreachable(said))
}

async fn greet(
    endpoint: &Endpoint,
    credentials: Option<&Credentials>,
    session: &mut Session,
) -> Result<Stream, Error> {
    let broken = |error: io::Error| Error::Unreachable(error.to_string());
    loop {
        let mut stream = Dialer::new(None)
            .dial(&endpoint.host, endpoint.port, false)
            .await
            .map_err(broken)?;
        let wanted = i32::try_from(SESSION_TIMEOUT.as_millis()).expect("half a minute");
        // The last transaction we have seen is not named: an ensemble that has lost its data would refuse us for ever. Reads
        // begin with a `sync`, so a member that lags behind is no danger.
        let hello = Writer::default()
            .int(0)
            .long(0)
            .int(wanted)
            .long(session.id)
            .buffer(&session.password)
            .boolean(false);
        let mut bytes = Writer::default().buffer(&hello.0).0;
        if let Some(Credentials { user, password }) = credentials {
            let body = Writer::default()
                .int(0)
                .text("digest")
                .text(&format!("{user}:{password}"));
            frame(xid::AUTH, op::AUTH, &body.0, &mut bytes);
        }
        stream.write_all(&bytes).await.map_err(broken)?;
        let answer = whole_frame(&mut stream).await.map_err(broken)?;
        let mut reader = Reader(&answer);
        let _version = reader.int()?;
        let timeout = reader.int()?;
        let id = reader.long()?;
        let password = reader.buffer()?.to_vec();
        if timeout <= 0 || id == 0 {
            if session.id == 0 {
                return Err(Error::Unavailable("gave us no session".to_owned()));
            }
            // It has forgotten us, or never knew us.
            *session = Session::default();
            continue;
        }
        *session = Session {
            id,
            password,
            timeout: Duration::from_millis(u64::from(timeout.unsigned_abs())),
        };
        if credentials.is_some() {
            let answer = whole_frame(&mut stream).await.map_err(broken)?;
            let mut reader = Reader(&answer);
            let (_xid, _zxid) = (reader.int()?, reader.long()?);
            if reader.int()? == code::AUTH_FAILED {
                return Err(Error::Denied(
                    "ZooKeeper: wrong user or password".to_owned(),
                ));
            }
        }
        return Ok(stream);
    }
}

async fn whole_frame(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let length = usize::try_from(stream.read_i32().await?).unwrap_or(usize::MAX);
    if length > STORE_ANSWER_BYTES_MAX {
        return Err(io::Error::other("an answer that is too long"));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

/// A connection with a session.
struct Connection {
    stream: Stream,
    received: BytesMut,
    to_send: Vec<u8>,
    next: i32,
    in_flight: VecDeque<(i32, oneshot::Sender<Result<Answered, Error>>)>,
    watches: Vec<(String, mpsc::Sender<String>)>,
    heard_at: Instant,
    timeout: Duration,
}

impl Connection {
    fn new(stream: Stream, timeout: Duration) -> Self {
        Self {
            stream,
            received: BytesMut::new(),
            to_send: Vec::new(),
            next: 1,
            in_flight: VecDeque::new(),
            watches: Vec::new(),
            heard_at: Instant::now(),
            timeout,
        }
    }

    /// Puts a request into the next bytes to send.
    fn take(&mut self, order: Order) {
        if order.reply.is_closed() {
            return;
        }
        let number = self.next;
        self.next = self.next.checked_add(1).unwrap_or(1);
        frame(number, order.kind, &order.body, &mut self.to_send);
        self.in_flight.push_back((number, order.reply));
        if let Some(watch) = order.watch {
            // Those whom nobody listens to any more are left out on the way.
            self.watches.retain(|(_, listener)| !listener.is_closed());
            self.watches.push(watch);
        }
    }

    /// Until the connection is lost, or nobody can ask any more.
    async fn run(&mut self, orders: &mut mpsc::Receiver<Order>) -> Error {
        let mut ping = interval(self.timeout / 3);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.reset();
        loop {
            while self.in_flight.len() < IN_FLIGHT_MAX {
                match orders.try_recv() {
                    Ok(order) => self.take(order),
                    Err(_) => break,
                }
            }
            if let Err(error) = self.flush().await {
                return Error::Unreachable(format!("ZooKeeper: {error}"));
            }
            tokio::select! {
                order = orders.recv(), if self.in_flight.len() < IN_FLIGHT_MAX => match order {
                    Some(order) => self.take(order),
                    None => {
                        // What lives with the session ends at once, not after its time.
                        frame(0, op::CLOSE, &[], &mut self.to_send);
                        let _ = timeout(HELLO_TIMEOUT, self.flush()).await;
                        return Error::Unavailable("the store was closed".to_owned());
                    }
                },
                read = self.stream.read_buf(&mut self.received) => {
                    let heard = match read {
                        Ok(0) => return Error::Unreachable("ZooKeeper closed the connection".to_owned()),
                        Ok(_) => self.heard(),
                        Err(error) => return Error::Unreachable(format!("ZooKeeper: {error}")),
                    };
                    if let Err(error) = heard {
                        return error;
                    }
                }
                _ = ping.tick() => {
                    if self.heard_at.elapsed() > self.timeout * 2 / 3 {
                        return Error::Unreachable(format!(
                            "ZooKeeper said nothing for {:?}",
                            self.heard_at.elapsed()
                        ));
                    }
                    frame(xid::PING, op::PING, &[], &mut self.to_send);
                }
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.to_send.is_empty() {
            self.stream.write_all(&self.to_send).await?;
            self.stream.flush().await?;
            self.to_send.clear();
        }
        Ok(())
    }

    /// Takes every whole frame out of what was received.
    fn heard(&mut self) -> Result<(), Error> {
        self.heard_at = Instant::now();
        while let Some(length) = self.received.first_chunk::<4>() {
            let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            if length > STORE_ANSWER_BYTES_MAX {
                return Err(Error::TooBig(format!(
                    "ZooKeeper: an answer of {length} bytes"
                )));
            }
            if self.received.len() < 4 + length {
                self.received.reserve(4 + length - self.received.len());
                break;
            }
            self.received.advance(4);
            let frame = self.received.split_to(length).freeze();
            self.answered(&frame)?;
        }
        Ok(())
    }

    fn answered(&mut self, frame: &Bytes) -> Result<(), Error> {
        let mut reader = Reader(frame);
        let (number, zxid, code) = (reader.int()?, reader.long()?, reader.int()?);
        match number {
            xid::PING | xid::AUTH => {}
            xid::EVENT => {
                let (_kind, _state) = (reader.int()?, reader.int()?);
                let path = reader.text()?;
                self.watches.retain(|(watched, listener)| {
                    // One that cannot keep up is told that it is over by the end of its channel.
                    !is_at_or_below(watched, path) || listener.try_send(path.to_owned()).is_ok()
                });
            }
            number => {
                let body = frame.slice_ref(reader.0);
                let Some((expected, reply)) = self.in_flight.pop_front() else {
                    return Err(Error::Protocol(
                        "ZooKeeper: an answer to no request".to_owned(),
                    ));
                };
                if expected != number {
                    return Err(Error::Protocol(
                        "ZooKeeper: answers out of order".to_owned(),
                    ));
                }
                // Whoever asked may be gone.
                let _ = reply.send(Ok(Answered { zxid, code, body }));
            }
        }
        Ok(())
    }

    fn fail(&mut self, error: &Error) {
        for (_, reply) in self.in_flight.drain(..) {
            let _ = reply.send(Err(error.clone()));
        }
        self.watches.clear();
    }
}

fn is_at_or_below(watched: &str, path: &str) -> bool {
    path.strip_prefix(watched)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || watched == "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_for_whole_names() {
        assert!(is_at_or_below("/t", "/t"));
        assert!(is_at_or_below("/t", "/t/a"));
        assert!(!is_at_or_below("/t", "/t2"));
        assert!(is_at_or_below("/", "/t"));
    }
}
