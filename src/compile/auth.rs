//! Sections `auth`, and the old `basicAuth`, become steps. Spec frontends 5.
//!
//! Owns how users are read from lists and files, and what is wrong with them. Nothing that is wrong is served without the
//! step, and no message shows a hash. Never reads a file: what is in it comes in as [`Read`].
//! Read next: `frontend/middleware/auth/mod.rs`.

use std::sync::Arc;

use super::middleware::Refusal;
use crate::config::Place;
use crate::config::dynamic::{self, AuthUsers};
use crate::frontend::middleware::Middleware;
use crate::frontend::middleware::auth::Passing;
use crate::frontend::middleware::auth::basic::Basic;
use crate::frontend::middleware::auth::users::{Hash, Users};

/// What is in the file of a name: `None` if there is no such file.
pub(super) type Read<'a> = &'a dyn Fn(&str) -> Option<Result<Vec<u8>, String>>;

/// The step of a section: that of its first kind.
pub(super) fn step(written: &dynamic::Auth, read: Read<'_>) -> Result<Middleware, Refusal> {
    let refuse = |why: String| (written.place.clone(), format!("auth: {why}"));
    let field = &written.header_field;
    if !field.is_empty() && !is_name(field) {
        return Err(refuse(format!(
            "headerField: {field:?} is not the name of a header field"
        )));
    }
    if let Some(users) = &written.basic {
        let passing = Passing::new(users.remove_header, field);
        return basic(users, passing, read).map_err(refuse);
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

    /// What is said about a section `auth`, with a file `/users` at hand.
    #[track_caller]
    fn check(toml: &str, file: &str, expected: Result<&str, &str>) {
        let text = format!("[frontends.f.auth]\n{toml}");
        let (dynamic, _) = crate::config::dynamic_from_toml("f", &text).expect("valid");
        let auth = dynamic.frontends["f"].auth.as_ref().expect("written");
        let made = step(auth, &|path| match path {
            "/users" => Some(Ok(file.as_bytes().to_vec())),
            "/secret" => Some(Err("permission denied".to_owned())),
            _ => None,
        });
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
