//! Commands that serve nobody: what they print, and the exit code.

use std::process::Command;

use crate::harness::coreway::BINARY;
use crate::harness::{Coreway, Origin, Start, eventually, get, site};

/// What a command said, and its exit code.
struct Said {
    code: i32,
    out: String,
    err: String,
}

/// Runs the program in a folder with these files to its end; one that goes on running is ended after 20 s, with code 124.
fn run_with(files: &[(&str, &str)], arguments: &[&str]) -> Said {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let output = Command::new("timeout")
        .args(["20", BINARY])
        .args(arguments)
        .env("HOME", folder.path())
        .current_dir(folder.path())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.replace(&format!("{}/", folder.path().display()), "")
    };
    Said {
        code: output.status.code().expect("it exits"),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

fn run(arguments: &[&str]) -> Said {
    run_with(&[], arguments)
}

/// `healthcheck` for an entry point `traefik` that is written like this.
#[track_caller]
fn check_health(entry_point: &str, code: i32, expected: &str) {
    let entry_point = format!("--entryPoints=Name:traefik {entry_point}");
    let said = run(&["healthcheck", "--ping", &entry_point]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (code, expected),
        "{}",
        said.err
    );
}

#[test]
fn healthcheck_asks_a_running_server() {
    let coreway = Start::new()
        .table(
            "[ping]\n[lifeCycle]\nrequestAcceptGraceTimeout = \"60s\"\n\
             [entryPoints.traefik]\naddress = \"127.0.0.1:0\"",
        )
        .begin("");
    let address = coreway.address_of("traefik");
    let entry_point = format!("Address:{address}");
    check_health(&entry_point, 0, &format!("OK: http://{address}/ping\n"));
    coreway.signal("TERM");
    eventually("it is about to stop", || {
        get(address, "a", "/ping").status == 503
    });
    // Another core may not have heard it yet.
    eventually("every core is about to stop", || {
        let said = run(&[
            "healthcheck",
            "--ping",
            &format!("--entryPoints=Name:traefik {entry_point}"),
        ]);
        said.out == "Bad healthcheck status: 503 Service Unavailable\n" && said.code == 1
    });
    coreway.signal("TERM");
    assert_eq!(coreway.exit_code(), 0);
    check_health(
        &entry_point,
        1,
        &format!(
            "Error calling healthcheck: Head http://{address}/ping: dial tcp {address}: connect: connection refused\n"
        ),
    );
}

#[test]
fn healthcheck_does_not_verify_the_certificate_of_its_own_server() {
    let coreway = Start::new()
        .table(
            "[ping]\n[entryPoints.traefik]\naddress = \"127.0.0.1:0\"\n[entryPoints.traefik.tls]",
        )
        .begin("");
    let address = coreway.address_of("traefik");
    check_health(
        &format!("Address:{address} TLS"),
        0,
        &format!("OK: https://{address}/ping\n"),
    );
}

#[test]
fn healthcheck_says_what_is_missing() {
    let said = run(&["healthcheck"]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (
            1,
            "Error calling healthcheck: please enable `ping` to use health check\n"
        )
    );
    let said = run(&["healthcheck", "--ping.entryPoint=other"]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (1, "Error calling healthcheck: missing `ping` entrypoint\n")
    );
}

const STATIC: &str = "defaultEntryPoints = ['http']\n[entryPoints.http]\naddress = '127.0.0.1:80'\n[entryPoints.https]\naddress = '127.0.0.1:443'\n\
                      [entryPoints.https.tls]\n[file]\nfilename = 'rules.toml'\n[ping]\n\
                      [entryPoints.traefik]\naddress = '127.0.0.1:8080'\n";

#[test]
fn check_says_everything_that_is_wrong_and_where() {
    let good = "[backends.b.servers.s]\nurl = 'http://127.0.0.1:1'\n[frontends.f]\nbackend = 'b'\n";
    let said = run_with(
        &[("traefik.toml", STATIC), ("rules.toml", good)],
        &["check"],
    );
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, "1 of 1 frontend would be served: 0 errors, 0 warnings\n"),
        "{}",
        said.err
    );

    let bad = "[backends.b.servers.s]\nurl = 'http://127.0.0.1:1'\nwieght = 2\n[frontends.f]\nbackend = 'x'\n\
               [frontends.g]\nbackend = 'b'\n[frontends.g.routes.r]\nrule = 'Hots:a'\n[frontends.h]\nbackend = 'b'\n";
    let said = run_with(
        &[("traefik.toml", STATIC), ("rules.toml", bad)],
        &["check", "--metrics.statsd"],
    );
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!((said.code, lines.len()), (1, 5), "{}{}", said.out, said.err);
    for (line, begins, holds) in [
        (
            lines[0],
            "warning: --metrics.statsd: metrics.statsd: ",
            "not supported",
        ),
        (
            lines[1],
            "warning: rules.toml:3:1: ",
            "did you mean `weight`?",
        ),
        (
            lines[2],
            "error: rules.toml:4:12: ",
            "undefined backend 'x' for frontend f",
        ),
        (lines[3], "error: rules.toml:8:21: ", "Hots"),
        (
            lines[4],
            "1 of 3 frontends would be served: 2 errors, 2 warnings",
            "",
        ),
    ] {
        assert!(
            line.starts_with(begins) && line.contains(holds),
            "{line}\n{}",
            said.out
        );
    }

    let said = run_with(
        &[("traefik.toml", STATIC), ("rules.toml", "[frontends")],
        &["check"],
    );
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(said.out.starts_with("error: rules.toml:1:"), "{}", said.out);
    let said = run_with(
        &[(
            "traefik.toml",
            "defaultEntryPoints = ['a']\n[entryPoints.a]\naddress = 'x'\n",
        )],
        &["check"],
    );
    assert_eq!(said.code, 1);
    assert!(
        said.out
            .starts_with("error: traefik.toml:2:14: entry point a: "),
        "{}",
        said.out
    );
    assert!(
        said.out
            .ends_with("No server could be started: 1 error, 0 warnings\n"),
        "{}",
        said.out
    );
    let said = run_with(&[("traefik.toml", "debug = 3\n")], &["check"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err
            .contains("traefik.toml:1:9: debug: expected a boolean"),
        "{}",
        said.err
    );
}

