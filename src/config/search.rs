//! Where the static configuration file is looked for. Spec static-config 1.1.
//!
//! Owns the order of the candidates. Never reads a file's content. Read next: `load.rs`.

use std::path::{Path, PathBuf};

/// File names tried in each folder, ours first.
const NAMES: &[&str] = &["coreway.toml", "traefik.toml"];

/// The first file there is: what `config_file` names (a file, or a folder to look in), then the usual folders.
pub(super) fn find(
    config_file: Option<&str>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Option<PathBuf> {
    candidates(config_file, env)
        .iter()
        .find_map(|candidate| file_at(candidate))
}

/// The file that one candidate stands for: itself, or one of our names in it.
pub(super) fn file_at(candidate: &str) -> Option<PathBuf> {
    if candidate.is_empty() {
        return None;
    }
    let path = Path::new(candidate);
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if path.is_file() {
        return Some(path);
    }
    NAMES
        .iter()
        .map(|name| path.join(name))
        .find(|file| file.is_file())
}

fn candidates(config_file: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let folders = [
        "/etc/coreway",
        "/etc/traefik",
        "$HOME/.coreway",
        "$HOME/.traefik",
        ".",
    ];
    config_file
        .into_iter()
        .chain(folders)
        .map(|candidate| expand(candidate, env))
        .collect()
}

/// Replaces `$NAME` and `${NAME}` by the environment's values; what is not set is empty.
pub(super) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let braced = after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'));
        let (name, tail) = braced.unwrap_or_else(|| {
            let end = after
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(after.len());
            after.split_at(end)
        });
        if name.is_empty() {
            expanded.push('$');
        } else {
            expanded.push_str(&env(name).unwrap_or_default());
        }
        rest = tail;
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/home/me".to_owned()),
            "A_1" => Some("x".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_expanded() {
        let check = |text: &str, expected: &str| assert_eq!(expand(text, &env), expected);
        check("/a/b", "/a/b");
        check("$HOME/x", "/home/me/x");
        check("${HOME}x", "/home/mex");
        check("$A_1-$A_1", "x-x");
        check("$NONE/x", "/x");
        check("a$", "a$");
        check("${", "${");
    }

    #[test]
    fn candidates_are_in_the_order_of_the_specification() {
        assert_eq!(
            candidates(Some("$HOME/own"), &env),
            [
                "/home/me/own",
                "/etc/coreway",
                "/etc/traefik",
                "/home/me/.coreway",
                "/home/me/.traefik",
                "."
            ]
        );
    }

    #[test]
    fn a_candidate_is_a_file_or_a_folder_with_one_of_our_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let find = |candidate: PathBuf| file_at(candidate.to_str().expect("UTF-8"));
        assert_eq!(find(folder.path().to_owned()), None);
        std::fs::write(at("traefik.toml"), "").expect("written");
        assert_eq!(find(folder.path().to_owned()), Some(at("traefik.toml")));
        std::fs::write(at("coreway.toml"), "").expect("written");
        assert_eq!(find(folder.path().to_owned()), Some(at("coreway.toml")));
        assert_eq!(find(at("traefik.toml")), Some(at("traefik.toml")));
        assert_eq!(find(at("missing.toml")), None);
    }
}
