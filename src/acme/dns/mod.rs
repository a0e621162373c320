//! Names proved over DNS (RFC 8555 8.4): a TXT record is made, seen by the world, and removed when the order is over.
//!
//! Owns the providers that make records, and the wait until the name servers of the zone show them (spec acme 1.1, 3.3).
//! A provider that we do not have is an error that says what to use instead. What a provider is told comes from the
//! environment, under the names of Traefik 1.7. Never logs a password or a key. Read next: `ask.rs`, then one provider.

mod ask;
mod command;
mod request;
mod update;

use std::fs;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use self::ask::Asker;
use self::command::Program;
use self::request::Service;
use self::update::Updater;
use super::http::Http;
use crate::config::acme::{Acme, DnsChallenge};
use crate::limits::{ACME_DNS_POLL, ACME_DNS_WAIT};

/// What is to be seen for one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// That was ordered, without a `*.`.
    pub(super) domain: String,
    /// Of the challenge; for who makes the value by itself.
    pub(super) token: String,
    pub(super) key_authorization: String,
    /// Of the record: the digest of the key authorization.
    pub(super) value: String,
}

impl Record {
    /// Absolute, with a dot at the end.
    pub(super) fn name(&self) -> String {
        format!("_acme-challenge.{}.", self.domain)
    }
}

/// How names are proved over DNS.
pub(super) struct Dns {
    provider: Provider,
    wait: Wait,
}

/// Who makes records.
#[derive(Debug)]
enum Provider {
    Program(Program),
    Service(Box<Service>),
    Updater(Updater),
}

/// How it is known that the world sees a record.
#[derive(Debug)]
enum Wait {
    /// So long, nobody is asked.
    Fixed(Duration),
    /// Until every name server of the zone shows it, at most so long.
    Shown(Asker, Duration),
}

/// What is known of the environment.
pub(super) struct Environment<'a>(pub(super) &'a dyn Fn(&str) -> Option<String>);

impl Environment<'_> {
    /// The value of a variable, or the content of the file that `<name>_FILE` names.
    fn value(&self, name: &str) -> Result<Option<String>, String> {
        if let Some(value) = self.0(name).filter(|value| !value.is_empty()) {
            return Ok(Some(value));
        }
        let file = format!("{name}_FILE");
        let Some(path) = self.0(&file).filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let text = fs::read_to_string(&path).map_err(|error| format!("{file}: {path}: {error}"))?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    }

    fn needed(&self, name: &str, provider: &str) -> Result<String, String> {
        self.value(name)?.ok_or_else(|| {
            format!("acme.dnsChallenge.provider = {provider:?} needs the variable {name}")
        })
    }

    /// Whole seconds.
    fn seconds(&self, name: &str) -> Result<Option<Duration>, String> {
        let Some(value) = self.value(name)? else {
            return Ok(None);
        };
        let seconds = value
            .parse()
            .map_err(|_| format!("{name} is no count of seconds: {value:?}"));
        Ok(Some(Duration::from_secs(seconds?)))
    }
}

impl Dns {
    /// # Errors
    /// A sentence: there is no such provider here, or it lacks a variable.
    pub(super) fn new(
        options: &Acme,
        http: &Http,
        environment: &Environment<'_>,
    ) -> Result<Self, String> {
        let older = DnsChallenge {
            provider: options.dns_provider.clone(),
            delay_before_check: options.delay_dont_check_dns,
            ..DnsChallenge::default()
        };
        let written = options.dns_challenge.as_ref().unwrap_or(&older);
        let asker = Asker::new(&written.resolvers);
        let provider = &*written.provider;
        let (provider, variables) = match provider {
            "exec" => (Provider::Program(Program::new(environment)?), "EXEC"),
            "httpreq" => {
                let service = Service::new(http.clone(), environment)?;
                (Provider::Service(Box::new(service)), "HTTPREQ")
            }
            "rfc2136" => (Provider::Updater(Updater::new(environment)?), "RFC2136"),
            other => return Err(missing(other)),
        };
        let longest = environment.seconds(&format!("{variables}_PROPAGATION_TIMEOUT"))?;
        let wait = if !written.delay_before_check.is_zero() {
            Wait::Fixed(written.delay_before_check)
        } else if written.disable_propagation_check {
            Wait::Fixed(Duration::ZERO)
        } else {
            Wait::Shown(asker, longest.unwrap_or(ACME_DNS_WAIT))
        };
        Ok(Self { provider, wait })
    }

