//! Certificates and TLS options become what an entry point speaks. Spec static-config 4, file-provider 2.1.
//!
//! Owns what is said about a pair that cannot be used: it is left out and the others serve. What would let clients in
//! that were to be kept out is an error. Never reads a file itself: see [`Machine::read`](super::settings::Machine) for
//! the fixed ones; of the others, providers put the text in the place of the path.
//! Read next: `tls/mod.rs`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::settings::Machine;
use super::{Rejection, Severity, World};
use crate::config::dynamic::{Certificate as Written, Dynamic};
use crate::config::entrypoint::Tls;
use crate::config::{Global, Place};
use crate::tls::{
    self, Authorities, Certificate, Client, ClientCertificates, MinVersion, Options, Server, Suite,
    Trust,
};

/// TLS of the entry point `name`, and how servers are spoken to that are to see its certificates (`passTLSCert`). What is
/// left out, or not as its writer may think, is added to `left_out`.
///
/// # Errors
/// The entry point must not be opened: client certificates cannot be checked, or no cipher suite is left.
pub(super) fn server(
    name: &str,
    written: &Tls,
    machine: &Machine,
    left_out: &mut Vec<Rejection>,
) -> Result<(Server, Client), Rejection> {
    let say = |severity, what: String| Rejection {
        place: written.place.clone(),
        severity,
        message: format!("entry point {name}: {what}"),
    };
    let options = Options {
        min_version: min_version(&written.min_version)
            .map_err(|why| left_out.push(say(Severity::Warning, why)))
            .unwrap_or_default(),
        suites: suites(&written.cipher_suites, &mut |why| {
            left_out.push(say(Severity::Warning, why));
        })
        .map_err(|why| say(Severity::Error, why))?,
        sni_strict: written.sni_strict,
        client_certificates: client_certificates(written, machine)
            .map_err(|why| say(Severity::Error, why))?,
    };
    let load = |pair: &Written, left_out: &mut Vec<Rejection>| {
        certificate(pair, machine)
            .map_err(|why| left_out.push(say(Severity::Error, unusable(pair, name, &why))))
            .ok()
    };
    let default = written
        .default_certificate
        .as_ref()
        .and_then(|pair| load(pair, left_out));
    let mut fixed: Vec<Certificate> = Vec::new();
    for pair in &written.certificates {
        // The default is usually the first of the list: what cannot be used is reported once.
        let loaded = if Some(pair) == written.default_certificate.as_ref() {
            default.clone()
        } else {
            load(pair, left_out)
        };
        if let Some(certificate) = loaded {
            add(&mut fixed, certificate, |names| {
                left_out.push(say(Severity::Warning, skipped(names, name)));
            });
        }
    }
    let default = match default {
        Some(default) => {
            // It also answers to its own names, behind the listed ones.
            add(&mut fixed, default.clone(), |_| ());
            default
        }
        None => Certificate::generate(machine.now).map_err(|error| {
            say(
                Severity::Error,
                format!("no certificate could be generated: {error}"),
            )
        })?,
    };
    let shown = match fixed.as_slice() {
        [] => std::slice::from_ref(&default),
        fixed => fixed,
    };
    // Neither `rootCAs` nor `insecureSkipVerify` has a say in this.
    let believed = match &options.client_certificates {
        ClientCertificates::Optional(named) | ClientCertificates::Required(named) => named.clone(),
        ClientCertificates::Ignored => system_authorities(machine),
    };
    let client = Client::showing(&Trust::Authorities(believed), shown);
    let server = Server::new(&options, fixed, default)
        .map_err(|error| say(Severity::Error, error.to_string()))?;
    Ok((server, client))
}

fn system_authorities(machine: &Machine) -> Authorities {
    let mut authorities = Authorities::default();
    let found = tls::system_authorities(|path| (machine.read)(path)?.ok());
    authorities.add_readable(&found);
    authorities
}

