//! One TLS connection as a machine: bytes of the peer in, plaintext and bytes for the peer out.
//!
//! Owns keys and the order of records. What rustls holds inside is bounded: records are opened one packet at a time, and
//! their plaintext is taken out before the next (rustls stops at 16 KiB). Never does I/O: who calls it receives and sends.
//! Read next: `proxy/transport.rs`, which does.

use std::fmt;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::mem;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

/// Why a connection is over. What is to be told the peer is in the connection, to be taken by [`Connection::take`].
#[derive(Clone, Debug)]
pub struct Error(pub(super) rustls::Error);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {}

/// What a client whose name has no certificate is told where `sniStrict` is on: a fatal `internal_error`, before there
/// are keys. The reference sends this one (spec static-config 4); rustls would say `access_denied`.
const UNKNOWN_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// rustls reads no more than this into its own memory at once. A longer record makes that grow.
const READ_BYTES: usize = 4096;

/// One end of a TLS connection.
pub struct Connection {
    inner: rustls::Connection,
    ended: bool,
    /// Bytes of plaintext that are still inside: no fewer than there are.
    held: usize,
    /// A record may have needed more memory than [`Connection::shrink`] leaves.
    is_swollen: bool,
    error: Option<Error>,
    /// Told the peer instead of what rustls would say.
    last_words: Option<&'static [u8]>,
}