#[test]
fn check_waits_for_no_store_that_does_not_answer() {
    let said = run(&["check", "--consul.endpoint=127.0.0.1:1"]);
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(
        said.out.contains("error: Load config error: "),
        "{}",
        said.out
    );
    assert!(
        said.out.contains("No server could be started: 1 error"),
        "{}",
        said.out
    );
}

const RULES: &str = "[backends.b.servers.s1]\nurl = 'http://127.0.0.1:1'\nweight = 3\n[backends.b.servers.s2]\nurl = 'http://127.0.0.1:2'\n\
    [backends.b.loadBalancer]\nmethod = 'drr'\n[backends.b.loadBalancer.stickiness]\n[backends.b.maxConn]\namount = 5\nextractorFunc = 'client.ip'\n\
    [frontends.strip]\nbackend = 'b'\n[frontends.strip.routes.r]\nrule = 'Host:a.example;PathPrefixStrip:/x'\n\
    [frontends.strip.whiteList]\nsourceRange = ['10.0.0.0/8']\n[frontends.strip.headers.customRequestHeaders]\nX-A = 'b'\n\
    [frontends.more]\nbackend = 'b'\n[frontends.more.routes.r]\nrule = 'Host:a.example;PathPrefix:/x;Headers:X-Big,yes'\n\
    [frontends.other]\nbackend = 'b'\npriority = 100\n[frontends.other.routes.r]\nrule = 'Host:b.example'\n\
    [frontends.low]\nbackend = 'b'\npriority = 1\n[frontends.slash]\nbackend = 'b'\npriority = 50\n[frontends.slash.routes.r]\nrule = 'Path:/slash'\n\
    [frontends.secure]\nbackend = 'b'\nentryPoints = ['https']\n[frontends.secure.redirect]\nregex = '^https://c.example/(.*)'\nreplacement = 'https://d.example/$1'\n";

