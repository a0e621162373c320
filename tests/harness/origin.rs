//! A server behind the proxy that does what a test tells it, on a loopback port of its own.
//!
//! Owns its threads and a record of every connection and request. Two ways to say what it does: a function from request to
//! answer ([`Origin::new`]), or one that holds the connection itself ([`Origin::wire`]) and may send half an answer, wait,
//! reset. Never repairs a request: one that is not HTTP ends its connection.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::wire::{Body, Cut, Head, Wire};

/// How long a connection may stay idle: longer than any test.
const IDLE: Duration = Duration::from_secs(120);

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: Head,
    /// `None` while the body has not come whole.
    pub body: Option<Body>,
}

impl Request {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// The body as text; empty if it never came whole.
    pub fn text(&self) -> String {
        self.body
            .as_ref()
            .map(|b| String::from_utf8_lossy(&b.bytes).into_owned())
            .unwrap_or_default()
    }
}

/// An answer with a length.
pub fn answer(status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} X\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The open connections by number: to cut them from outside.
type Sockets = Mutex<HashMap<usize, TcpStream>>;

type Handler = dyn Fn(&mut Exchange<'_>) + Send + Sync;

#[derive(Default)]
struct Record {
    requests: Mutex<Vec<Request>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    broken: AtomicBool,
}

pub struct Origin {
    address: SocketAddr,
    /// Keeps the port ours while nothing listens.
    _port: Socket,
    listener: Option<TcpListener>,
    sockets: Arc<Sockets>,
    record: Arc<Record>,
    handler: Arc<Handler>,
}

impl Origin {
    /// Reads each request whole, records it, and sends what the function makes of it.
    pub fn new(respond: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::wire(move |exchange| {
            let Ok(request) = exchange.read_body() else {
                return exchange.close();
            };
            exchange.send(respond(&request));
        })
    }

    /// Answers 200 with this text to everything.
    pub fn text(text: &'static str) -> Self {
        Self::new(move |_| answer(200, text))
    }

    /// Hands every request over once its head is read: the function does the rest.
    pub fn wire(handler: impl Fn(&mut Exchange<'_>) + Send + Sync + 'static) -> Self {
        let port = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        port.set_reuse_address(true).unwrap();
        port.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        let address = port.local_addr().unwrap().as_socket().unwrap();
        let mut origin = Self {
            address,
            _port: port,
            listener: None,
            sockets: Arc::default(),
            record: Arc::default(),
            handler: Arc::new(handler),
        };
        origin.start();
        origin
    }

    /// A port where nobody listens: connections are refused.
    pub fn refusing() -> Self {
        let mut origin = Self::text("");
        origin.stop();
        origin
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request whose head came, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.record.requests.lock().unwrap().clone()
    }

    /// The last request.
    #[track_caller]
    pub fn last(&self) -> Request {
        self.requests().pop().expect("the origin was asked at all")
    }

    /// The targets asked for, in order.
    pub fn targets(&self) -> Vec<String> {
        self.requests()
            .iter()
            .map(|r| r.head.target().to_owned())
            .collect()
    }

    /// Connections accepted since the beginning.
    pub fn connections(&self) -> usize {
        self.record.accepted.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn connections_open(&self) -> usize {
        self.record.open.load(Ordering::SeqCst)
    }

    /// Cuts every open connection; goes on listening.
    pub fn cut(&self) {
        for socket in self.sockets.lock().unwrap().values() {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Stops listening and cuts every connection: further ones are refused.
    pub fn stop(&mut self) {
        if let Some(listener) = self.listener.take() {
            let _ = SockRef::from(&listener).shutdown(std::net::Shutdown::Both);
        }
        self.cut();
    }

    /// Listens again, on the same port.
    pub fn start(&mut self) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.set_reuse_address(true).unwrap();
        listener.bind(&self.address.into()).unwrap();
        listener.listen(1024).unwrap();
        let listener = TcpListener::from(listener);
        self.listener = Some(listener.try_clone().unwrap());
        let (record, sockets, handler) = (
            Arc::clone(&self.record),
            Arc::clone(&self.sockets),
            Arc::clone(&self.handler),
        );
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let number = record.accepted.fetch_add(1, Ordering::SeqCst);
                sockets
                    .lock()
                    .unwrap()
                    .insert(number, stream.try_clone().unwrap());
                let (record, sockets, handler) = (
                    Arc::clone(&record),
                    Arc::clone(&sockets),
                    Arc::clone(&handler),
                );
                record.open.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || serve(stream, number, &record, &sockets, &*handler));
            }
        });
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop();
        if !thread::panicking() {
            assert!(
                !self.record.broken.load(Ordering::SeqCst),
                "the origin's own function panicked: see above"
            );
        }
    }
}

