//! The names of fields the proxy looks at, as numbers.
//!
//! A name is classified once, when a field enters a head; afterwards "is there an `Upgrade`?" is a test of one bit.
//! Never holds a value. Read next: `head.rs`.

/// Declares the ids and the spelling each has on the wire, in one place.
macro_rules! known_fields {
    ($($id:ident = $name:literal,)*) => {
        /// Fields the proxy itself looks at; every other name is `Other`. Classified once, when a field is added.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum FieldId {
            Other,
            $($id,)*
        }

        impl FieldId {
            /// All but `Other`.
            pub const KNOWN: &[Self] = &[$(Self::$id,)*];

            /// The spelling written when the proxy itself adds the field. Empty for `Other`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    Self::Other => "",
                    $(Self::$id => $name,)*
                }
            }
        }
    };
}

known_fields! {
    Accept = "Accept",
    AcceptEncoding = "Accept-Encoding",
    Authorization = "Authorization",
    CacheControl = "Cache-Control",
    Connection = "Connection",
    ContentEncoding = "Content-Encoding",
    ContentLength = "Content-Length",
    ContentType = "Content-Type",
    Cookie = "Cookie",
    Date = "Date",
    Expect = "Expect",
    Host = "Host",
    KeepAlive = "Keep-Alive",
    Location = "Location",
    ProxyAuthenticate = "Proxy-Authenticate",
    ProxyAuthorization = "Proxy-Authorization",
    ProxyConnection = "Proxy-Connection",
    Server = "Server",
    SetCookie = "Set-Cookie",
    Te = "TE",
    Trailer = "Trailer",
    TransferEncoding = "Transfer-Encoding",
    Upgrade = "Upgrade",
    UserAgent = "User-Agent",
    Via = "Via",
    XForwardedFor = "X-Forwarded-For",
    XForwardedHost = "X-Forwarded-Host",
    XForwardedMethod = "X-Forwarded-Method",
    XForwardedPort = "X-Forwarded-Port",
    XForwardedPrefix = "X-Forwarded-Prefix",
    XForwardedProto = "X-Forwarded-Proto",
    XForwardedServer = "X-Forwarded-Server",
    XForwardedTlsClientCert = "X-Forwarded-Tls-Client-Cert",
    XForwardedTlsClientCertInfos = "X-Forwarded-Tls-Client-Cert-Infos",
    XForwardedUri = "X-Forwarded-Uri",
    XRealIp = "X-Real-Ip",
    XReplacedPath = "X-Replaced-Path",
}

const _: () = assert!(FieldId::KNOWN.len() < 64, "a set of ids fits one word");

impl FieldId {
    /// The id of a name, whatever its case.
    ///
    /// Length and last byte but one leave a single candidate, so there is at most one comparison.
    #[must_use]
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        let [.., mark, _] = name else {
            return Self::Other;
        };
        match (name.len(), mark | 0x20) {
            (2, b't') => Self::Te.if_named(name),
            (3, b'i') => Self::Via.if_named(name),
            (4, b's') => Self::Host.if_named(name),
            (4, b't') => Self::Date.if_named(name),
            (6, b'c') => Self::Expect.if_named(name),
            (6, b'e') => Self::Server.if_named(name),
            (6, b'i') => Self::Cookie.if_named(name),
            (6, b'p') => Self::Accept.if_named(name),
            (7, b'd') => Self::Upgrade.if_named(name),
            (7, b'e') => Self::Trailer.if_named(name),
            (8, b'o') => Self::Location.if_named(name),
            (9, b'i') => Self::XRealIp.if_named(name),
            (10, b'i') => Self::SetCookie.if_named(name),
            (10, b'n') => Self::UserAgent.if_named(name),
            (10, b'o') => Self::Connection.if_named(name),
            (10, b'v') => Self::KeepAlive.if_named(name),
            (12, b'p') => Self::ContentType.if_named(name),
            (13, b'o') if matches!(name, [b'A' | b'a', ..]) => Self::Authorization.if_named(name),
            (13, b'o') => Self::CacheControl.if_named(name),
            (14, b't') => Self::ContentLength.if_named(name),
            (15, b'n') => Self::AcceptEncoding.if_named(name),
            (15, b'o') => Self::XForwardedFor.if_named(name),
            (15, b'r') => Self::XForwardedUri.if_named(name),
            (15, b't') => Self::XReplacedPath.if_named(name),
            (16, b'n') => Self::ContentEncoding.if_named(name),
            (16, b'o') => Self::ProxyConnection.if_named(name),
            (16, b'r') => Self::XForwardedPort.if_named(name),
            (16, b's') => Self::XForwardedHost.if_named(name),
            (17, b'n') => Self::TransferEncoding.if_named(name),
            (17, b't') => Self::XForwardedProto.if_named(name),
            (18, b'e') => Self::XForwardedServer.if_named(name),
            (18, b'i') => Self::XForwardedPrefix.if_named(name),
            (18, b'o') => Self::XForwardedMethod.if_named(name),
            (18, b't') => Self::ProxyAuthenticate.if_named(name),
            (19, b'o') => Self::ProxyAuthorization.if_named(name),
            (27, b'r') => Self::XForwardedTlsClientCert.if_named(name),
            (33, b'o') => Self::XForwardedTlsClientCertInfos.if_named(name),
            _ => Self::Other,
        }
    }

    /// Itself if this is its name, else `Other`. Inlined where the id is a constant, the comparison is one of words.
    #[inline(always)]
    fn if_named(self, name: &[u8]) -> Self {
        if name == self.name().as_bytes() {
            self
        } else {
            self.if_named_in_any_case(name)
        }
    }

    #[cold]
    fn if_named_in_any_case(self, name: &[u8]) -> Self {
        if name.eq_ignore_ascii_case(self.name().as_bytes()) {
            self
        } else {
            Self::Other
        }
    }

    /// True if the field speaks of this connection only and is never forwarded (RFC 9110 7.6.1, and the fixed list of
    /// spec frontends 11).
    #[must_use]
    pub const fn is_hop_by_hop(self) -> bool {
        FieldSet::HOP_BY_HOP.contains(self)
    }
}