    /// Makes one record.
    ///
    /// # Errors
    /// A sentence: the provider could not. The record may be there nevertheless.
    pub(super) async fn present(&self, record: &Record) -> Result<(), String> {
        let made = match &self.provider {
            Provider::Program(program) => program.run("present", record).await,
            Provider::Service(service) => service.tell("present", record).await,
            Provider::Updater(updater) => updater.add(record).await,
        };
        made.map_err(|why| format!("the record {} could not be made: {why}", record.name()))
    }

    /// Removes one record that may be there. A record that stays does no harm.
    pub(super) async fn clean_up(&self, record: &Record) {
        let removed = match &self.provider {
            Provider::Program(program) => program.run("cleanup", record).await,
            Provider::Service(service) => service.tell("cleanup", record).await,
            Provider::Updater(updater) => updater.remove(record).await,
        };
        if let Err(why) = removed {
            warn!(
                "ACME: the record {} could not be removed: {why}",
                record.name()
            );
        }
    }

    /// Returns when the world sees these records.
    ///
    /// # Errors
    /// A sentence: it does not, or nobody can tell.
    pub(super) async fn seen(&self, records: &[Record]) -> Result<(), String> {
        match &self.wait {
            Wait::Fixed(time) => {
                if !time.is_zero() {
                    info!("ACME: waiting {time:?} for the records to be seen");
                    sleep(*time).await;
                }
                Ok(())
            }
            Wait::Shown(asker, longest) => {
                let end = Instant::now() + *longest;
                for record in records {
                    loop {
                        match asker.shown(&record.name(), &record.value).await {
                            Ok(()) => break,
                            Err(why) if Instant::now() >= end => {
                                return Err(format!(
                                    "the record {} is not seen after {longest:?}: {why} (acme.dnsChallenge.delayBeforeCheck waits without asking)",
                                    record.name()
                                ));
                            }
                            Err(why) => debug!("ACME: {}: {why}", record.name()),
                        }
                        sleep(ACME_DNS_POLL).await;
                    }
                }
                Ok(())
            }
        }
    }
}

/// The providers of Traefik 1.7 (spec acme 1.1).
const KNOWN: &[&str] = &[
    "alidns",
    "auroradns",
    "azure",
    "bindman",
    "bluecat",
    "cloudflare",
    "cloudns",
    "cloudxns",
    "conoha",
    "designate",
    "digitalocean",
    "dnsimple",
    "dnsmadeeasy",
    "dnspod",
    "dode",
    "dreamhost",
    "duckdns",
    "dyn",
    "easydns",
    "exoscale",
    "fastdns",
    "gandi",
    "gandiv5",
    "gcloud",
    "glesys",
    "godaddy",
    "hostingde",
    "iij",
    "inwx",
    "joker",
    "lightsail",
    "linode",
    "linodev4",
    "manual",
    "mydnsjp",
    "namecheap",
    "namedotcom",
    "namesilo",
    "netcup",
    "nifcloud",
    "ns1",
    "oraclecloud",
    "otc",
    "ovh",
    "pdns",
    "rackspace",
    "route53",
    "sakuracloud",
    "selectel",
    "stackpath",
    "transip",
    "vegadns",
    "versio",
    "vscale",
    "vultr",
    "zoneee",
];

