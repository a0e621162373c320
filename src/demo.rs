//! `coreway demo`: a proxy, two backends and a rule file to play with, all on this machine.
//!
//! Owns the backends and the temporary folder; both are gone when the demo ends. Needs neither network nor root.
//! Read next: `main.rs` (`serve`, which runs the proxy as always).

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// Where the demo listens if nobody else does: for requests, and for questions about itself.
const ADDRESSES: [SocketAddr; 2] = [local(8080), local(8081)];

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// A demo backend reads heads of this many bytes, and gives up on bigger ones.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

/// A demo backend closes a connection that has been quiet for this long.
const QUIET_MAX: Duration = Duration::from_secs(120);

/// Runs the demo until it is interrupted. `flags` are those of the server, put behind our own.
pub(crate) fn run(flags: &[OsString]) -> ExitCode {
    let prepared = prepare().and_then(|(folder, addresses)| {
        let rules = folder.path().join("rules.toml");
        std::fs::write(&rules, rule_file(&[backend("one")?, backend("two")?]))?;
        Ok((folder, rules, addresses))
    });
    let (folder, rules, [address, api]) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return crate::complain(&format!("the demo cannot be prepared: {error}")),
    };
    let mut arguments: Vec<OsString> = vec![
        format!("--entrypoints=Name:http Address:{address}").into(),
        format!("--entrypoints=Name:traefik Address:{api}").into(),
        "--defaultentrypoints=http".into(),
        "--api".into(),
        format!("--file.filename={}", rules.display()).into(),
        "--providersthrottleduration=100ms".into(),
        "--loglevel=INFO".into(),
    ];
    arguments.extend_from_slice(flags);
    let code = match crate::load(&arguments) {
        Ok(loaded) => crate::serve(loaded, |addresses| {
            let address = addresses.first().unwrap_or(&address);
            crate::print(&explanation(
                address,
                addresses.get(1).unwrap_or(&api),
                &rules,
            ));
        }),
        Err(error) => crate::complain(&error),
    };
    if let Err(error) = folder.close() {
        crate::complain(&format!("the demo's folder cannot be removed: {error}"));
    }
    code
}

/// A folder for the rules, and addresses that are free: the usual ones if possible.
fn prepare() -> io::Result<(tempfile::TempDir, [SocketAddr; 2])> {
    let folder = tempfile::Builder::new().prefix("coreway-demo-").tempdir()?;
    // All at once, so that no two are the same.
    let mut free = Vec::new();
    for address in ADDRESSES {
        free.push(TcpListener::bind(address).or_else(|_| TcpListener::bind(local(0)))?);
    }
    Ok((folder, [free[0].local_addr()?, free[1].local_addr()?]))
}

fn rule_file(backends: &[SocketAddr; 2]) -> String {
    let [one, two] = backends;
    format!(
        r#"# The rules of the demo. Change something and save: it is served a moment later.

[backends]
  [backends.both.servers.one]
    url = "http://{one}"
    weight = 3
  [backends.both.servers.two]
    url = "http://{two}"
    weight = 1
  [backends.second.servers.two]
    url = "http://{two}"

[frontends]
  # Every host that no other frontend wants.
  [frontends.all]
    backend = "both"
    passHostHeader = true
    [frontends.all.routes.everything]
      rule = "PathPrefix:/"

  [frontends.second]
    backend = "second"
    passHostHeader = true
    [frontends.second.routes.host]
      rule = "Host:second.localhost;PathPrefixStrip:/api"
"#
    )
}

fn explanation(address: &SocketAddr, api: &SocketAddr, rules: &Path) -> String {
    let rules = rules.display();
    format!(
        "
Coreway listens on http://{address} and balances between two small backends.

  curl http://{address}/                                        three of four answers come from \"one\"
  curl -H 'Host: second.localhost' http://{address}/api/users   only \"two\", without /api
  curl http://{api}/api/providers                           what is loaded
  curl http://{api}/health                                  how it goes

The rules are in {rules}.
Change them while this runs, for example:

  sed -i 's/second.localhost/third.localhost/' {rules}
  curl -H 'Host: third.localhost' http://{address}/api/users

Ctrl-C ends the demo and removes its folder.

"
    )
}

/// Starts a backend that answers as `whoami` does, and returns its address. It runs as long as the process.
fn backend(name: &'static str) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::Builder::new()
        .name(format!("backend {name}"))
        .spawn(move || {
            for client in listener.incoming().flatten() {
                let conversation = move || {
                    // A client that leaves or talks nonsense ends its own conversation only.
                    let _ = converse(name, address, &client);
                };
                let _ = thread::Builder::new()
                    .name(format!("client of {name}"))
                    .spawn(conversation);
            }
        })?;
    Ok(address)
}

fn converse(name: &str, address: SocketAddr, client: &TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(QUIET_MAX))?;
    client.set_nodelay(true)?;
    let peer = client.peer_addr()?;
    let mut reader = BufReader::new(client);
    while let Some(head) = head(&mut reader)? {
        skip_body(&mut reader, &head)?;
        let mut body = format!(
            "Backend: {name}\nHostname: {name}\nIP: {}\nRemoteAddr: {peer}\n",
            address.ip()
        );
        for line in &head {
            let _ = writeln!(body, "{line}");
        }
        let method = head
            .first()
            .and_then(|line| line.split(' ').next())
            .unwrap_or_default();
        let sent = if method == "HEAD" { "" } else { &body };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{sent}",
            body.len()
        );
        let mut client = client;
        client.write_all(answer.as_bytes())?;
        if field(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            break;
        }
    }
    Ok(())
}

/// The lines of a request head, `None` if the client has gone.
fn head(reader: &mut impl BufRead) -> io::Result<Option<Vec<String>>> {
    let mut reader = reader.take(HEAD_BYTES_MAX);
    let mut lines: Vec<String> = Vec::new();
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.is_empty() {
            return Ok(Some(lines));
        }
        lines.push(line);
    }
}

fn field<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    let fields = head.iter().filter_map(|line| line.split_once(':'));
    fields
        .into_iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

fn skip_body(reader: &mut impl BufRead, head: &[String]) -> io::Result<()> {
    if field(head, "transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            reader.take(HEAD_BYTES_MAX).read_line(&mut size)?;
            let size = u64::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
            // The data and the line end after it; after the last chunk there is only the line end.
            io::copy(&mut reader.take(size + 2), &mut io::sink())?;
            if size == 0 {
                return Ok(());
            }
        }
    }
    let length = field(head, "content-length")
        .and_then(|value| value.parse().ok())
        .unwrap_or(0);
    io::copy(&mut reader.take(length), &mut io::sink()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_says_who_it_is_again_and_again() {
        let address = backend("one").expect("starts");
        let mut client = TcpStream::connect(address).expect("connects");
        let requests = "GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                        3\r\nabc\r\n0\r\n\r\nGET /c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        client.write_all(requests.as_bytes()).expect("sends");
        let mut answers = String::new();
        client
            .read_to_string(&mut answers)
            .expect("the last answer closes");
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
        for line in [
            "Backend: one\n",
            "GET /a HTTP/1.1\n",
            "POST /b HTTP/1.1\n",
            "GET /c HTTP/1.1\n",
        ] {
            assert!(answers.contains(line), "{line} in {answers}");
        }
    }

    #[test]
    fn the_rule_file_can_be_read() {
        let rules = rule_file(&ADDRESSES);
        let (dynamic, diagnostics) =
            coreway::config::dynamic_from_toml("rules.toml", &rules).expect("valid");
        assert_eq!((dynamic.backends.len(), dynamic.frontends.len()), (2, 2));
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
    }
}
