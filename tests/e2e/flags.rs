//! The command line: what it prints, what it refuses, and how it says so.

use std::process::{Command, Output};

use crate::harness::coreway::BINARY;
use crate::harness::{Coreway, Origin, Start, eventually, site};

/// Runs the program to its end; one that goes on running is ended after 20 s, with code 124.
fn run(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    Command::new("timeout")
        .args(["20", BINARY])
        .args(arguments)
        .env("HOME", folder.path())
        .current_dir(folder.path())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs it; it must exit with 1 and name all these words on stderr or stdout.
#[track_caller]
fn check_refused(arguments: &[&str], words: &[&str]) {
    let output = run(arguments);
    let said = text(&output.stdout) + &text(&output.stderr);
    let shown: String = said.lines().rev().take(5).collect::<Vec<_>>().join("\n");
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {shown}");
    for word in words {
        assert!(
            said.contains(word),
            "{arguments:?} does not mention {word:?}: {shown}"
        );
    }
}

#[test]
fn help_lists_commands_and_flags() {
    for flag in ["--help", "-h"] {
        let output = run(&[flag]);
        assert_eq!(output.status.code(), Some(0));
        let help = text(&output.stdout);
        for word in [
            "[flags] <command> [<arguments>]",
            "version",
            "demo",
            "--configfile",
            "--entrypoints",
            "--reactor.driver",
            "--file.watch",
        ] {
            assert!(
                help.to_lowercase().contains(word),
                "{word:?} is not in the help"
            );
        }
        let flags: Vec<_> = help
            .lines()
            .filter(|line| line.trim_start().starts_with('-'))
            .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")))
            .collect();
        assert!(
            flags.len() > 50 && flags.is_sorted(),
            "sorted, and all of them: {}",
            flags.len()
        );
    }
}

#[test]
fn version_is_five_lines() {
    for word in ["version", "VERSION"] {
        let output = run(&[word]);
        assert_eq!(output.status.code(), Some(0));
        let text = text(&output.stdout);
        let heads: Vec<_> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(head, _)| head)
            .collect();
        assert_eq!(
            (heads.len(), heads[0], heads[1], heads[3], heads[4]),
            (5, "Version", "Codename", "Built", "OS/Arch")
        );
        assert!(
            text.lines().all(|line| line.is_empty()
                || line.as_bytes()[13] == b' ' && line.as_bytes()[14] != b' '),
            "{text}"
        );
    }
}

#[test]
fn unknown_flags_and_commands_are_refused() {
    check_refused(&["--nosuchflag"], &["nosuchflag"]);
    check_refused(&["--maxIdleConnsPerHsot=3"], &["maxidleconnsperhost"]);
    check_refused(&["foo"], &["command foo not found"]);
    check_refused(&["--maxIdleConnsPerHost=many"], &["maxidleconnsperhost"]);
    check_refused(&["--maxIdleConnsPerHost"], &["maxidleconnsperhost"]);
}

#[test]
fn cores_and_drivers_must_exist() {
    check_refused(
        &[
            "--reactor.cores=4000-4001",
            "--entryPoints=Name:http Address:127.0.0.1:0",
        ],
        &["4000"],
    );
    check_refused(
        &[
            "--reactor.cores=none",
            "--entryPoints=Name:http Address:127.0.0.1:0",
        ],
        &["cores"],
    );
    check_refused(
        &[
            "--reactor.cores=0",
            "--entryPoints=Name:http Address:127.0.0.1:0",
        ],
        &["cores"],
    );
    check_refused(
        &[
            "--reactor.driver=kqueue",
            "--entryPoints=Name:http Address:127.0.0.1:0",
        ],
        &["kqueue", "io_uring", "epoll"],
    );
}

#[test]
fn an_address_must_be_one_and_free() {
    check_refused(
        &["--entryPoints=Name:http Address:nonsense"],
        &["Error preparing server", "nonsense"],
    );
    let origin = Origin::text("taken");
    let taken = format!("--entryPoints=Name:http Address:{}", origin.address());
    check_refused(
        &[&taken],
        &["Error preparing server", "error opening listener"],
    );
}

#[test]
fn a_static_file_must_be_readable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.toml");
    let flag = format!("--configFile={}", path.display());
    std::fs::write(&path, "[entryPoints\n").unwrap();
    check_refused(
        &[&flag],
        &["Error reading TOML config file", "broken.toml:1:"],
    );
    std::fs::write(&path, "\nmaxIdleConnsPerHost = \"many\"\n").unwrap();
    check_refused(&[&flag], &["broken.toml:2:", "maxIdleConnsPerHost"]);
    std::fs::write(&path, "providersThrottleDuration = \"soon\"\n").unwrap();
    check_refused(&[&flag], &["broken.toml:1:", "providersThrottleDuration"]);
}

#[test]
fn unknown_keys_are_pointed_out_and_tolerated() {
    let origin = Origin::text("ok");
    let coreway = Start::new()
        .global("maxIdleConsPerHost = 3")
        .serve(&site(&origin));
    let line = coreway.await_log("maxIdleConsPerHost");
    assert!(
        line.contains("coreway.toml:") && line.contains("maxIdleConnsPerHost"),
        "{line}"
    );
}

#[test]
fn each_driver_serves() {
    for driver in ["io_uring", "epoll", "auto"] {
        let origin = Origin::text("ok");
        let coreway = Start::new()
            .flag(&format!("--reactor.driver={driver}"))
            .serve(&site(&origin));
        assert_eq!(coreway.get("/").text(), "ok");
        if driver != "auto" {
            coreway.await_log(&format!("Cores run on {driver}"));
        }
    }
}

#[test]
fn flags_win_over_the_file() {
    let (one, two) = (Origin::text("one"), Origin::text("two"));
    let coreway = Start::new()
        .flag("--ENTRYPOINTS=Name:extra Address:127.0.0.1:0")
        .flag("--defaultEntryPoints=extra")
        .begin(&(site(&one) + &crate::harness::backend("c", &two)));
    coreway.await_reloads(1);
    assert_eq!(
        crate::harness::get(coreway.address_of("extra"), "a", "/").text(),
        "one"
    );
    assert_eq!(
        coreway.get("/").status,
        404,
        "the list of the flag replaces that of the file"
    );
}

#[test]
fn several_cores_share_a_port() {
    let origin = Origin::text("ok");
    let coreway = Start::new().flag("--reactor.cores=2").serve(&site(&origin));
    for _ in 0..40 {
        assert_eq!(coreway.get("/").text(), "ok");
    }
    assert!(
        origin.connections() <= 2,
        "one pooled connection for each core"
    );
}

#[test]
fn cores_may_be_pinned() {
    let origin = Origin::text("ok");
    let coreway = Start::new()
        .flag("--reactor.pin=true")
        .cores(1)
        .serve(&site(&origin));
    assert_eq!(coreway.get("/").text(), "ok");
}

#[test]
fn a_file_is_found_where_it_is_looked_for() {
    for name in ["coreway.toml", "traefik.toml"] {
        let folder = tempfile::tempdir().unwrap();
        let text = "defaultEntryPoints = [\"http\"]\nlogLevel = \"INFO\"\n[entryPoints.http]\naddress = \"127.0.0.1:0\"\n";
        std::fs::write(folder.path().join(name), text).unwrap();
        let coreway = Coreway::spawn(
            folder,
            &[
                "--reactor.cores=1".to_owned(),
                "--reactor.pin=false".to_owned(),
            ],
            None,
        );
        eventually("it listens where the file says", || {
            coreway.log().contains("Starting server on 127.0.0.1:")
        });
    }
}
