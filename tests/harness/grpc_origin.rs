//! A gRPC server of the tonic library, for the end-to-end tests, and the codec that its clients share with it.
//!
//! Messages are byte strings, so nothing is generated when the tests are built. Owns a thread with a runtime.

use std::convert::Infallible;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::{Buf, BufMut};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::server::{
    ClientStreamingService, Grpc, ServerStreamingService, StreamingService, UnaryService,
};
use tonic::{Code, Request, Response, Status, Streaming};

/// A message.
pub type Text = Vec<u8>;

/// Messages are what they are.
#[derive(Clone, Copy, Default)]
pub struct Plain;

impl Codec for Plain {
    type Encode = Text;
    type Decode = Text;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Text;
    type Error = Status;

    fn encode(&mut self, text: Text, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&text);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Text;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Text>, Status> {
        let mut text = vec![0; from.remaining()];
        from.copy_to_slice(&mut text);
        Ok(Some(text))
    }
}

/// What the server has seen.
#[derive(Default)]
pub struct Seen {
    pub metadata: Mutex<Vec<MetadataMap>>,
    /// Calls that waited for ever and were given up by their client.
    pub given_up: AtomicUsize,
}

pub struct GrpcOrigin {
    address: SocketAddr,
    pub seen: Arc<Seen>,
    _stop: oneshot::Sender<()>,
}

impl GrpcOrigin {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Seen>::default();
        let service = Service(Arc::clone(&seen));
        let (stop, stopped) = oneshot::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, service) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            seen,
            _stop: stop,
        }
    }

    pub fn url(&self) -> String {
        format!("h2c://{}", self.address)
    }
}

async fn accept(listener: TcpListener, service: Service) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((socket, _)) = listener.accept().await {
        let _ = socket.set_nodelay(true);
        let service = service.clone();
        let serve = service_fn(move |request| {
            let service = service.clone();
            async move { Ok::<_, Infallible>(service.serve(request).await) }
        });
        tokio::spawn(
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), serve),
        );
    }
}

#[derive(Clone)]
struct Service(Arc<Seen>);

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;
type Texts = Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;

/// The most that a message may have, far more than any test sends.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

impl Service {
    async fn serve(self, request: http::Request<Incoming>) -> http::Response<tonic::body::Body> {
        let mut grpc = Grpc::new(Plain)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/test.Echo/Unary" | "/test.Echo/Wait" => grpc.unary(self, request).await,
            "/test.Echo/Count" => grpc.server_streaming(self, request).await,
            "/test.Echo/Join" => grpc.client_streaming(self, request).await,
            "/test.Echo/Chat" => grpc.streaming(self, request).await,
            _ => Status::unimplemented("no such method").into_http(),
        }
    }

    fn note<T>(&self, request: &Request<T>) {
        self.0
            .metadata
            .lock()
            .unwrap()
            .push(request.metadata().clone());
    }
}

/// Echoes; `fail` fails before any message, `wait` waits for ever.
impl UnaryService<Text> for Service {
    type Response = Text;
    type Future = Answer<Text>;

    fn call(&mut self, request: Request<Text>) -> Answer<Text> {
        self.note(&request);
        let seen = Arc::clone(&self.0);
        Box::pin(async move {
            match request.get_ref().as_slice() {
                b"fail" => {
                    let mut status = Status::new(Code::FailedPrecondition, "not äs asked");
                    status
                        .metadata_mut()
                        .insert("x-reason", "because".parse().unwrap());
                    Err(status)
                }
                b"wait" => {
                    let _waiting = Waiting(seen);
                    std::future::pending().await
                }
                _ => {
                    let mut answer = Response::new(request.into_inner());
                    answer
                        .metadata_mut()
                        .insert("x-answered", "yes".parse().unwrap());
                    Ok(answer)
                }
            }
        })
    }
}

/// A call that waits for ever, until it is dropped.
struct Waiting(Arc<Seen>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.given_up.fetch_add(1, Ordering::SeqCst);
    }
}

/// As many messages as the request says, then a failure if there are more than a hundred thousand of them.
impl ServerStreamingService<Text> for Service {
    type Response = Text;
    type ResponseStream = Texts;
    type Future = Answer<Texts>;

    fn call(&mut self, request: Request<Text>) -> Answer<Texts> {
        self.note(&request);
        let count: usize = String::from_utf8_lossy(request.get_ref()).parse().unwrap();
        Box::pin(async move {
            let numbers = (0..count).map(|number| Ok(number.to_string().into_bytes()));
            let failure = (count % 2 == 1).then(|| Err(Status::data_loss("odd")));
            let texts: Texts = Box::pin(tokio_stream::iter(numbers.chain(failure)));
            Ok(Response::new(texts))
        })
    }
}

/// All messages as one.
impl ClientStreamingService<Text> for Service {
    type Response = Text;
    type Future = Answer<Text>;

    fn call(&mut self, request: Request<Streaming<Text>>) -> Answer<Text> {
        self.note(&request);
        Box::pin(async move {
            let mut joined = Vec::new();
            let mut texts = request.into_inner();
            while let Some(text) = texts.message().await? {
                joined.extend_from_slice(&text);
            }
            Ok(Response::new(joined))
        })
    }
}

/// Each message goes back at once; `stop` ends the call while its client still speaks.
impl StreamingService<Text> for Service {
    type Response = Text;
    type ResponseStream = Texts;
    type Future = Answer<Texts>;

    fn call(&mut self, request: Request<Streaming<Text>>) -> Answer<Texts> {
        self.note(&request);
        Box::pin(async move {
            let (sender, receiver) = mpsc::channel(4);
            let mut texts = request.into_inner();
            tokio::spawn(async move {
                while let Ok(Some(text)) = texts.message().await {
                    let stops = text == b"stop";
                    let answer = if stops {
                        Err(Status::aborted("stopped"))
                    } else {
                        Ok(text)
                    };
                    if sender.send(answer).await.is_err() || stops {
                        return;
                    }
                }
            });
            let texts: Texts = Box::pin(ReceiverStream::new(receiver));
            Ok(Response::new(texts))
        })
    }
}
