//! A cookie that brings a client back to the server it was given first. Spec backends 4.
//!
//! Owns the cookie's name and what stands in it for each server. The cookie says everything: no core remembers a client,
//! and a reload, a restart or another machine with the same configuration changes nothing.
//! Never believes it: what a client sends can only choose one of the servers that there are.
//! Read next: `balancer.rs` (chooses where no cookie has).

use std::collections::HashMap;

use super::ServerId;
use crate::http::{FieldId, Head};

/// The stickiness of a backend.
#[derive(Clone, Debug)]
pub struct Sticky {
    name: Box<[u8]>,
    /// For each server the `Set-Cookie` of a client that is given it.
    cookies: Box<[Box<[u8]>]>,
    servers: HashMap<Box<[u8]>, ServerId>,
}

impl Sticky {
    /// `name` is a token. `values` name the servers, in their order and each in its own way; `attributes` follow each
    /// value, beginning with a `;`.
    pub fn new(name: &str, values: &[String], attributes: &str) -> Self {
        let cookie = |value: &String| {
            // As the reference's library writes it: a comma needs quotes.
            let quote = if value.contains(',') { "\"" } else { "" };
            format!("{name}={quote}{value}{quote}{attributes}")
                .into_bytes()
                .into()
        };
        let ids = (0..).map(ServerId);
        let servers = values.iter().map(|value| value.as_bytes().into()).zip(ids);
        Self {
            name: name.as_bytes().into(),
            cookies: values.iter().map(cookie).collect(),
            servers: servers.collect(),
        }
    }

    /// The server that a request's cookie names, if it names one that this backend has. The first cookie of the name
    /// counts.
    pub fn pinned(&self, request: &Head) -> Option<ServerId> {
        let value = request
            .values(FieldId::Cookie)
            .find_map(|line| value_of(line, &self.name))?;
        self.servers.get(value).copied()
    }

    /// What `Set-Cookie` says to a client that is given this server.
    pub fn cookie(&self, id: ServerId) -> &[u8] {
        &self.cookies[id.0 as usize]
    }
}

/// The value of the first cookie of this name in a `Cookie` line, without quotes. RFC 6265 4.2.1 and 5.4.
pub(super) fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.split(|byte| *byte == b';').find_map(|pair| {
        let rest = pair.trim_ascii().strip_prefix(name)?;
        rest.strip_prefix(b"=")
    })?;
    let unquoted = value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""));
    Some(unquoted.unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[&str], expected: Option<u32>) {
        let values = ["http://a:1", "http://b:1", "http://c:1/x,y"].map(str::to_owned);
        let sticky = Sticky::new("_s", &values, "; Path=/");
        let mut head = Head::default();
        for line in lines {
            head.push_known(FieldId::Cookie, line.as_bytes());
        }
        assert_eq!(sticky.pinned(&head), expected.map(ServerId), "{lines:?}");
    }

    #[test]
    fn requests_and_their_pins() {
        check(&[], None);
        check(&[""], None);
        check(&["_s=http://b:1"], Some(1));
        check(&["x=1; _s=http://b:1;y"], Some(1));
        check(&["x=1;_s=http://a:1 ; y=2"], Some(0));
        check(&["x=1", "_s=http://b:1"], Some(1));
        check(&["_s=\"http://c:1/x,y\""], Some(2));
        check(&["_s=http://c:1/x,y"], Some(2));
        check(&["_S=http://b:1"], None);
        check(&["_sx=http://b:1"], None);
        check(&["x_s=http://b:1"], None);
        check(&["_s"], None);
        check(&["_s="], None);
        check(&["_s=http://d:1"], None);
        check(&["_s=\""], None);
        check(&["_s=http://a:1/; _s=http://a:1"], None);
    }

    #[test]
    fn what_a_client_is_told() {
        let values = ["http://a:1", "http://b:1/x,y"].map(str::to_owned);
        let sticky = Sticky::new("_s", &values, "; Path=/; Secure");
        assert_eq!(sticky.cookie(ServerId(0)), b"_s=http://a:1; Path=/; Secure");
        assert_eq!(
            sticky.cookie(ServerId(1)),
            b"_s=\"http://b:1/x,y\"; Path=/; Secure"
        );
    }
}
