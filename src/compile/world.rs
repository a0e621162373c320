//! What compiling is told beside the configuration, and what of that the configuration asks for.
//!
//! Owns nothing that changes. Never resolves a name and never reads a file: control does, and brings what it found.
//! Read next: `control/mod.rs` (who brings it).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::auth_server::{self, OfEntryPoint};
use super::backend::ServerUrl;
use super::{Missed, Target, auth};
use crate::config::{Dynamic, dynamic};
use crate::snapshot::Proofs;
use crate::tls;

/// What compiling needs to know beside the configuration.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// In the order of `EntryPointId`.
    pub entry_points: Vec<String>,
    /// Where each entry point of the configuration is, opened or not: what redirects may name.
    pub targets: BTreeMap<String, Target>,
    /// In the same order: the TLS of each, with its fixed certificates.
    pub tls: Vec<Option<tls::Server>>,
    /// Entry points of a frontend or certificate that names none.
    pub default_entry_points: Vec<String>,
    /// `keepTrailingSlash`: a path that differs by its last slash is another path, instead of a 301.
    pub keep_trailing_slash: bool,
    /// `allowMinWeightZero`: a written weight of 0 means never, instead of 1.
    pub allow_min_weight_zero: bool,
    /// The authentication servers of entry points, from [`of_entry_points`].
    pub auth_servers: Vec<OfEntryPoint>,
    /// Addresses of server host names (lower case), from [`host_names`]. A missing name has no address.
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
    /// What is in the files that frontends name, from [`files`]. One that is not there has no entry.
    pub files: BTreeMap<String, Result<Vec<u8>, String>>,
    /// Time between two health checks where a backend sets none.
    pub health_interval: Duration,
    /// What proves names over HTTP, if that is configured.
    pub proofs: Option<Proofs>,
    /// What proves names in handshakes, on every entry point with TLS.
    pub tls_proofs: Vec<tls::Certificate>,
    /// Who is told of names without a certificate, of which entry point.
    pub missed: Option<(String, Missed)>,
    /// Snapshots to make, at least 1.
    pub cores: usize,
}

/// Host names of all servers that are not IP addresses, lower case: what [`World::addresses`] should answer. Those that
/// decide who may pass are among them.
pub fn host_names(
    providers: &BTreeMap<String, Arc<Dynamic>>,
    of_entry_points: &[OfEntryPoint],
) -> BTreeSet<String> {
    let servers = providers
        .values()
        .flat_map(|written| written.backends.values())
        .flat_map(|backend| backend.servers.values())
        .filter_map(|server| ServerUrl::named_host(&server.url));
    let asked = sections(providers).filter_map(auth_server::asked);
    let asked = asked.chain(of_entry_points.iter().map(|one| &one.written));
    servers
        .chain(asked.filter_map(auth_server::host_name))
        .collect()
}

/// Files that options of frontends name, and those that authentication servers of entry points need: what
/// [`World::files`] should hold.
pub fn files(
    providers: &BTreeMap<String, Arc<Dynamic>>,
    of_entry_points: &[OfEntryPoint],
) -> BTreeSet<String> {
    let of_entry_points = of_entry_points.iter().map(|one| &one.written);
    sections(providers)
        .flat_map(auth::files)
        .chain(of_entry_points.flat_map(auth_server::files))
        .collect()
}

/// The section `auth` of every frontend that has one.
fn sections(providers: &BTreeMap<String, Arc<Dynamic>>) -> impl Iterator<Item = &dynamic::Auth> {
    providers
        .values()
        .flat_map(|written| written.frontends.values())
        .filter_map(|frontend| frontend.auth.as_ref())
}