#[track_caller]
fn check_explained(arguments: &[&str], expected: &str) {
    let arguments = [&["explain"], arguments].concat();
    let said = run_with(
        &[("traefik.toml", STATIC), ("rules.toml", RULES)],
        &arguments,
    );
    assert_eq!(said.out, expected, "{arguments:?}: {}", said.err);
    assert_eq!(said.code, 0);
}

#[test]
fn explain_tells_the_way_of_a_request_and_why_it_goes_no_other() {
    check_explained(
        &["GET", "http://a.example/x/y?z"],
        "GET http://a.example/x/y?z\n\n\
         entry point   http (127.0.0.1:80)\n\
         frontend      strip of provider file, priority 33 (rules.toml:12:12)\n\
         rule          r: Host:a.example;PathPrefixStrip:/x\n\
         path          /y?z from here on\n\
         middlewares   white list\n\
         \x20             headers\n\
         backend       b, drr, sticky, maxConn\n\
         candidates    s1 http://127.0.0.1:1, weight 3\n\
         \x20             s2 http://127.0.0.1:2, weight 1\n\
         not before it more (priority 46): does not match Headers:X-Big,yes\n\
         \x20             other (priority 100): does not match Host:b.example\n\
         \x20             slash (priority 50): does not match Path:/slash\n",
    );
    let big = run_with(
        &[("traefik.toml", STATIC), ("rules.toml", RULES)],
        &[
            "explain",
            "GET",
            "http://a.example/x/y?z",
            "-H",
            "X-Big: yes",
        ],
    );
    assert!(
        big.out.contains("\nfrontend      more of provider file"),
        "{}",
        big.out
    );
    check_explained(
        &["GET", "http://a.example/slash/"],
        "GET http://a.example/slash/\n\n\
         entry point   http (127.0.0.1:80)\n\
         answered      301 to /slash: a path differs by its last slash\n",
    );
    check_explained(
        &["GET", "https://c.example/q"],
        "GET https://c.example/q\n\n\
         entry point   https (127.0.0.1:443)\n\
         frontend      secure of provider file, priority 0 (rules.toml:37:12)\n\
         rule          none, so it takes every request\n\
         middlewares   redirect: answers 302 to https://d.example/q\n",
    );
    check_explained(
        &["GET", "http://a.example:8080/ping"],
        "GET http://a.example:8080/ping\n\n\
         entry point   traefik (127.0.0.1:8080)\n\
         answered by   Coreway itself: /ping, whoever asks\n",
    );
    check_explained(
        &["POST", "http://a.example:8080/ping"],
        "POST http://a.example:8080/ping\n\n\
         entry point   traefik (127.0.0.1:8080)\n\
         answered      404: no frontend matches\n",
    );
    for (arguments, expected) in [
        (
            &["explain", "GET"][..],
            "Error parsing command: explain: expected a method and a URL",
        ),
        (
            &["explain", "GET", "/x"],
            "Error using command explain: /x: expected a URL such as",
        ),
        (
            &["explain", "G ET", "http://a/"],
            "Error using command explain: it would be refused",
        ),
    ] {
        let said = run(arguments);
        assert_eq!(said.code, 1, "{arguments:?}");
        assert!(said.err.contains(expected), "{arguments:?}: {}", said.err);
    }
}

#[test]
fn what_explain_says_is_what_happens() {
    let origin = Origin::text("ok");
    let rules = format!(
        "{}[frontends.f.routes.r]\nrule = 'Host:a.example;PathPrefixStrip:/x'\n",
        site(&origin)
    );
    let coreway = Coreway::serve(&rules);
    let address = coreway.address();
    assert_eq!(get(address, "a.example", "/x/y?z").status, 200);
    assert_eq!(origin.last().head.target(), "/y?z");
    let entry_point = format!("--entryPoints=Name:http Address:{address}");
    let said = run_with(
        &[("rules.toml", &rules)],
        &[
            "explain",
            &entry_point,
            "--file.filename=rules.toml",
            "GET",
            &format!("http://a.example:{}/x/y?z", address.port()),
        ],
    );
    assert!(
        said.out.contains("path          /y?z from here on\n"),
        "{}{}",
        said.out,
        said.err
    );
}

