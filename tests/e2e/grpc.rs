//! gRPC through the proxy: a client and a server of the tonic library on both sides of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::harness::grpc_origin::{GrpcOrigin, Plain, Seen, Text};
use crate::harness::h2_origin::site_of;
use crate::harness::{Coreway, DEADLINE, eventually};

/// A call as a client writes it.
struct Caller(Grpc<Channel>);

impl Caller {
    async fn connect(edge: &Coreway) -> Self {
        let channel = Endpoint::from_shared(format!("http://{}", edge.address()))
            .unwrap()
            .connect()
            .await
            .unwrap();
        Self(Grpc::new(channel).max_decoding_message_size(64 << 20))
    }

    async fn unary(&mut self, request: Request<Text>) -> Result<tonic::Response<Text>, Status> {
        self.0.ready().await.unwrap();
        let path = "/test.Echo/Unary".parse().unwrap();
        self.0.unary(request, path, Plain).await
    }
}

/// Runs a client before an edge before a server.
fn check<F: Future<Output = ()>>(act: impl FnOnce(Caller, Arc<Seen>) -> F) {
    let origin = GrpcOrigin::new();
    let edge = Coreway::serve(&site_of(&origin.url()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let caller = Caller::connect(&edge).await;
        tokio::time::timeout(3 * DEADLINE, act(caller, Arc::clone(&origin.seen)))
            .await
            .expect("the calls end");
    });
}

#[test]
fn unary_calls_and_their_metadata_pass() {
    check(|mut caller, seen| async move {
        let mut request = Request::new(b"hello".to_vec());
        request
            .metadata_mut()
            .insert("x-asked", "yes".parse().unwrap());
        request.metadata_mut().insert_bin(
            "x-bytes-bin",
            tonic::metadata::MetadataValue::from_bytes(&[0, 255, 10, 13]),
        );
        request.set_timeout(Duration::from_secs(20));
        let answer = caller.unary(request).await.unwrap();
        assert_eq!(answer.get_ref(), b"hello");
        assert_eq!(answer.metadata().get("x-answered").unwrap(), "yes");
        let noted = seen.metadata.lock().unwrap().pop().unwrap();
        assert_eq!(noted.get("x-asked").unwrap(), "yes");
        let bytes = noted.get_bin("x-bytes-bin").unwrap().to_bytes().unwrap();
        assert_eq!(&bytes[..], [0, 255, 10, 13]);
        assert!(noted.get("grpc-timeout").is_some(), "the deadline passes");
        assert_eq!(noted.get("te").unwrap(), "trailers");
        assert_eq!(noted.get("x-forwarded-for").unwrap(), "127.0.0.1");
    });
}

#[test]
fn a_failure_comes_with_its_code_text_and_metadata() {
    check(|mut caller, _| async move {
        let status = caller.unary(Request::new(b"fail".to_vec())).await;
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), "not äs asked");
        assert_eq!(status.metadata().get("x-reason").unwrap(), "because");
        let answer = caller.unary(Request::new(b"again".to_vec())).await;
        assert_eq!(answer.unwrap().get_ref(), b"again");
    });
}

#[test]
fn large_messages_pass() {
    check(|mut caller, _| async move {
        let text: Text = (0..20_u32 << 20).map(|at| at.to_le_bytes()[1]).collect();
        let answer = caller.unary(Request::new(text.clone())).await.unwrap();
        assert!(answer.get_ref() == &text);
    });
}

#[test]
fn a_server_streams_and_ends_with_a_status() {
    check(|mut caller, _| async move {
        for (count, end) in [(0, None), (5000, None), (4999, Some(Code::DataLoss))] {
            caller.0.ready().await.unwrap();
            let path = "/test.Echo/Count".parse().unwrap();
            let request = Request::new(count.to_string().into_bytes());
            let mut numbers = caller
                .0
                .server_streaming(request, path, Plain)
                .await
                .unwrap()
                .into_inner();
            let mut seen = 0;
            let ended = loop {
                match numbers.message().await {
                    Ok(Some(number)) => {
                        assert_eq!(number, seen.to_string().into_bytes());
                        seen += 1;
                    }
                    Ok(None) => break None,
                    Err(status) => break Some(status.code()),
                }
            };
            assert_eq!((seen, ended), (count, end));
        }
    });
}

