//! `acme.json`: the account and the certificates of a single node, in Traefik 1.7's format (spec acme 4).
//!
//! Owns the file: who may read it, how it is replaced whole, and that what it says of others is kept. The account of 1.7
//! (RSA) stays as it is; ours (ECDSA P-256, which is what the client library signs with) stands beside it under a name of
//! its own, so 1.7 can go back to its own at any time. A file that cannot be read is put aside, never overwritten.
//! Never logs what is in it. Read next: `plan.rs`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

/// The account as we use it.
const OWN_ACCOUNT: &str = "CorewayAccount";

/// Everything in the file, what we do not know included.
#[derive(Debug)]
pub(super) struct Storage {
    path: PathBuf,
    document: Map<String, Value>,
}

/// A certificate that was issued.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// The first is the main one. Lower case.
    pub(super) names: Vec<String>,
    /// PEM, the leaf first.
    pub(super) chain: String,
    /// PEM.
    pub(super) key: String,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stored({:?})", self.names)
    }
}

/// An account that was registered.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uri: String,
    /// The directory that it was registered with.
    pub(super) directory: String,
    /// PKCS #8.
    pub(super) key: Vec<u8>,
}

impl Storage {
    /// Reads the file; one that is not there is made. Returns what is to be told about it, too.
    ///
    /// # Errors
    /// A sentence: it can be read by others than its owner, or not by us, or a new one cannot be written.
    pub(super) fn open(path: &Path, now: SystemTime) -> Result<(Self, Option<String>), String> {
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let mut told = None;
        let document = if text.is_empty() {
            initial()
        } else {
            let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(format!(
                    "permissions {mode:o} for {} are too open, please use 600",
                    path.display()
                ));
            }
            match read(&text) {
                Ok(document) => document,
                Err(why) => {
                    let aside = put_aside(path, now).map_err(failed)?;
                    told = Some(format!(
                        "{} cannot be read ({why}): it was put aside as {}, and its certificates are ordered again",
                        path.display(),
                        aside.display()
                    ));
                    initial()
                }
            }
        };
        let storage = Self {
            path: path.to_owned(),
            document,
        };
        if text.is_empty() || told.is_some() {
            storage.save().map_err(failed)?;
        }
        Ok((storage, told))
    }

    /// Replaces the file: after a crash it is the old one or the new one, whole. Where a link leads to it, that stays. A file
    /// that is mounted by itself, as into a container, cannot be replaced: it is written in place, as 1.7 does.
    ///
    /// # Errors
    /// As the file system says; the old file is untouched, unless it was written in place.
    pub(super) fn save(&self) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(&self.document)?;
        text.push(b'\n');
        match replace(&self.path, &text) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                overwrite(&self.path, &text)
            }
            replaced => replaced,
        }
    }

    /// The kind of key that certificates of an existing account have; `None` if the options decide.
    pub(super) fn key_type(&self) -> Option<&str> {
        self.document
            .get("Account")?
            .get("KeyType")?
            .as_str()
            .filter(|kind| !kind.is_empty())
    }

    pub(super) fn has_account_of_1_7(&self) -> bool {
        self.document
            .get("Account")
            .is_some_and(|account| account.get("PrivateKey").is_some_and(Value::is_string))
    }

    pub(super) fn account(&self) -> Option<Account> {
        account(&self.document)
    }

    pub(super) fn set_account(&mut self, account: &Account) {
        set_account(&mut self.document, account);
    }

    /// Those that have content.
    pub(super) fn certificates(&self) -> Vec<Stored> {
        let all = self.document.get("Certificates").and_then(Value::as_array);
        all.into_iter().flatten().filter_map(entry_stored).collect()
    }

    /// Adds a certificate, or puts it in the place of the one for the same names.
    pub(super) fn put(&mut self, new: &Stored) {
        let entry = json!({
            "Domain": {
                "Main": new.names.first(),
                "SANs": new.names.get(1..).filter(|others| !others.is_empty()),
            },
            "Certificate": BASE64_STANDARD.encode(&new.chain),
            "Key": BASE64_STANDARD.encode(&new.key),
        });
        let all = self.document.entry("Certificates").or_insert(Value::Null);
        put_in_place(all, entry, |old| {
            entry_stored(old).is_some_and(|old| old.names == new.names)
        });
    }
}