/// A set of known fields: one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(u64);

impl FieldSet {
    pub const EMPTY: Self = Self(0);

    /// What describes one connection and never crosses the proxy.
    pub const HOP_BY_HOP: Self = Self::of(&[
        FieldId::Connection,
        FieldId::KeepAlive,
        FieldId::ProxyAuthenticate,
        FieldId::ProxyAuthorization,
        FieldId::ProxyConnection,
        FieldId::Te,
        FieldId::Trailer,
        FieldId::TransferEncoding,
        FieldId::Upgrade,
    ]);

    /// What the sender of a message writes itself, from what it knows: framing, connection and host.
    pub const WRITTEN_BY_CALLER: Self = Self::of(&[
        FieldId::Connection,
        FieldId::ContentLength,
        FieldId::Host,
        FieldId::TransferEncoding,
    ]);

    /// The set of these ids.
    #[must_use]
    pub const fn of(ids: &[FieldId]) -> Self {
        let mut set = 0;
        let mut at = 0;
        while at < ids.len() {
            set |= 1 << ids[at] as u64;
            at += 1;
        }
        Self(set)
    }

    /// The ids of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn contains(self, id: FieldId) -> bool {
        self.0 & (1 << id as u64) != 0
    }

    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub const fn insert(&mut self, id: FieldId) {
        self.0 |= 1 << id as u64;
    }

    pub const fn remove(&mut self, id: FieldId) {
        self.0 &= !(1 << id as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_id_in_any_case() {
        for &id in FieldId::KNOWN {
            let name = id.name();
            assert_eq!(FieldId::of(name.as_bytes()), id, "{name}");
            assert_eq!(
                FieldId::of(name.to_ascii_lowercase().as_bytes()),
                id,
                "{name}"
            );
            assert_eq!(
                FieldId::of(name.to_ascii_uppercase().as_bytes()),
                id,
                "{name}"
            );
        }
    }

    #[test]
    fn near_names_are_other() {
        for name in [
            "",
            "H",
            "Hosu",
            "Host ",
            "X-Forwarded-Fox",
            "Transfer_Encoding",
            "Content-Lengti",
            "Cache-Controo",
        ] {
            assert_eq!(FieldId::of(name.as_bytes()), FieldId::Other, "{name}");
        }
        // 0x0d has the bits of `-` once case is folded.
        assert_eq!(FieldId::of(b"Content\rLength"), FieldId::Other);
    }

    #[test]
    fn sets() {
        let mut set = FieldSet::of(&[FieldId::Host]);
        assert!(set.contains(FieldId::Host) && !set.contains(FieldId::Date));
        assert!(!set.intersects(FieldSet::HOP_BY_HOP));
        set.insert(FieldId::Te);
        assert!(set.intersects(FieldSet::HOP_BY_HOP));
        set.remove(FieldId::Te);
        assert_eq!(set.union(FieldSet::EMPTY), FieldSet::of(&[FieldId::Host]));
    }
}
