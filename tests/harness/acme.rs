//! A proxy that orders certificates from [`Pebble`](super::pebble::Pebble), and what it shows.
//!
//! Owns the configuration that all such tests share. Read next: `pebble.rs`.

use std::path::PathBuf;
use std::sync::Arc;

use coreway::tls::{self, Trust};

use super::pebble::{Place, names};
use super::tls::TlsClient;
use super::wait::{DEADLINE, eventually_within};
use super::{Coreway, Origin, Start};

/// What follows [`table`]: certificates for rules, proved over HTTP.
pub const HTTP: &str = "onHostRule = true\n[acme.httpChallenge]\nentryPoint = \"http\"";
/// In handshakes.
pub const TLS: &str = "onHostRule = true\n[acme.tlsChallenge]";

/// A process that believes this authority, and says everything.
pub fn start(place: &Place) -> Start {
    Start::new()
        .variable("LEGO_CA_CERTIFICATES", &place.root().display().to_string())
        .flag("--logLevel=DEBUG")
}

/// An entry point with TLS whose certificates come from the authority with this directory. `more` follows in `[acme]`.
pub fn table(directory: &str, storage: &str, more: &str) -> String {
    format!(
        "[entryPoints.https]\naddress = \"127.0.0.1:0\"\n[entryPoints.https.tls]\n\
         [acme]\nemail = \"t@example.com\"\nstorage = \"{storage}\"\nentryPoint = \"https\"\nkeyType = \"EC256\"\n\
         caServer = \"{directory}\"\n{more}\n"
    )
}

/// A file for an account, in a folder that is left behind: a process may be started with it again.
pub fn storage() -> PathBuf {
    tempfile::tempdir().unwrap().keep().join("acme.json")
}

/// A frontend for each text in `Host:`.
pub fn rules(origin: &Origin, hosts: &[&str]) -> String {
    let mut text = format!("[backends.b.servers.s]\nurl = \"{}\"\n", origin.url());
    for (at, host) in hosts.iter().enumerate() {
        text += &format!(
            "[frontends.f{at}]\nbackend = \"b\"\nentryPoints = [\"http\", \"https\"]\n\
             [frontends.f{at}.routes.r]\nrule = \"Host:{host}\"\n"
        );
    }
    text
}

/// A connection to the entry point with TLS, for this name, whatever certificate is shown.
pub fn connected(coreway: &Coreway, name: &str) -> TlsClient {
    let anybody = Arc::new(tls::Client::new(&Trust::Anybody).for_library());
    TlsClient::connect(coreway.address_of("https"), &anybody, name).unwrap()
}

/// What the proxy shows to who asks for `name`, whoever signed it.
pub fn shown(coreway: &Coreway, name: &str) -> Vec<String> {
    names(&connected(coreway, name).certificate())
}

#[track_caller]
pub fn await_certificate(coreway: &Coreway, name: &str, expected: &[&str]) {
    eventually_within(
        3 * DEADLINE,
        &format!("there is a certificate for {name}"),
        || shown(coreway, name) == expected,
    );
}
