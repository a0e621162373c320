//! An error page, asked for in place of an answer. Spec frontends 8.
//!
//! Owns how the client's request becomes the one for the page, and how the page's answer becomes the client's. Never
//! asks: `exchange.rs` does.

use super::guard::CLIENT_GONE;
use super::session::Session;
use crate::frontend::error_page::ErrorPage;
use crate::http::Head;
use crate::http::body::Framing;
use crate::http::h1::{Request, Response, Upgrade};

/// An exchange whose answer is a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instead {
    /// The status that the client gets, whatever the page's own is.
    pub(crate) status: u16,
    /// The client wants or may have no body.
    pub(crate) without_body: bool,
    /// The client may still be sending the body of its request: no other request can follow.
    pub(crate) unread: bool,
    /// The page's own status, once it is there.
    own_status: u16,
}

impl Instead {
    /// Makes the answer that came with the page the client's.
    pub(crate) fn take_over(&mut self, answer: &mut Head, response: &mut Response) {
        self.own_status = answer.status;
        answer.set_status(self.status);
        if response.framing == Framing::None {
            // The page's own status has no body, which says nothing of the length under this one.
            response.content_length = Some(0);
        }
        if self.without_body && response.framing != Framing::None {
            // The body stays where it is, and its connection is of no more use.
            response.framing = Framing::None;
            response.persistent = false;
        }
    }
}

/// The status that a server gave to the answer that was relayed.
pub(crate) fn status_of_server(session: &Session) -> u16 {
    match &session.instead {
        Some(instead) => instead.own_status,
        None => session.answer.status,
    }
}

/// Fields that ask for less than the whole page.
const CONDITIONS: [&[u8]; 6] = [
    b"If-Match",
    b"If-Modified-Since",
    b"If-None-Match",
    b"If-Range",
    b"If-Unmodified-Since",
    b"Range",
];

/// Makes the session's request the one for a page: its fields stay. `unread` says that its body may still be coming.
pub(crate) fn request(
    page: &ErrorPage,
    status: u16,
    session: &mut Session,
    request: &Request,
    unread: bool,
) -> Request {
    let head = &mut session.request;
    session.instead = Some(Instead {
        status,
        without_body: head.method() == b"HEAD" || matches!(status, 204 | 304),
        unread,
        own_status: CLIENT_GONE,
    });
    session.body_begun = false;
    head.set_method(b"GET");
    head.set_target(&page.target(status));
    head.set_authority(b"0.0.0.0");
    for name in CONDITIONS {
        head.remove_named(name);
    }
    Request {
        framing: Framing::None,
        expect_continue: false,
        upgrade: Upgrade::None,
        te_trailers: false,
        ..*request
    }
}
