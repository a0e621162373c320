//! Which server of a backend is asked next, and whether any may be asked at all.
//!
//! Owns the compiled form of backends and the counters they balance by. Never opens a socket or reads a clock.
//! Read next: `balancer.rs`.

pub mod availability;
pub mod balancer;
pub mod breaker;
pub mod buffering;
pub mod condition;
pub mod ejection;
pub mod key;
pub mod limit;
pub mod shard;
pub mod sticky;

use std::net::SocketAddr;
use std::sync::Arc;

use self::availability::{Availability, Changes};
use self::balancer::NoServer;
use self::sticky::Sticky;
use crate::http::Head;

/// Index of a backend in its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackendId(pub u32);

/// Index of a server in its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerId(pub u32);

/// Names one upstream address (scheme, host, port) for as long as any snapshot uses it: small, dense, and stable over
/// reloads, so a core finds the connection pool of a server by index. Given out by `control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey(pub u32);

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// Accepted at load and answered per request as spec backends 2.1 says.
    Unsupported,
}

/// One server: an address to connect to, as configured and as resolved.
#[derive(Clone, Debug)]
pub struct Server {
    pub name: String,
    /// As configured, for logs and cookies.
    pub url: String,
    pub scheme: Scheme,
    /// Host and port as configured (no port if none was), ready to be sent as the Host field when `passHostHeader` is off.
    pub authority: Box<[u8]>,
    /// The host alone, lower case and without brackets: the name that a certificate must be for.
    pub host: Box<str>,
    /// Where to connect, tried in order. Empty while the name cannot be resolved.
    pub addresses: Vec<SocketAddr>,
    pub pool: PoolKey,
    /// Whether it may be asked at present; of this server in this backend, on all cores and over reloads.
    pub availability: Arc<Availability>,
}

/// A set of servers with a policy.
#[derive(Clone, Debug)]
pub struct Backend {
    pub name: String,
    /// In the order of their names (spec backends 2.1).
    pub servers: Vec<Server>,
    /// Of the servers, as configured. Where all are available, that is what they get.
    pub weights: Box<[u32]>,
    /// How often the availability of a server has changed, shared with them.
    pub changes: Arc<Changes>,
    /// The cookie that brings clients back to their server.
    pub sticky: Option<Sticky>,
    /// Whether it may be asked at all, over all cores.
    pub breaker: Option<Arc<breaker::Breaker>>,
    /// Which servers fail too often to be asked, over all cores.
    pub ejection: Option<Arc<ejection::Ejection>>,
    /// How many exchanges may be under way.
    pub max_conn: Option<limit::Limit>,
    /// Bodies are held whole, with these limits.
    pub buffering: Option<buffering::Buffering>,
    /// This core's part of the state that outlives a reload.
    pub shard: Arc<shard::Shard>,
}

/// A server that is asked for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<'a> {
    pub id: ServerId,
    /// What `Set-Cookie` tells the client, where it did not know its server yet.
    pub cookie: Option<&'a [u8]>,
}

impl Backend {
    pub fn server(&self, id: ServerId) -> &Server {
        &self.servers[id.0 as usize]
    }

    /// The server that is asked for a request: the one that its cookie names, if that may be asked, else the one whose
    /// turn it is. For another try of the same request it is one that was not `tried` yet, while there is such a one,
    /// whatever the cookie says.
    ///
    /// # Errors
    /// There is nobody to ask: see [`NoServer`].
    #[inline]
    pub fn choose(&self, request: &Head, tried: &[ServerId]) -> Result<Choice<'_>, NoServer> {
        if let Some(sticky) = &self.sticky
            && tried.is_empty()
            && let Some(id) = sticky.pinned(request)
            && self.server(id).availability.is_available()
        {
            return Ok(Choice { id, cookie: None });
        }
        let id = match tried {
            [] => self.next()?,
            _ => self.next_except(tried).or_else(|_| self.next())?,
        };
        let cookie = self.sticky.as_ref().map(|sticky| sticky.cookie(id));
        Ok(Choice { id, cookie })
    }

    /// The server whose turn it is on this core.
    ///
    /// # Errors
    /// There is nobody to ask: see [`NoServer`].
    #[inline]
    pub fn next(&self) -> Result<ServerId, NoServer> {
        self.renew();
        self.shard.turns.next().ok_or_else(|| self.nobody())
    }

    /// The next server that is not among `tried`, for another try of the same request.
    ///
    /// # Errors
    /// There is nobody left to ask: see [`NoServer`].
    pub fn next_except(&self, tried: &[ServerId]) -> Result<ServerId, NoServer> {
        self.renew();
        self.shard
            .turns
            .next_except(tried)
            .ok_or(NoServer::AllTried)
    }

    /// Takes in what has changed since the last choice.
    #[inline]
    fn renew(&self) {
        let changes = self.changes.count();
        if self.shard.is_older_than(changes) {
            self.shard.renew(changes, &self.servers, &self.weights);
        }
    }

    #[cold]
    fn nobody(&self) -> NoServer {
        let is_anybody_there = self
            .servers
            .iter()
            .any(|server| server.availability.is_available());
        if is_anybody_there {
            NoServer::AllZero
        } else {
            NoServer::Empty
        }
    }
}

