//! The command `storeconfig`: the configuration of file and flags is written into the first store that is configured.
//!
//! Writes what Traefik 1.7 writes (spec kv-static 4), what puts a frontend into service last; removes nothing, since a store may
//! hold more than was ever in a file. What it shows has no secrets. Never validates: what can be read can be written.
//! Read next: `config/export.rs` (the keys), `acme_object.rs` (accounts and certificates).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;

use super::{acme_object, stores};
use crate::config::{self, ConfigError, KeyValue, Loaded, StoreConfig};
use crate::provider::file;
use crate::store::{self, Prefix, Settings, Store};

/// Why nothing, or not everything, was written. What was written stays.
#[derive(Debug)]
pub enum Failure {
    NoStore,
    /// The settings of the store can never work.
    Settings(std::io::Error),
    Config(ConfigError),
    /// The rules of `[file]` cannot be read.
    Rules(String),
    Account(acme_object::Unusable),
    Store(store::Error),
}

/// In the words of Traefik, for standard error.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStore => f.write_str(
                "Error running traefik: error using command storeconfig, no Key-value store defined",
            ),
            // Says itself that the store cannot be created.
            Self::Settings(error) => error.fmt(f),
            Self::Config(error) => write!(f, "Error running traefik: {error}"),
            Self::Rules(error) => write!(f, "Error running traefik: {error}"),
            Self::Account(error) => write!(f, "Error running traefik: {error}"),
            Self::Store(error) => write!(f, "Error running traefik: {error}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

/// Where what is said goes.
pub trait Voice {
    /// To standard error.
    fn say(&mut self, line: &str);
    /// To standard output.
    fn print(&mut self, line: &str);
}

/// Runs the command.
///
/// # Errors
/// See [`Failure`]: the exit code is 1.
pub fn run(loaded: &Loaded, mode: StoreConfig, voice: &mut impl Voice) -> Result<(), Failure> {
    let configured = stores::configured(&loaded.global).into_iter().next();
    let settings = configured.ok_or(Failure::NoStore)?.settings;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Settings)?;
    let done = runtime.block_on(async {
        let upload = Upload::new(loaded, &settings)?;
        if mode == StoreConfig::DryRun {
            for found in &upload.keys {
                voice.print(&line(&settings.prefix, found));
            }
            if let Some(account) = &upload.account {
                voice.print(&format!(
                    "{} = <{} bytes>",
                    account.object_key(),
                    account.object.len()
                ));
                voice.print(&format!("{} =", account.lock_key()));
            }
            return Ok(());
        }
        let store = stores::open(&settings).map_err(Failure::Settings)?;
        match mode {
            StoreConfig::Diff => difference(&*store, &settings.prefix, &upload, voice).await,
            StoreConfig::Write | StoreConfig::DryRun => {
                write(&*store, &settings.prefix, loaded, &upload, voice).await
            }
        }
    });
    runtime.shutdown_background();
    done
}

/// Everything that is to be written.
struct Upload {
    /// Static keys, then those of frontends and backends.
    keys: Vec<KeyValue>,
    static_count: usize,
    rules: Option<config::Dynamic>,
    account: Option<acme_object::Account>,
}

impl Upload {
    fn new(loaded: &Loaded, settings: &Settings) -> Result<Self, Failure> {
        let mut keys = loaded.static_keys().map_err(Failure::Config)?;
        let static_count = keys.len();
        let mut rules = None;
        if let Some(options) = &loaded.global.file {
            let source = file::Source::select(options, loaded.file.as_deref());
            let source = source.ok_or_else(|| {
                Failure::Rules("no filename defined for the section [file]".to_owned())
            })?;
            let dynamic = file::read_once(source).map_err(Failure::Rules)?;
            let values_in_folders = settings.kind.has_values_in_directories();
            keys.extend(config::dynamic_keys(&dynamic, values_in_folders));
            rules = Some(dynamic);
        }
        let account = match &loaded.global.acme {
            None => None,
            Some(acme) => acme_object::Account::read(acme)
                .map(Some)
                .map_err(Failure::Account)?,
        };
        Ok(Self {
            keys,
            static_count,
            rules,
            account,
        })
    }
}

