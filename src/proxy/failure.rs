//! Why an exchange could not be finished: whose fault, where, and whether it may be tried again.
//!
//! Owns the vocabulary; `reply.rs` alone turns it into a status.

use std::fmt;
use std::io;

use crate::http::h1::ResponseError;
use crate::tls;

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Proxy,
    Server,
}

/// How far the exchange had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Taking the request's body in.
    Receive,
    /// Choosing a server.
    Pick,
    /// Reaching it: nothing was sent.
    Connect,
    /// Sending the request.
    Send,
    /// Waiting for the answer, or reading it.
    Answer,
}

/// May the request be sent again?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// No byte of it reached a server: always.
    Safe,
    /// Its server says, or shows by ending the connection in order, that it has not looked at it: as `Safe` if the
    /// request can be repeated, and once more for the same server on another connection.
    Unprocessed,
    /// A kept connection died before its first answer byte: if the request is idempotent and can be repeated.
    Stale,
    Never,
}

#[derive(Debug)]
pub(crate) enum Cause {
    /// The backend has no server.
    NoServer,
    /// Every server of the backend has weight 0.
    NoWeight,
    /// The server's scheme is not one we speak.
    Scheme,
    /// HTTP/2 cannot say this request.
    Unspeakable,
    /// The server's name has no address.
    Unresolved,
    Io(io::Error),
    /// The server's certificate is not believed, or it does not speak TLS as we do.
    Tls(tls::Error),
    TimedOut,
    /// The connection ended before the answer did.
    Closed,
    /// What the server sent is not an answer.
    Malformed(ResponseError),
    /// The server switches to WebSocket without the proof that it has understood.
    Unproven,
    /// An error page stands for the server's answer, which had this status.
    Discarded {
        status: u16,
        /// All of it was here: the connection can be used again.
        whole: bool,
    },
    /// The client's body is longer than its backend takes.
    BodyTooLong,
    /// The answer's body is longer than its backend may send.
    AnswerTooLong,
    /// There is no room to hold a body, or the disk failed.
    NotHeld(io::Error),
    /// The client left.
    ClientGone,
    /// The client's body is not what its framing says.
    ClientBody,
    /// The client took too long to send its body.
    ClientSlow,
}

/// An exchange that could not be finished.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) side: Side,
    pub(crate) stage: Stage,
    pub(crate) retry: Retry,
    pub(crate) cause: Cause,
}

impl Failure {
    pub(crate) fn server(stage: Stage, retry: Retry, cause: Cause) -> Self {
        Self {
            side: Side::Server,
            stage,
            retry,
            cause,
        }
    }

    pub(crate) fn client(stage: Stage, cause: Cause) -> Self {
        Self {
            side: Side::Client,
            stage,
            retry: Retry::Never,
            cause,
        }
    }

    /// A failure of an operation on a server's connection.
    pub(crate) fn io(stage: Stage, retry: Retry, error: io::Error) -> Self {
        let cause = if error.kind() == io::ErrorKind::TimedOut {
            Cause::TimedOut
        } else {
            Cause::Io(error)
        };
        Self::server(stage, retry, cause)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer => f.write_str("the backend has no server"),
            Self::NoWeight => f.write_str("every server of the backend has weight 0"),
            Self::Scheme => f.write_str("the scheme of the server's URL is not supported"),
            Self::Unspeakable => f.write_str("the request cannot be said in HTTP/2"),
            Self::Unresolved => f.write_str("the server's name has no address"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Closed => f.write_str("connection closed too early"),
            Self::Malformed(error) => write!(f, "not a valid answer: {error:?}"),
            Self::Unproven => f.write_str("Sec-WebSocket-Accept is not what the key asks for"),
            Self::Discarded { status, .. } => write!(f, "answered {status}"),
            Self::BodyTooLong => f.write_str("the body is longer than buffering allows"),
            Self::AnswerTooLong => f.write_str("the answer is longer than buffering allows"),
            Self::NotHeld(error) => write!(f, "a body cannot be held: {error}"),
            Self::ClientGone => f.write_str("the client left"),
            Self::ClientBody => f.write_str("the body of the request is malformed"),
            Self::ClientSlow => f.write_str("the body of the request came too slowly"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Client => "client",
            Side::Proxy => "proxy",
            Side::Server => "server",
        };
        let stage = match self.stage {
            Stage::Receive => "receiving the request",
            Stage::Pick => "choosing a server",
            Stage::Connect => "connecting",
            Stage::Send => "sending the request",
            Stage::Answer => "waiting for the answer",
        };
        write!(f, "{side}, {stage}: {}", self.cause)
    }
}