/// How servers are spoken to over TLS. Of `rootCAs` what cannot be used is added to `left_out`; they take the place of the
/// system's.
pub(super) fn client(global: &Global, machine: &Machine, left_out: &mut Vec<Rejection>) -> Client {
    if global.insecure_skip_verify {
        return Client::new(&Trust::Anybody);
    }
    if global.root_cas.is_empty() {
        return Client::new(&Trust::Authorities(system_authorities(machine)));
    }
    let mut authorities = Authorities::default();
    for file in &global.root_cas {
        let added = machine
            .text(file)
            .and_then(|pem| authorities.add(&pem).map_err(|error| error.to_string()));
        if let Err(why) = added {
            left_out.push(Rejection {
                place: Place::Default,
                severity: Severity::Error,
                message: format!("rootCAs: {}: {why}", label(file)),
            });
        }
    }
    Client::new(&Trust::Authorities(authorities))
}

/// A path, or that it is text: of that there may be a page.
fn label(written: &str) -> &str {
    if written.contains('\n') {
        "given as text"
    } else {
        written
    }
}

/// Pairs that the last compilation read, by the text of their certificates: reading one takes longer than anything else that
/// is done for it, and seldom is one different.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<String, Read>);

/// The key a certificate came with, and what was made of both.
type Read = (String, Result<Certificate, String>);

impl Known {
    /// What a pair is, from `before` if it was read then.
    fn read(&mut self, pair: &Written, before: &mut Self) -> &Result<Certificate, String> {
        let chain = &pair.cert_file;
        if self
            .0
            .get(chain)
            .is_none_or(|(key, _)| *key != pair.key_file)
        {
            let known = before.0.remove(chain);
            let read = known.filter(|(key, _)| *key == pair.key_file);
            let read = read.unwrap_or_else(|| {
                let read = Certificate::from_pem(chain.as_bytes(), pair.key_file.as_bytes());
                (pair.key_file.clone(), read.map_err(|why| why.to_string()))
            });
            self.0.insert(chain.clone(), read);
        }
        &self.0[chain].1
    }
}

/// TLS of each entry point that the providers have certificates for, in the order of `World::entry_points`.
///
/// Of certificates for the same set of names the first stays, on each entry point. One that cannot be used is left out.
pub(super) fn dynamic(
    providers: &BTreeMap<String, Arc<Dynamic>>,
    world: &World,
    known: &mut Known,
    rejections: &mut Vec<Rejection>,
) -> Vec<Option<Server>> {
    let mut before = std::mem::take(known);
    let mut certificates: Vec<Vec<Certificate>> = world.tls.iter().map(|_| Vec::new()).collect();
    // A list of thousands is not searched for each of them.
    let mut names_taken: HashSet<(usize, Vec<String>)> = HashSet::new();
    for entry in providers.values().flat_map(|written| &written.tls) {
        let mut say = |severity, message| {
            rejections.push(Rejection {
                place: entry.place.clone(),
                severity,
                message,
            });
        };
        let names = match &*entry.entry_points {
            [] => &world.default_entry_points,
            _ => &entry.entry_points,
        };
        let with_tls = |at: &usize| world.tls.get(*at).is_some_and(Option::is_some);
        let on: Vec<usize> = (0..world.entry_points.len())
            .filter(|at| names.contains(&world.entry_points[*at]))
            .filter(with_tls)
            .collect();
        if on.is_empty() {
            let names = names.join(",");
            say(
                Severity::Warning,
                format!("Certificates not added to non-TLS entryPoint {names}."),
            );
            continue;
        }
        let pair = &entry.certificate;
        let read = known.read(pair, &mut before);
        for at in on {
            let name = &world.entry_points[at];
            match read {
                Ok(certificate) if names_taken.insert((at, certificate.names().to_vec())) => {
                    certificates[at].push(certificate.clone());
                }
                Ok(certificate) => say(Severity::Warning, skipped(certificate.names(), name)),
                Err(why) => say(Severity::Error, unusable(pair, name, why)),
            }
        }
    }
    let proofs = &*world.tls_proofs;
    let missed = world.missed.as_ref();
    let joined = |((name, tls), certificates): ((&String, &Option<Server>), Vec<Certificate>)| {
        let missed = missed.filter(|(entry_point, _)| entry_point == name);
        let missed = missed.map(|(_, missed)| missed);
        tls.as_ref()
            .filter(|_| !certificates.is_empty() || !proofs.is_empty() || missed.is_some())
            .map(|tls| tls.with(&certificates, proofs, missed))
    };
    let named = world.entry_points.iter().zip(&world.tls);
    named.zip(certificates).map(joined).collect()
}

