//! Stickiness: the cookie's name, the servers as it names them, its attributes. Spec backends 4.
//!
//! Owns their spelling, to the byte that of the reference, so that sessions survive the change from it. Never reads one:
//! `backend/sticky.rs` does.

use sha1::{Digest, Sha1};

use super::backend::ServerUrl;
use crate::backend::sticky::Sticky;
use crate::config::dynamic::{LoadBalancer, Stickiness};

/// The cookie of the deprecated `sticky = true`.
const DEPRECATED_NAME: &str = "_TRAEFIK_BACKEND";

/// The stickiness of the backend `name` that has servers of these URLs, if it is asked for.
pub(super) fn compile(name: &str, written: Option<&LoadBalancer>, urls: &[&str]) -> Option<Sticky> {
    let written = written?;
    let deprecated = Stickiness {
        cookie_name: DEPRECATED_NAME.to_owned(),
        ..Stickiness::default()
    };
    let stickiness = match &written.stickiness {
        Some(stickiness) => stickiness,
        None if written.sticky => &deprecated,
        None => return None,
    };
    let values: Vec<String> = urls.iter().map(|url| value(url)).collect();
    Some(Sticky::new(
        &cookie_name(&stickiness.cookie_name, name),
        &values,
        &attributes(stickiness),
    ))
}

/// The name that was written, or one made from the backend's.
fn cookie_name(written: &str, backend: &str) -> String {
    if written.is_empty() {
        let hash = Sha1::digest(format!("_TRAEFIK_BACKEND_{backend}"));
        return format!("_{:02x}{:02x}{:x}", hash[0], hash[1], hash[2] >> 4);
    }
    let allowed = |char: char| {
        if char.is_ascii_alphanumeric() || "!#$%&'*+-.^`|~".contains(char) {
            char
        } else {
            '_'
        }
    };
    written.chars().map(allowed).collect()
}

/// A server's URL as its cookie has it: as configured, with the scheme in lower case. What a cookie cannot hold is escaped,
/// and user and password are left out: nobody but us should see those.
fn value(url: &str) -> String {
    let (scheme, rest) = url.split_once("//").unwrap_or(("", url));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let user = rest[..end].rfind('@').map_or(0, |at| at + 1);
    let mut value = scheme.to_ascii_lowercase() + "//";
    for byte in rest[user..].bytes() {
        if byte.is_ascii_graphic() && !b"\"\\;<>^`{|}".contains(&byte) {
            value.push(char::from(byte));
        } else {
            value.push_str(&format!("%{byte:02X}"));
        }
    }
    debug_assert!(ServerUrl::parse(&value).is_ok(), "it is still a URL");
    value
}

fn attributes(stickiness: &Stickiness) -> String {
    let mut text = "; Path=/".to_owned();
    if stickiness.http_only {
        text += "; HttpOnly";
    }
    if stickiness.secure {
        text += "; Secure";
    }
    match &*stickiness.same_site {
        "none" => text += "; SameSite=None",
        "lax" => text += "; SameSite=Lax",
        "strict" => text += "; SameSite=Strict",
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |written: &str, backend: &str, expected: &str| {
            assert_eq!(
                cookie_name(written, backend),
                expected,
                "{written} {backend}"
            );
        };
        check("", "containous", "_8a7bc");
        check("", "/my/BACKEND-v1.0~rc1", "_5f7bc");
        check("", "backend1", "_73be0");
        check("", "sticky", "_82b5f");
        check("my cookie/é", "b", "my_cookie__");
        check("a-Z.0!#$%&'*+^`|~", "b", "a-Z.0!#$%&'*+^`|~");
        check("a=b;c,d\"(e)", "b", "a_b_c_d__e_");
    }

    #[test]
    fn values() {
        let check = |url: &str, expected: &str| assert_eq!(value(url), expected, "{url}");
        check("http://127.0.0.1:22010", "http://127.0.0.1:22010");
        check("HTTP://Web.Test/", "http://Web.Test/");
        check("https://[::1]:443/a,b?c", "https://[::1]:443/a,b?c");
        check("http://user:p@ss@web.test:81/@x", "http://web.test:81/@x");
        check("http://a/b c;d\"\\é", "http://a/b%20c%3Bd%22%5C%C3%A9");
        check("//host", "//host");
    }

    #[test]
    fn all_attributes() {
        let check = |same_site: &str, secure, http_only, expected: &str| {
            let stickiness = Stickiness {
                same_site: same_site.to_owned(),
                secure,
                http_only,
                ..Stickiness::default()
            };
            assert_eq!(attributes(&stickiness), expected);
        };
        check("", false, false, "; Path=/");
        check(
            "lax",
            true,
            true,
            "; Path=/; HttpOnly; Secure; SameSite=Lax",
        );
        check("none", true, false, "; Path=/; Secure; SameSite=None");
        check("strict", false, true, "; Path=/; HttpOnly; SameSite=Strict");
        check("Lax", false, false, "; Path=/");
    }

    #[test]
    fn what_asks_for_it() {
        let load_balancer = |sticky, stickiness| LoadBalancer {
            sticky,
            stickiness,
            ..LoadBalancer::default()
        };
        let check = |written: Option<&LoadBalancer>, expected: Option<&str>| {
            let sticky = compile("b", written, &["http://a"]);
            let cookie = sticky.map(|sticky| {
                let cookie = sticky.cookie(crate::backend::ServerId(0)).to_vec();
                String::from_utf8(cookie).expect("text")
            });
            assert_eq!(cookie.as_deref(), expected);
        };
        let named = Stickiness {
            cookie_name: "c".to_owned(),
            ..Stickiness::default()
        };
        check(None, None);
        check(Some(&load_balancer(false, None)), None);
        check(
            Some(&load_balancer(true, None)),
            Some("_TRAEFIK_BACKEND=http://a; Path=/"),
        );
        check(
            Some(&load_balancer(true, Some(named))),
            Some("c=http://a; Path=/"),
        );
    }
}