fn missing(provider: &str) -> String {
    let instead = "\"exec\" (a program of yours, EXEC_PATH), \"httpreq\" (a service of yours, HTTPREQ_ENDPOINT) and \"rfc2136\" (dynamic updates, RFC2136_NAMESERVER)";
    match provider {
        "" => format!("acme.dnsChallenge.provider is missing; there are {instead}"),
        "pdns" | "designate" | "bindman" => format!(
            "acme.dnsChallenge.provider = {provider:?} is not supported: its server takes dynamic updates, so use \"rfc2136\"; there are {instead}"
        ),
        "manual" => format!(
            "acme.dnsChallenge.provider = \"manual\" is not supported, since nobody sits at the terminal of a server; there are {instead}"
        ),
        known if KNOWN.contains(&known) => format!(
            "acme.dnsChallenge.provider = {provider:?} is not supported: run its client from \"exec\", for example lego or acme.sh; there are {instead}"
        ),
        _ => format!("acme.dnsChallenge.provider = {provider:?} is unknown; there are {instead}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(options: &Acme, variables: &[(&str, &str)]) -> Result<Dns, String> {
        let environment = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let http = Http::new(false).expect("the system has authorities");
        Dns::new(options, &http, &Environment(&environment))
    }

    fn challenge(provider: &str) -> Acme {
        Acme {
            dns_challenge: Some(DnsChallenge {
                provider: provider.to_owned(),
                ..DnsChallenge::default()
            }),
            ..Acme::default()
        }
    }

    fn check(provider: &str, variables: &[(&str, &str)], why: &str) {
        let error = made(&challenge(provider), variables)
            .err()
            .unwrap_or_default();
        assert!(error.contains(why), "{provider}: {error}");
    }

    #[test]
    fn what_a_provider_lacks_is_said() {
        check("exec", &[], "needs the variable EXEC_PATH");
        check("httpreq", &[], "needs the variable HTTPREQ_ENDPOINT");
        check("httpreq", &[("HTTPREQ_ENDPOINT", "x")], "is no URL: \"x\"");
        let secret = "https://user:secret@records.test";
        let error = made(&challenge("httpreq"), &[("HTTPREQ_ENDPOINT", secret)]);
        let error = error.err().unwrap_or_default();
        assert!(
            error.contains("HTTPREQ_PASSWORD") && !error.contains("secret"),
            "{error}"
        );
        check("rfc2136", &[], "needs the variable RFC2136_NAMESERVER");
        check(
            "route53",
            &[],
            "is not supported: run its client from \"exec\"",
        );
        check("pdns", &[], "use \"rfc2136\"");
        check("manual", &[], "nobody sits at the terminal");
        check("nope", &[], "is unknown");
        check("", &[], "is missing");
        let exec = ("EXEC_PATH", "/bin/true");
        check(
            "exec",
            &[exec, ("EXEC_PROPAGATION_TIMEOUT", "1m")],
            "no count of seconds",
        );
        check("exec", &[exec], "");
        check(
            "exec",
            &[("EXEC_PATH_FILE", "/nope")],
            "EXEC_PATH_FILE: /nope: ",
        );
        assert!(KNOWN.is_sorted());
    }

    #[test]
    fn older_options_mean_the_same() {
        let options = Acme {
            dns_provider: "exec".to_owned(),
            delay_dont_check_dns: Duration::from_secs(7),
            ..Acme::default()
        };
        let dns = made(&options, &[("EXEC_PATH", "/bin/true")]).expect("it has all");
        assert!(matches!(dns.wait, Wait::Fixed(time) if time.as_secs() == 7));
        let mut options = challenge("exec");
        let variables = [
            ("EXEC_PATH", "/bin/true"),
            ("EXEC_PROPAGATION_TIMEOUT", "9"),
        ];
        let dns = made(&options, &variables).expect("it has all");
        assert!(matches!(dns.wait, Wait::Shown(_, longest) if longest.as_secs() == 9));
        if let Some(challenge) = &mut options.dns_challenge {
            challenge.disable_propagation_check = true;
        }
        let dns = made(&options, &variables).expect("it has all");
        assert!(matches!(dns.wait, Wait::Fixed(Duration::ZERO)));
    }
}
