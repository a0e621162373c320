//! Sections `auth`, and the old `basicAuth`, become steps. Spec frontends 5.
//!
//! Owns how users are read from lists and files, and what is wrong with them. Nothing that is wrong is served without the
//! step, and no message shows a hash. Never reads a file: what is in it comes in as [`Read`].
//! Read next: `auth_server.rs`, then `frontend/middleware/auth/mod.rs`.

use std::collections::HashMap;
use std::sync::Arc;

use super::auth_server::{self, Address};
use super::middleware::Refusal;
use crate::config::Place;
use crate::config::dynamic::{self, AuthForward, AuthUsers};
use crate::frontend::middleware::Middleware;
use crate::frontend::middleware::auth::Passing;
use crate::frontend::middleware::auth::basic::Basic;
use crate::frontend::middleware::auth::digest::{Digest, Nonces, Proofs, REALM};
use crate::frontend::middleware::auth::forward::{AuthServerId, Forward};
use crate::frontend::middleware::auth::users::{Hash, Users};

/// What is in the file of a name: `None` if there is no such file.
pub(super) type Read<'a> = &'a dyn Fn(&str) -> Option<Result<Vec<u8>, String>>;

/// What a section needs beside itself: other things on an entry point than on a frontend.
pub(super) trait Surroundings {
    fn read(&self, path: &str) -> Option<Result<Vec<u8>, String>>;

    /// What is known of nonces that were used here before.
    fn nonces(&mut self) -> Arc<Nonces>;

    /// Names an authentication server.
    ///
    /// # Errors
    /// How it is to be spoken to cannot be read.
    fn server(&mut self, written: &AuthForward, address: &Address) -> Result<AuthServerId, String>;
}

/// The step of a section: that of its first kind.
pub(super) fn step(
    written: &dynamic::Auth,
    surroundings: &mut dyn Surroundings,
) -> Result<Middleware, Refusal> {
    let refuse = |why: String| (written.place.clone(), format!("auth: {why}"));
    let field = &written.header_field;
    if !field.is_empty() && !is_name(field) {
        return Err(refuse(format!(
            "headerField: {field:?} is not the name of a header field"
        )));
    }
    if let Some(users) = &written.basic {
        let passing = Passing::new(users.remove_header, field);
        return basic(users, passing, &|path| surroundings.read(path)).map_err(refuse);
    }
    if let Some(users) = &written.digest {
        let passing = Passing::new(users.remove_header, field);
        return digest(users, passing, surroundings).map_err(refuse);
    }
    if let Some(forward) = &written.forward {
        return self::forward(forward, field, surroundings)
            .map_err(|why| refuse(format!("forward: {why}")));
    }
    Err(refuse(
        "one of basic, digest and forward is needed, to say who may pass".to_owned(),
    ))
}

/// The files that a section names.
pub(super) fn files(written: &dynamic::Auth) -> impl Iterator<Item = String> {
    let users = [&written.basic, &written.digest].into_iter().flatten();
    users
        .map(|users| users.users_file.clone())
        .filter(|path| !path.is_empty())
        .chain(written.forward.iter().flat_map(auth_server::files))
}

/// The step of `basicAuth`.
pub(super) fn old_basic(written: &[String], place: &Place) -> Result<Option<Middleware>, Refusal> {
    if written.is_empty() {
        return Ok(None);
    }
    let users = AuthUsers {
        users: written.to_vec(),
        ..AuthUsers::default()
    };
    basic(&users, Passing::default(), &|_| None)
        .map(Some)
        .map_err(|why| (place.clone(), format!("basicAuth: {why}")))
}

fn basic(written: &AuthUsers, passing: Passing, read: Read<'_>) -> Result<Middleware, String> {
    let mut entries = Vec::new();
    for (origin, line) in lines(written, read)? {
        let (name, hash) = line
            .split_once(':')
            .filter(|(_, hash)| !hash.contains(':'))
            .ok_or_else(|| wrong_user(&origin, "expected name:hash"))?;
        let hash = Hash::parse(hash).map_err(|error| {
            let why = format!("a bcrypt cost of {} would take minutes", error.cost);
            wrong_user(&origin, &why)
        })?;
        entries.push((name.to_owned(), hash));
    }
    let users = Arc::new(Users::new(entries));
    Ok(Middleware::Basic(Box::new(Basic::new(users, passing))))
}