/// Puts an entry of a list in the place of the one that it replaces, or at the end. What is there twice, another program's
/// doing, goes: one that nobody renews would be due for ever.
pub(super) fn put_in_place(all: &mut Value, entry: Value, is_old: impl Fn(&Value) -> bool) {
    let old = match all.take() {
        Value::Array(old) => old,
        _ => Vec::new(),
    };
    let mut entry = Some(entry);
    let kept = old.into_iter().filter_map(|old| {
        if is_old(&old) {
            entry.take()
        } else {
            Some(old)
        }
    });
    let mut kept: Vec<Value> = kept.collect();
    kept.extend(entry);
    *all = Value::Array(kept);
}

/// The document in a file.
///
/// # Errors
/// Why it is none, without anything of the content.
fn read(text: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(document)) => {
            // What is not understood would be written over with the next certificate.
            match document.get("Certificates") {
                None | Some(Value::Null | Value::Array(_)) => Ok(document),
                Some(_) => Err("its Certificates are no list".to_owned()),
            }
        }
        Ok(_) => Err("it is no ACME account".to_owned()),
        // What serde says may have a piece of a key in it.
        Err(error) => Err(format!(
            "it is no JSON, from line {} column {} on",
            error.line(),
            error.column()
        )),
    }
}

/// Gives a file another name, which no file has.
fn put_aside(path: &Path, now: SystemTime) -> io::Result<PathBuf> {
    let seconds = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |at| at.as_secs());
    let names = (0..1000).map(|number| {
        let more = match number {
            0 => String::new(),
            number => format!("-{number}"),
        };
        PathBuf::from(format!("{}.unreadable-{seconds}{more}", path.display()))
    });
    for aside in names {
        // Unlike a rename, a link never takes the place of a file.
        match fs::hard_link(path, &aside) {
            Ok(()) => return fs::remove_file(path).map(|()| aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let path = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        target => target?,
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut new = tempfile::Builder::new()
        .prefix(".acme-")
        .make_in(folder, |path| {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
        })?;
    new.write_all(text)?;
    new.as_file().sync_all()?;
    new.persist(&path)?;
    // The rename itself, too, is to survive a crash.
    File::open(folder)?.sync_all()
}

fn overwrite(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text)?;
    file.set_len(text.len() as u64)?;
    file.sync_all()
}

fn entry_stored(entry: &Value) -> Option<Stored> {
    stored(
        entry.get("Domain")?,
        entry.get("Certificate")?,
        entry.get("Key")?,
    )
}

/// A certificate from its names, as 1.7 writes them, and the base64 of its chain and its key. `None` if a part is missing.
pub(super) fn stored(domain: &Value, chain: &Value, key: &Value) -> Option<Stored> {
    let main = domain.get("Main")?.as_str()?;
    let others = domain.get("SANs").and_then(Value::as_array);
    let others = others.into_iter().flatten().filter_map(Value::as_str);
    let text = |field| {
        String::from_utf8(decoded(field)?)
            .ok()
            .filter(|text| !text.is_empty())
    };
    Some(Stored {
        names: std::iter::once(main)
            .chain(others)
            .map(str::to_lowercase)
            .collect(),
        chain: text(chain)?,
        key: text(key)?,
    })
}

/// Our account, wherever it is kept.
pub(super) fn account(document: &Map<String, Value>) -> Option<Account> {
    let account = document.get(OWN_ACCOUNT)?;
    Some(Account {
        uri: account.get("Uri")?.as_str()?.to_owned(),
        directory: account.get("Directory")?.as_str()?.to_owned(),
        key: decoded(account.get("PrivateKey")?)?,
    })
}

pub(super) fn set_account(document: &mut Map<String, Value>, account: &Account) {
    let account = json!({
        "Uri": account.uri,
        "Directory": account.directory,
        "PrivateKey": BASE64_STANDARD.encode(&account.key),
    });
    document.insert(OWN_ACCOUNT.to_owned(), account);
}

pub(super) fn decoded(value: &Value) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(value.as_str()?).ok()
}