fn serve(stream: TcpStream, number: usize, record: &Record, sockets: &Sockets, handler: &Handler) {
    // Dropped last, however the handler ends: the clone in the origin's list would keep the socket open.
    let _open = Open {
        record,
        sockets,
        number,
    };
    let mut wire = Some(Wire::new(stream));
    while let Some(mut reader) = wire.take() {
        let Ok(Some(head)) = reader.head_before(Instant::now() + IDLE) else {
            return;
        };
        let slot = {
            let mut requests = record.requests.lock().unwrap();
            requests.push(Request {
                head: head.clone(),
                body: None,
            });
            requests.len() - 1
        };
        let mut exchange = Exchange {
            head,
            number,
            slot,
            wire: Some(reader),
            record,
        };
        handler(&mut exchange);
        wire = exchange.wire;
    }
}

struct Open<'a> {
    record: &'a Record,
    sockets: &'a Sockets,
    number: usize,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.sockets.lock().unwrap().remove(&self.number);
        self.record.open.fetch_sub(1, Ordering::SeqCst);
        if thread::panicking() {
            self.record.broken.store(true, Ordering::SeqCst);
        }
    }
}

/// One request on a connection, in the hands of a test's function. Unless that closes it, the connection is kept.
pub struct Exchange<'a> {
    pub head: Head,
    /// Number of the connection, from 0.
    pub number: usize,
    slot: usize,
    wire: Option<Wire>,
    record: &'a Record,
}

impl Exchange<'_> {
    fn reader(&mut self) -> &mut Wire {
        self.wire
            .as_mut()
            .expect("the connection is used after it was closed")
    }

    /// Reads the rest of the request and records it as whole.
    pub fn read_body(&mut self) -> Result<Request, Cut> {
        let head = self.head.clone();
        let body = self.reader().request_body(&head)?;
        let mut requests = self.record.requests.lock().unwrap();
        requests[self.slot].body = Some(body);
        Ok(requests[self.slot].clone())
    }

    /// Waits until the proxy's kernel has all that was sent.
    pub fn delivered(&mut self) {
        self.reader().delivered();
    }

    /// Sends as much as the proxy takes: it may have left.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.try_send(bytes);
    }

    /// Sends, or says why not: the proxy left, or took nothing for the length of a deadline.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.reader().send(bytes.as_ref())
    }

    /// Some raw bytes of the body or tunnel; empty at the end or if the connection broke.
    pub fn take(&mut self) -> Vec<u8> {
        self.reader().some().unwrap_or_default()
    }

    /// Everything until the proxy ends the connection, for at most a deadline.
    ///
    /// # Errors
    /// It broke, or did not end.
    pub fn rest(&mut self) -> Result<Vec<u8>, Cut> {
        self.reader().rest()
    }

    pub fn half_close(&mut self) {
        self.reader().half_close();
    }

    pub fn close(&mut self) {
        self.wire = None;
    }

    pub fn reset(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.reset();
        }
    }
}

/// An address that never completes a connection: its accept queue is full.
pub struct Deaf {
    listener: Socket,
    _queue: Vec<Socket>,
}

impl Deaf {
    pub fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        // The queue of a backlog of 0 holds one; the kernel then drops what knocks.
        for _ in 0..8 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            if socket
                .connect_timeout(&address, Duration::from_millis(300))
                .is_err()
            {
                break;
            }
            queue.push(socket);
        }
        assert!(queue.len() < 8, "the accept queue never filled up");
        Self {
            listener,
            _queue: queue,
        }
    }

    pub fn url(&self) -> String {
        format!(
            "http://{}",
            self.listener.local_addr().unwrap().as_socket().unwrap()
        )
    }
}
