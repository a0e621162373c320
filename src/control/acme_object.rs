//! An ACME account with its certificates, in the form in which nodes share it: what `storeconfig` uploads.
//!
//! Owns the reading of `acme.json` and the layout of the object (spec kv-static 4.4, acme 4 and 5). Never talks to a
//! certificate authority. Read next: `storeconfig.rs`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::config::acme::Acme;
use crate::store::Kind;

/// What goes below the storage key.
#[derive(Debug)]
pub(super) struct Account {
    /// The key that everything is below, exactly as the operator wrote it.
    pub(super) storage: String,
    /// The object as it is stored: gzip of JSON.
    pub(super) object: Vec<u8>,
    /// What is there already is replaced.
    pub(super) overrides: bool,
    pub(super) warnings: Vec<String>,
}

impl Account {
    /// The account of `acme.storageFile`, or an empty one.
    ///
    /// # Errors
    /// See [`Unusable`].
    pub(super) fn read(acme: &Acme) -> Result<Self, Unusable> {
        let has_file = !acme.storage_file.is_empty();
        if acme.override_certificates && !has_file {
            return Err(Unusable::NothingToReplaceWith);
        }
        let storage = &acme.storage;
        if storage.is_empty() || has_file && *storage == acme.storage_file {
            return Err(Unusable::NoKey);
        }
        let mut warnings = Vec::new();
        let object = if has_file {
            from_file(&acme.storage_file, &mut warnings)?
        } else {
            empty()
        };
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        let written = gzip.write_all(object.as_bytes());
        let object = written.and_then(|()| gzip.finish());
        Ok(Self {
            storage: storage.clone(),
            object: object.map_err(|error| Unusable::File(acme.storage_file.clone(), error))?,
            overrides: acme.override_certificates,
            warnings,
        })
    }

    /// The object as this store can hold it.
    pub(super) fn object_in(&self, kind: Kind) -> Cow<'_, [u8]> {
        match kind {
            // Its protocol carries text. Traefik 1.7 reads this form, too.
            Kind::EtcdV2 => Cow::Owned(BASE64_STANDARD.encode(&self.object).into_bytes()),
            _ => Cow::Borrowed(&self.object),
        }
    }

    pub(super) fn object_key(&self) -> String {
        format!("{}/object", self.storage)
    }

    pub(super) fn lock_key(&self) -> String {
        format!("{}/lock", self.storage)
    }
}

/// Why there is no account to upload.
#[derive(Debug)]
pub enum Unusable {
    /// An account and its certificates would be replaced by nothing.
    NothingToReplaceWith,
    NoKey,
    File(String, io::Error),
    /// Others than the owner may read the file; its mode.
    TooOpen(String, u32),
    Json(String, String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingToReplaceWith => f.write_str(
                "acme.overrideCertificates would replace the account in the store by an empty one, since there is no acme.storageFile",
            ),
            Self::NoKey => f.write_str("acme.storage must be the key of the account in the store"),
            Self::File(path, error) => write!(f, "{path}: {error}"),
            Self::TooOpen(path, mode) => {
                write!(f, "permissions {mode:o} for {path} are too open, please use 600")
            }
            Self::Json(path, error) => write!(f, "{path}: it is no ACME account: {error}"),
        }
    }
}

impl std::error::Error for Unusable {}

fn empty() -> String {
    object(&Value::Null, &[])
}

fn from_file(path: &str, warnings: &mut Vec<String>) -> Result<String, Unusable> {
    let failed = |error| Unusable::File(path.to_owned(), error);
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Unusable::TooOpen(path.to_owned(), mode));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    if text.trim().is_empty() {
        warnings.push(format!("{path} is empty, so an empty account is stored"));
        return Ok(empty());
    }
    let unusable = |error: String| Unusable::Json(path.to_owned(), error);
    let file: Value = serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))?;
    if file.get("DomainsCertificate").is_some() {
        // The layout of the object already, from before there were several accounts in a file.
        let certificates = file["DomainsCertificate"]["Certs"].as_array();
        return Ok(object(&file, certificates.map_or(&[], Vec::as_slice)));
    }
    if file.get("Account").is_none() {
        return Err(unusable("there is no Account in it".to_owned()));
    }
    let written = file["Certificates"].as_array();
    let mut by_name = BTreeMap::new();
    for written in written.map_or(&[] as &[Value], Vec::as_slice) {
        let main = written["Domain"]["Main"].as_str().unwrap_or_default();
        let certificate = json!({
            "Domains": { "Main": main, "SANs": written["Domain"]["SANs"] },
            "Certificate": {
                "Domain": main,
                "CertURL": "",
                "CertStableURL": "",
                "PrivateKey": written["Key"],
                "Certificate": written["Certificate"],
            },
        });
        if by_name.contains_key(main) {
            warnings.push(format!(
                "{path}: there is a second certificate for {main}, which is left out"
            ));
        } else {
            by_name.insert(main.to_owned(), certificate);
        }
    }
    let certificates: Vec<Value> = by_name.into_values().collect();
    Ok(object(&file["Account"], &certificates))
}

