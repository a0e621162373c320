//! Where a store is and how it is spoken to: the operator's section, parsed.
//!
//! Owns the spelling of prefixes and keys in each store (spec kv-stores 3). Never opens a file or a socket: `tls.rs` reads
//! what `tls` names.

use std::fmt;

use crate::config::dynamic::ClientTls;
use crate::config::store as written;

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Consul,
    EtcdV2,
    EtcdV3,
    ZooKeeper,
    BoltDb,
}

impl Kind {
    /// The provider's name in the API and in messages (spec kv-dynamic, head).
    pub fn provider(self) -> &'static str {
        match self {
            Self::Consul => "consul",
            Self::EtcdV2 => "etcd",
            Self::EtcdV3 => "etcdv3",
            Self::ZooKeeper => "zk",
            Self::BoltDb => "boltdb",
        }
    }

    /// Whether keys are names that the store does not interpret: `/a` and `a` are two keys.
    fn is_literal(self) -> bool {
        matches!(self, Self::EtcdV3 | Self::BoltDb)
    }

    /// Whether one name can have a value and names below it.
    pub fn has_values_in_directories(self) -> bool {
        self != Self::EtcdV2
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Consul => "Consul",
            Self::EtcdV2 => "etcd (API v2)",
            Self::EtcdV3 => "etcd (API v3)",
            Self::ZooKeeper => "ZooKeeper",
            Self::BoltDb => "BoltDB",
        })
    }
}

/// Where our keys begin, in the spelling of one store; everything below it matches whole segments only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// Ends in `/`, or is empty.
    root: String,
}

impl Prefix {
    /// Slashes at the end do not count. At the beginning Consul has none, etcd v2 and ZooKeeper one, and for the others
    /// `/traefik` and `traefik` are two different trees.
    pub fn new(kind: Kind, written: &str) -> Self {
        let name = written.trim_end_matches('/');
        let bare = name.trim_start_matches('/');
        let root = match kind {
            Kind::Consul if bare.is_empty() => String::new(),
            Kind::Consul => format!("{bare}/"),
            Kind::EtcdV2 | Kind::ZooKeeper if bare.is_empty() => "/".to_owned(),
            Kind::EtcdV2 | Kind::ZooKeeper => format!("/{bare}/"),
            Kind::EtcdV3 | Kind::BoltDb => format!("{name}/"),
        };
        Self { root }
    }

    /// Every tree that a prefix can mean which was written without knowing the store, as that of an alias: the one it
    /// says first, then the one with or without a slash at the beginning (spec kv-dynamic 7).
    pub fn spellings(kind: Kind, written: &str) -> Vec<Self> {
        let mut all = vec![Self::new(kind, written)];
        if kind.is_literal() {
            let bare = written.trim_start_matches('/');
            let other = if bare.len() == written.len() {
                format!("/{bare}")
            } else {
                bare.to_owned()
            };
            all.push(Self::new(kind, &other));
        }
        all
    }

    /// The full key of a path below.
    pub fn key(&self, path: &str) -> String {
        format!("{}{path}", self.root)
    }

    /// The path of a full key, if it is below.
    pub fn path<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.root).filter(|path| !path.is_empty())
    }

    /// With a `/` at the end, unless it is empty.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Without the `/` at the end.
    pub fn name(&self) -> &str {
        self.root.strip_suffix('/').unwrap_or(&self.root)
    }
}

/// Who we say we are.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, ...)", self.user)
    }
}

/// TLS as it was asked for. Each text is a path, or PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Whose certificates are believed. `None`: those that the system believes.
    pub authorities: Option<String>,
    /// Our certificate and its key.
    pub own: Option<(String, String)>,
    /// Believes any certificate.
    pub trusts_anybody: bool,
}

/// How one store is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub kind: Kind,
    /// In the operator's order, at least one: `host:port` or a URL; of BoltDB one path.
    pub endpoints: Vec<String>,
    pub prefix: Prefix,
    /// Whether changes are followed.
    pub watches: bool,
    pub credentials: Option<Credentials>,
    pub tls: Option<Tls>,
    /// Of ZooKeeper: who may do what with the nodes that are made, as written. Empty: everybody everything.
    pub acl: String,
}

impl Settings {
    pub fn consul(section: &written::Consul) -> Self {
        Self::new(
            Kind::Consul,
            &section.endpoint,
            &section.prefix,
            section.watch,
            (&section.username, &section.password),
            section.tls.as_ref(),
        )
    }

    pub fn etcd(section: &written::Etcd) -> Self {
        let kind = if section.use_api_v3 {
            Kind::EtcdV3
        } else {
            Kind::EtcdV2
        };
        Self::new(
            kind,
            &section.endpoint,
            &section.prefix,
            section.watch,
            (&section.username, &section.password),
            section.tls.as_ref(),
        )
    }

