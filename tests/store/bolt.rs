//! BoltDB files beside the program that everybody trusts with them: etcd keeps its data in one, by `bbolt` itself.

use std::fs::File;
use std::time::Duration;

use coreway::store::{self, Kind, Settings};

use super::{run, settings, within};
use crate::harness::server::{Guard, Program, Server, is_installed};

/// Etcd writes a file, we add a bucket to it, etcd goes on with it, and we again.
#[test]
fn a_file_is_shared_with_bbolt() {
    if !is_installed(Program::Etcd) {
        return;
    }
    let mut server = Server::start(Program::Etcd, Guard::Open);
    let path = server.data("member/snap/db").display().to_string();
    let ours = settings(Kind::BoltDb, &path);
    let theirs = settings(Kind::EtcdV3, &server.endpoint());
    run(async {
        let value = "x".repeat(3000);
        let fill = async |settings: &Settings, name: &str, value: &str| {
            let store = store::open(settings).unwrap();
            for number in 0..40 {
                let key = settings.prefix.key(&format!("{name}/{number:03}"));
                within(store.put(&key, value.as_bytes())).await.unwrap();
            }
            let listing = within(store.list(&settings.prefix)).await.unwrap();
            listing.pairs
        };
        let first = fill(&theirs, "a", &value).await;
        server.kill();
        // Pages of ours in the place of free ones of theirs, and at the end.
        let here = fill(&ours, "a", &value).await;
        assert_eq!(here.len(), 40);
        server.run();
        let again = store::open(&theirs).unwrap();
        let listing = within(again.list(&theirs.prefix)).await.unwrap();
        assert_eq!(listing.pairs, first, "what etcd had is as it was");
        // It takes pages that we have said are free.
        let second = fill(&theirs, "b", &value).await;
        assert_eq!(second.len(), 80);
        server.kill();
        let store = store::open(&ours).unwrap();
        let listing = within(store.list(&ours.prefix)).await.unwrap();
        assert_eq!(listing.pairs, here, "what we had is as it was");
    });
}

#[test]
fn a_file_that_somebody_else_holds_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/folder/my.db");
    let settings = settings(Kind::BoltDb, &path.display().to_string());
    run(async {
        let store = store::open(&settings).unwrap();
        let key = settings.prefix.key("a");
        within(store.put(&key, b"1")).await.unwrap();
        let other = File::open(&path).unwrap();
        other.lock().unwrap();
        let soon = Duration::from_millis(200);
        let mut reading = store.get(&key);
        assert!(tokio::time::timeout(soon, &mut reading).await.is_err());
        drop(other);
        let pair = within(reading).await.unwrap().unwrap();
        assert_eq!(&pair.value[..], b"1");
    });
}

#[test]
fn a_file_that_is_none_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.db");
    std::fs::write(&path, "certainly no database").unwrap();
    let settings = settings(Kind::BoltDb, &path.display().to_string());
    run(async {
        let store = store::open(&settings).unwrap();
        let error = within(store.list(&settings.prefix)).await.unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
        let error = within(store.put("a", b"")).await.unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "certainly no database"
        );
    });
}
