//! The server's end of a WebSocket, as far as an echo needs it (RFC 6455).
//!
//! Owns the proof of the handshake and short frames. Never understands fragments or extensions: it agrees to none.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha1::{Digest, Sha1};

use super::origin::Exchange;

const CLOSE: u8 = 8;

/// The answer to the opening of a WebSocket. RFC 6455 4.2.2.
pub fn accepted(key: &str) -> String {
    let digest = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n",
        BASE64_STANDARD.encode(digest)
    )
}

/// Accepts a WebSocket and sends back every message, until the client says that it ends.
pub fn echo(exchange: &mut Exchange<'_>) {
    let key = exchange.head.field("Sec-WebSocket-Key").unwrap_or_default();
    let accepted = accepted(key);
    exchange.send(accepted + "\r\n");
    let mut received = Vec::new();
    loop {
        while let Some((code, message, length)) = frame(&received) {
            received.drain(..length);
            let mut frame = vec![0x80 | code, u8::try_from(message.len()).unwrap()];
            frame.extend_from_slice(&message);
            exchange.send(frame);
            if code == CLOSE {
                return exchange.close();
            }
        }
        let bytes = exchange.take();
        if bytes.is_empty() {
            return exchange.close();
        }
        received.extend_from_slice(&bytes);
    }
}

/// The kind of a client's frame, its message, and the bytes it took; `None` while it is not here.
fn frame(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let [first, second, mask @ ..] = bytes else {
        return None;
    };
    let length = usize::from(second & 0x7f);
    assert!(second & 0x80 != 0, "a client masks what it sends");
    assert!(length < 126, "short messages only");
    let (mask, message) = mask.split_at_checked(4)?;
    let message = message.get(..length)?;
    let message = message
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    Some((first & 0x0f, message, 6 + length))
}
