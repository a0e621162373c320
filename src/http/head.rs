//! The head of a request or a response, owned and reusable.
//!
//! A head copies its bytes out of the receive buffer into one text and keeps spans into it: no lifetimes, no allocation
//! once the text has grown to its usual size, and a middleware adds a field by appending to the same text.
//! Never holds a name that is no token or a value with a control byte but the tab, whoever added it: so writing a head
//! can never write one line too many. Never knows the wire form it came from: HTTP/1.1 and HTTP/2 both fill it.
//! Read next: `h1/parse.rs` (fills it), `body.rs` (how the body is framed).

use super::field::{FieldId, FieldSet};
use super::syntax;
use super::target::{self, TargetClass};

/// A range of a head's text. Offsets are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
    /// The range `start..end`, which lies within a text.
    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "checked: offsets into a head stay far below 4 GiB"
    )]
    pub(super) fn new(start: usize, end: usize) -> Self {
        assert!(
            start <= end && end <= u32::MAX as usize,
            "heads are bounded by HEAD_BYTES_MAX"
        );
        Self {
            start: start as u32,
            len: (end - start) as u32,
        }
    }

    /// Where it ends.
    #[must_use]
    pub const fn end(self) -> u32 {
        self.start + self.len
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    #[inline]
    fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..self.start as usize + self.len as usize]
    }
}

/// HTTP version of a message, as far as it changes what we do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
}

/// One field line. A removed line keeps its place with `removed` set, so that spans stay valid.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Empty if the name is the usual spelling of `id`.
    pub name: Span,
    pub value: Span,
    pub id: FieldId,
    pub removed: bool,
    /// The text holds `name: value` and CRLF, exactly as the line will be written.
    pub(super) written: bool,
}

/// A field as its reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldView<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    pub id: FieldId,
}

/// A request or response head.
///
/// Fields keep their order. A changed value takes the place of the first line of its name.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub(super) text: Vec<u8>,
    pub(super) fields: Vec<Field>,
    /// Holds the id of every field that is there (and `Other` if one ever was): absent fields cost one test.
    pub(super) present: FieldSet,
    pub method: Span,
    /// Origin-form target as it will be forwarded: path and query, or `*`.
    pub target: Span,
    /// Authority of the request: from an absolute-form target, else the Host field. With port, as sent. Empty only in
    /// HTTP/1.0 without Host.
    pub authority: Span,
    pub status: u16,
    pub version: Version,
}