/// The JSON of an account, its fields in the order in which Traefik writes them.
fn object(account: &Value, certificates: &[Value]) -> String {
    let uri = account["Registration"]["uri"].as_str().unwrap_or_default();
    // Of the first version of the protocol, which no authority speaks any more.
    let registration = if uri.contains("/acme/reg/") {
        &Value::Null
    } else {
        &account["Registration"]
    };
    let text = |name: &str| account[name].as_str().unwrap_or_default();
    let certificates = if certificates.is_empty() {
        Value::Null
    } else {
        certificates.into()
    };
    format!(
        r#"{{"Email":{},"Registration":{registration},"PrivateKey":{},"KeyType":{},"DomainsCertificate":{{"Certs":{certificates}}},"ChallengeCerts":null,"HTTPChallenge":null}}"#,
        json!(text("Email")),
        account["PrivateKey"],
        json!(text("KeyType")),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn read(file: Option<(&str, u32)>, overrides: bool) -> Result<(Value, Vec<String>), String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("acme.json");
        if let Some((text, mode)) = file {
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        }
        let acme = Acme {
            storage: "traefik/acme/account".to_owned(),
            storage_file: file.map_or_else(String::new, |_| path.display().to_string()),
            override_certificates: overrides,
            ..Acme::default()
        };
        let account = Account::read(&acme).map_err(|error| {
            error
                .to_string()
                .replace(&path.display().to_string(), "FILE")
        })?;
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*account.object)
            .read_to_string(&mut text)
            .expect("gzip");
        Ok((serde_json::from_str(&text).expect("JSON"), account.warnings))
    }

    #[test]
    fn certificates_of_a_file_become_those_of_an_object() {
        let file = r#"{"Account":{"Email":"a@b","Registration":{"uri":"https://ca/account/1"},"PrivateKey":"a2V5","KeyType":"P256"},
            "Certificates":[{"Domain":{"Main":"b.org","SANs":["c.org"]},"Certificate":"Yg==","Key":"aw=="},
                            {"Domain":{"Main":"a.org","SANs":null},"Certificate":"YQ==","Key":"aw=="},
                            {"Domain":{"Main":"a.org","SANs":null},"Certificate":"eA==","Key":"aw=="}],
            "HTTPChallenges":{},"TLSChallenges":{}}"#;
        let (object, warnings) = read(Some((file, 0o600)), true).expect("usable");
        assert_eq!(
            object,
            json!({
                "Email": "a@b", "Registration": {"uri": "https://ca/account/1"}, "PrivateKey": "a2V5", "KeyType": "P256",
                "DomainsCertificate": {"Certs": [
                    {"Domains": {"Main": "a.org", "SANs": null},
                     "Certificate": {"Domain": "a.org", "CertURL": "", "CertStableURL": "", "PrivateKey": "aw==", "Certificate": "YQ=="}},
                    {"Domains": {"Main": "b.org", "SANs": ["c.org"]},
                     "Certificate": {"Domain": "b.org", "CertURL": "", "CertStableURL": "", "PrivateKey": "aw==", "Certificate": "Yg=="}},
                ]},
                "ChallengeCerts": null, "HTTPChallenge": null,
            })
        );
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn older_files_are_taken_as_they_are_without_old_registrations() {
        let file = r#"{"Email":"a@b","Registration":{"uri":"https://ca/acme/reg/7"},"PrivateKey":"a2V5",
            "DomainsCertificate":{"Certs":[{"Domains":{"Main":"a"}}]}}"#;
        let (object, _) = read(Some((file, 0o400)), false).expect("usable");
        assert_eq!(object["Registration"], Value::Null);
        assert_eq!(
            object["DomainsCertificate"]["Certs"][0]["Domains"]["Main"],
            "a"
        );
    }

    #[test]
    fn what_cannot_be_uploaded_is_said() {
        let check = |file, overrides, expected: &str| {
            assert_eq!(read(file, overrides).map(|_| ()), Err(expected.to_owned()));
        };
        check(
            Some(("{}", 0o644)),
            false,
            "permissions 644 for FILE are too open, please use 600",
        );
        check(
            Some(("{}", 0o600)),
            false,
            "FILE: it is no ACME account: there is no Account in it",
        );
        check(
            None,
            true,
            "acme.overrideCertificates would replace the account in the store by an empty one, since there is no acme.storageFile",
        );
        let (object, warnings) = read(Some(("", 0o600)), false).expect("usable");
        assert_eq!(object["DomainsCertificate"]["Certs"], Value::Null);
        assert_eq!(warnings.len(), 1);
    }
}