fn line(prefix: &Prefix, found: &KeyValue) -> String {
    let key = prefix.key(&found.key);
    format!("{key} = {}", found.shown()).trim_end().to_owned()
}

async fn write(
    store: &dyn Store,
    prefix: &Prefix,
    loaded: &Loaded,
    upload: &Upload,
    voice: &mut impl Voice,
) -> Result<(), Failure> {
    voice.say(&format!("Storing configuration: {}", loaded.shown()));
    let (statics, rules) = upload.keys.split_at(upload.static_count);
    put_all(store, prefix, statics).await?;
    if let Some(dynamic) = &upload.rules {
        voice.say(&format!("Storing file configuration: {}", dynamic.shown()));
        voice.say("Writing config to KV");
        put_all(store, prefix, rules).await?;
    }
    if let Some(account) = &upload.account {
        for warning in &account.warnings {
            voice.say(warning);
        }
        let below = Prefix::new(store.kind(), &account.storage);
        if account.overrides || store.list(&below).await?.pairs.is_empty() {
            let object = account.object_in(store.kind());
            store.put(&account.object_key(), &object).await?;
            store.put(&account.lock_key(), b"").await?;
        } else {
            voice.say(&format!(
                "There is an ACME account at {} already, which is kept (acme.overrideCertificates replaces it)",
                account.storage
            ));
        }
        store.delete(&prefix.key("acme/storagefile")).await?;
    }
    Ok(())
}

/// Writes keys in the order given, but those that put a frontend into service come last: a program that follows the
/// store serves a frontend once its backend is known, and must find its users and its white list by then.
async fn put_all(store: &dyn Store, prefix: &Prefix, keys: &[KeyValue]) -> Result<(), Failure> {
    let (last, first): (Vec<_>, Vec<_>) = keys.iter().partition(|found| begins_service(&found.key));
    let pairs: Vec<(String, Bytes)> = first
        .into_iter()
        .chain(last)
        .map(|found| (prefix.key(&found.key), found.value.clone().into()))
        .collect();
    Ok(store.put_all(&pairs).await?)
}

/// Whether it is `frontends/<name>/backend`.
fn begins_service(key: &str) -> bool {
    let steps: Vec<&str> = key.split('/').collect();
    matches!(steps[..], ["frontends", _, "backend"])
}