impl Connection {
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let inner = ServerConnection::new(config).map_err(Error)?;
        Ok(Self::new(inner.into()))
    }

    pub(super) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, Error> {
        let inner = ClientConnection::new(config, name).map_err(Error)?;
        Ok(Self::new(inner.into()))
    }

    fn new(mut inner: rustls::Connection) -> Self {
        // What is written is taken out at once, and who calls writes no more than a few buffers.
        inner.set_buffer_limit(None);
        Self {
            inner,
            ended: false,
            held: 0,
            is_swollen: true,
            error: None,
            last_words: None,
        }
    }

    /// The handshake is not over: there is no plaintext yet in either direction.
    pub fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    /// The protocol that the handshake has settled on (RFC 7301), if the peer named any.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.inner.alpn_protocol()
    }

    /// The peer waits for what [`Connection::take`] yields. After a handshake of TLS 1.3 nobody does: what is left (a
    /// server's ticket, a client's last message) goes out with the first bytes of the exchange.
    pub fn must_flush(&self) -> bool {
        self.inner.wants_write()
            && (self.is_handshaking()
                || self.inner.protocol_version() != Some(rustls::ProtocolVersion::TLSv1_3))
    }

    /// The handshake proved a name to an authority, and was all that it wanted (RFC 8737 3).
    pub fn was_proof(&self) -> bool {
        self.inner.alpn_protocol() == Some(super::certificates::PROVING)
    }

    /// The peer has said that it sends no more.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// The certificates that the peer has shown, as DER and its own first; also where the session was resumed.
    pub fn peer_chain(&self) -> Vec<Vec<u8>> {
        let chain = self.inner.peer_certificates().unwrap_or_default();
        chain
            .iter()
            .map(|certificate| certificate.to_vec())
            .collect()
    }

    /// Passes what has `arrived` to the handshake. Returns how many bytes were consumed; what is left is behind it.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn shake(&mut self, mut arrived: &[u8]) -> Result<usize, Error> {
        let whole = arrived.len();
        while self.is_handshaking() && !arrived.is_empty() {
            self.feed(&mut arrived)?;
        }
        Ok(whole - arrived.len())
    }

    /// Opens what has `arrived`: appends plaintext to `plain` until that has `room` bytes. Returns how many bytes were
    /// consumed; the rest is to be passed again. Consumes everything if nothing fills up.
    ///
    /// # Errors
    /// The peer broke the protocol, or refuses ours. Plaintext that came before is in `plain` all the same.
    pub fn open(
        &mut self,
        mut arrived: &[u8],
        plain: &mut Vec<u8>,
        room: usize,
    ) -> Result<usize, Error> {
        let whole = arrived.len();
        loop {
            if self.drain(plain, room) {
                return Ok(whole - arrived.len());
            }
            if let Some(error) = &self.error {
                return Err(error.clone());
            }
            if arrived.is_empty() {
                return Ok(whole);
            }
            if self.is_ended() {
                // Nothing that comes after the peer's last word is looked at.
                return Ok(whole);
            }
            // What came before an error is taken out first; the error is found again.
            let _ = self.feed(&mut arrived);
        }
    }

    /// Lets rustls take a packet.
    fn feed(&mut self, arrived: &mut &[u8]) -> Result<(), Error> {
        self.is_swollen |= arrived.len() > READ_BYTES;
        let processed = match self.inner.read_tls(arrived) {
            Ok(_) => self.inner.process_new_packets(),
            // A message of a handshake that is longer than rustls takes.
            Err(error) => Err(rustls::Error::General(error.to_string())),
        };
        match processed {
            Ok(state) => {
                self.ended = state.peer_has_closed();
                self.held = state.plaintext_bytes_to_read();
                // Half a record may have come, whose rest will be put behind it.
                self.is_swollen |= self.held == 0;
                Ok(())
            }
            Err(error) => {
                self.held = usize::MAX;
                Err(self.fail(error))
            }
        }
    }

    /// Moves plaintext over. True if `plain` is full, and more may be left.
    fn drain(&mut self, plain: &mut Vec<u8>, room: usize) -> bool {
        loop {
            let left = room.saturating_sub(plain.len());
            if left == 0 {
                return true;
            }
            if self.held == 0 {
                return false;
            }
            let mut reader = self.inner.reader();
            // An error only says that there is nothing; the end is asked for by `is_ended`.
            let count = match reader.fill_buf() {
                Ok(chunk) if !chunk.is_empty() => {
                    let taken = &chunk[..chunk.len().min(left)];
                    plain.extend_from_slice(taken);
                    taken.len()
                }
                _ => {
                    self.held = 0;
                    return false;
                }
            };
            reader.consume(count);
            self.held -= count;
        }
    }

    /// There is plaintext that did not fit.
    pub fn has_plaintext(&mut self) -> bool {
        self.held > 0 && matches!(self.inner.reader().fill_buf(), Ok(chunk) if !chunk.is_empty())
    }

    fn fail(&mut self, error: rustls::Error) -> Error {
        if let rustls::Error::General(why) = &error
            && why == "no server certificate chain resolved"
        {
            self.last_words = Some(&UNKNOWN_NAME);
        }
        let error = Error(error);
        self.error = Some(error.clone());
        error
    }

    /// Seals `parts` as one run of bytes, for [`Connection::take`].
    ///
    /// # Errors
    /// The connection is over.
    pub fn seal(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let all: usize = parts.iter().map(|part| part.len()).sum();
        let sealed = self.inner.writer().write_vectored(parts)?;
        if sealed == all {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// Tells the peer that nothing more will come, with the next [`Connection::take`].
    pub fn close(&mut self) {
        if self.error.is_none() && !self.is_handshaking() {
            self.inner.send_close_notify();
        }
    }

    /// Appends bytes for the peer to `out` until that has `room` bytes. False if there are none left.
    pub fn take(&mut self, out: &mut Vec<u8>, room: usize) -> bool {
        if let Some(words) = self.last_words.take() {
            out.extend_from_slice(words);
            // What rustls would say instead.
            while self.inner.wants_write() && self.inner.write_tls(&mut io::sink()).is_ok() {}
            return false;
        }
        let mut out = Bounded { out, room };
        while self.inner.wants_write() {
            match self.inner.write_tls(&mut out) {
                Ok(count) if count > 0 => {}
                _ => return true,
            }
        }
        false
    }

    /// Gives memory back that a long record needed. Costs next to nothing if there was none.
    pub fn shrink(&mut self) {
        if !mem::take(&mut self.is_swollen) {
            return;
        }
        // The buffer for records is cut to its smallest before a read; this one fails, which is not an end.
        let _ = self.inner.read_tls(&mut Nothing);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Connection({:?}, {:?})",
            self.inner.protocol_version(),
            self.inner
                .negotiated_cipher_suite()
                .map(|suite| suite.suite())
        )
    }
}

