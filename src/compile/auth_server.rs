//! Servers that decide who may pass: their addresses, and how they are spoken to. Spec frontends 5.3.
//!
//! Owns the list of them in a generation: first those of entry points, in the order of [`of_entry_points`], so that an
//! entry point, which is made once, can name its own by index in every snapshot. Each address has a pool of connections
//! of its own, and each way of speaking TLS too.
//! Pure: files and addresses of names come in as [`World`]. Read next: `proxy/auth_server.rs`.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use super::auth::Read;
use super::backend::{Memory, ServerUrl};
use super::{Rejection, Severity, World};
use crate::backend::availability::Availability;
use crate::backend::{PoolKey, Scheme, Server};
use crate::config::dynamic::{Auth, AuthForward};
use crate::config::{Global, Place};
use crate::frontend::middleware::auth::forward::AuthServerId;
use crate::snapshot::AuthServer;
use crate::tls;

/// Where an authentication server is, and what it is asked for.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) url: ServerUrl,
    /// Path and query.
    pub(super) target: String,
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("address: {text:?} is not an http or https URL");
        let url = ServerUrl::parse(text).map_err(|_| wrong())?;
        let is_known = matches!(&*url.scheme, "http" | "https") && !url.host.is_empty();
        let (_, rest) = text.split_once("://").ok_or_else(wrong)?;
        let start = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let target = rest[start..].split('#').next().unwrap_or_default();
        if !is_known || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong());
        }
        let target = if target.starts_with('/') {
            target.to_owned()
        } else {
            format!("/{target}")
        };
        Ok(Self { url, target })
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.url.scheme == "https" {
            "https"
        } else {
            "http"
        }
    }
}

/// An entry point's authentication server, as it was written.
#[derive(Clone, Debug)]
pub struct OfEntryPoint {
    pub entry_point: String,
    pub place: Place,
    pub written: AuthForward,
}

/// Those of all entry points, opened or not.
pub fn of_entry_points(global: &Global) -> Vec<OfEntryPoint> {
    let all = global.entry_points.iter();
    all.filter_map(|(name, entry_point)| {
        let auth = entry_point.auth.as_ref()?;
        Some(OfEntryPoint {
            entry_point: name.clone(),
            place: auth.place.clone(),
            written: asked(auth)?.clone(),
        })
    })
    .collect()
}

/// The server of a section, if none of the other kinds comes first.
pub(super) fn asked(auth: &Auth) -> Option<&AuthForward> {
    let first = auth.basic.is_none() && auth.digest.is_none();
    auth.forward.as_ref().filter(|_| first)
}

/// The host of a server, if it is a name.
pub(super) fn host_name(written: &AuthForward) -> Option<String> {
    let url = ServerUrl::parse(&written.address).ok()?;
    (url.address().is_none() && !url.host.is_empty()).then_some(url.host)
}

/// The files that speaking to a server takes.
pub(super) fn files(written: &AuthForward) -> Vec<String> {
    if !written.address.starts_with("https") {
        return Vec::new();
    }
    let tls = written.tls.clone().unwrap_or_default();
    let mut files: Vec<String> = [tls.ca.clone(), tls.cert, tls.key]
        .into_iter()
        .filter(|name| !name.is_empty() && !name.contains('\n'))
        .collect();
    if tls.ca.is_empty() && !tls.insecure_skip_verify {
        files.extend(tls::SYSTEM_AUTHORITIES.map(str::to_owned));
    }
    files
}