#[test]
fn every_command_has_help_of_its_own() {
    for (command, usage) in [
        ("version", "Usage: coreway version [flags] [<arguments>]\n"),
        (
            "healthcheck",
            "Usage: coreway healthcheck [flags] [<arguments>]\n",
        ),
        (
            "storeconfig",
            "Usage: coreway storeconfig [flags] [<arguments>]\n",
        ),
        ("bug", "Usage: coreway bug [flags] [<arguments>]\n"),
        ("check", "Usage: coreway check [flags] [<arguments>]\n"),
        (
            "explain",
            "Usage: coreway explain [flags] <method> <url> [-H <name>:<value>]...\n",
        ),
        ("completion", "Usage: coreway completion bash|zsh|fish\n"),
        ("man", "Usage: coreway man\n"),
        ("demo", "Usage: coreway demo [flags] [<arguments>]\n"),
    ] {
        let said = run(&[command, "--help"]);
        assert_eq!(said.code, 0, "{command}: {}", said.err);
        assert!(said.out.contains(usage), "{command}: {}", said.out);
        let whole = run(&["--help"]).out;
        assert!(
            whole.contains(&format!("\n    {command} ")),
            "{command} is listed"
        );
    }
}

#[test]
fn bash_completes_commands_and_flags() {
    let script = run(&["completion", "bash"]);
    assert_eq!(script.code, 0);
    let complete = |words: &[&str]| {
        let words_quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let test = format!(
            "{}\nCOMP_WORDS=({})\nCOMP_CWORD={}\n_coreway\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.out,
            words_quoted.join(" "),
            words.len() - 1
        );
        let output = Command::new("bash")
            .args(["--norc", "-c", &test])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(complete(&["coreway", "heal"]), "healthcheck");
    assert_eq!(complete(&["coreway", "completion", "f"]), "fish");
    assert_eq!(complete(&["coreway", "--loglev"]), "--loglevel=");
    assert_eq!(complete(&["coreway", "storeconfig", "--dry"]), "--dry-run");
    for shell in ["zsh", "fish"] {
        let script = run(&["completion", shell]);
        assert_eq!(script.code, 0);
        assert!(script.out.contains("loglevel"), "{shell}");
        // Where the shell is there it has to understand it.
        let check = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(check.path(), &script.out).unwrap();
        if let Ok(output) = Command::new(shell).arg("-n").arg(check.path()).output() {
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    let said = run(&["completion", "csh"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("expected one of bash, zsh, fish"),
        "{}",
        said.err
    );
}

#[test]
fn the_manual_page_has_every_option() {
    let page = run(&["man"]);
    assert_eq!(page.code, 0);
    assert!(page.out.starts_with(".TH COREWAY 8 "), "{}", page.out);
    for text in [".B explain ", ".B \\-\\-entrypoints\n", ".SH EXIT STATUS"] {
        assert!(page.out.contains(text), "{text}");
    }
}

#[test]
fn a_package_gets_completion_and_manual() {
    let folder = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/extras");
    let status = Command::new(script)
        .arg(BINARY)
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(status.success());
    for (file, begins) in [
        ("bash-completion/completions/coreway", "# bash completion"),
        ("zsh/site-functions/_coreway", "#compdef coreway"),
        (
            "fish/vendor_completions.d/coreway.fish",
            "# fish completion",
        ),
        ("man/man8/coreway.8", ".TH COREWAY 8"),
    ] {
        let text = std::fs::read_to_string(folder.path().join("share").join(file)).unwrap();
        assert!(text.starts_with(begins), "{file}");
    }
}