/// See [`super::names_of_certificates`].
pub(super) fn names(
    providers: &BTreeMap<String, Arc<Dynamic>>,
    world: &World,
    entry_point: &str,
    but: &str,
) -> Vec<String> {
    let own = world
        .entry_points
        .iter()
        .zip(&world.tls)
        .filter(|(name, _)| *name == entry_point)
        .filter_map(|(_, tls)| tls.as_ref())
        .flat_map(Server::names)
        .cloned();
    let is_on = |names: &[String]| names.iter().any(|name| name == entry_point);
    let dynamic = providers
        .iter()
        .filter(|(provider, _)| *provider != but)
        .flat_map(|(_, written)| &written.tls)
        .filter(|entry| match &*entry.entry_points {
            [] => is_on(&world.default_entry_points),
            names => is_on(names),
        })
        .filter_map(|entry| {
            let pair = &entry.certificate;
            Certificate::from_pem(pair.cert_file.as_bytes(), pair.key_file.as_bytes()).ok()
        })
        .flat_map(|certificate| certificate.names().to_vec());
    own.chain(dynamic).collect()
}

/// Adds a certificate unless one with the same names is there; then says so.
fn add(certificates: &mut Vec<Certificate>, new: Certificate, skip: impl FnOnce(&[String])) {
    if certificates.iter().any(|old| old.names() == new.names()) {
        skip(new.names());
    } else {
        certificates.push(new);
    }
}

fn skipped(names: &[String], entry_point: &str) -> String {
    format!(
        "Skipping addition of certificate for domain(s) {:?}, to EntryPoint {entry_point}, as it already exists",
        names.join(",")
    )
}

fn unusable(pair: &Written, entry_point: &str, why: &str) -> String {
    // Text of a certificate would fill the log; the place says which it is.
    let file = if pair.cert_file.contains('\n') {
        String::new()
    } else {
        format!(" {}", pair.cert_file)
    };
    format!("Unable to append certificate{file} to entrypoint {entry_point}: {why}")
}

fn certificate(pair: &Written, machine: &Machine) -> Result<Certificate, String> {
    let chain = machine.text(&pair.cert_file)?;
    let key = machine.text(&pair.key_file)?;
    Certificate::from_pem(&chain, &key).map_err(|error| error.to_string())
}

fn min_version(text: &str) -> Result<MinVersion, String> {
    match text {
        "VersionTLS13" => Ok(MinVersion::Tls13),
        "VersionTLS10" | "VersionTLS11" => Err(format!(
            "tls.minVersion: {text} is too weak to be offered; clients need TLS 1.2"
        )),
        // What is unknown was reported when it was read.
        _ => Ok(MinVersion::Tls12),
    }
}

fn suites(names: &[String], warn: &mut dyn FnMut(String)) -> Result<Vec<Suite>, String> {
    let mut suites = Vec::with_capacity(names.len());
    for name in names {
        match Suite::named(name) {
            Some(suite) => suites.push(suite),
            None => warn(format!(
                "tls.cipherSuites: {name} is too weak to be offered, ignored"
            )),
        }
    }
    if suites.is_empty() && !names.is_empty() {
        return Err("tls.cipherSuites: none of them can be offered".to_owned());
    }
    Ok(suites)
}