/// Takes bytes up to a bound.
struct Bounded<'a> {
    out: &'a mut Vec<u8>,
    room: usize,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.room.saturating_sub(self.out.len()));
        self.out.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut written = 0;
        for part in parts {
            let count = self.write(part)?;
            written += count;
            if count < part.len() {
                break;
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A source that has nothing at present.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Certificate, MinVersion, Options, Server};
    use super::*;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
    use std::time::SystemTime;

    #[derive(Debug)]
    struct Credulous;

    impl ServerCertVerifier for Credulous {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            aws_lc_rs::default_provider()
                .signature_verification_algorithms
                .supported_schemes()
        }
    }

    fn client(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConnection {
        let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_protocol_versions(versions)
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous))
            .with_no_client_auth();
        let name = ServerName::try_from("a.test").expect("a name");
        let mut client = ClientConnection::new(config.into(), name).expect("a client");
        client.set_buffer_limit(None);
        client
    }

    fn server(options: &Options) -> Connection {
        let default = Certificate::generate(SystemTime::UNIX_EPOCH).expect("a certificate");
        Server::new(options, Vec::new(), default)
            .expect("options that go together")
            .accept(|| None)
            .expect("a connection")
    }

    /// Everything that one end has to say.
    fn said(connection: &mut Connection) -> Vec<u8> {
        let mut out = Vec::new();
        let room = usize::MAX;
        assert!(!connection.take(&mut out, room));
        out
    }

    fn tell(client: &mut ClientConnection, mut bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).expect("room");
            client.process_new_packets()?;
            let mut some = [0; 20_000];
            while let Ok(count) = client.reader().read(&mut some) {
                plain.extend_from_slice(&some[..count]);
                if count == 0 {
                    return Ok(plain);
                }
            }
        }
        Ok(plain)
    }

    fn client_said(client: &mut ClientConnection) -> Vec<u8> {
        let mut out = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut out).expect("a Vec takes all");
        }
        out
    }

    fn shake_hands(client: &mut ClientConnection, server: &mut Connection) {
        while client.is_handshaking() || server.is_handshaking() {
            // One byte at a time: no boundary of packets may matter.
            for byte in client_said(client) {
                let consumed = server.shake(&[byte]).expect("a good client");
                assert_eq!(consumed, 1);
            }
            tell(client, &said(server)).expect("a good server");
        }
    }

    #[test]
    fn bytes_go_both_ways_whatever_the_room() {
        for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
            let (mut client, mut server) = (client(versions), server(&Options::default()));
            shake_hands(&mut client, &mut server);
            let body: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
            client.writer().write_all(&body).expect("no bound");
            let wire = client_said(&mut client);
            let mut got = Vec::new();
            let mut rest = wire.as_slice();
            while got.len() < body.len() {
                let mut plain = Vec::new();
                let consumed = server.open(rest, &mut plain, 777).expect("good records");
                assert!(plain.len() <= 777 && !plain.is_empty());
                got.extend(plain);
                rest = &rest[consumed..];
            }
            assert!(got == body && rest.is_empty() && !server.has_plaintext());

            let (front, back) = body.split_at(50);
            server
                .seal(&[IoSlice::new(front), IoSlice::new(back)])
                .expect("open");
            let mut sealed = Vec::new();
            loop {
                let mut some = Vec::new();
                let more = server.take(&mut some, 1000);
                assert!(some.len() <= 1000);
                sealed.extend(some);
                if !more {
                    break;
                }
            }
            assert!(tell(&mut client, &sealed).expect("good records") == body);
        }
    }

    #[test]
    fn the_end_is_told_and_understood() {
        let (mut client, mut server) = (
            client(&[&rustls::version::TLS13]),
            server(&Options::default()),
        );
        shake_hands(&mut client, &mut server);
        client.send_close_notify();
        let mut plain = Vec::new();
        let wire = client_said(&mut client);
        assert!(!server.is_ended());
        server.open(&wire, &mut plain, 10).expect("a good client");
        assert!(server.is_ended());
        assert_eq!(server.open(b"more", &mut plain, 10).ok(), Some(4));
        assert!(plain.is_empty());
        server.close();
        tell(&mut client, &said(&mut server)).expect("a good server");
        assert_eq!(client.reader().read(&mut [0]).ok(), Some(0));
    }

    #[test]
    fn a_broken_record_ends_the_connection_after_what_came_before_it() {
        let (mut client, mut server) = (
            client(&[&rustls::version::TLS13]),
            server(&Options::default()),
        );
        shake_hands(&mut client, &mut server);
        client.writer().write_all(b"good").expect("open");
        let mut wire = client_said(&mut client);
        client.writer().write_all(b"bad").expect("open");
        wire.extend(client_said(&mut client));
        *wire.last_mut().expect("not empty") ^= 1;
        let mut plain = Vec::new();
        assert!(server.open(&wire, &mut plain, 100).is_err());
        assert_eq!(plain, b"good");
        assert!(server.open(b"", &mut plain, 100).is_err(), "for ever");
        let told = tell(&mut client, &said(&mut server)).expect_err("an alert");
        assert!(matches!(told, rustls::Error::AlertReceived(_)), "{told:?}");
        assert!(server.seal(&[IoSlice::new(b"x")]).is_err());
    }

    #[test]
    fn a_strict_server_says_internal_error() {
        let mut client = client(&[&rustls::version::TLS13, &rustls::version::TLS12]);
        let mut server = server(&Options {
            sni_strict: true,
            ..Options::default()
        });
        let wire = client_said(&mut client);
        assert!(server.shake(&wire).is_err());
        let told = tell(&mut client, &said(&mut server)).expect_err("an alert");
        assert_eq!(
            told,
            rustls::Error::AlertReceived(rustls::AlertDescription::InternalError)
        );
    }

    #[test]
    fn garbage_is_an_error() {
        for garbage in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0; 64],
            &[22, 3, 1, 255, 255, 1],
        ] {
            let mut server = server(&Options {
                min_version: MinVersion::Tls13,
                ..Options::default()
            });
            assert!(server.shake(garbage).is_err());
        }
    }
}
