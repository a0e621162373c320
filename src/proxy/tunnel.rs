//! A connection after a 101: bytes both ways, untouched, each direction waiting for its reader.
//!
//! Either side may close its direction and go on receiving. Never looks at a byte, never times out by itself: the
//! protocol inside has its own idea of idleness.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::connection::Client;
use super::upstream::Upstream;
use crate::limits::SEND_STALL_TIMEOUT;
use crate::reactor::coarse;
use crate::reactor::{Buffer, Room, Timer};
use std::net::Shutdown;

/// Relays until both directions have ended, or one has failed. `inbound` and `first` are what came early.
pub(crate) async fn run(
    client: &Client,
    upstream: &mut Upstream,
    inbound: Option<Buffer>,
    first: Buffer,
) {
    let server = std::rc::Rc::clone(&upstream.transport);
    let sever = || {
        server.shutdown(Shutdown::Both);
        client.transport.shutdown(Shutdown::Both);
    };
    let mut up = pin!(async {
        let unlimited = Timer::new();
        let sending = Timer::new();
        let mut early = inbound;
        loop {
            let buffer = match early.take().filter(|buffer| !buffer.is_empty()) {
                Some(buffer) => buffer,
                None => match client.transport.recv_patient(Room::Small, &unlimited).await {
                    Ok(buffer) if buffer.is_empty() => return server.finish().await,
                    Ok(buffer) => buffer,
                    Err(_) => return sever(),
                },
            };
            sending.set(coarse() + SEND_STALL_TIMEOUT);
            if server.send(buffer, &sending).await.is_err() {
                return sever();
            }
        }
    });
    let mut down = pin!(async {
        let mut buffer = first;
        loop {
            if !buffer.is_empty() {
                client.timer.set(coarse() + SEND_STALL_TIMEOUT);
                if client.transport.send(buffer, &client.timer).await.is_err() {
                    return sever();
                }
            }
            buffer = match poll_fn(|cx| upstream.poll_next(cx)).await {
                Ok(buffer) if buffer.is_empty() => return client.transport.finish().await,
                Ok(buffer) => buffer,
                Err(_) => return sever(),
            };
        }
    });
    let (mut up_ended, mut down_ended) = (false, false);
    poll_fn(|cx| {
        up_ended = up_ended || up.as_mut().poll(cx).is_ready();
        down_ended = down_ended || down.as_mut().poll(cx).is_ready();
        if up_ended && down_ended {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
