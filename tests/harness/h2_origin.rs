//! A server of HTTP/2 that does what a test tells it, clear or over TLS, on a loopback port of its own.
//!
//! Owns a thread with a runtime, and a record of connections and streams. The test's function gets each request with both
//! ends of its stream and may answer, wait, send half, reset. For what no library would send there is `Frames`.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::Acceptor;
use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use super::tls::Pair;
use super::wait::DEADLINE;

/// A request, and the stream to answer it on.
pub struct Asked {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
    /// Which request it is, from 0.
    pub number: usize,
}

type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;
type Handler = dyn Fn(Asked) -> Answering + Send + Sync;

#[derive(Default)]
struct Record {
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: Mutex<Vec<Request<()>>>,
    /// The names asked for over TLS, and how often a session was resumed.
    names: Mutex<Vec<String>>,
    resumed: AtomicUsize,
    /// Requests that are being answered.
    under_way: AtomicUsize,
}

/// What a connection is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Serve,
    /// Say GOAWAY, and finish what is under way.
    Leave,
    /// Drop the connection.
    Cut,
}

pub struct H2Origin {
    address: SocketAddr,
    is_tls: bool,
    record: Arc<Record>,
    orders: watch::Sender<(usize, Order)>,
}

/// How a server is set up.
pub struct Setup {
    pub builder: Builder,
    pub tls: Option<(Pair, Vec<&'static str>)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            builder: Builder::new(),
            tls: None,
        }
    }
}

impl H2Origin {
    /// Clear, with what the library does unless told otherwise.
    pub fn new<F: Future<Output = ()> + Send + 'static>(
        handler: impl Fn(Asked) -> F + Send + Sync + 'static,
    ) -> Self {
        Self::with(Setup::default(), handler)
    }

    /// Answers every request with this text.
    pub fn text(text: &'static str) -> Self {
        Self::new(move |asked| asked.answer(200, text))
    }

    pub fn with<F: Future<Output = ()> + Send + 'static>(
        setup: Setup,
        handler: impl Fn(Asked) -> F + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let is_tls = setup.tls.is_some();
        let record = Arc::<Record>::default();
        let (orders, ordered) = watch::channel((0, Order::Serve));
        let handler: Arc<Handler> = Arc::new(move |asked| Box::pin(handler(asked)));
        let told = Arc::clone(&record);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(accept(listener, setup, handler, told, ordered));
        });
        Self {
            address,
            is_tls,
            record,
            orders,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "h2c" };
        format!("{scheme}://{}", self.address)
    }

    /// A backend and a frontend for everything.
    pub fn site(&self) -> String {
        site_of(&self.url())
    }

    /// Connections accepted since the beginning.
    pub fn connections(&self) -> usize {
        self.record.connections.load(Ordering::SeqCst)
    }

    pub fn connections_open(&self) -> usize {
        self.record.open.load(Ordering::SeqCst)
    }

    /// The heads of all requests, in order.
    pub fn requests(&self) -> Vec<Request<()>> {
        self.record.requests.lock().unwrap().clone()
    }

    #[track_caller]
    pub fn last(&self) -> Request<()> {
        self.requests().pop().expect("the origin was asked at all")
    }

    /// The names that clients asked for over TLS, in order; empty for none.
    pub fn names(&self) -> Vec<String> {
        self.record.names.lock().unwrap().clone()
    }

    /// Handshakes that resumed a session.
    pub fn resumed(&self) -> usize {
        self.record.resumed.load(Ordering::SeqCst)
    }

    /// Requests that are being answered now.
    pub fn under_way(&self) -> usize {
        self.record.under_way.load(Ordering::SeqCst)
    }

    /// Says GOAWAY on every connection there is, and finishes what is under way on them.
    pub fn leave(&self) {
        self.order(Order::Leave);
    }

    /// Cuts every connection there is.
    pub fn cut(&self) {
        self.order(Order::Cut);
    }

    fn order(&self, order: Order) {
        self.orders.send((self.connections(), order)).unwrap();
    }
}

/// A backend of one server, and a frontend for everything.
pub fn site_of(url: &str) -> String {
    format!("[backends.b.servers.s]\nurl = \"{url}\"\n[frontends.f]\nbackend = \"b\"\n")
}

