//! Records made by dynamic updates of the zone itself: `rfc2136`, with or without a shared key (RFC 2136, RFC 8945).
//!
//! A record of ours is added beside those that are there, and only it is removed again: a wildcard and its domain are proved
//! by two records of one name. Never logs the key. Read next: `ask.rs`.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hickory_proto::op::update_message::{append, delete_by_rdata};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{self, Name, RData, TSigner};
use std::time::SystemTime;

use super::super::wall_clock;
use super::ask::{over_tcp, parsed, resolved, zone_of};
use super::{Environment, Record};

/// Of a record, in seconds.
const TTL: u32 = 120;

/// By how many seconds our clock and the server's may differ (RFC 8945 10).
const FUDGE: u16 = 300;

pub(super) struct Updater {
    /// `host` or `host:port`.
    server: String,
    ttl: u32,
    signer: Option<TSigner>,
}

impl fmt::Debug for Updater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Updater({:?})", self.server)
    }
}

impl Updater {
    pub(super) fn new(environment: &Environment<'_>) -> Result<Self, String> {
        let server = environment.needed("RFC2136_NAMESERVER", "rfc2136")?;
        let ttl = match environment.value("RFC2136_TTL")? {
            Some(written) => {
                let ttl = written.parse();
                ttl.map_err(|_| format!("RFC2136_TTL is no count of seconds: {written:?}"))?
            }
            None => TTL,
        };
        let key = environment.value("RFC2136_TSIG_KEY")?;
        let secret = environment.value("RFC2136_TSIG_SECRET")?;
        let signer = match (key, secret) {
            (Some(key), Some(secret)) => {
                let algorithm = environment.value("RFC2136_TSIG_ALGORITHM")?;
                Some(signer(&key, &secret, algorithm.as_deref())?)
            }
            (None, None) => None,
            (Some(_), None) => {
                return Err("RFC2136_TSIG_KEY needs RFC2136_TSIG_SECRET".to_owned());
            }
            (None, Some(_)) => {
                return Err("RFC2136_TSIG_SECRET needs RFC2136_TSIG_KEY".to_owned());
            }
        };
        Ok(Self {
            server,
            ttl,
            signer,
        })
    }

    pub(super) async fn add(&self, record: &Record) -> Result<(), String> {
        self.update(record, |record, zone| {
            append(record.into(), zone, false, false)
        })
        .await
    }

    pub(super) async fn remove(&self, record: &Record) -> Result<(), String> {
        self.update(record, |record, zone| {
            delete_by_rdata(record.into(), zone, false)
        })
        .await
    }

    async fn update(
        &self,
        record: &Record,
        message: impl FnOnce(rr::Record, Name) -> Message,
    ) -> Result<(), String> {
        let name = parsed(&record.name())?;
        let servers = resolved(&self.server).await?;
        let zone = zone_of(&servers, &name).await?;
        let said = |error: &dyn fmt::Display| format!("{}: {error}", self.server);
        let text = TXT::new(vec![record.value.clone()]);
        let record = rr::Record::from_rdata(name, self.ttl, RData::TXT(text));
        let mut message = message(record, zone);
        let verifier = match &self.signer {
            Some(signer) => message
                .finalize(signer, seconds(wall_clock()))
                .map_err(|error| said(&error))?,
            None => None,
        };
        let bytes = message.to_vec().map_err(|error| said(&error))?;
        let server = *servers.first().ok_or_else(|| said(&"it has no address"))?;
        let answer = over_tcp(server, &bytes)
            .await
            .map_err(|error| said(&error))?;
        let told = Message::from_vec(&answer).map_err(|error| said(&error))?;
        if told.id != message.id {
            return Err(said(&"it answered another question"));
        }
        match told.response_code {
            ResponseCode::NoError => {}
            // A refusal need not be signed.
            code @ (ResponseCode::NotAuth | ResponseCode::Refused) => {
                let why = "the zone is not its own, or the key, its algorithm or the time is not what it expects";
                return Err(said(&format!("{code} ({why})")));
            }
            code => return Err(said(&code)),
        }
        if let Some(mut verifier) = verifier {
            verifier.verify(&answer).map_err(|error| said(&error))?;
        }
        Ok(())
    }
}

fn signer(key: &str, secret: &str, algorithm: Option<&str>) -> Result<TSigner, String> {
    let written = algorithm.unwrap_or("hmac-md5.sig-alg.reg.int");
    let name = written.trim_end_matches('.').to_ascii_lowercase();
    let algorithm = match &*name {
        "hmac-sha256" => TsigAlgorithm::HmacSha256,
        "hmac-sha384" => TsigAlgorithm::HmacSha384,
        "hmac-sha512" => TsigAlgorithm::HmacSha512,
        _ => {
            return Err(format!(
                "RFC2136_TSIG_ALGORITHM = {written:?} is not supported: give the name server a key with hmac-sha256, hmac-sha384 or hmac-sha512, and name that"
            ));
        }
    };
    let secret = BASE64_STANDARD
        .decode(secret.trim())
        .map_err(|_| "RFC2136_TSIG_SECRET is no base64".to_owned())?;
    TSigner::new(secret, algorithm, parsed(key)?, FUDGE)
        .map_err(|error| format!("RFC2136_TSIG_KEY: {error}"))
}

fn seconds(now: SystemTime) -> u64 {
    now.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |at| at.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(variables: &[(&str, &str)], why: &str) {
        let environment = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let made = Updater::new(&Environment(&environment));
        let error = made.err().unwrap_or_default();
        assert!(
            error.contains(why) && error.is_empty() == why.is_empty(),
            "{error}"
        );
        assert!(!error.contains("c2VjcmV0"), "{error}");
    }

    #[test]
    fn keys_are_whole_and_of_a_kind_that_is_supported() {
        let server = ("RFC2136_NAMESERVER", "192.0.2.1");
        let key = ("RFC2136_TSIG_KEY", "key.");
        let secret = ("RFC2136_TSIG_SECRET", "c2VjcmV0");
        check(&[server], "");
        check(&[server, key], "needs RFC2136_TSIG_SECRET");
        check(&[server, secret], "needs RFC2136_TSIG_KEY");
        check(
            &[server, key, secret],
            "\"hmac-md5.sig-alg.reg.int\" is not supported",
        );
        let algorithm = |name| ("RFC2136_TSIG_ALGORITHM", name);
        check(&[server, key, secret, algorithm("HMAC-SHA256.")], "");
        check(
            &[server, key, secret, algorithm("hmac-sha1.")],
            "is not supported",
        );
        let rubbish = ("RFC2136_TSIG_SECRET", "c2VjcmV0!");
        check(
            &[server, key, rubbish, algorithm("hmac-sha512")],
            "is no base64",
        );
        check(&[server, ("RFC2136_TTL", "1m")], "RFC2136_TTL");
    }
}
