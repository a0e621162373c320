//! The account, the certificates and the open proofs of a fleet: the one object of Traefik 1.7 in a store (spec acme 5).
//!
//! Owns its format, gzip of JSON, in which 1.7 reads and writes it too: what it says of others is kept. The account of 1.7
//! (RSA) stays as it is; ours stands beside it under a name of its own, as in `acme.json`.
//! Never talks to a store, never logs what is in it. Read next: `shared.rs` (how it is shared), `storage.rs` (one node).

use std::io::{self, Read, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

use super::storage::{self, Account, Stored, decoded};
use super::{Proof, Proved};
use crate::limits::ACME_OBJECT_BYTES_MAX;

/// Everything in the object, what we do not know included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    document: Map<String, Value>,
}

impl Default for Object {
    /// What `storeconfig` writes where there is no account yet.
    fn default() -> Self {
        let document = json!({
            "Email": "",
            "Registration": null,
            "PrivateKey": null,
            "KeyType": "",
            "DomainsCertificate": {"Certs": null},
            "ChallengeCerts": null,
            "HTTPChallenge": null,
        });
        match document {
            Value::Object(document) => Self { document },
            _ => Self {
                document: Map::new(),
            },
        }
    }
}

impl Object {
    /// Gzip of JSON, or base64 of either, or JSON. No bytes are an empty object.
    ///
    /// # Errors
    /// A sentence without anything of the content.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let plain = unpacked(bytes).map_err(|error| error.to_string())?;
        match serde_json::from_slice(&plain) {
            // What is not understood would be written over with the next change.
            Ok(Value::Object(document)) if is_account(&document) => Ok(Self { document }),
            Ok(_) => Err("it is no ACME account".to_owned()),
            // What serde says may have a piece of a key in it.
            Err(error) => Err(format!(
                "it is no JSON, from line {} column {} on",
                error.line(),
                error.column()
            )),
        }
    }

    /// As 1.7 stores it.
    ///
    /// # Errors
    /// Out of memory is the only way; the type is that of the writer.
    pub(super) fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&serde_json::to_vec(&self.document)?)?;
        gzip.finish()
    }

    /// The kind of key that certificates of an existing account have; `None` if the options decide.
    pub(super) fn key_type(&self) -> Option<&str> {
        let kind = self.document.get("KeyType")?.as_str()?;
        Some(kind).filter(|kind| !kind.is_empty())
    }

    pub(super) fn has_account_of_1_7(&self) -> bool {
        self.document
            .get("PrivateKey")
            .is_some_and(Value::is_string)
    }

    pub(super) fn account(&self) -> Option<Account> {
        storage::account(&self.document)
    }

    pub(super) fn set_account(&mut self, account: &Account) {
        storage::set_account(&mut self.document, account);
    }

    /// Those that have content.
    pub(super) fn certificates(&self) -> Vec<Stored> {
        let all = self
            .document
            .get("DomainsCertificate")
            .and_then(|all| all.get("Certs"))
            .and_then(Value::as_array);
        all.into_iter().flatten().filter_map(stored).collect()
    }

    /// Adds a certificate, or puts it in the place of the one for the same names.
    pub(super) fn put(&mut self, new: &Stored) {
        let main = new.names.first();
        let entry = json!({
            "Domains": {
                "Main": main,
                "SANs": new.names.get(1..).filter(|others| !others.is_empty()),
            },
            "Certificate": {
                "Domain": main,
                "CertURL": "",
                "CertStableURL": "",
                "PrivateKey": BASE64_STANDARD.encode(&new.key),
                "Certificate": BASE64_STANDARD.encode(&new.chain),
            },
        });
        let all = self
            .document
            .entry("DomainsCertificate")
            .or_insert(Value::Null);
        if all.is_null() {
            *all = json!({});
        }
        storage::put_in_place(&mut all["Certs"], entry, |old| {
            stored(old).is_some_and(|old| old.names == new.names)
        });
    }

    /// What proves names that are being ordered, by whichever node.
    pub(super) fn proofs(&self) -> Vec<Proof> {
        let text = |value: &Value| String::from_utf8(decoded(value)?).ok();
        let of = |field| {
            let field = self.document.get(field).and_then(Value::as_object);
            field.into_iter().flatten()
        };
        let http = of("HTTPChallenge").flat_map(|(token, names)| {
            let names = names.as_object().into_iter().flatten();
            names.filter_map(|(name, answer)| {
                Some(Proof {
                    name: name.clone(),
                    proved: Proved::Http {
                        token: token.clone(),
                        answer: text(answer)?,
                    },
                })
            })
        });
        let tls = of("ChallengeCerts").filter_map(|(name, pair)| {
            Some(Proof {
                name: name.clone(),
                proved: Proved::Tls {
                    chain: text(pair.get("Certificate")?)?,
                    key: text(pair.get("PrivateKey")?)?,
                },
            })
        });
        http.chain(tls).collect()
    }

    /// Takes the place of all that proved names before.
    pub(super) fn set_proofs(&mut self, proofs: &[Proof]) {
        let (mut http, mut tls) = (Map::new(), Map::new());
        for Proof { name, proved } in proofs {
            match proved {
                Proved::Http { token, answer } => {
                    let answer = json!({ name: BASE64_STANDARD.encode(answer) });
                    http.insert(token.clone(), answer);
                }
                Proved::Tls { chain, key } => {
                    let pair = json!({
                        "Certificate": BASE64_STANDARD.encode(chain),
                        "PrivateKey": BASE64_STANDARD.encode(key),
                    });
                    tls.insert(name.clone(), pair);
                }
            }
        }
        for (field, proofs) in [("HTTPChallenge", http), ("ChallengeCerts", tls)] {
            self.document
                .insert(field.to_owned(), Value::Object(proofs));
        }
    }
}

