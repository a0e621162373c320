//! Pages that are shown instead of errors. Spec frontends 8.
//!
//! Owns which answers a page stands for and what is asked for to get it. Never asks: see `proxy/page.rs`.

use std::ops::RangeInclusive;

use crate::backend::BackendId;
use crate::http::h1::encode;

/// One entry of `errors` of a frontend.
#[derive(Clone, Debug)]
pub struct ErrorPage {
    /// Statuses it stands for.
    pub statuses: Box<[RangeInclusive<u16>]>,
    /// Who has the page.
    pub backend: BackendId,
    /// What is asked for, without its first slash; `{status}` stands for the status.
    pub query: Box<str>,
}

impl ErrorPage {
    /// It stands for this answer. What ends an exchange otherwise than by an answer (1xx) is never replaced.
    pub fn covers(&self, status: u16) -> bool {
        status >= 200 && self.statuses.iter().any(|range| range.contains(&status))
    }

    /// Path and query of the page for a status.
    pub fn target(&self, status: u16) -> Vec<u8> {
        let mut target = Vec::with_capacity(self.query.len() + 1);
        target.push(b'/');
        for (at, piece) in self.query.split("{status}").enumerate() {
            if at > 0 {
                encode::decimal(&mut target, u64::from(status));
            }
            target.extend_from_slice(piece.as_bytes());
        }
        target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let check = |query: &str, expected: &str| {
            let page = ErrorPage {
                statuses: Box::default(),
                backend: BackendId(0),
                query: query.into(),
            };
            assert_eq!(String::from_utf8_lossy(&page.target(503)), expected);
        };
        check("", "/");
        check("{status}.html", "/503.html");
        check("x?{status}&{status}", "/x?503&503");
        check("{statu}", "/{statu}");
    }

    #[test]
    fn statuses() {
        let page = ErrorPage {
            statuses: Box::new([404..=404, 500..=599, 1..=199]),
            backend: BackendId(0),
            query: "".into(),
        };
        for (status, expected) in [
            (404, true),
            (403, false),
            (500, true),
            (599, true),
            (600, false),
            (101, false),
            (650, false),
        ] {
            assert_eq!(page.covers(status), expected, "{status}");
        }
    }
}