fn digest(
    written: &AuthUsers,
    passing: Passing,
    surroundings: &mut dyn Surroundings,
) -> Result<Middleware, String> {
    let mut proofs = Proofs::new();
    for (origin, line) in lines(written, &|path| surroundings.read(path))? {
        let parts: Vec<&str> = line.split(':').collect();
        let [name, realm, proof] = *parts else {
            return Err(wrong_user(&origin, "expected name:realm:hash"));
        };
        if realm == REALM {
            proofs.insert(name.as_bytes().into(), proof.as_bytes().into());
        }
    }
    let digest = Digest::new(Arc::new(proofs), surroundings.nonces(), passing);
    Ok(Middleware::Digest(Box::new(digest)))
}

fn forward(
    written: &AuthForward,
    header_field: &str,
    surroundings: &mut dyn Surroundings,
) -> Result<Middleware, String> {
    let address = Address::parse(&written.address)?;
    let names = &written.auth_response_headers;
    if let Some(name) = names.iter().find(|name| name.is_empty() || !is_name(name)) {
        return Err(format!(
            "authResponseHeaders: {name:?} is not the name of a header field"
        ));
    }
    let taken = names.iter().filter(|name| Forward::can_take(name));
    Ok(Middleware::Forward(Box::new(Forward {
        server: surroundings.server(written, &address)?,
        scheme: address.scheme(),
        authority: address.url.authority.as_bytes().into(),
        target: address.target.as_bytes().into(),
        trust_forward_header: written.trust_forward_header,
        answer_fields: taken.map(|name| name.as_bytes().into()).collect(),
        header_field: header_field.as_bytes().into(),
    })))
}

/// The nonces of frontends, which outlive a reload.
#[derive(Debug, Default)]
pub(super) struct KnownNonces(HashMap<(String, String), Arc<Nonces>>);

impl KnownNonces {
    /// Those of a frontend, by provider and name.
    pub(super) fn of(&mut self, name: (String, String)) -> Arc<Nonces> {
        Arc::clone(self.0.entry(name).or_default())
    }

    /// Forgets those of frontends that have none any more.
    pub(super) fn retain(&mut self, is_used: impl Fn(&(String, String)) -> bool) {
        self.0.retain(|name, _| is_used(name));
    }
}

fn wrong_user(origin: &str, why: &str) -> String {
    format!("error parsing Authenticator user: {origin}: {why}")
}

/// Every entry with where it stands: those of the list, then those of the file, which count where both have a name.
fn lines(written: &AuthUsers, read: Read<'_>) -> Result<Vec<(String, String)>, String> {
    let listed = written.users.iter().enumerate();
    let mut lines: Vec<(String, String)> = listed
        .map(|(at, line)| (format!("entry {} of users", at + 1), line.clone()))
        .collect();
    let path = &written.users_file;
    if !path.is_empty() {
        let content = match read(path) {
            Some(content) => content.map_err(|error| format!("usersFile: {path}: {error}"))?,
            None => return Err(format!("usersFile: {path}: no such file")),
        };
        let content = String::from_utf8_lossy(&content);
        for (at, line) in content.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                lines.push((format!("{path}:{}", at + 1), line.to_owned()));
            }
        }
    }
    Ok(lines)
}