/// Whether everything is where it is looked for.
fn is_account(document: &Map<String, Value>) -> bool {
    let is_map = |field: &str| {
        let field = document.get(field).unwrap_or(&Value::Null);
        field.is_null() || field.is_object()
    };
    let certificates = document
        .get("DomainsCertificate")
        .and_then(|all| all.get("Certs"))
        .unwrap_or(&Value::Null);
    ["DomainsCertificate", "ChallengeCerts", "HTTPChallenge"]
        .into_iter()
        .all(is_map)
        && (certificates.is_null() || certificates.is_array())
}

/// The JSON inside, at most `ACME_OBJECT_BYTES_MAX` of it.
fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        let limit = ACME_OBJECT_BYTES_MAX as u64;
        GzDecoder::new(bytes)
            .take(limit + 1)
            .read_to_end(&mut plain)?;
        if plain.len() > ACME_OBJECT_BYTES_MAX {
            return Err(io::Error::other(format!(
                "it is bigger than {} MiB",
                ACME_OBJECT_BYTES_MAX >> 20
            )));
        }
        return Ok(plain);
    }
    match BASE64_STANDARD.decode(bytes.trim_ascii()) {
        Ok(inner) if inner.starts_with(&[0x1f, 0x8b]) => unpacked(&inner),
        Ok(inner) => Ok(inner),
        Err(_) => Ok(bytes.to_vec()),
    }
}

