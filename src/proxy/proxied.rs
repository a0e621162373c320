//! The PROXY header that a balancer sends ahead of its client's bytes, on entry points that have `proxyProtocol`.
//!
//! Owns the wait for it. A header of a peer that is not trusted is read and left aside, as in Traefik 1.7.
//! Never answers: a connection whose header is malformed, or does not come in time, is closed.
//! Read next: `http/proxy_protocol.rs`.

use std::net::SocketAddr;

use crate::http::proxy_protocol::{Beginning, HEADER_BYTES_MAX, beginning};
use crate::limits::PROXY_HEADER_TIMEOUT;
use crate::reactor::{Buffer, Room, Socket, Timer, now};
use crate::settings::Trust;

/// Who the client is, and what it has sent after the header. `None` if there is nobody to serve.
pub(crate) async fn read(
    socket: &Socket,
    peer: SocketAddr,
    trust: &Trust,
) -> Option<(SocketAddr, Buffer)> {
    let timer = Timer::new();
    timer.set(now() + PROXY_HEADER_TIMEOUT);
    // A connection that says nothing holds no buffer.
    socket.readable(&timer).await.ok()?;
    let mut read = Buffer::empty();
    loop {
        let more = socket.recv(Room::Small, &timer).await.ok()?;
        if more.is_empty() {
            return None;
        }
        if read.is_empty() {
            read = more;
        } else {
            // Bounded: what is longer than the longest header begins in some way.
            debug_assert!(read.len() < HEADER_BYTES_MAX);
            read.extend(more.bytes());
        }
        match beginning(read.bytes()) {
            Ok(None) => {}
            Ok(Some(Beginning::Plain)) => return Some((peer, read)),
            Ok(Some(Beginning::Header { bytes, source })) => {
                read.advance(bytes);
                let source = source.filter(|_| trust.covers(peer.ip()));
                return Some((source.unwrap_or(peer), read));
            }
            Err(malformed) => {
                tracing::debug!("closed a connection from {peer}: PROXY header: {malformed:?}");
                return None;
            }
        }
    }
}