#[cfg(test)]
mod tests {
    use super::availability::Why;
    use super::shard::Shard;
    use super::*;
    use crate::http::FieldId;

    fn backend(weights: &[u32]) -> Backend {
        let changes = Arc::<Changes>::default();
        let servers = weights.iter().map(|_| Server {
            name: String::new(),
            url: String::new(),
            scheme: Scheme::Http,
            authority: Box::default(),
            host: Box::default(),
            addresses: Vec::new(),
            pool: PoolKey(0),
            availability: Arc::new(Availability::new(Arc::clone(&changes))),
        });
        Backend {
            name: String::new(),
            servers: servers.collect(),
            weights: weights.into(),
            shard: Arc::new(Shard::new(0, weights.len())),
            changes,
            sticky: None,
            breaker: None,
            ejection: None,
            max_conn: None,
            buffering: None,
        }
    }

    /// The next choices; `.` is nobody.
    fn picks(backend: &Backend, count: usize) -> String {
        let name = |id: ServerId| char::from(b'A' + u8::try_from(id.0).expect("few"));
        (0..count)
            .map(|_| backend.next().map_or('.', name))
            .collect()
    }

    #[test]
    fn a_server_that_is_away_is_as_if_it_were_not_there() {
        let backend = backend(&[3, 2, 1]);
        let availability = |at: usize| &backend.servers[at].availability;
        assert_eq!(picks(&backend, 8), "AABABCAA");
        availability(1).rule_out(Why::Unhealthy);
        assert_eq!(picks(&backend, 8), "AAACAAAC");
        assert_eq!(backend.next_except(&[ServerId(0)]), Ok(ServerId(2)));
        availability(0).rule_out(Why::Ejected);
        assert_eq!(picks(&backend, 2), "CC");
        assert_eq!(backend.next_except(&[ServerId(2)]), Err(NoServer::AllTried));
        availability(2).rule_out(Why::Unhealthy);
        assert_eq!(backend.next(), Err(NoServer::Empty));
        for at in 0..3 {
            availability(at).readmit(Why::Unhealthy);
            availability(at).readmit(Why::Ejected);
        }
        assert_eq!(picks(&backend, 6), "AABABC", "with its weight");
    }

    #[test]
    fn a_cookie_chooses_among_those_that_may_be_asked() {
        let mut backend = backend(&[1, 1, 0]);
        let values = ["http://a", "http://b", "http://c"].map(str::to_owned);
        backend.sticky = Some(Sticky::new("s", &values, ""));
        let check = |cookie: &str, tried: &[ServerId], expected: &str| {
            let mut head = Head::default();
            head.push_known(FieldId::Cookie, cookie.as_bytes());
            let said = match backend.choose(&head, tried) {
                Ok(choice) => {
                    let cookie = String::from_utf8_lossy(choice.cookie.unwrap_or_default());
                    format!("{} {cookie}", choice.id.0)
                }
                Err(error) => format!("{error:?}"),
            };
            assert_eq!(said, expected, "{cookie} {tried:?}");
        };
        check("", &[], "0 s=http://a");
        check("s=http://a", &[], "0 ");
        check("s=http://a", &[], "0 ");
        check("s=http://c", &[], "2 ");
        check("s=http://d", &[], "1 s=http://b");
        check("s=http://a", &[ServerId(0)], "1 s=http://b");
        check("s=http://a", &[ServerId(0), ServerId(1)], "0 s=http://a");
        let away = &backend.servers[1].availability;
        away.rule_out(Why::Unhealthy);
        check("s=http://b", &[], "0 s=http://a");
        away.readmit(Why::Unhealthy);
        check("s=http://b", &[], "1 ");
        for server in &backend.servers {
            server.availability.rule_out(Why::Unhealthy);
        }
        check("s=http://b", &[], "Empty");
    }

    #[test]
    fn no_server_and_no_weight_are_not_the_same() {
        assert_eq!(backend(&[]).next(), Err(NoServer::Empty));
        let zero = backend(&[0, 0]);
        assert_eq!(zero.next(), Err(NoServer::AllZero));
        zero.servers[0].availability.rule_out(Why::Unhealthy);
        assert_eq!(zero.next(), Err(NoServer::AllZero));
        zero.servers[1].availability.rule_out(Why::Unhealthy);
        assert_eq!(zero.next(), Err(NoServer::Empty));
    }
}
