//! How stores are reached: certificates, users, tokens, several endpoints.

use std::fs;
use std::sync::Arc;

use coreway::store::{self, Credentials, Error, Kind, Settings, Store, Tls};

use super::{run, settings, shared, shared_endpoint, within};
use crate::harness::server::{Guard, Program, Server, TOKEN, is_installed};
use crate::harness::tls::Authority;

fn credentials(user: &str, password: &str) -> Option<Credentials> {
    Some(Credentials {
        user: user.to_owned(),
        password: password.to_owned(),
    })
}

/// Writes and reads a key.
async fn works(store: &Arc<dyn Store>, settings: &Settings) -> Result<(), Error> {
    let key = settings.prefix.key("a");
    within(store.put(&key, b"1")).await?;
    let listing = within(store.list(&settings.prefix)).await?;
    assert_eq!(listing.pairs.len(), 1);
    Ok(())
}

async fn opened(settings: &Settings) -> Result<(), Error> {
    works(&store::open(settings)?, settings).await
}

fn check_tls(kind: Kind, program: Program) {
    if !is_installed(program) {
        return;
    }
    let server = Server::start(program, Guard::Tls);
    let papers = &server.papers;
    let with = |tls: Tls| Settings {
        tls: Some(tls),
        ..settings(kind, &server.endpoint())
    };
    let texts = Tls {
        authorities: Some(papers.authority.pem().to_owned()),
        own: Some((papers.client.chain.clone(), papers.client.key.clone())),
        trusts_anybody: false,
    };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let files = Tls {
        authorities: Some(file("ca", papers.authority.pem())),
        own: Some((
            file("cert", &papers.client.chain),
            file("key", &papers.client.key),
        )),
        trusts_anybody: false,
    };
    run(async {
        assert_eq!(opened(&with(texts.clone())).await, Ok(()), "inline");
        assert_eq!(opened(&with(files)).await, Ok(()), "files");
        let anybody = Tls {
            authorities: None,
            trusts_anybody: true,
            ..texts.clone()
        };
        assert_eq!(opened(&with(anybody)).await, Ok(()), "anybody");
        let stranger = Tls {
            authorities: Some(Authority::new("other").pem().to_owned()),
            ..texts.clone()
        };
        let error = opened(&with(stranger)).await.unwrap_err().to_string();
        assert!(error.contains("UnknownIssuer"), "{error}");
        let nobody = Tls { own: None, ..texts };
        let error = opened(&with(nobody)).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
    });
}

#[test]
fn consul_over_tls_with_client_certificates() {
    check_tls(Kind::Consul, Program::Consul);
}

#[test]
fn etcd_v2_over_tls_with_client_certificates() {
    check_tls(Kind::EtcdV2, Program::Etcd);
}

#[test]
fn etcd_v3_over_tls_with_client_certificates() {
    check_tls(Kind::EtcdV3, Program::Etcd);
}

#[test]
fn consul_with_tokens_from_the_environment() {
    if !is_installed(Program::Consul) {
        return;
    }
    let server = Server::start(Program::Consul, Guard::Token);
    let settings = settings(Kind::Consul, &server.endpoint());
    run(async {
        let open = |token: &'static str| {
            let environment =
                move |name: &str| (name == "CONSUL_HTTP_TOKEN").then(|| token.to_owned());
            store::open_in(&settings, &environment).unwrap()
        };
        // The rules of tokens come a moment after the leader.
        let ready = async { while works(&open(TOKEN), &settings).await.is_err() {} };
        within(ready).await;
        let wrong = open("11111111-1111-1111-1111-111111111111");
        let error = works(&wrong, &settings).await.unwrap_err();
        assert!(matches!(error, Error::Denied(_)), "{error:?}");
        let nobody = store::open_in(&settings, &|_| None).unwrap();
        let error = works(&nobody, &settings).await.unwrap_err();
        assert!(matches!(error, Error::Denied(_)), "{error:?}");
    });
}