fn stored(entry: &Value) -> Option<Stored> {
    let certificate = entry.get("Certificate")?;
    storage::stored(
        entry.get("Domains")?,
        certificate.get("Certificate")?,
        certificate.get("PrivateKey")?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What 1.7 has in its store, with something of a later version.
    const OF_1_7: &str = r#"{"Email":"t@example.com","Registration":{"uri":"https://ca/my-account/1"},"PrivateKey":"AAEC","KeyType":"P256",
        "DomainsCertificate":{"Certs":[
            {"Domains":{"Main":"A.test","SANs":null},"Certificate":{"Domain":"a.test","CertURL":"https://ca/certZ/1",
             "CertStableURL":"https://ca/certZ/1","PrivateKey":"a2V5","Certificate":"Y2hhaW4="}},
            {"Domains":{"Main":"empty.test","SANs":null},"Certificate":{"PrivateKey":"","Certificate":""}}]},
        "ChallengeCerts":{"c.test":{"Certificate":"Yw==","PrivateKey":"aw=="}},
        "HTTPChallenge":{"token":{"b.test":"YW5zd2Vy"}},"Later":7}"#;

    fn named(name: &str, chain: &str) -> Stored {
        Stored {
            names: vec![name.to_owned()],
            chain: chain.to_owned(),
            key: "key".to_owned(),
        }
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).expect("memory");
        gzip.finish().expect("memory")
    }

    #[test]
    fn every_form_of_1_7_is_read() {
        let packed = gzip(OF_1_7);
        for bytes in [
            packed.clone(),
            BASE64_STANDARD.encode(&packed).into_bytes(),
            BASE64_STANDARD.encode(OF_1_7).into_bytes(),
            OF_1_7.as_bytes().to_vec(),
        ] {
            let object = Object::read(&bytes).expect("readable");
            assert_eq!(object.certificates(), [named("a.test", "chain")]);
            assert_eq!(object.key_type(), Some("P256"));
            assert_eq!(
                object.proofs(),
                [
                    Proof {
                        name: "b.test".to_owned(),
                        proved: Proved::Http {
                            token: "token".to_owned(),
                            answer: "answer".to_owned()
                        },
                    },
                    Proof {
                        name: "c.test".to_owned(),
                        proved: Proved::Tls {
                            chain: "c".to_owned(),
                            key: "k".to_owned()
                        },
                    },
                ]
            );
        }
        assert_eq!(Object::read(b""), Ok(Object::default()));
    }

    #[test]
    fn what_is_written_is_gzip_and_keeps_what_others_wrote() {
        let mut object = Object::read(OF_1_7.as_bytes()).expect("readable");
        let proofs = object.proofs();
        let account = Account {
            uri: "https://ca/2".to_owned(),
            directory: "https://ca/directory".to_owned(),
            key: vec![1, 2, 3],
        };
        object.set_account(&account);
        object.put(&named("a.test", "new"));
        object.put(&named("z.test", "z"));
        object.set_proofs(&proofs);
        let bytes = object.bytes().expect("written");
        assert_eq!(bytes.get(..2), Some(&[0x1f, 0x8b][..]));
        let again = Object::read(&bytes).expect("readable");
        assert_eq!(again, object);
        assert_eq!(
            again.certificates(),
            [named("a.test", "new"), named("z.test", "z")]
        );
        assert!(again.account() == Some(account));
        assert_eq!(again.proofs(), proofs);
        assert_eq!(again.document["Later"], 7);
        assert_eq!(again.document["PrivateKey"], "AAEC");
        assert_eq!(
            again.document["HTTPChallenge"],
            json!({"token": {"b.test": "YW5zd2Vy"}})
        );
        object.set_proofs(&[]);
        assert_eq!(object.proofs(), []);
    }

    #[test]
    fn what_is_no_account_is_refused_without_a_word_of_it() {
        for bytes in [
            &b"{\"PrivateKey\": \"secret"[..],
            b"[\"secret\"]",
            b"{\"DomainsCertificate\": \"secret\"}",
            b"{\"DomainsCertificate\": {\"Certs\": \"secret\"}}",
            &gzip("secret"),
        ] {
            let why = Object::read(bytes).expect_err("no account");
            assert!(!why.contains("secret"), "{why}");
        }
        let mut zeros = GzEncoder::new(Vec::new(), Compression::fast());
        zeros
            .write_all(&vec![b' '; ACME_OBJECT_BYTES_MAX + 1])
            .expect("memory");
        let why = Object::read(&zeros.finish().expect("memory")).expect_err("too big");
        assert_eq!(why, "it is bigger than 32 MiB");
    }
}