/// RFC 9110 5.6.2.
fn is_name(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Here<'a> {
        file: &'a str,
    }

    impl Surroundings for Here<'_> {
        fn read(&self, path: &str) -> Option<Result<Vec<u8>, String>> {
            match path {
                "/users" => Some(Ok(self.file.as_bytes().to_vec())),
                "/secret" => Some(Err("permission denied".to_owned())),
                _ => None,
            }
        }

        fn nonces(&mut self) -> Arc<Nonces> {
            Arc::default()
        }

        fn server(&mut self, written: &AuthForward, _: &Address) -> Result<AuthServerId, String> {
            auth_server::tls(written, &|path| self.read(path)).map(|_| AuthServerId(7))
        }
    }

    /// What is said about a section `auth`, with a file `/users` at hand.
    #[track_caller]
    fn check(toml: &str, file: &str, expected: Result<&str, &str>) {
        let text = format!("[frontends.f.auth]\n{toml}");
        let (dynamic, _) = crate::config::dynamic_from_toml("f", &text).expect("valid");
        let auth = dynamic.frontends["f"].auth.as_ref().expect("written");
        let made = step(auth, &mut Here { file });
        let made = made.map(|step| format!("{step:?}"));
        match (&made, expected) {
            (Ok(made), Ok(part)) => assert!(made.contains(part), "{toml}: {made}"),
            (Err((place, why)), Err(said)) => assert_eq!(format!("{place}: {why}"), said),
            _ => panic!("{toml}: {made:?}"),
        }
    }

    #[test]
    fn users_of_lists_and_files() {
        let sha = "{SHA}qvTGHdzF6KLavt4PO0gs2a6pQ00=";
        check("[frontends.f.auth.basic]", "", Ok("hashes: {}"));
        check("basic.users = ['a:plain']", "", Ok("Never"));
        check(
            "basic.users = ['a:plain']\nbasic.usersFile = '/users'",
            &format!("# users\n\n  a:{sha} \n"),
            Ok("Sha1"),
        );
        for (users, wrong) in [("'a'", 1), ("'a:b', 'c:d:e'", 2), ("''", 1)] {
            check(
                &format!("basic.users = [{users}]"),
                "",
                Err(&format!(
                    "f:1:14: auth: error parsing Authenticator user: entry {wrong} of users: expected name:hash"
                )),
            );
        }
        check(
            "basic.usersFile = '/users'",
            "a:b\nsecret",
            Err("f:1:14: auth: error parsing Authenticator user: /users:2: expected name:hash"),
        );
        check(
            "basic.usersFile = '/nope'",
            "",
            Err("f:1:14: auth: usersFile: /nope: no such file"),
        );
        check(
            "basic.usersFile = '/secret'",
            "",
            Err("f:1:14: auth: usersFile: /secret: permission denied"),
        );
        check(
            "basic.users = ['a:$2y$31$c4WoMPo3SXsafkva.HHa6ubs.QwVRhnK/TgDjO/PLSgj4uXjg.uLG']",
            "",
            Err(
                "f:1:14: auth: error parsing Authenticator user: entry 1 of users: a bcrypt cost of 31 would take minutes",
            ),
        );
    }

    #[test]
    fn proofs_of_lists_and_files() {
        check(
            "digest.users = ['a:traefik:0123', 'b:other:0123']",
            "",
            Ok("users: {[97]: [48,"),
        );
        check("digest.usersFile = '/users'", "a:traefik:0", Ok("[97]"));
        for user in ["a:b", "a:b:c:d", ""] {
            check(
                &format!("digest.users = ['{user}']"),
                "",
                Err(
                    "f:1:14: auth: error parsing Authenticator user: entry 1 of users: expected name:realm:hash",
                ),
            );
        }
    }

    #[test]
    fn the_first_kind_counts() {
        let all = "digest.users = []\nforward.address = 'http://a'\nbasic.users = []";
        check(all, "", Ok("Basic"));
        check(
            "forward.address = 'junk'\ndigest.users = []",
            "",
            Ok("Digest"),
        );
    }

    #[test]
    fn other_servers() {
        check(
            "forward.address = 'https://a.test:81/b?c'\nforward.tls.insecureSkipVerify = true",
            "",
            Ok("AuthServerId(7), scheme: \"https\""),
        );
        let no = |lines: &str, why: &str| {
            let said = format!("f:1:14: auth: forward: {why}");
            check(lines, "", Err(&said));
        };
        no(
            "forward.address = ''",
            "address: \"\" is not an http or https URL",
        );
        no(
            "forward.address = 'ftp://a'",
            "address: \"ftp://a\" is not an http or https URL",
        );
        no(
            "forward.address = 'http://a/ b'",
            "address: \"http://a/ b\" is not an http or https URL",
        );
        no(
            "forward.address = 'http://a'\nforward.authResponseHeaders = ['A', '']",
            "authResponseHeaders: \"\" is not the name of a header field",
        );
        no(
            "forward.address = 'https://a'\nforward.tls.ca = '/secret'",
            "tls.ca: /secret: permission denied",
        );
        no(
            "forward.address = 'https://a'\nforward.tls.cert = '/nope'",
            "tls: cert and key go together",
        );
        no(
            "forward.address = 'https://a'\nforward.tls.cert = '/nope'\nforward.tls.key = 'x'",
            "tls.cert: failed to find any PEM data in certificate input",
        );
    }

    #[test]
    fn a_section_must_say_who_may_pass() {
        check(
            "headerField = 'X-User'",
            "",
            Err("f:1:14: auth: one of basic, digest and forward is needed, to say who may pass"),
        );
        check(
            "headerField = 'X User'\nbasic.users = []",
            "",
            Err("f:1:14: auth: headerField: \"X User\" is not the name of a header field"),
        );
    }
}