/// Prints what writing would change, and what is there that is not in the configuration.
async fn difference(
    store: &dyn Store,
    prefix: &Prefix,
    upload: &Upload,
    voice: &mut impl Voice,
) -> Result<(), Failure> {
    let listing = store.list(prefix).await?;
    // Markers of folders say nothing: some stores have folders without them.
    let there: BTreeMap<&str, &[u8]> = listing
        .pairs
        .iter()
        .filter(|pair| !pair.key.ends_with('/'))
        .map(|pair| (pair.key.as_str(), &*pair.value))
        .collect();
    let wanted: BTreeMap<&str, &KeyValue> = upload
        .keys
        .iter()
        .filter(|found| !found.key.ends_with('/'))
        .map(|found| (found.key.as_str(), found))
        .collect();
    // What only others write, and rules where there are none in a file.
    let is_ours = |key: &str| {
        let first = key.split('/').next().unwrap_or_default();
        match first {
            "alias" | "leader" => false,
            "backends" | "frontends" | "tls" => upload.rules.is_some(),
            _ => !key.starts_with("acme/account/"),
        }
    };
    let all: BTreeSet<&str> = there.keys().chain(wanted.keys()).copied().collect();
    for key in all {
        match (there.get(key), wanted.get(key)) {
            (None, Some(found)) => voice.print(&format!("+ {}", line(prefix, found))),
            (Some(value), Some(found)) if *value != found.value.as_bytes() => {
                let before = KeyValue {
                    key: key.to_owned(),
                    value: String::from_utf8_lossy(value).into_owned(),
                };
                voice.print(&format!("- {}", line(prefix, &before)));
                voice.print(&format!("+ {}", line(prefix, found)));
            }
            // storeconfig removes nothing: it is left to whoever reads this.
            (Some(_), None) if is_ours(key) => {
                voice.print(&format!("  {} is only in the store", prefix.key(key)))
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Command;
    use crate::store::Kind;
    use crate::store::memory::Memory;

    #[derive(Default)]
    struct Heard {
        said: Vec<String>,
        printed: Vec<String>,
    }

    impl Voice for Heard {
        fn say(&mut self, line: &str) {
            self.said.push(line.to_owned());
        }

        fn print(&mut self, line: &str) {
            self.printed.push(line.to_owned());
        }
    }

    fn load(toml: &str) -> (tempfile::TempDir, Loaded) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f.toml");
        std::fs::write(
            &path,
            toml.replace("$DIR", &folder.path().display().to_string()),
        )
        .expect("written");
        let arguments = [
            "storeconfig".into(),
            format!("--configFile={}", path.display()).into(),
        ];
        let loaded = config::load(&arguments, &|_| None).expect("usable");
        assert_eq!(loaded.command, Command::StoreConfig(StoreConfig::Write));
        (folder, loaded)
    }

    const RULES: &str = "[file]\n[backends.b.servers.s]\nurl = 'http://a'\n[backends.b.loadBalancer.stickiness]\n\
                         [frontends.f]\nbackend = 'b'\n[frontends.f.routes.r]\nrule = 'Path:/'\n\
                         [frontends.f.auth.basic]\nusers = ['me:hash']\n";

    async fn upload(store: &Memory, toml: &str) -> Result<Heard, String> {
        let (_folder, loaded) = load(toml);
        let settings = stores::configured(&loaded.global).remove(0).settings;
        let mut heard = Heard::default();
        let upload = Upload::new(&loaded, &settings).map_err(|failure| failure.to_string())?;
        write(store, &settings.prefix, &loaded, &upload, &mut heard)
            .await
            .map_err(|failure| failure.to_string())?;
        Ok(heard)
    }

    async fn value(store: &Memory, key: &str) -> Option<String> {
        let pair = store.get(key).await.expect("answers")?;
        Some(String::from_utf8_lossy(&pair.value).into_owned())
    }

    #[tokio::test]
    async fn static_options_and_rules_are_written_and_secrets_are_not_shown() {
        let store = Memory::new(Kind::Consul);
        store.set("traefik/defaultentrypoints/7", "stale");
        let toml = format!("logLevel = 'INFO'\n[consul]\npassword = 'geheim'\n{RULES}");
        for _ in 0..2 {
            let heard = upload(&store, &toml).await.expect("written");
            let said = heard.said.join("\n");
            assert!(said.starts_with("Storing configuration: {"), "{said}");
            assert!(said.contains("\nStoring file configuration: {"), "{said}");
            assert!(said.ends_with("\nWriting config to KV"), "{said}");
            assert!(
                !said.contains("geheim") && !said.contains("me:hash"),
                "{said}"
            );
            assert_eq!(heard.printed, [""; 0]);
        }
        for (key, expected) in [
            ("traefik/loglevel", Some("INFO")),
            ("traefik/consul/", Some("")),
            ("traefik/consul/password", Some("geheim")),
            ("traefik/defaultentrypoints/7", Some("stale")),
            ("traefik/file/watch", None),
            ("traefik/backends/b/servers/s/url", Some("http://a")),
            ("traefik/backends/b/loadbalancer/stickiness", Some("true")),
            ("traefik/frontends/f/auth/basic/users/0", Some("me:hash")),
            ("traefik/frontends/f/passhostheader", Some("false")),
        ] {
            assert_eq!(value(&store, key).await.as_deref(), expected, "{key}");
        }
    }

    #[tokio::test]
    async fn a_frontend_is_whole_before_it_is_served() {
        let store = Memory::new(Kind::Consul);
        let toml =
            format!("[consul]\n{RULES}[frontends.f.whiteList]\nsourceRange = ['10.0.0.0/8']\n");
        upload(&store, &toml).await.expect("written");
        let written = store.written();
        let place = |key: &str| written.iter().position(|one| one == key).expect(key);
        let begins = place("traefik/frontends/f/backend");
        for before in [
            "traefik/backends/b/servers/s/url",
            "traefik/frontends/f/auth/basic/users/0",
            "traefik/frontends/f/routes/r/rule",
            "traefik/frontends/f/whitelist/sourcerange/0",
        ] {
            assert!(place(before) < begins, "{written:?}");
        }
        assert_eq!(begins + 1, written.len());
    }

    #[tokio::test]
    async fn a_store_that_fails_is_an_error() {
        let store = Memory::new(Kind::Consul);
        store.fail(Some(store::Error::Unreachable("refused".to_owned())));
        let failure = upload(&store, "[consul]\n").await.map(|_| ());
        assert_eq!(failure, Err("Error running traefik: refused".to_owned()));
    }

    #[tokio::test]
    async fn an_account_is_written_once_and_replaced_only_by_another_one() {
        use std::io::Read;
        let store = Memory::new(Kind::Consul);
        let acme = "[consul]\n[acme]\nemail = 'a@b'\nentryPoint = 'http'\nstorage = 'traefik/acme/account'\n";
        upload(&store, acme).await.expect("written");
        let object = store
            .get("traefik/acme/account/object")
            .await
            .expect("answers");
        let object = object.expect("written").value;
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*object)
            .read_to_string(&mut text)
            .expect("gzip");
        assert_eq!(
            text,
            r#"{"Email":"","Registration":null,"PrivateKey":null,"KeyType":"","DomainsCertificate":{"Certs":null},"ChallengeCerts":null,"HTTPChallenge":null}"#
        );
        assert_eq!(
            value(&store, "traefik/acme/account/lock").await.as_deref(),
            Some("")
        );
        assert_eq!(value(&store, "traefik/acme/storagefile").await, None);

        store.set("traefik/acme/account/object", "precious");
        let heard = upload(&store, acme).await.expect("written");
        assert!(
            heard.said.iter().any(|line| line.contains("is kept")),
            "{:?}",
            heard.said
        );
        let failure = upload(&store, &format!("{acme}overrideCertificates = true\n")).await;
        assert!(failure.is_err_and(|failure| failure.contains("acme.storageFile")));
        assert_eq!(
            value(&store, "traefik/acme/account/object")
                .await
                .as_deref(),
            Some("precious")
        );
    }

    #[tokio::test]
    async fn the_difference_shows_what_would_change_and_what_is_left_over() {
        let store = Memory::new(Kind::Consul);
        let toml = format!("[consul]\npassword = 'geheim'\n{RULES}");
        upload(&store, &toml).await.expect("written");
        store.set("traefik/loglevel", "DEBUG");
        store.set("traefik/consul/password", "anders");
        store.set("traefik/alias", "x");
        store.set("traefik/backends/old/servers/s/url", "http://old");
        store.remove("traefik/frontends/f/backend");
        let (_folder, loaded) = load(&toml);
        let settings = stores::configured(&loaded.global).remove(0).settings;
        let mut heard = Heard::default();
        let upload = Upload::new(&loaded, &settings).expect("usable");
        difference(&store, &settings.prefix, &upload, &mut heard)
            .await
            .expect("answers");
        assert_eq!(
            heard.printed,
            [
                "  traefik/backends/old/servers/s/url is only in the store",
                "- traefik/consul/password = xxxx",
                "+ traefik/consul/password = xxxx",
                "+ traefik/frontends/f/backend = b",
                "- traefik/loglevel = DEBUG",
                "+ traefik/loglevel =",
            ]
        );
    }

    #[test]
    fn a_dry_run_asks_no_store() {
        let (_folder, loaded) = load(&format!("[consul]\nendpoint = '127.0.0.1:1'\n{RULES}"));
        let mut heard = Heard::default();
        run(&loaded, StoreConfig::DryRun, &mut heard).expect("usable");
        assert!(
            heard
                .printed
                .contains(&"traefik/consul/endpoint = 127.0.0.1:1".to_owned())
        );
        assert!(
            heard
                .printed
                .contains(&"traefik/frontends/f/auth/basic/users/0 = xxxx".to_owned())
        );
        let (_folder, loaded) = load("");
        assert_eq!(
            run(&loaded, StoreConfig::Write, &mut heard)
                .expect_err("no store")
                .to_string(),
            "Error running traefik: error using command storeconfig, no Key-value store defined"
        );
    }
}
