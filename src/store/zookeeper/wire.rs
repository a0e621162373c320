//! ZooKeeper's protocol as bytes: requests out, answers in.
//!
//! Owns the coding ("jute") and the numbers of the protocol (`zookeeper.jute`, `ZooDefs.java`; version 3.6 and later).
//! Never reads or writes a socket. What a server sends never panics, and is as long as its frame at most.

use super::acl::Acl;
use crate::store::Error;

/// Kinds of requests.
pub(super) mod op {
    pub(in super::super) const DELETE: i32 = 2;
    pub(in super::super) const GET_DATA: i32 = 4;
    pub(in super::super) const SET_DATA: i32 = 5;
    pub(in super::super) const GET_CHILDREN: i32 = 8;
    pub(in super::super) const SYNC: i32 = 9;
    pub(in super::super) const PING: i32 = 11;
    pub(in super::super) const CHECK: i32 = 13;
    pub(in super::super) const MULTI: i32 = 14;
    pub(in super::super) const CREATE_2: i32 = 15;
    pub(in super::super) const MULTI_READ: i32 = 22;
    pub(in super::super) const AUTH: i32 = 100;
    pub(in super::super) const ADD_WATCH: i32 = 106;
    pub(in super::super) const CLOSE: i32 = -11;
}

/// Numbers that answers have when they answer no ordinary request.
pub(super) mod xid {
    pub(in super::super) const EVENT: i32 = -1;
    pub(in super::super) const PING: i32 = -2;
    pub(in super::super) const AUTH: i32 = -4;
}

/// Errors of an answer that we tell apart.
pub(super) mod code {
    pub(in super::super) const OK: i32 = 0;
    pub(in super::super) const UNIMPLEMENTED: i32 = -6;
    pub(in super::super) const NO_NODE: i32 = -101;
    pub(in super::super) const NO_AUTH: i32 = -102;
    pub(in super::super) const BAD_VERSION: i32 = -103;
    pub(in super::super) const NODE_EXISTS: i32 = -110;
    pub(in super::super) const NOT_EMPTY: i32 = -111;
    pub(in super::super) const INVALID_ACL: i32 = -114;
    pub(in super::super) const AUTH_FAILED: i32 = -115;
}

/// A node that lives as long as its session, with a number at the end of its name.
pub(super) const EPHEMERAL_SEQUENTIAL: i32 = 3;
pub(super) const PERSISTENT: i32 = 0;

/// A watch that stays, on a node alone or on everything below too.
pub(super) const WATCH_NODE: i32 = 0;
pub(super) const WATCH_BELOW: i32 = 1;

/// What a request consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn int(mut self, value: i32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn long(mut self, value: i64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn boolean(mut self, value: bool) -> Self {
        self.0.push(u8::from(value));
        self
    }

    pub(super) fn buffer(mut self, bytes: &[u8]) -> Self {
        let length = i32::try_from(bytes.len()).expect("values and paths are far shorter");
        self = self.int(length);
        self.0.extend(bytes);
        self
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.buffer(text.as_bytes())
    }

    pub(super) fn rights(mut self, acl: &Acl) -> Self {
        self = self.int(i32::try_from(acl.0.len()).expect("a line of them"));
        for entry in &acl.0 {
            self = self.int(entry.rights).text(&entry.scheme).text(&entry.id);
        }
        self
    }

    /// The header of one operation inside a request of several.
    pub(super) fn inner(self, kind: i32) -> Self {
        self.int(kind).boolean(false).int(-1)
    }

    /// The end of a request of several.
    pub(super) fn end(self) -> Self {
        self.int(-1).boolean(true).int(-1)
    }
}

/// What an answer consists of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| {
            Error::Protocol("ZooKeeper: an answer that ends too early".to_owned())
        })?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn int(&mut self) -> Result<i32, Error> {
        let bytes = self.take(4)?;
        Ok(i32::from_be_bytes(bytes.try_into().expect("four bytes")))
    }

    pub(super) fn long(&mut self) -> Result<i64, Error> {
        let bytes = self.take(8)?;
        Ok(i64::from_be_bytes(bytes.try_into().expect("eight bytes")))
    }

    pub(super) fn boolean(&mut self) -> Result<bool, Error> {
        Ok(self.take(1)? != [0])
    }

    /// A length that is negative stands for nothing at all.
    pub(super) fn buffer(&mut self) -> Result<&'a [u8], Error> {
        let length = self.int()?;
        self.take(usize::try_from(length).unwrap_or_default())
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Error> {
        std::str::from_utf8(self.buffer()?)
            .map_err(|_| Error::Protocol("ZooKeeper: a name that is no text".to_owned()))
    }

    pub(super) fn texts(&mut self) -> Result<Vec<String>, Error> {
        let count = self.int()?;
        (0..count).map(|_| self.text().map(str::to_owned)).collect()
    }

    pub(super) fn stat(&mut self) -> Result<Stat, Error> {
        let created = self.long()?;
        let modified = self.long()?;
        let _times = (self.long()?, self.long()?);
        let version = self.int()?;
        let _versions = (self.int()?, self.int()?);
        let owner = self.long()?;
        let _length = self.int()?;
        let children = self.int()?;
        let children_modified = self.long()?;
        Ok(Stat {
            newest: created.max(modified).max(children_modified),
            modified,
            version,
            owner,
            children,
        })
    }
}

/// What is known of a node beside its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// The newest transaction that made it, wrote its data, or made or removed a node directly below it.
    pub(super) newest: i64,
    /// The transaction that wrote its data last.
    pub(super) modified: i64,
    /// How often its data was written.
    pub(super) version: i32,
    /// The session it lives with, or zero.
    pub(super) owner: i64,
    pub(super) children: i32,
}

/// A request as it is sent: its length, its number and its kind before it.
pub(super) fn frame(xid: i32, kind: i32, body: &[u8], buffer: &mut Vec<u8>) {
    let length = i32::try_from(body.len() + 8).expect("values and paths are far shorter");
    buffer.extend(length.to_be_bytes());
    buffer.extend(xid.to_be_bytes());
    buffer.extend(kind.to_be_bytes());
    buffer.extend(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let written = Writer::default()
            .int(-7)
            .long(1 << 40)
            .boolean(true)
            .buffer(b"ab")
            .text("é");
        let mut reader = Reader(&written.0);
        assert_eq!(reader.int(), Ok(-7));
        assert_eq!(reader.long(), Ok(1 << 40));
        assert_eq!(reader.boolean(), Ok(true));
        assert_eq!(reader.buffer(), Ok(&b"ab"[..]));
        assert_eq!(reader.text(), Ok("é"));
        assert!(reader.0.is_empty());
    }

    #[test]
    fn answers_that_lie_are_errors() {
        let long = Writer::default().int(i32::MAX).0;
        assert!(Reader(&long).buffer().is_err());
        assert!(Reader(&long).texts().is_err());
        assert_eq!(Reader(&Writer::default().int(-1).0).buffer(), Ok(&b""[..]));
        assert!(Reader(&[0; 67]).stat().is_err());
        assert!(Reader(&[0; 68]).stat().is_ok());
        assert!(Reader(&Writer::default().buffer(b"\xff").0).text().is_err());
    }
}