/// What 1.7 writes first.
fn initial() -> Map<String, Value> {
    let document = json!({
        "Account": {"Email": "", "Registration": null, "PrivateKey": null, "KeyType": ""},
        "Certificates": null,
        "HTTPChallenges": null,
        "TLSChallenges": null,
    });
    match document {
        Value::Object(document) => document,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn named(names: &[&str], chain: &str) -> Stored {
        Stored {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            chain: chain.to_owned(),
            key: "a key".to_owned(),
        }
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).expect("a file");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    }

    #[test]
    fn a_new_file_is_for_its_owner_only_and_keeps_what_is_put() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("acme.json");
        let (mut storage, told) = Storage::open(&path, SystemTime::UNIX_EPOCH).expect("made");
        assert_eq!(told, None);
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o600
        );
        let account = Account {
            uri: "https://ca/1".to_owned(),
            directory: "https://ca/directory".to_owned(),
            key: vec![1, 2, 3],
        };
        storage.set_account(&account);
        storage.put(&named(&["a.test", "b.test"], "old"));
        storage.put(&named(&["c.test"], "c"));
        storage.put(&named(&["a.test", "b.test"], "new"));
        storage.save().expect("written");
        let (storage, _) = Storage::open(&path, SystemTime::UNIX_EPOCH).expect("read");
        assert!(storage.account() == Some(account));
        assert_eq!(
            storage.certificates(),
            [named(&["a.test", "b.test"], "new"), named(&["c.test"], "c")]
        );
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_file_of_1_7_is_read_and_its_account_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("acme.json");
        let text = r#"{"Account":{"Email":"t@example.com","Registration":{"body":{"status":"valid"},"uri":"https://ca/my/1"},
            "PrivateKey":"AAEC","KeyType":"P256"},"Certificates":[
            {"Domain":{"Main":"A.test","SANs":["b.test"]},"Certificate":"Y2hhaW4=","Key":"YSBrZXk="},
            {"Domain":{"Main":"empty.test","SANs":null},"Certificate":"","Key":""}],"Later":7}"#;
        write(&path, text, 0o600);
        let (mut storage, told) = Storage::open(&path, SystemTime::UNIX_EPOCH).expect("read");
        assert_eq!(told, None);
        assert_eq!(storage.key_type(), Some("P256"));
        assert_eq!(
            storage.certificates(),
            [named(&["a.test", "b.test"], "chain")]
        );
        storage.put(&named(&["c.test"], "c"));
        storage.save().expect("written");
        let text: Value = serde_json::from_slice(&fs::read(&path).expect("there")).expect("JSON");
        assert_eq!(text["Later"], 7);
        assert_eq!(text["Account"]["PrivateKey"], "AAEC");
        assert_eq!(
            text["Certificates"][2]["Domain"],
            json!({"Main": "c.test", "SANs": null})
        );
    }

    #[test]
    fn what_others_may_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("acme.json");
        write(&path, "{}", 0o644);
        let refused = Storage::open(&path, SystemTime::UNIX_EPOCH).expect_err("too open");
        assert_eq!(
            refused,
            format!(
                "permissions 644 for {} are too open, please use 600",
                path.display()
            )
        );
    }

    #[test]
    fn what_cannot_be_read_is_put_aside_and_nothing_takes_its_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("acme.json");
        for (text, aside) in [
            ("{\"Account\":", "acme.json.unreadable-0"),
            ("[\"half a key\"]", "acme.json.unreadable-0-1"),
            (
                "{\"Certificates\": {\"half\": 1}}",
                "acme.json.unreadable-0-2",
            ),
        ] {
            write(&path, text, 0o600);
            let (storage, told) = Storage::open(&path, SystemTime::UNIX_EPOCH).expect("a new one");
            let told = told.expect("said");
            assert!(told.contains(&format!("{aside},")), "{told}");
            assert!(!told.contains("half"), "{told}");
            assert_eq!(storage.certificates(), []);
            let kept = fs::read_to_string(folder.path().join(aside));
            assert_eq!(kept.expect("kept"), text);
        }
    }

    #[test]
    fn a_link_to_the_file_stays_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let (target, path) = (
            folder.path().join("data/acme.json"),
            folder.path().join("acme.json"),
        );
        fs::create_dir(folder.path().join("data")).expect("a folder");
        write(&target, "", 0o600);
        symlink(&target, &path).expect("a link");
        let (mut storage, _) = Storage::open(&path, SystemTime::UNIX_EPOCH).expect("read");
        storage.put(&named(&["a.test"], "chain"));
        storage.save().expect("written");
        assert_eq!(fs::read_link(&path).expect("a link"), target);
        let (again, _) = Storage::open(&target, SystemTime::UNIX_EPOCH).expect("read");
        assert_eq!(again.certificates(), [named(&["a.test"], "chain")]);
    }

    #[test]
    fn what_is_there_twice_is_there_once_when_it_was_renewed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("acme.json");
        let entry =
            r#"{"Domain":{"Main":"a.test","SANs":null},"Certificate":"b2xk","Key":"YSBrZXk="}"#;
        let other = entry.replace("a.test", "b.test");
        let text = format!("{{\"Certificates\":[{entry},{other},{entry}]}}");
        write(&path, &text, 0o600);
        let (mut storage, _) = Storage::open(&path, SystemTime::UNIX_EPOCH).expect("read");
        storage.put(&named(&["a.test"], "new"));
        assert_eq!(
            storage.certificates(),
            [named(&["a.test"], "new"), named(&["b.test"], "old")]
        );
    }
}