impl Head {
    /// Forgets everything but the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
        self.present = FieldSet::EMPTY;
        self.method = Span::default();
        self.target = Span::default();
        self.authority = Span::default();
        self.status = 0;
        self.version = Version::default();
    }

    /// Gives back memory beyond `text_bytes_max`, which an unusually large head has left. Call on a cleared head.
    pub fn shrink_if_large(&mut self, text_bytes_max: usize) {
        if self.text.capacity() > text_bytes_max {
            self.text.shrink_to(text_bytes_max);
        }
    }

    /// Bytes of all that it holds.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// The bytes of a span of this head.
    #[must_use]
    #[inline]
    pub fn text(&self, span: Span) -> &[u8] {
        span.of(&self.text)
    }

    /// The method, as sent; empty in a response.
    #[must_use]
    #[inline]
    pub fn method(&self) -> &[u8] {
        self.text(self.method)
    }

    /// Path and query, or `*`.
    #[must_use]
    #[inline]
    pub fn target(&self) -> &[u8] {
        self.text(self.target)
    }

    /// The target up to its `?`, escapes untouched.
    #[must_use]
    #[inline]
    pub fn path(&self) -> &[u8] {
        let target = self.target();
        &target[..memchr::memchr(b'?', target).unwrap_or(target.len())]
    }

    /// What follows the first `?` of the target; `None` without one.
    #[must_use]
    pub fn query(&self) -> Option<&[u8]> {
        let target = self.target();
        memchr::memchr(b'?', target).map(|at| &target[at + 1..])
    }

    /// `host` or `host:port` of the request, as sent.
    #[must_use]
    #[inline]
    pub fn authority(&self) -> &[u8] {
        self.text(self.authority)
    }

    /// Sets the method, which must be a token; anything else is ignored.
    pub fn set_method(&mut self, method: &[u8]) {
        debug_assert!(syntax::is_token(method), "a method is a token");
        if syntax::is_token(method) {
            self.method = self.append(method);
        }
    }

    /// Sets path and query. Bytes that may not stand in a target (control bytes, spaces, `#`, non-ASCII) are
    /// percent-encoded, whoever made them; existing escapes stay as they are.
    pub fn set_target(&mut self, target: &[u8]) {
        let class = TargetClass::of(target);
        if class.needs_escape() || class.is_refused() {
            let start = self.text.len();
            target::escape_into(&mut self.text, target);
            self.target = Span::new(start, self.text.len());
        } else {
            self.target = self.append(target);
        }
    }

    /// Sets the authority alone; the Host field is the sender's to write. An invalid one is ignored.
    pub fn set_authority(&mut self, authority: &[u8]) {
        debug_assert!(
            syntax::is_authority(authority),
            "an authority is a host and perhaps a port"
        );
        if syntax::is_authority(authority) {
            self.authority = self.append(authority);
        }
    }

    pub const fn set_status(&mut self, status: u16) {
        self.status = status;
    }

    /// Adds a field line at the end. A name that is no token adds nothing; control bytes of the value become spaces,
    /// since a value may stem from decoded input of a peer.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let id = FieldId::of(name);
        if id == FieldId::Other && !syntax::is_token(name) {
            return;
        }
        let name = self.append(name);
        let value = self.append_value(value);
        self.push_spans(name, value, id);
    }

    /// Adds a line of a known field in its usual spelling.
    pub fn push_known(&mut self, id: FieldId, value: &[u8]) {
        debug_assert!(id != FieldId::Other, "`Other` has no name");
        let value = self.append_value(value);
        self.push_spans(Span::default(), value, id);
    }

    /// Adds a line of a known field whose value is already in this head: its target, its authority, a removed value.
    pub fn push_known_span(&mut self, id: FieldId, value: Span) {
        debug_assert!(id != FieldId::Other, "`Other` has no name");
        debug_assert!(
            syntax::is_value(self.text(value)),
            "what a head holds may stand in a value"
        );
        self.push_spans(Span::default(), value, id);
    }

    /// True if at least one line with this id is there. Not for `Other`.
    #[must_use]
    #[inline]
    pub const fn has(&self, id: FieldId) -> bool {
        self.present.contains(id)
    }

    /// True if a field of the set may be there: a cheap test before looking closer.
    #[must_use]
    #[inline]
    pub const fn has_any(&self, set: FieldSet) -> bool {
        self.present.intersects(set)
    }

    /// The value of the first line with this id.
    #[must_use]
    #[inline]
    pub fn first(&self, id: FieldId) -> Option<&[u8]> {
        self.first_span(id).map(|span| self.text(span))
    }

    /// The place of the first value with this id: stays valid however the head changes, until it is cleared.
    #[must_use]
    #[inline]
    pub fn first_span(&self, id: FieldId) -> Option<Span> {
        if !self.has(id) {
            return None;
        }
        self.fields
            .iter()
            .find(|field| field.id == id && !field.removed)
            .map(|field| field.value)
    }

    /// The values of all lines with this id, in order.
    pub fn values(&self, id: FieldId) -> impl Iterator<Item = &[u8]> {
        let fields = if self.has(id) {
            self.fields.as_slice()
        } else {
            &[]
        };
        fields
            .iter()
            .filter(move |field| field.id == id && !field.removed)
            .map(|field| self.text(field.value))
    }

    /// The values of all lines of this name, whatever its case, in order.
    pub fn values_named<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let id = FieldId::of(name);
        let fields = if self.has(id) {
            self.fields.as_slice()
        } else {
            &[]
        };
        fields
            .iter()
            .filter(move |field| self.is_named(field, id, name))
            .map(|field| self.text(field.value))
    }

    /// Replaces all lines of a known field by one.
    pub fn set_known(&mut self, id: FieldId, value: &[u8]) {
        debug_assert!(id != FieldId::Other, "`Other` has no name");
        if self.has(id) {
            let value = self.append_value(value);
            self.keep_first(value, |_, field| field.id == id && !field.removed);
        } else {
            self.push_known(id, value);
        }
    }

    /// Replaces all lines of this name by one, which keeps the spelling of the first if there was one. A name that is no
    /// token sets nothing.
    pub fn set_named(&mut self, name: &[u8], value: &[u8]) {
        let id = FieldId::of(name);
        let is_there = self.has(id)
            && self
                .fields
                .iter()
                .any(|field| self.is_named(field, id, name));
        if is_there {
            let value = self.append_value(value);
            self.keep_first(value, |head, field| head.is_named(field, id, name));
        } else {
            self.push(name, value);
        }
    }

    /// Removes all lines of a known field.
    pub fn remove(&mut self, id: FieldId) {
        if id == FieldId::Other || !self.has(id) {
            return;
        }
        for field in &mut self.fields {
            field.removed |= field.id == id;
        }
        self.present.remove(id);
    }

    /// Removes all lines of this name, whatever its case.
    pub fn remove_named(&mut self, name: &[u8]) {
        let id = FieldId::of(name);
        if id != FieldId::Other {
            self.remove(id);
        } else if self.has(id) {
            for at in 0..self.fields.len() {
                let is_named = self.is_named(&self.fields[at], id, name);
                self.fields[at].removed |= is_named;
            }
        }
    }

    /// The lines that were not removed, in order.
    pub fn fields(&self) -> impl Iterator<Item = FieldView<'_>> {
        self.fields
            .iter()
            .filter(|field| !field.removed)
            .map(|field| FieldView {
                name: self.name_of(field),
                value: self.text(field.value),
                id: field.id,
            })
    }

    /// Removes what speaks of the sender's connection only (RFC 9110 7.6.1, spec frontends 11): the fields that
    /// `Connection` names, and the fixed list. What the removed fields said is in the parse result.
    ///
    /// For a message that goes on as it came. Where steps of ours change it in between, [`Self::obey_connection`] comes
    /// before them and [`Self::remove_hop_by_hop`] after them.
    pub fn strip_hop_by_hop(&mut self) {
        self.obey_connection();
        self.remove_hop_by_hop();
    }

    /// Removes the fields that `Connection` names, and leaves `Connection` itself. Before anything is set: a peer that
    /// names what the proxy says (`X-Real-Ip`, the name of a user) then only loses its own. Host, Content-Length and
    /// whatever the caller needs for framing are not its to remove, so naming them does nothing.
    pub fn obey_connection(&mut self) {
        if !self.has(FieldId::Connection) {
            return;
        }
        for at in 0..self.fields.len() {
            if self.fields[at].id == FieldId::Connection && !self.fields[at].removed {
                self.remove_named_in(self.fields[at].value);
            }
        }
    }

    /// Removes the fixed list, [`FieldSet::HOP_BY_HOP`].
    pub fn remove_hop_by_hop(&mut self) {
        if !self.present.intersects(FieldSet::HOP_BY_HOP) {
            return;
        }
        for field in &mut self.fields {
            if field.id.is_hop_by_hop() {
                field.removed = true;
                self.present.remove(field.id);
            }
        }
    }

    /// Removes the fields that a `Connection` value names. Hop-by-hop ones go anyway, so only the others are looked up.
    fn remove_named_in(&mut self, options: Span) {
        const KEPT: FieldSet =
            FieldSet::of(&[FieldId::Host, FieldId::ContentLength]).union(FieldSet::HOP_BY_HOP);
        let mut start = options.start as usize;
        let end = options.end() as usize;
        while start < end {
            let stop = memchr::memchr(b',', &self.text[start..end]).map_or(end, |at| start + at);
            let option = syntax::trim(&self.text[start..stop]);
            let id = FieldId::of(option);
            if id == FieldId::Other {
                for field in &mut self.fields {
                    field.removed |=
                        field.id == id && field.name.of(&self.text).eq_ignore_ascii_case(option);
                }
            } else if !KEPT.contains(id) {
                self.remove(id);
            }
            start = stop + 1;
        }
    }

    /// The name of a line as it will be written.
    #[inline]
    pub(super) fn name_of(&self, field: &Field) -> &[u8] {
        if field.name.is_empty() {
            field.id.name().as_bytes()
        } else {
            self.text(field.name)
        }
    }

    fn is_named(&self, field: &Field, id: FieldId, name: &[u8]) -> bool {
        !field.removed
            && field.id == id
            && (id != FieldId::Other || field.name.of(&self.text).eq_ignore_ascii_case(name))
    }

    /// Gives the first matching line this value and removes the others.
    fn keep_first(&mut self, value: Span, matches: impl Fn(&Self, &Field) -> bool) {
        let mut is_first = true;
        for at in 0..self.fields.len() {
            if !matches(self, &self.fields[at]) {
                continue;
            }
            if is_first {
                self.fields[at].value = value;
                self.fields[at].written = false;
                is_first = false;
            } else {
                self.fields[at].removed = true;
            }
        }
    }

    fn push_spans(&mut self, name: Span, value: Span, id: FieldId) {
        self.fields.push(Field {
            name,
            value,
            id,
            removed: false,
            written: false,
        });
        self.present.insert(id);
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(bytes);
        Span::new(start, self.text.len())
    }

    fn append_value(&mut self, value: &[u8]) -> Span {
        let span = self.append(value);
        if !syntax::is_value(value) {
            for byte in &mut self.text[span.start as usize..] {
                if byte.is_ascii_control() && *byte != b'\t' {
                    *byte = b' ';
                }
            }
        }
        span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[(&str, &str)]) -> Head {
        let mut head = Head::default();
        for (name, value) in lines {
            head.push(name.as_bytes(), value.as_bytes());
        }
        head
    }

    /// The lines of a head as text.
    fn lines(head: &Head) -> String {
        head.fields().fold(String::new(), |text, field| {
            let name = String::from_utf8_lossy(field.name);
            format!("{text}{name}: {}\n", String::from_utf8_lossy(field.value))
        })
    }

    #[test]
    fn fields_are_found_whatever_their_case() {
        let head = head(&[
            ("hOST", "a"),
            ("X-One", "1"),
            ("x-one", "2"),
            ("Date", "now"),
        ]);
        assert_eq!(head.first(FieldId::Host), Some(&b"a"[..]));
        assert_eq!(
            head.values_named(b"X-ONE").collect::<Vec<_>>(),
            [b"1", b"2"]
        );
        assert_eq!(head.values_named(b"host").collect::<Vec<_>>(), [b"a"]);
        assert_eq!(head.values(FieldId::Date).count(), 1);
        assert!(!head.has(FieldId::Te));
        assert_eq!(head.values_named(b"X-Two").count(), 0);
        assert_eq!(lines(&head), "hOST: a\nX-One: 1\nx-one: 2\nDate: now\n");
    }

    #[test]
    fn set_replaces_every_line_and_keeps_the_first_place() {
        let mut head = head(&[
            ("x-real-ip", "1"),
            ("X-One", "1"),
            ("X-Real-Ip", "2"),
            ("x-one", "2"),
        ]);
        head.set_known(FieldId::XRealIp, b"3");
        head.set_named(b"X-ONE", b"3");
        head.set_known(FieldId::Via, b"us");
        head.set_named(b"New", b"n");
        assert_eq!(lines(&head), "x-real-ip: 3\nX-One: 3\nVia: us\nNew: n\n");
    }

    #[test]
    fn removed_fields_are_gone_until_added_again() {
        let mut head = head(&[("Via", "1"), ("A", "1"), ("via", "2"), ("a", "2")]);
        head.remove(FieldId::Via);
        head.remove_named(b"a");
        assert!(!head.has(FieldId::Via));
        assert_eq!(lines(&head), "");
        head.push_known(FieldId::Via, b"3");
        assert_eq!(head.first(FieldId::Via), Some(&b"3"[..]));
        assert_eq!(lines(&head), "Via: 3\n");
    }

    #[test]
    fn nothing_pushed_can_end_a_line() {
        let mut head = head(&[
            ("A\r\nB", "1"),
            ("", "1"),
            ("A b", "2"),
            ("C", "x\r\nD: y\0\tz\x7f"),
        ]);
        assert_eq!(lines(&head), "C: x  D: y \tz \n");
        head.set_target(b"/a b\r\nX: y");
        assert_eq!(head.target(), b"/a%20b%0D%0AX:%20y");
    }

    #[test]
    fn targets_split_at_the_first_question_mark() {
        let mut head = Head::default();
        head.set_target(b"/a?b?c");
        assert_eq!((head.path(), head.query()), (&b"/a"[..], Some(&b"b?c"[..])));
        head.set_target(b"/a");
        assert_eq!((head.path(), head.query()), (&b"/a"[..], None));
    }

    #[test]
    fn hop_by_hop_fields_go_and_end_to_end_fields_stay() {
        let check = |connection: &str, expected: &str| {
            let mut head = head(&[
                ("Host", "h"),
                ("Connection", connection),
                ("Content-Length", "3"),
                ("X-Real-Ip", "1.2.3.4"),
                ("X-One", "1"),
                ("x-one", "2"),
                ("Keep-Alive", "5"),
                ("TE", "trailers"),
                ("Upgrade", "websocket"),
                ("Trailer", "X"),
                ("Proxy-Authorization", "p"),
                ("Proxy-Authenticate", "p"),
                ("Proxy-Connection", "close"),
                ("Transfer-Encoding", "chunked"),
                ("Accept", "*/*"),
            ]);
            head.strip_hop_by_hop();
            assert_eq!(lines(&head), expected, "Connection: {connection}");
            assert!(!head.has(FieldId::Connection) && !head.has(FieldId::Upgrade));
        };
        let all =
            "Host: h\nContent-Length: 3\nX-Real-Ip: 1.2.3.4\nX-One: 1\nx-one: 2\nAccept: */*\n";
        check("close", all);
        check("", all);
        check(",, ,", all);
        check("Host, content-length, Transfer-Encoding", all);
        check(
            "X-Real-Ip",
            "Host: h\nContent-Length: 3\nX-One: 1\nx-one: 2\nAccept: */*\n",
        );
        check(
            "keep-alive, X-ONE ,accept",
            "Host: h\nContent-Length: 3\nX-Real-Ip: 1.2.3.4\n",
        );
    }

    #[test]
    fn what_is_set_after_connection_was_obeyed_stays() {
        let mut head = head(&[
            ("Connection", "X-Real-Ip, a"),
            ("X-Real-Ip", "1"),
            ("A", "1"),
        ]);
        head.obey_connection();
        head.set_known(FieldId::XRealIp, b"2");
        head.set_named(b"A", b"2");
        assert_eq!(head.first(FieldId::Connection), Some(&b"X-Real-Ip, a"[..]));
        head.remove_hop_by_hop();
        assert_eq!(lines(&head), "X-Real-Ip: 2\nA: 2\n");
    }

    #[test]
    fn every_connection_line_counts() {
        let mut head = head(&[
            ("Connection", "a"),
            ("A", "1"),
            ("B", "2"),
            ("C", "3"),
            ("Connection", "B"),
        ]);
        head.strip_hop_by_hop();
        assert_eq!(lines(&head), "C: 3\n");
    }

    #[test]
    fn a_cleared_head_keeps_its_memory_until_told() {
        let mut head = head(&[("A", &"x".repeat(10_000))]);
        head.clear();
        assert!(head.text.capacity() >= 10_000);
        assert_eq!(lines(&head), "");
        head.shrink_if_large(1_000);
        assert!(head.text.capacity() < 10_000);
    }
}
