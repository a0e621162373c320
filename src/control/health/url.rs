//! Where a health check goes: the server's URL with a reference in it, and what redirects make of that.
//!
//! Owns the resolution of references, RFC 3986 5.2. Never looks a name up.

use ::http::Uri;

/// What `reference` means where `base` is at hand. User and fragment are dropped; what a URL may not have is escaped.
///
/// # Errors
/// The outcome is no URL with a host.
pub(super) fn resolve(base: &str, reference: &str) -> Result<Uri, String> {
    let reference = reference.split('#').next().unwrap_or_default();
    let text = if has_scheme(reference) {
        reference.to_owned()
    } else {
        let (scheme, rest) = base
            .split_once("://")
            .ok_or_else(|| format!("{base} is not a URL with a host"))?;
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
        if let Some(other) = reference.strip_prefix("//") {
            format!("{scheme}://{other}")
        } else {
            let (own_path, own_query) =
                reference.split_at(reference.find('?').unwrap_or(reference.len()));
            let (path, query) = match own_path {
                "" if own_query.is_empty() => (path.to_owned(), query),
                "" => (path.to_owned(), own_query),
                absolute if absolute.starts_with('/') => (absolute.to_owned(), own_query),
                relative => {
                    let folder = &path[..path.rfind('/').map_or(0, |slash| slash + 1)];
                    (
                        format!("/{}{relative}", folder.trim_start_matches('/')),
                        own_query,
                    )
                }
            };
            format!("{scheme}://{authority}{}{query}", without_dots(&path))
        }
    };
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let slash = if target.starts_with('/') { "" } else { "/" };
    let url = format!(
        "{}://{host}{slash}{}",
        scheme.to_ascii_lowercase(),
        escaped(target)
    );
    url.parse()
        .ok()
        .filter(|url: &Uri| url.host().is_some_and(|host| !host.is_empty()))
        .ok_or_else(|| format!("{text} is not a URL with a host"))
}

fn has_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

/// RFC 3986 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

fn escaped(target: &str) -> String {
    let mut text = String::with_capacity(target.len());
    for byte in target.bytes() {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(base: &str, reference: &str, expected: &str) {
        let said = resolve(base, reference).map_or_else(|why| why, |url| url.to_string());
        assert_eq!(said, expected, "{base} {reference}");
    }

    #[test]
    fn paths_against_a_server() {
        check("http://a:81", "/h", "http://a:81/h");
        check("http://a:81", "h", "http://a:81/h");
        check("http://a", "/h?x=1&y=/", "http://a/h?x=1&y=/");
        check("HTTPS://A", "/h", "https://A/h");
        check("http://[::1]:81/", "/h", "http://[::1]:81/h");
        check("http://u:p@a:81/x", "/h#f", "http://a:81/h");
        check("http://a?q", "/h", "http://a/h");
    }

    #[test]
    fn references_of_every_kind() {
        check("http://a/b/c?d", "", "http://a/b/c?d");
        check("http://a/b/c?d", "?e", "http://a/b/c?e");
        check("http://a/b/c?d", "e", "http://a/b/e");
        check("http://a/b/c?d", "./e/", "http://a/b/e/");
        check("http://a/b/c", "../e", "http://a/e");
        check("http://a/b/c", "../../../e/.", "http://a/e/");
        check("http://a/b/c", "/x/../y/..", "http://a/");
        check("http://a/b", "//c:1/d", "http://c:1/d");
        check("http://a/b", "https://c/d", "https://c/d");
        check("http://a/b", "https://c", "https://c/");
        check("http://a/b", "HTTP://u@c?d", "http://c/?d");
    }

    #[test]
    fn odd_characters_are_escaped() {
        check("http://a", "/a b/é|", "http://a/a%20b/%C3%A9%7C");
        check("http://a", "/%20", "http://a/%20");
    }

    #[test]
    fn no_urls() {
        check("//a", "/h", "//a is not a URL with a host");
        check("http://", "/h", "http:///h is not a URL with a host");
        check("http://a", "mailto:x", "mailto:x is not a URL with a host");
        check(
            "http://a",
            "http://b c/",
            "http://b c/ is not a URL with a host",
        );
    }
}
