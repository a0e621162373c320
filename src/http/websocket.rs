//! The proof that a server has understood the opening of a WebSocket. RFC 6455 4.2.2.
//!
//! Clients of HTTP/1.1 send a key and check the proof themselves. Over HTTP/2 they send none (RFC 8441 5.1): the key is ours
//! then, and so is the check.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha1::{Digest, Sha1};

use super::Head;

const KEY: &[u8] = b"Sec-WebSocket-Key";
const ACCEPT: &[u8] = b"Sec-WebSocket-Accept";

/// What is hashed behind the key, for every WebSocket (RFC 6455 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Gives a request a key of its own, in place of any other.
pub fn ask(request: &mut Head, random: [u8; 16]) {
    request.set_named(KEY, BASE64_STANDARD.encode(random).as_bytes());
}

/// Takes the proof out of an answer, and says whether it was the one for the request's key.
pub fn accepts(request: &Head, answer: &mut Head) -> bool {
    let is_proven = {
        let mut keys = request.values_named(KEY);
        let mut proofs = answer.values_named(ACCEPT);
        match (keys.next(), proofs.next(), proofs.next()) {
            (Some(key), Some(proof), None) => {
                let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
                BASE64_STANDARD.encode(digest).as_bytes() == proof
            }
            _ => false,
        }
    };
    answer.remove_named(ACCEPT);
    is_proven
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answer: &[(&str, &str)], expected: bool) {
        let mut request = Head::default();
        request.push(KEY, b"dGhlIHNhbXBsZSBub25jZQ==");
        let mut head = Head::default();
        for (name, value) in answer {
            head.push(name.as_bytes(), value.as_bytes());
        }
        assert_eq!(accepts(&request, &mut head), expected, "{answer:?}");
        assert_eq!(head.values_named(ACCEPT).count(), 0);
    }

    #[test]
    fn only_the_proof_of_the_key_is_accepted() {
        // RFC 6455 1.3.
        let proof = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        check(&[("sec-websocket-accept", proof)], true);
        check(&[("Sec-WebSocket-Accept", proof), ("X-A", "1")], true);
        check(&[], false);
        check(&[("Sec-WebSocket-Accept", "")], false);
        check(
            &[("Sec-WebSocket-Accept", "S3pPLMBiTxaQ9kYGzzhZRbK+xOo=")],
            false,
        );
        check(
            &[
                ("Sec-WebSocket-Accept", proof),
                ("Sec-WebSocket-Accept", proof),
            ],
            false,
        );
    }

    #[test]
    fn a_key_takes_the_place_of_another() {
        let mut request = Head::default();
        request.push(b"sec-websocket-key", b"guessed");
        ask(&mut request, [0; 16]);
        let keys: Vec<&[u8]> = request.values_named(KEY).collect();
        assert_eq!(keys, [b"AAAAAAAAAAAAAAAAAAAAAA=="]);
    }
}