#[test]
fn a_client_streams() {
    check(|mut caller, _| async move {
        caller.0.ready().await.unwrap();
        let path = "/test.Echo/Join".parse().unwrap();
        let texts: Vec<Text> = (0..3000)
            .map(|number: u32| format!("{number},").into_bytes())
            .collect();
        let joined = texts.concat();
        let request = Request::new(tokio_stream::iter(texts));
        let answer = caller.0.client_streaming(request, path, Plain).await;
        assert!(answer.unwrap().into_inner() == joined);
    });
}

#[test]
fn both_sides_stream_at_once() {
    check(|mut caller, _| async move {
        caller.0.ready().await.unwrap();
        let path = "/test.Echo/Chat".parse().unwrap();
        let (says, texts) = mpsc::channel(1);
        let request = Request::new(ReceiverStream::new(texts));
        let mut told = caller
            .0
            .streaming(request, path, Plain)
            .await
            .unwrap()
            .into_inner();
        // Each is answered before the next is said: nothing is held back on the way.
        for number in 0..200 {
            let text = format!("text {number}").into_bytes();
            says.send(text.clone()).await.unwrap();
            assert_eq!(told.message().await.unwrap(), Some(text));
        }
        drop(says);
        assert_eq!(told.message().await.unwrap(), None);
    });
}

#[test]
fn a_server_may_end_a_call_while_its_client_still_speaks() {
    check(|mut caller, _| async move {
        caller.0.ready().await.unwrap();
        let path = "/test.Echo/Chat".parse().unwrap();
        let (says, texts) = mpsc::channel(1);
        let request = Request::new(ReceiverStream::new(texts));
        says.send(b"stop".to_vec()).await.unwrap();
        let mut told = caller
            .0
            .streaming(request, path, Plain)
            .await
            .unwrap()
            .into_inner();
        let status = told.message().await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Aborted, "stopped")
        );
        drop(says);
    });
}

#[test]
fn a_call_that_is_given_up_ends_at_its_server() {
    check(|mut caller, seen| async move {
        let mut request = Request::new(b"wait".to_vec());
        request.set_timeout(Duration::from_millis(500));
        let status = caller.unary(request).await.unwrap_err();
        assert!(
            matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded),
            "{status}"
        );
        // Beside the runtime: the client's own connection goes on meanwhile.
        let known = tokio::task::spawn_blocking(move || {
            eventually("the server knows", || {
                seen.given_up.load(Ordering::SeqCst) == 1
            });
        });
        known.await.unwrap();
        let answer = caller.unary(Request::new(b"again".to_vec())).await;
        assert_eq!(answer.unwrap().get_ref(), b"again");
    });
}

#[test]
fn a_call_without_a_server_fails() {
    let origin = crate::harness::Origin::refusing();
    let edge = Coreway::serve(&site_of(&format!("h2c://{}", origin.address())));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut caller = Caller::connect(&edge).await;
        let failed = caller.unary(Request::new(b"x".to_vec())).await;
        // It is said in HTTP, as in 1.7.
        let message = failed.unwrap_err().message().to_owned();
        assert!(message.contains("502 Bad Gateway"), "{message}");
    });
}

#[test]
fn calls_over_http1_get_their_trailers_in_chunks() {
    let origin = GrpcOrigin::new();
    let edge = Coreway::serve(&site_of(&origin.url()));
    let message = b"\0\0\0\0\x05hello";
    let mut request = format!(
        "POST /test.Echo/Unary HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nTE: trailers\r\n\
         Content-Length: {}\r\n\r\n",
        message.len()
    )
    .into_bytes();
    request.extend(message);
    let told = edge.client().exchange(request);
    assert_eq!((told.status, told.body.as_slice()), (200, &message[..]));
    assert_eq!(told.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
}
