//! Who may do what with the nodes that are made: the option `acl`, as ZooKeeper's own shell spells it.
//!
//! Owns how it is read and written. Never changes the rights of a node that is there.

use crate::store::Error;

/// One letter for each right, and its bit.
const RIGHTS: [(char, i32); 5] = [('r', 1), ('w', 2), ('c', 4), ('d', 8), ('a', 16)];

/// Every right there is.
const ALL: i32 = 31;

/// The rights of a node, at least those of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(pub(super) Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) rights: i32,
    pub(super) scheme: String,
    pub(super) id: String,
}

impl Acl {
    /// Reads `scheme:id:rights`, separated by commas, such as `auth::cdrwa,world:anyone:r`. Empty: everybody may do
    /// everything, as Traefik 1.7 wrote it.
    ///
    /// # Errors
    /// `Error::Settings`.
    pub(super) fn parse(written: &str) -> Result<Self, Error> {
        if written.trim().is_empty() {
            return Ok(Self(vec![Entry {
                rights: ALL,
                scheme: "world".to_owned(),
                id: "anyone".to_owned(),
            }]));
        }
        let entries = written.split(',').map(|entry| Entry::parse(entry.trim()));
        entries.collect::<Result<_, _>>().map(Self)
    }
}

impl Entry {
    fn parse(written: &str) -> Result<Self, Error> {
        let wrong = |why: &str| {
            let example = "expected scheme:id:rights, such as auth::cdrwa or world:anyone:r";
            Error::Settings(format!("zookeeper: acl: {written}: {why}; {example}"))
        };
        // An id may hold colons: `digest:user:hash`.
        let (scheme, rest) = written.split_once(':').ok_or_else(|| wrong("no scheme"))?;
        let (id, letters) = rest.rsplit_once(':').ok_or_else(|| wrong("no rights"))?;
        if scheme.is_empty() {
            return Err(wrong("no scheme"));
        }
        let mut rights = 0;
        for letter in letters.chars() {
            let right = RIGHTS.iter().find(|(known, _)| *known == letter);
            let (_, right) = right.ok_or_else(|| wrong("a right is one of c, d, r, w and a"))?;
            rights |= right;
        }
        if rights == 0 {
            return Err(wrong("no rights"));
        }
        Ok(Self {
            rights,
            scheme: scheme.to_owned(),
            id: id.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &str, expected: &[(i32, &str, &str)]) {
        let Acl(entries) = Acl::parse(written).unwrap();
        let read: Vec<_> = entries
            .iter()
            .map(|entry| (entry.rights, entry.scheme.as_str(), entry.id.as_str()))
            .collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn rights_are_read_as_the_shell_writes_them() {
        check("", &[(31, "world", "anyone")]);
        check("auth::cdrwa", &[(31, "auth", "")]);
        check(
            "digest:me:aGFzaA==:rw, world:anyone:r",
            &[(3, "digest", "me:aGFzaA=="), (1, "world", "anyone")],
        );
        check("ip:10.0.0.0/8:ca", &[(20, "ip", "10.0.0.0/8")]);
    }

    #[test]
    fn what_is_no_right_is_an_error_that_names_it() {
        for (written, why) in [
            ("world", "no scheme"),
            ("world:anyone", "no rights"),
            (":anyone:r", "no scheme"),
            ("world:anyone:", "no rights"),
            ("world:anyone:x", "a right is one of"),
            ("world:anyone:r,", "no scheme"),
        ] {
            let error = Acl::parse(written).unwrap_err().to_string();
            assert!(error.contains(why), "{written}: {error}");
        }
    }
}