/// How a server is spoken to over TLS, and a number that differs where that does.
pub(super) fn tls(written: &AuthForward, read: Read<'_>) -> Result<(tls::Client, u64), String> {
    let options = written.tls.clone().unwrap_or_default();
    let text = |name: &str, option: &str| match read(name) {
        Some(content) => content.map_err(|why| format!("tls.{option}: {name}: {why}")),
        None => Ok(name.as_bytes().to_vec()),
    };
    let mut identity = DefaultHasher::new();
    let trust = if options.insecure_skip_verify {
        tls::Trust::Anybody
    } else {
        let mut authorities = tls::Authorities::default();
        if options.ca.is_empty() {
            let system = tls::SYSTEM_AUTHORITIES
                .iter()
                .find_map(|path| read(path)?.ok());
            authorities.add_readable(&system.unwrap_or_default());
        } else {
            let pem = text(&options.ca, "ca")?;
            pem.hash(&mut identity);
            authorities
                .add(&pem)
                .map_err(|why| format!("tls.ca: {why}"))?;
        }
        tls::Trust::Authorities(authorities)
    };
    options.insecure_skip_verify.hash(&mut identity);
    let own = match (options.cert.is_empty(), options.key.is_empty()) {
        (true, true) => None,
        (false, false) => {
            let (chain, key) = (text(&options.cert, "cert")?, text(&options.key, "key")?);
            (&chain, &key).hash(&mut identity);
            let own = tls::Certificate::from_pem(&chain, &key);
            Some(own.map_err(|why| format!("tls.cert: {why}"))?)
        }
        _ => return Err("tls: cert and key go together".to_owned()),
    };
    Ok((
        tls::Client::showing(&trust, own.as_slice()),
        identity.finish(),
    ))
}

/// The authentication servers of a generation.
#[derive(Debug, Default)]
pub(super) struct AuthServers {
    pub(super) made: Vec<Option<AuthServer>>,
    pub(super) host_names: BTreeSet<String>,
}

impl AuthServers {
    /// Those of entry points. One that cannot be spoken to is missing, so that its entry point lets nobody in.
    pub(super) fn new(world: &World, memory: &mut Memory, rejections: &mut Vec<Rejection>) -> Self {
        let mut servers = Self::default();
        for one in &world.auth_servers {
            let made = Address::parse(&one.written.address)
                .and_then(|address| servers.make(&one.written, &address, world, memory));
            servers.made.push(made.map_or_else(
                |why| {
                    rejections.push(Rejection {
                        place: one.place.clone(),
                        severity: Severity::Error,
                        message: format!("entry point {}: auth: forward: {why}", one.entry_point),
                    });
                    None
                },
                Some,
            ));
        }
        servers
    }

    /// Adds that of a frontend.
    pub(super) fn add(
        &mut self,
        written: &AuthForward,
        address: &Address,
        world: &World,
        memory: &mut Memory,
    ) -> Result<AuthServerId, String> {
        let made = self.make(written, address, world, memory)?;
        let id = u32::try_from(self.made.len()).expect("fewer than there are frontends");
        self.made.push(Some(made));
        Ok(AuthServerId(id))
    }

    fn make(
        &mut self,
        written: &AuthForward,
        address: &Address,
        world: &World,
        memory: &mut Memory,
    ) -> Result<AuthServer, String> {
        let Address { url, .. } = address;
        let (scheme, tls, pool) = if url.scheme == "https" {
            let (tls, identity) = tls(written, &|path| world.files.get(path).cloned())?;
            // Apart from servers of the same address, which are spoken to in another way.
            (
                Scheme::Https,
                Some(tls),
                format!("https, asked {identity:x}"),
            )
        } else {
            (Scheme::Http, None, "http, asked".to_owned())
        };
        let addresses = match url.address() {
            Some(address) => vec![SocketAddr::new(address, url.port)],
            None => {
                self.host_names.insert(url.host.clone());
                let found = world.addresses.get(&url.host).into_iter().flatten();
                found
                    .map(|address| SocketAddr::new(*address, url.port))
                    .collect()
            }
        };
        Ok(AuthServer {
            server: Server {
                name: "authentication".to_owned(),
                url: written.address.clone(),
                scheme,
                authority: url.authority.as_bytes().into(),
                host: url.host.as_str().into(),
                addresses,
                pool: memory.pool(&(pool, url.host.clone(), url.port)),
                availability: Arc::new(Availability::new(Arc::default())),
            },
            tls,
        })
    }

    /// The pools in use.
    pub(super) fn pools(&self) -> impl Iterator<Item = PoolKey> {
        self.made.iter().flatten().map(|one| one.server.pool)
    }
}
