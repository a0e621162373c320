//! The PROXY protocol, versions 1 and 2: what a balancer says of its client before the client's first byte.
//!
//! Owns the recognition of a header and of none. Never decides whether it is believed. Strict: what two readers could
//! read differently is malformed (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>, sections 2.1 and 2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest line of version 1, its end included.
const LINE_BYTES_MAX: usize = 107;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of a header of version 2 before its addresses.
const FIXED_BYTES: usize = 16;

/// Bytes of addresses and extensions of a header of version 2: a chain of certificates is the longest thing in use.
const VARIABLE_BYTES_MAX: usize = 4096;

/// The longest header that is read.
pub const HEADER_BYTES_MAX: usize = FIXED_BYTES + VARIABLE_BYTES_MAX;

const _: () = assert!(LINE_BYTES_MAX < HEADER_BYTES_MAX);

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Without a header: all bytes are the client's.
    Plain,
    Header {
        /// Its length: what follows is the client's.
        bytes: usize,
        /// Where the client is; `None` if the balancer speaks for itself or does not know.
        source: Option<SocketAddr>,
    },
}

/// It begins like a header and is none. Close without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// How the bytes begin; `None` while that cannot be told yet. That takes at most [`HEADER_BYTES_MAX`] bytes.
///
/// # Errors
/// [`Malformed`].
pub fn beginning(bytes: &[u8]) -> Result<Option<Beginning>, Malformed> {
    const WORD: &[u8] = b"PROXY ";
    if let Some(line) = bytes.strip_prefix(WORD) {
        return version_1(line).map(|header| {
            header.map(|(len, source)| Beginning::Header {
                bytes: WORD.len() + len,
                source,
            })
        });
    }
    if bytes.starts_with(SIGNATURE) {
        return version_2(bytes);
    }
    if WORD.starts_with(bytes) || SIGNATURE.starts_with(bytes) {
        return Ok(None);
    }
    Ok(Some(Beginning::Plain))
}

/// The rest of the line: its length with its end, and the source.
fn version_1(rest: &[u8]) -> Result<Option<(usize, Option<SocketAddr>)>, Malformed> {
    let bounded = &rest[..rest.len().min(LINE_BYTES_MAX - b"PROXY ".len())];
    let Some(end) = memchr::memchr(b'\n', bounded) else {
        return if bounded.len() < rest.len() {
            Err(Malformed)
        } else {
            Ok(None)
        };
    };
    let line = bounded[..end].strip_suffix(b"\r").ok_or(Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Some((end + 1, None)));
    }
    let parts: Vec<&str> = line.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = *parts else {
        return Err(Malformed);
    };
    let address = |text: &str| -> Result<IpAddr, Malformed> {
        match family {
            "TCP4" => text.parse().map(IpAddr::V4).map_err(|_| Malformed),
            "TCP6" => text.parse().map(IpAddr::V6).map_err(|_| Malformed),
            _ => Err(Malformed),
        }
    };
    let port = |text: &str| -> Result<u16, Malformed> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Malformed);
        }
        text.parse().map_err(|_| Malformed)
    };
    address(destination)?;
    port(destination_port)?;
    let source = SocketAddr::new(address(source)?, port(source_port)?);
    Ok(Some((end + 1, Some(source))))
}

fn version_2(bytes: &[u8]) -> Result<Option<Beginning>, Malformed> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else {
        return Ok(None);
    };
    let [.., version_and_command, family, high, low] = *fixed;
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed),
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > VARIABLE_BYTES_MAX {
        return Err(Malformed);
    }
    let Some(rest) = rest.get(..length) else {
        return Ok(None);
    };
    let source = match family {
        _ if is_local => None,
        0x11 => {
            let (source, ports) = addresses::<4, 12>(rest)?;
            Some(SocketAddr::new(Ipv4Addr::from(source).into(), ports))
        }
        0x21 => {
            let (source, ports) = addresses::<16, 36>(rest)?;
            Some(SocketAddr::new(Ipv6Addr::from(source).into(), ports))
        }
        // Nothing said, datagrams, or sockets without addresses of ours.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => None,
        _ => return Err(Malformed),
    };
    Ok(Some(Beginning::Header {
        bytes: FIXED_BYTES + length,
        source,
    }))
}

