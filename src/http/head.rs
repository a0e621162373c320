//! The head of a request or a response, owned and reusable.
//!
//! A head copies its bytes out of the receive buffer into one text and keeps spans into it: no lifetimes, no allocation
//! once the text has grown to its usual size, and a middleware adds a field by appending to the same text.
//! Never knows the wire form it came from: HTTP/1.1 and HTTP/2 both fill it.
//! Read next: `h1/parse.rs` (fills it), `body.rs` (how the body is framed).

/// A range of a head's text. Offsets are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

/// HTTP version of a message, as far as it changes what we do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
}

/// Fields the proxy itself looks at; every other name is `Other`. Classified once, when a field is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FieldId {
    Other,
    Connection,
    ContentLength,
    ContentType,
    Date,
    Expect,
    Host,
    KeepAlive,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    XForwardedFor,
    XForwardedHost,
    XForwardedMethod,
    XForwardedPort,
    XForwardedPrefix,
    XForwardedProto,
    XForwardedServer,
    XForwardedUri,
    XRealIp,
    XReplacedPath,
}

/// One field line. A removed line keeps its place with `removed` set, so that spans stay valid.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: Span,
    pub value: Span,
    pub id: FieldId,
    pub removed: bool,
}

/// A request or response head.
#[derive(Clone, Debug, Default)]
pub struct Head {
    text: Vec<u8>,
    fields: Vec<Field>,
    /// Bit n is set if a field with `FieldId` n was ever added: absent fields cost one test.
    present: u64,
    pub method: Span,
    /// Origin-form target as it will be forwarded: path and query, or `*`.
    pub target: Span,
    /// Authority of the request: from an absolute-form target, else the Host field. With port, as sent.
    pub authority: Span,
    pub status: u16,
    pub version: Version,
}

impl Head {
    fn bytes(&self, span: Span) -> &[u8] {
        let start = span.start as usize;
        self.text.get(start..start + span.len as usize).unwrap_or_default()
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        let start = u32::try_from(self.text.len()).expect("a head is bounded");
        self.text.extend_from_slice(bytes);
        Span { start, len: u32::try_from(bytes.len()).expect("a head is bounded") }
    }

    pub fn method(&self) -> &[u8] {
        self.bytes(self.method)
    }

    pub fn target(&self) -> &[u8] {
        self.bytes(self.target)
    }

    pub fn path(&self) -> &[u8] {
        let target = self.target();
        &target[..memchr::memchr(b'?', target).unwrap_or(target.len())]
    }

    pub fn query(&self) -> Option<&[u8]> {
        let target = self.target();
        memchr::memchr(b'?', target).map(|at| &target[at + 1..])
    }

    pub fn authority(&self) -> &[u8] {
        self.bytes(self.authority)
    }

    pub fn values_named<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.fields
            .iter()
            .filter(move |field| {
                !field.removed
                    && field.name.len as usize == name.len()
                    && self.bytes(field.name).eq_ignore_ascii_case(name)
            })
            .map(|field| self.bytes(field.value))
    }

    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let (name, value) = (self.append(name), self.append(value));
        self.fields.push(Field { name, value, id: FieldId::Other, removed: false });
    }

    pub fn push_known(&mut self, id: FieldId, value: &[u8]) {
        let name: &[u8] = match id {
            FieldId::XForwardedPrefix => b"X-Forwarded-Prefix",
            FieldId::XReplacedPath => b"X-Replaced-Path",
            _ => b"X-Other",
        };
        let (name, value) = (self.append(name), self.append(value));
        self.fields.push(Field { name, value, id, removed: false });
        self.present |= 1 << id as u64;
    }

    pub fn set_target(&mut self, target: &[u8]) {
        self.target = self.append(target);
    }

    pub fn set_method(&mut self, method: &[u8]) {
        self.method = self.append(method);
    }

    pub fn set_authority(&mut self, authority: &[u8]) {
        self.authority = self.append(authority);
    }
}