#[test]
fn etcd_with_users() {
    if !is_installed(Program::Etcd) {
        return;
    }
    let server = Server::start(Program::Etcd, Guard::Open);
    let command = |version: &str, words: &[&str]| server.etcdctl(version, words);
    command("3", &["user", "add", "root:secret"]);
    command("3", &["user", "grant-role", "root", "root"]);
    command("2", &["user", "add", "root:secret"]);
    run(async {
        // A user where none is needed has no effect.
        let early = Settings {
            credentials: credentials("root", "secret"),
            ..settings(Kind::EtcdV3, &server.endpoint())
        };
        assert_eq!(opened(&early).await, Ok(()));
        command("3", &["auth", "enable"]);
        command("2", &["auth", "enable"]);
        // Strangers may do everything until they are forbidden to.
        let rights = ["--username=root:secret", "role", "revoke", "guest"];
        command("2", &[&rights[..], &["--path=/*", "--readwrite"]].concat());
        for kind in [Kind::EtcdV2, Kind::EtcdV3] {
            let with = |credentials| Settings {
                credentials,
                ..settings(kind, &server.endpoint())
            };
            assert_eq!(opened(&with(credentials("root", "secret"))).await, Ok(()));
            for wrong in [
                credentials("root", "wrong"),
                credentials("x", "secret"),
                None,
            ] {
                let error = opened(&with(wrong)).await.unwrap_err();
                assert!(matches!(error, Error::Denied(_)), "{kind}: {error:?}");
            }
        }
    });
}

#[test]
fn a_dead_endpoint_is_passed_over() {
    for kind in [Kind::EtcdV2, Kind::EtcdV3, Kind::ZooKeeper] {
        let Some((_, prefix)) = shared(kind) else {
            return;
        };
        let alive = shared_endpoint(kind);
        let mut settings = settings(kind, "127.0.0.1:1");
        settings.endpoints.push(alive);
        settings.prefix = prefix;
        run(async {
            assert_eq!(opened(&settings).await, Ok(()), "{kind}");
        });
    }
}

#[test]
fn a_store_that_is_not_there_says_so() {
    for kind in [Kind::Consul, Kind::EtcdV2, Kind::EtcdV3, Kind::ZooKeeper] {
        run(async {
            let error = opened(&settings(kind, "127.0.0.1:1")).await.unwrap_err();
            let Error::Unreachable(text) = error else {
                panic!("{error:?}");
            };
            assert!(text.contains("127.0.0.1:1"), "{text}");
            assert!(text.contains("refused"), "{text}");
        });
    }
}

#[test]
fn consul_and_boltdb_have_one_endpoint() {
    let mut two = settings(Kind::Consul, "127.0.0.1:1");
    two.endpoints.push("127.0.0.1:2".to_owned());
    let error = store::open(&two).unwrap_err();
    assert_eq!(
        error.to_string(),
        "consul does not support multiple endpoints"
    );
    let error = store::open(&settings(Kind::BoltDb, "./a.db,./b.db")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "boltdb supports one endpoint and should be a file path"
    );
}

#[test]
fn nodes_in_zookeeper_have_the_rights_that_were_asked_for() {
    let Some((_, prefix)) = shared(Kind::ZooKeeper) else {
        return;
    };
    let with = |acl: &str, credentials| Settings {
        prefix: prefix.clone(),
        credentials,
        acl: acl.to_owned(),
        ..settings(Kind::ZooKeeper, &shared_endpoint(Kind::ZooKeeper))
    };
    let acl = "auth::cdrwa,world:anyone:r";
    let owner = with(acl, credentials("owner", "secret"));
    let key = prefix.key("a");
    run(async {
        assert_eq!(opened(&owner).await, Ok(()));
        for stranger in [None, credentials("owner", "wrong")] {
            let store = store::open(&with("", stranger)).unwrap();
            let listing = within(store.list(&prefix)).await.unwrap();
            assert_eq!(listing.pairs.len(), 1, "anybody may read");
            for key in [&key, &prefix.key("b")] {
                let error = within(store.put(key, b"2")).await.unwrap_err();
                assert!(matches!(error, Error::Denied(_)), "{error:?}");
            }
        }
        assert_eq!(opened(&owner).await, Ok(()), "its owner writes on");
        // Nobody in particular cannot own anything.
        let nobody = store::open(&with(acl, None)).unwrap();
        let told = within(nobody.put("/test/nobody", b"1")).await.unwrap_err();
        assert!(
            matches!(&told, Error::Denied(text) if text.contains("acl")),
            "{told:?}"
        );
        let wrong = store::open(&with("world:anyone:all", None)).unwrap_err();
        assert!(matches!(wrong, Error::Settings(_)), "{wrong:?}");
    });
}