    pub fn zookeeper(section: &written::ZooKeeper) -> Self {
        let settings = Self::new(
            Kind::ZooKeeper,
            &section.endpoint,
            &section.prefix,
            section.watch,
            (&section.username, &section.password),
            section.tls.as_ref(),
        );
        Self {
            acl: section.acl.clone(),
            ..settings
        }
    }

    pub fn boltdb(section: &written::BoltDb) -> Self {
        Self::new(
            Kind::BoltDb,
            &section.endpoint,
            &section.prefix,
            section.watch,
            (&section.username, &section.password),
            section.tls.as_ref(),
        )
    }

    fn new(
        kind: Kind,
        endpoint: &str,
        prefix: &str,
        watches: bool,
        (user, password): (&str, &str),
        tls: Option<&ClientTls>,
    ) -> Self {
        let endpoints = if kind == Kind::BoltDb {
            vec![endpoint.to_owned()]
        } else {
            endpoint
                .split(',')
                .map(str::trim)
                .filter(|one| !one.is_empty())
                .map(str::to_owned)
                .collect()
        };
        Self {
            kind,
            endpoints,
            prefix: Prefix::new(kind, prefix),
            watches,
            credentials: (!user.is_empty()).then(|| Credentials {
                user: user.to_owned(),
                password: password.to_owned(),
            }),
            tls: tls.map(|tls| Tls {
                authorities: (!tls.ca.is_empty()).then(|| tls.ca.clone()),
                own: (!tls.cert.is_empty() || !tls.key.is_empty())
                    .then(|| (tls.cert.clone(), tls.key.clone())),
                trusts_anybody: tls.insecure_skip_verify,
            }),
            acl: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: Kind, written: &str, key: &str) {
        let prefix = Prefix::new(kind, written);
        assert_eq!(prefix.key("a/b"), key);
        assert_eq!(prefix.path(key), Some("a/b"));
        assert_eq!(
            prefix.path(prefix.root()),
            None,
            "the prefix is not below itself"
        );
    }

    #[test]
    fn prefixes_are_spelled_as_the_store_needs() {
        for written in ["traefik", "/traefik", "traefik/", "//traefik//"] {
            check(Kind::Consul, written, "traefik/a/b");
            check(Kind::EtcdV2, written, "/traefik/a/b");
            check(Kind::ZooKeeper, written, "/traefik/a/b");
        }
        for kind in [Kind::EtcdV3, Kind::BoltDb] {
            check(kind, "traefik/", "traefik/a/b");
            check(kind, "/traefik", "/traefik/a/b");
        }
        check(Kind::Consul, "", "a/b");
        check(Kind::ZooKeeper, "/", "/a/b");
        check(Kind::EtcdV3, "", "/a/b");
    }

    #[test]
    fn a_sibling_that_begins_alike_is_not_below() {
        let prefix = Prefix::new(Kind::EtcdV3, "/traefik");
        assert_eq!(prefix.path("/traefik2/a"), None);
        assert_eq!(prefix.path("/traefik_configurations/1/a"), None);
        assert_eq!(prefix.path("/traefik"), None);
    }

    #[test]
    fn an_alias_is_found_with_and_without_its_slash() {
        let roots = |kind, written| {
            Prefix::spellings(kind, written)
                .into_iter()
                .map(|prefix| prefix.root)
                .collect::<Vec<_>>()
        };
        assert_eq!(roots(Kind::Consul, "/conf/1"), ["conf/1/"]);
        assert_eq!(roots(Kind::EtcdV2, "conf/1/"), ["/conf/1/"]);
        assert_eq!(roots(Kind::EtcdV3, "/conf/1"), ["/conf/1/", "conf/1/"]);
        assert_eq!(roots(Kind::BoltDb, "conf/1/"), ["conf/1/", "/conf/1/"]);
    }

    #[test]
    fn a_section_becomes_settings() {
        let section = written::Etcd {
            endpoint: "a:1, b:2 ,".to_owned(),
            use_api_v3: true,
            username: "u".to_owned(),
            password: "p".to_owned(),
            tls: Some(ClientTls {
                ca: "ca.pem".to_owned(),
                ..ClientTls::default()
            }),
            ..written::Etcd::default()
        };
        let settings = Settings::etcd(&section);
        assert_eq!(settings.kind, Kind::EtcdV3);
        assert_eq!(settings.endpoints, ["a:1", "b:2"]);
        assert_eq!(settings.prefix.root(), "/traefik/");
        assert!(settings.watches);
        assert_eq!(
            format!("{:?}", settings.credentials),
            "Some(Credentials(u, ...))",
            "a password is never shown"
        );
        assert_eq!(
            settings.tls,
            Some(Tls {
                authorities: Some("ca.pem".to_owned()),
                ..Tls::default()
            })
        );
    }
}