/// Source address and port of a block of source, destination, and their ports. What follows are extensions.
fn addresses<const ADDRESS: usize, const BLOCK: usize>(
    bytes: &[u8],
) -> Result<([u8; ADDRESS], u16), Malformed> {
    const { assert!(BLOCK == 2 * ADDRESS + 4, "two addresses and two ports") };
    let block = bytes.first_chunk::<BLOCK>().ok_or(Malformed)?;
    let (source, _) = block.split_first_chunk::<ADDRESS>().ok_or(Malformed)?;
    let port = u16::from_be_bytes([block[2 * ADDRESS], block[2 * ADDRESS + 1]]);
    Ok((*source, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the bytes are, whole and cut anywhere before their end.
    #[track_caller]
    fn check(bytes: &[u8], expected: Result<Option<Beginning>, Malformed>) {
        assert_eq!(beginning(bytes), expected, "{}", bytes.escape_ascii());
        if let Ok(Some(Beginning::Header { bytes: len, .. })) = expected {
            for cut in 0..len {
                assert_eq!(beginning(&bytes[..cut]), Ok(None), "{cut}");
            }
            let more = [bytes, b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(beginning(&more), expected, "with the client's bytes");
        }
    }

    fn header(bytes: usize, source: &str) -> Result<Option<Beginning>, Malformed> {
        let source = (!source.is_empty()).then(|| source.parse().expect("an address"));
        Ok(Some(Beginning::Header { bytes, source }))
    }

    #[track_caller]
    fn check_line(line: &str, source: &str) {
        check(line.as_bytes(), header(line.len(), source));
    }

    #[track_caller]
    fn check_malformed(bytes: &[u8]) {
        check(bytes, Err(Malformed));
    }

    #[test]
    fn lines() {
        check_line("PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n", "1.2.3.4:1000");
        check_line(
            "PROXY TCP6 2001:db8::1 ::1 65535 443\r\n",
            "[2001:db8::1]:65535",
        );
        check_line("PROXY UNKNOWN\r\n", "");
        check_line("PROXY UNKNOWN ff:: any thing 1 2\r\n", "");
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX - 16));
        assert_eq!(longest.len(), LINE_BYTES_MAX);
        check_line(&longest, "");
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1000\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1000 80 \r\n",
            "PROXY TCP4 1.2.3.4  5.6.7.8 1000 80\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 65536 80\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +1 80\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\n",
            "PROXY TCP4 ::1 5.6.7.8 1000 80\r\n",
            "PROXY TCP6 1.2.3.4 5.6.7.8 1000 80\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 1000 80\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY tcp4 1.2.3.4 5.6.7.8 1000 80\r\n",
            &longest.replace("x\r", "xx\r"),
            &"PROXY TCP4".repeat(20),
        ] {
            check_malformed(line.as_bytes());
        }
        check_malformed(b"PROXY TCP4 1.2.3.4 \xff 1000 80\r\n");
    }

    fn block(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[test]
    fn blocks() {
        let v4 = [1, 2, 3, 4, 5, 6, 7, 8, 3, 232, 0, 80];
        let mut v6 = [0; 36];
        (v6[15], v6[32], v6[33]) = (1, 3, 232);
        check(&block(0x21, 0x11, &v4), header(28, "1.2.3.4:1000"));
        check(&block(0x21, 0x21, &v6), header(52, "[::1]:1000"));
        let extended = [&v4[..], &[4, 0, 2, 9, 9]].concat();
        check(&block(0x21, 0x11, &extended), header(33, "1.2.3.4:1000"));
        check(&block(0x20, 0x11, &v4), header(28, ""));
        check(&block(0x20, 0x00, &[]), header(16, ""));
        for family in [0x00, 0x12, 0x22, 0x31, 0x32] {
            check(&block(0x21, family, &v4), header(28, ""));
        }
        check(
            &block(0x21, 0, &[0; VARIABLE_BYTES_MAX]),
            header(HEADER_BYTES_MAX, ""),
        );
        check_malformed(&block(0x21, 0, &[0; VARIABLE_BYTES_MAX + 1]));
        check_malformed(&block(0x21, 0x11, &v4[..11]));
        check_malformed(&block(0x21, 0x21, &v6[..35]));
        for command in [0x22, 0x11, 0x31, 0] {
            check_malformed(&block(command, 0x11, &v4));
        }
        for family in [0x10, 0x13, 0x41, 0xff] {
            check_malformed(&block(0x21, family, &v4));
        }
    }

    #[test]
    fn other_connections_are_plain() {
        for text in [
            "GET / HTTP/1.1\r\n",
            "POST / HTTP/1.1",
            "PROXYING",
            "PRI * HTTP/2.0",
            "\r\n\r\nGET",
            "\x16\x03\x01",
        ] {
            check(text.as_bytes(), Ok(Some(Beginning::Plain)));
        }
        for text in ["", "P", "PROXY", "PROXY ", "\r", "\r\n\r\n\0"] {
            check(text.as_bytes(), Ok(None));
        }
    }
}