async fn accept(
    listener: TcpListener,
    setup: Setup,
    handler: Arc<Handler>,
    record: Arc<Record>,
    ordered: watch::Receiver<(usize, Order)>,
) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let acceptor = setup.tls.map(|(pair, protocols)| {
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.der()], key)
        .unwrap();
        config.alpn_protocols = protocols
            .iter()
            .map(|protocol| protocol.as_bytes().to_vec())
            .collect();
        TlsAcceptor::from(Arc::new(config))
    });
    let mut gone = ordered.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // The test is over.
            changed = gone.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Ok((socket, _)) = accepted else { continue };
        let _ = socket.set_nodelay(true);
        let connection = Connection {
            number: record.connections.fetch_add(1, Ordering::SeqCst),
            builder: setup.builder.clone(),
            handler: Arc::clone(&handler),
            record: Arc::clone(&record),
            ordered: ordered.clone(),
        };
        match acceptor.clone() {
            None => drop(tokio::spawn(connection.serve(socket))),
            Some(acceptor) => drop(tokio::spawn(connection.serve_tls(acceptor, socket))),
        }
    }
}

struct Connection {
    number: usize,
    builder: Builder,
    handler: Arc<Handler>,
    record: Arc<Record>,
    ordered: watch::Receiver<(usize, Order)>,
}

impl Connection {
    /// Serves what the handshake has settled on.
    async fn serve_tls(self, acceptor: TlsAcceptor, socket: tokio::net::TcpStream) {
        let Ok(start) = LazyConfigAcceptor::new(Acceptor::default(), socket).await else {
            return;
        };
        let name = start
            .client_hello()
            .server_name()
            .unwrap_or_default()
            .to_owned();
        self.record.names.lock().unwrap().push(name);
        let Ok(stream) = start.into_stream(Arc::clone(acceptor.config())).await else {
            return;
        };
        let (_, tls) = stream.get_ref();
        if tls.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.record.resumed.fetch_add(1, Ordering::SeqCst);
        }
        if tls.alpn_protocol() == Some(b"h2") {
            self.serve(stream).await;
        } else {
            let _ = self.serve_http1(stream).await;
        }
    }

    /// Answers every request with `over HTTP/1.1`, or with a tunnel that echoes if one is asked for.
    async fn serve_http1<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: T,
    ) -> io::Result<()> {
        let mut head = Vec::new();
        loop {
            let byte = stream.read_u8().await?;
            head.push(byte);
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            let switches = String::from_utf8_lossy(&head)
                .to_ascii_lowercase()
                .contains("upgrade: websocket");
            head.clear();
            if !switches {
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nover HTTP/1.1";
                stream.write_all(answer.as_bytes()).await?;
                stream.flush().await?;
                continue;
            }
            let answer = "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(answer.as_bytes()).await?;
            loop {
                let byte = stream.read_u8().await?;
                stream.write_u8(byte).await?;
                stream.flush().await?;
            }
        }
    }

    async fn serve<T: AsyncRead + AsyncWrite + Unpin>(mut self, stream: T) {
        let _open = Counted::new(&self.record, |record| &record.open);
        let Ok(mut connection) = self.builder.handshake::<_, Bytes>(stream).await else {
            return;
        };
        let mut is_leaving = false;
        loop {
            tokio::select! {
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => self.begin(request, respond),
                    Some(Err(_)) | None => return,
                },
                changed = self.ordered.changed(), if !is_leaving => {
                    if changed.is_err() {
                        return;
                    }
                    let (before, order) = *self.ordered.borrow_and_update();
                    match order {
                        Order::Leave if self.number < before => {
                            is_leaving = true;
                            connection.graceful_shutdown();
                        }
                        Order::Cut if self.number < before => return,
                        _ => {}
                    }
                }
            }
        }
    }

    fn begin(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.headers_mut() = request.headers().clone();
        let number = {
            let mut requests = self.record.requests.lock().unwrap();
            requests.push(head);
            requests.len() - 1
        };
        let answering = (self.handler)(Asked {
            request,
            respond,
            number,
        });
        let counted = Counted::new(&self.record, |record| &record.under_way);
        tokio::spawn(async move {
            answering.await;
            drop(counted);
        });
    }
}

/// One more, until it is dropped.
struct Counted(Arc<Record>, fn(&Record) -> &AtomicUsize);

impl Counted {
    fn new(record: &Arc<Record>, counter: fn(&Record) -> &AtomicUsize) -> Self {
        counter(record).fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(record), counter)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::SeqCst);
    }
}