fn client_certificates(written: &Tls, machine: &Machine) -> Result<ClientCertificates, String> {
    let Some(client_ca) = written
        .client_ca
        .as_ref()
        .filter(|client_ca| !client_ca.files.is_empty())
    else {
        return Ok(ClientCertificates::Ignored);
    };
    let mut authorities = Authorities::default();
    for file in &client_ca.files {
        machine
            .text(file)
            .and_then(|pem| authorities.add(&pem).map_err(|error| error.to_string()))
            .map_err(|why| format!("tls.clientCA.files: invalid certificate(s) content: {why}"))?;
    }
    Ok(if client_ca.optional {
        ClientCertificates::Optional(authorities)
    } else {
        ClientCertificates::Required(authorities)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::dynamic::TlsEntry;
    use crate::config::entrypoint::ClientCa;
    use std::io;
    use std::time::SystemTime;

    /// Not a secret: made for these tests.
    const CHAIN: &str = include_str!("../../tests/data/a.test.pem");
    const KEY: &str = include_str!("../../tests/data/a.test.key");

    fn machine() -> Machine {
        Machine {
            host_name: "edge".to_owned(),
            ipv6: true,
            descriptors_max: 0,
            now: SystemTime::UNIX_EPOCH,
            read: |path| match path {
                "/a.pem" => Some(Ok(CHAIN.into())),
                "/a.key" => Some(Ok(KEY.into())),
                "/secret" => Some(Err(io::ErrorKind::PermissionDenied.into())),
                _ => None,
            },
        }
    }

    fn pair(chain: &str, key: &str) -> Written {
        Written {
            cert_file: chain.to_owned(),
            key_file: key.to_owned(),
        }
    }

    /// What is said about `written`; the last line if the entry point stays closed is marked with `!`.
    fn check(written: &Tls, expected: &[&str]) {
        let mut left_out = Vec::new();
        let made = server("https", written, &machine(), &mut left_out);
        let mut said: Vec<String> = left_out.into_iter().map(|said| said.message).collect();
        if let Err(fatal) = made {
            said.push(format!("!{}", fatal.message));
        }
        assert_eq!(said, expected);
    }

    #[test]
    fn a_pair_that_cannot_be_used_is_left_out_and_named_once() {
        let good = pair("/a.pem", "/a.key");
        check(&Tls::default(), &[]);
        check(
            &Tls {
                certificates: vec![good.clone(), pair(CHAIN, KEY)],
                default_certificate: Some(good.clone()),
                ..Tls::default()
            },
            &[
                "entry point https: Skipping addition of certificate for domain(s) \"a.test\", to EntryPoint https, as \
                 it already exists",
            ],
        );
        check(
            &Tls {
                certificates: vec![pair("/nope", "/a.key"), good, pair("/secret", "x")],
                default_certificate: Some(pair("/nope", "/a.key")),
                ..Tls::default()
            },
            &[
                "entry point https: Unable to append certificate /nope to entrypoint https: failed to find any PEM data \
                 in certificate input",
                "entry point https: Unable to append certificate /secret to entrypoint https: /secret: permission denied",
            ],
        );
        check(
            &Tls {
                certificates: vec![pair(CHAIN, "x")],
                ..Tls::default()
            },
            &[
                "entry point https: Unable to append certificate to entrypoint https: failed to find any \
                 PEM data in key input",
            ],
        );
    }

    #[test]
    fn weak_options_are_named_and_no_suite_at_all_is_an_error() {
        let suites = |names: &[&str]| Tls {
            cipher_suites: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Tls::default()
        };
        check(
            &suites(&[
                "TLS_RSA_WITH_RC4_128_SHA",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            ]),
            &[
                "entry point https: tls.cipherSuites: TLS_RSA_WITH_RC4_128_SHA is too weak to be offered, ignored",
            ],
        );
        check(
            &suites(&["TLS_RSA_WITH_RC4_128_SHA"]),
            &[
                "entry point https: tls.cipherSuites: TLS_RSA_WITH_RC4_128_SHA is too weak to be offered, ignored",
                "!entry point https: tls.cipherSuites: none of them can be offered",
            ],
        );
        check(
            &Tls {
                min_version: "VersionTLS10".to_owned(),
                ..Tls::default()
            },
            &[
                "entry point https: tls.minVersion: VersionTLS10 is too weak to be offered; clients need TLS 1.2",
            ],
        );
    }

    #[test]
    fn clients_that_cannot_be_checked_are_not_let_in() {
        let asking = |files: &[&str]| Tls {
            client_ca: Some(ClientCa {
                files: files.iter().map(|file| (*file).to_owned()).collect(),
                optional: true,
            }),
            ..Tls::default()
        };
        check(&asking(&[]), &[]);
        check(&asking(&["/a.pem", CHAIN]), &[]);
        check(
            &asking(&["/a.pem", "/nope"]),
            &[
                "!entry point https: tls.clientCA.files: invalid certificate(s) content: failed to find any PEM data in \
                 certificate input",
            ],
        );
    }

    /// What is said about certificates for these entry points, of which `https` and `other` have TLS; and which of the
    /// entry points got some.
    fn check_dynamic(entries: &[(&[&str], Written)], expected: &[&str], got: [bool; 3]) {
        let tls = server("https", &Tls::default(), &machine(), &mut Vec::new())
            .ok()
            .map(|(tls, _)| tls);
        let world = World {
            entry_points: ["http", "https", "other"].map(str::to_owned).to_vec(),
            tls: vec![None, tls.clone(), tls],
            default_entry_points: vec!["http".to_owned(), "https".to_owned()],
            ..World::default()
        };
        let entries = entries.iter().map(|(names, pair)| TlsEntry {
            place: Place::Default,
            entry_points: names.iter().map(|name| (*name).to_owned()).collect(),
            certificate: pair.clone(),
        });
        let written = Dynamic {
            tls: entries.collect(),
            ..Dynamic::default()
        };
        let providers = BTreeMap::from([("file".to_owned(), Arc::new(written))]);
        let mut known = Known::default();
        // The second time all of them are known.
        for _ in 0..2 {
            let mut rejections = Vec::new();
            let made = dynamic(&providers, &world, &mut known, &mut rejections);
            let said: Vec<String> = rejections.into_iter().map(|said| said.message).collect();
            assert_eq!(said, expected);
            assert_eq!(made.iter().map(Option::is_some).collect::<Vec<_>>(), got);
        }
    }

    #[test]
    fn a_pair_is_read_again_only_if_it_is_another() {
        // What stands for it in memory tells whether it was read.
        let planted = || {
            let read = (KEY.to_owned(), Err("from memory".to_owned()));
            Known(HashMap::from([(CHAIN.to_owned(), read)]))
        };
        let check = |key, expected: Option<&str>| {
            let mut known = Known::default();
            let read = known.read(&pair(CHAIN, key), &mut planted());
            assert_eq!(read.as_ref().err().map(String::as_str), expected);
        };
        check(KEY, Some("from memory"));
        check("x", Some("failed to find any PEM data in key input"));
        let read = Known::default()
            .read(&pair(CHAIN, KEY), &mut Known::default())
            .is_ok();
        assert!(read);
    }

    #[test]
    fn certificates_of_providers_go_where_they_are_named() {
        let good = pair(CHAIN, KEY);
        check_dynamic(&[], &[], [false, false, false]);
        check_dynamic(&[(&[], good.clone())], &[], [false, true, false]);
        check_dynamic(
            &[(&["other", "http", "unknown"], good.clone())],
            &[],
            [false, false, true],
        );
        check_dynamic(
            &[(&["http", "unknown"], good.clone())],
            &["Certificates not added to non-TLS entryPoint http,unknown."],
            [false; 3],
        );
        check_dynamic(
            &[
                (&["https"], good.clone()),
                (&["https", "other"], good),
                (&["https"], pair("/nope", KEY)),
            ],
            &[
                "Skipping addition of certificate for domain(s) \"a.test\", to EntryPoint https, as it already exists",
                "Unable to append certificate /nope to entrypoint https: failed to find any PEM data in certificate \
                 input",
            ],
            [false, true, true],
        );
    }
}
