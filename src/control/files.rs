//! Files that options of frontends name: read for compiling, and looked at for changes.
//!
//! Owns what is in each of them. What has changed on disk is found within seconds, whoever wrote it and however; the
//! configuration need not change for that. Only ordinary files are read: a device or a pipe could hold the loop up.
//! Read next: `compile/auth.rs` (what is done with them).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use tokio::time::Instant;

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Bytes of a file. More is a mistake.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The files in use, by name.
#[derive(Debug, Default)]
pub struct Files {
    known: BTreeMap<String, File>,
    looked: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
struct File {
    stamp: Option<Stamp>,
    /// `None`: there is no such file.
    content: Option<Result<Vec<u8>, String>>,
}

/// What changes with the content: node, length, time.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self(
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec(),
        )
    }
}

impl Files {
    /// From now on these files are in use and no others. Reads all of them.
    pub fn want(&mut self, names: BTreeSet<String>) {
        self.known = names
            .into_iter()
            .map(|name| {
                let file = read(&name);
                (name, file)
            })
            .collect();
    }

    /// Whether a file is another one than when it was read. Looks at the disk only from time to time, and reads anew.
    pub fn have_changed(&mut self, now: Instant) -> bool {
        let is_due = self
            .looked
            .is_none_or(|looked| now.duration_since(looked) >= LOOK_INTERVAL);
        if self.known.is_empty() || !is_due {
            return false;
        }
        self.looked = Some(now);
        let mut changed = false;
        for (name, file) in &mut self.known {
            let stamp = fs::metadata(name).ok().as_ref().map(Stamp::of);
            if stamp != file.stamp {
                let next = read(name);
                changed |= next.content != file.content;
                *file = next;
            }
        }
        changed
    }

    /// What is in the files that are there.
    pub fn contents(&self) -> BTreeMap<String, Result<Vec<u8>, String>> {
        self.known
            .iter()
            .filter_map(|(name, file)| Some((name.clone(), file.content.clone()?)))
            .collect()
    }
}

fn read(name: &str) -> File {
    let metadata = fs::metadata(name);
    let stamp = metadata.as_ref().ok().map(Stamp::of);
    let content = match metadata {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(error.to_string())),
        Ok(metadata) if !metadata.is_file() => Some(Err("not an ordinary file".to_owned())),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => Some(Err("too large".to_owned())),
        Ok(_) => Some(content(name).map_err(|error| error.to_string())),
    };
    File { stamp, content }
}

fn content(name: &str) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(name)?
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_found_when_it_is_time_to_look() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users");
        let name = path.display().to_string();
        let mut files = Files::default();
        files.want(BTreeSet::from([
            name.clone(),
            folder.path().display().to_string(),
        ]));
        assert!(files.contents().values().all(Result::is_err), "a folder");
        assert!(!files.contents().contains_key(&name));

        fs::write(&path, "a").expect("written");
        assert!(files.have_changed(Instant::now()));
        assert_eq!(files.contents()[&name], Ok(b"a".to_vec()));
        fs::write(&path, "b:c").expect("written");
        assert!(!files.have_changed(Instant::now()), "just looked");
        let later = Instant::now() + LOOK_INTERVAL;
        assert!(files.have_changed(later));
        assert_eq!(files.contents()[&name], Ok(b"b:c".to_vec()));
        assert!(!files.have_changed(later + LOOK_INTERVAL));
        fs::remove_file(&path).expect("removed");
        assert!(files.have_changed(later + 2 * LOOK_INTERVAL));
        assert!(!files.contents().contains_key(&name));
    }
}