impl Asked {
    pub fn path(&self) -> &str {
        self.request.uri().path()
    }

    /// The whole body of the request, and its trailers.
    pub async fn body(&mut self) -> Option<(Vec<u8>, HeaderMap)> {
        let body = self.request.body_mut();
        let mut bytes = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.ok()?;
            let _ = body.flow_control().release_capacity(data.len());
            bytes.extend_from_slice(&data);
        }
        let trailers = body.trailers().await.ok()?.unwrap_or_default();
        Some((bytes, trailers))
    }

    /// Begins an answer.
    pub fn head(&mut self, response: Response<()>) -> Option<SendStream<Bytes>> {
        self.respond.send_response(response, false).ok()
    }

    /// Answers with a body that is sent at once.
    pub async fn answer(mut self, status: u16, text: &'static str) {
        if let Some(mut stream) = self.head(response(status)) {
            let _ = stream.send_data(Bytes::from_static(text.as_bytes()), true);
        }
    }

    /// Answers with the request's own body, once it is whole.
    pub async fn echo(mut self) {
        let Some((bytes, trailers)) = self.body().await else {
            return;
        };
        if let Some(mut stream) = self.head(response(200)) {
            send(&mut stream, bytes.into(), trailers.is_empty()).await;
            if !trailers.is_empty() {
                let _ = stream.send_trailers(trailers);
            }
        }
    }
}

/// A head without fields.
pub fn response(status: u16) -> Response<()> {
    Response::builder().status(status).body(()).unwrap()
}

/// Sends as the other side has room. False if it is gone.
pub async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes, ends: bool) -> bool {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
        let Some(Ok(room)) = room else {
            return false;
        };
        let now = bytes.split_to(room.min(bytes.len()));
        if stream.send_data(now, false).is_err() {
            return false;
        }
    }
    !ends || stream.send_data(Bytes::new(), true).is_ok()
}

/// The server's end of a connection of HTTP/2, frame by frame.
pub struct Frames(TcpStream);

/// A frame: type, flags, stream, payload.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;

impl Frames {
    /// A server that hands each connection, its number first, to `serve`, after the preface and its own settings.
    pub fn origin(
        settings: &'static [(u16, u32)],
        serve: impl Fn(usize, &mut Self) + Send + Sync + 'static,
    ) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let serve = Arc::clone(&serve);
                let stream = stream.unwrap();
                thread::spawn(move || {
                    stream.set_read_timeout(Some(2 * DEADLINE)).unwrap();
                    stream.set_nodelay(true).unwrap();
                    let mut frames = Self(stream);
                    let mut preface = [0; 24];
                    if frames.0.read_exact(&mut preface).is_err() {
                        return;
                    }
                    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
                    let payload: Vec<u8> = settings
                        .iter()
                        .flat_map(|(id, value)| {
                            let mut bytes = id.to_be_bytes().to_vec();
                            bytes.extend(value.to_be_bytes());
                            bytes
                        })
                        .collect();
                    frames.send(SETTINGS, 0, 0, &payload);
                    serve(number, &mut frames);
                });
            }
        });
        address
    }

    /// Sends a frame; a peer that is gone is no matter.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.0.write_all(&bytes).is_ok()
    }

    /// The next frame, if there is one. Settings are acknowledged on the way, and pings answered.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).ok()?;
            let frame = Frame {
                kind: head[3],
                flags: head[4],
                stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
                payload,
            };
            match (frame.kind, frame.flags & ACK) {
                (SETTINGS, 0) => drop(self.send(SETTINGS, ACK, 0, &[])),
                (PING, 0) => drop(self.send(PING, ACK, 0, &frame.payload)),
                (SETTINGS | PING, _) => {}
                _ => return Some(frame),
            }
        }
    }

    /// The stream of the next request.
    pub fn request(&mut self) -> Option<u32> {
        loop {
            let frame = self.next()?;
            if frame.kind == HEADERS {
                return Some(frame.stream);
            }
        }
    }
}

/// `:status: 200` as HPACK has it.
pub const STATUS_200: u8 = 0x88;

/// A literal field, not indexed, as HPACK has it. Both are short.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        bytes.push(u8::try_from(text.len()).unwrap());
        assert!(text.len() < 127);
        bytes.extend(text.as_bytes());
    }
    bytes
}
