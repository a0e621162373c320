//! Following a tree of Consul: a wait for its index to move, then what is different.
//!
//! Owns what is known of the tree, a number for each key. Consul tells that something below a prefix changed and not what,
//! and needs a third of a second to write 50,000 keys; but every answer carries the newest index below the prefix that was
//! asked for, and a prefix may end anywhere in a name. So a change is sought: the names are divided by their next
//! character, again and again, and only where the index moved is anything read.
//! Never mixes two moments: a part that is newer than the moment that is sought begins the search anew.
//! Read next: `../follow.rs` (who asks).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use time::OffsetDateTime;

use super::{Consul, Entry, READ_SPREAD};
use crate::store::backoff::spread;
use crate::store::{Answer, Change, Error, Pair, Position, Prefix, Seen, Version, Watch};

/// A part of a tree with at most so many known keys is read and not divided: some milliseconds for Consul and for us.
const PART_KEYS: usize = 512;

/// Questions of one search. Two changes in 10,000 frontends need some fifty; where many keys changed, reading all is cheaper.
const QUESTIONS_MAX: usize = 128;

/// After a wait that took longer, because this process or its machine stood still, everything is read: where a key was deleted
/// is a tombstone, which moves the index, and Consul keeps it for a quarter of an hour.
const TOMBSTONES_KEPT: Duration = Duration::from_mins(10);

/// How often a search begins anew because somebody wrote meanwhile, before everything is read.
const SEARCHES_MAX: usize = 3;

/// Begins with the whole tree, then tells what became different.
pub(super) struct ConsulWatch {
    store: Consul,
    below: Prefix,
    /// What is being waited for, kept when the caller stops waiting for a while.
    waiting: Option<Answer<'static, (Known, Seen)>>,
    /// `None` before the tree was read, and while something is being waited for.
    known: Option<Known>,
}

/// What the tree was at an index.
#[derive(Default)]
struct Known {
    /// Full keys, and where the last change of each is.
    keys: BTreeMap<String, u64>,
    index: u64,
    /// What the last wait told. It is what the next one waits to be left: should Consul number names otherwise than values,
    /// a wait still ends only when something happens.
    waited: u64,
}

impl ConsulWatch {
    pub(super) fn new(store: Consul, below: Prefix) -> Self {
        Self {
            store,
            below,
            waiting: None,
            known: None,
        }
    }
}

impl Watch for ConsulWatch {
    fn next(&mut self) -> Answer<'_, Seen> {
        Box::pin(async move {
            let waiting = self.waiting.get_or_insert_with(|| {
                let (store, below) = (self.store.clone(), self.below.clone());
                match self.known.take() {
                    None => Box::pin(async move { whole(&store, &below).await }),
                    Some(known) => Box::pin(changed(store, below, known)),
                }
            });
            let waited = waiting.as_mut().await;
            self.waiting = None;
            let (known, seen) = waited?;
            self.known = Some(known);
            Ok(seen)
        })
    }
}

async fn whole(store: &Consul, below: &Prefix) -> Result<(Known, Seen), Error> {
    let listing = store.tree(below).await?;
    let keys = listing.pairs.iter();
    let keys = keys.map(|pair| (below.key(&pair.key), pair.version.0));
    let known = Known {
        keys: keys.collect(),
        index: listing.position.0,
        waited: listing.position.0,
    };
    Ok((known, Seen::Whole(listing)))
}

/// Waits until something is different, and for a while at most.
async fn changed(store: Consul, below: Prefix, mut known: Known) -> Result<(Known, Seen), Error> {
    let began = OffsetDateTime::now_utc(); // Goes on while a machine sleeps.
    let (mut index, mut names) = store.names(below.root(), Some(known.waited)).await?;
    let waited = Duration::try_from(OffsetDateTime::now_utc() - began);
    // A clock that was set back tells nothing.
    let is_recent = waited.is_ok_and(|waited| waited < TOMBSTONES_KEPT);
    if is_recent && (index == known.waited || index == known.index) {
        known.waited = index;
        let seen = Seen::Quiet(Position(known.index));
        return Ok((known, seen));
    }
    for _ in 0..SEARCHES_MAX {
        // A smaller index is of another history.
        if !is_recent || index < known.index || known.keys.len() <= PART_KEYS {
            break;
        }
        let mut search = Search {
            store: &store,
            below: &below,
            known: &known,
            index,
            changes: Vec::new(),
        };
        match search.run(names).await? {
            Found::All => {
                let changes = search.changes;
                known.take(&below, &changes);
                (known.index, known.waited) = (index, index);
                let position = Position(index);
                return Ok((known, Seen::Changes { changes, position }));
            }
            Found::Newer => (index, names) = store.names(below.root(), None).await?,
            Found::TooMuch => break,
        }
    }
    if known.keys.len() > PART_KEYS {
        // All nodes of a fleet hear of it at once.
        spread(READ_SPREAD).await;
    }
    let (mut known, seen) = whole(&store, &below).await?;
    known.waited = index;
    Ok((known, seen))
}

impl Known {
    fn take(&mut self, below: &Prefix, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(pair) => self.keys.insert(below.key(&pair.key), pair.version.0),
                Change::Delete(key) => self.keys.remove(&below.key(key)),
            };
        }
    }

    fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, u64)> {
        self.keys
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .map(|(key, index)| (key.as_str(), *index))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }
}

/// How a search ended.
enum Found {
    /// Every change up to its index.
    All,
    /// Something newer: what was read is not of one moment.
    Newer,
    /// More than is worth seeking, or not the history that we know.
    TooMuch,
}

/// What is left to look at.
enum Part {
    /// Every key that begins so.
    Below(String),
    /// One key, and none that goes on after it.
    Key(String),
}

/// What Consul said of a part.
enum Said {
    Key(Option<Entry>),
    /// What begins so, and the newest index there.
    Entries(String, u64, Vec<Entry>),
    /// The names of what begins so, and the newest index there.
    Names(String, u64, Vec<String>),
}

/// A search for what changed after the index of what is known, up to another one.
struct Search<'a> {
    store: &'a Consul,
    below: &'a Prefix,
    known: &'a Known,
    index: u64,
    changes: Vec<Change>,
}

impl Search<'_> {
    /// `names` are those of the first level.
    async fn run(&mut self, names: Vec<String>) -> Result<Found, Error> {
        let mut parts = self.divide(self.below.root(), names);
        let mut questions = 0;
        while let Some(part) = parts.pop() {
            // Two at a time: what takes long are the first ones, folders of thousands, and nothing but Consul is busy then.
            let (one, other) = (Some(part), parts.pop());
            questions += 1 + usize::from(other.is_some());
            if questions > QUESTIONS_MAX {
                return Ok(Found::TooMuch);
            }
            let (one, other) = tokio::join!(self.ask(one), self.ask(other));
            for said in [one?, other?].into_iter().flatten() {
                if let Some(ended) = self.take(said, &mut parts)? {
                    return Ok(ended);
                }
            }
        }
        Ok(Found::All)
    }

    async fn ask(&self, part: Option<Part>) -> Result<Option<Said>, Error> {
        Ok(match part {
            None => None,
            Some(Part::Key(key)) => Some(Said::Key(self.store.entry(&key).await?)),
            Some(Part::Below(prefix)) if self.known.below(&prefix).nth(PART_KEYS).is_none() => {
                let (index, entries) = self.store.entries(&prefix).await?;
                Some(Said::Entries(prefix, index, entries))
            }
            Some(Part::Below(prefix)) => {
                let (index, names) = self.store.names(&prefix, None).await?;
                Some(Said::Names(prefix, index, names))
            }
        })
    }

    /// Takes an answer in. What it divides is left to look at.
    fn take(&mut self, said: Said, parts: &mut Vec<Part>) -> Result<Option<Found>, Error> {
        match said {
            // There was something when it was divided.
            Said::Key(None) => Ok(Some(Found::Newer)),
            Said::Entries(_, _, entries) if entries.is_empty() => Ok(Some(Found::Newer)),
            Said::Key(Some(entry)) => self.compare(entry.modify_index, &[entry]),
            Said::Entries(prefix, index, entries) => {
                self.lost(&prefix, &entries);
                self.compare(index, &entries)
            }
            Said::Names(prefix, index, names) => {
                if index > self.known.index && index <= self.index {
                    parts.extend(self.divide(&prefix, names));
                    return Ok(None);
                }
                let is_older = self.known.below(&prefix).any(|(_, known)| known > index);
                Ok(match index {
                    _ if is_older => Some(Found::TooMuch),
                    _ if index > self.index => Some(Found::Newer),
                    _ => None,
                })
            }
        }
    }

    /// Divides what is below a prefix by the first character in which its names differ. What is known and has none of these
    /// names is gone.
    fn divide(&mut self, prefix: &str, mut names: Vec<String>) -> Vec<Part> {
        names.sort_unstable();
        let mut later = names.iter().map(String::as_str).peekable();
        // The last name that is not behind the key, both being sorted.
        let mut name = "";
        let known = self.known;
        for (key, _) in known.below(prefix) {
            while let Some(next) = later.next_if(|next| *next <= key) {
                name = next;
            }
            // A name that ends in a slash stands for all that begins so; no other stands between it and them.
            let is_folder = name.len() > prefix.len() && name.ends_with('/');
            if name != key && !(is_folder && key.starts_with(name)) {
                self.gone(key);
            }
        }
        let (Some(first), Some(last)) = (names.first(), names.last()) else {
            return Vec::new();
        };
        let same = first.chars().zip(last.chars()).take_while(|(a, b)| a == b);
        let common: usize = same.map(|(char, _)| char.len_utf8()).sum();
        let next = |name: &str| name[common..].chars().next();
        let groups = names.chunk_by(|one, other| next(one) == next(other));
        let part = |group: &[String]| match next(&group[0]) {
            Some(next) => Part::Below(group[0][..common + next.len_utf8()].to_owned()),
            // All names begin with this one: it is a key that others go on after, or the only folder.
            None if common > prefix.len() && group[0].ends_with('/') => {
                Part::Below(group[0].clone())
            }
            None => Part::Key(group[0].clone()),
        };
        groups.map(part).collect()
    }

    /// Takes in what is different in a part that was read at an index.
    fn compare(&mut self, index: u64, entries: &[Entry]) -> Result<Option<Found>, Error> {
        if index > self.index {
            return Ok(Some(Found::Newer));
        }
        for entry in entries {
            let Some(path) = self.below.path(&entry.key) else {
                continue;
            };
            if self.known.keys.get(&entry.key) == Some(&entry.modify_index) {
                continue;
            }
            if entry.modify_index <= self.known.index {
                return Ok(Some(Found::TooMuch));
            }
            self.changes.push(Change::Put(Pair {
                key: path.to_owned(),
                value: entry.value(&entry.key)?,
                version: Version(entry.modify_index),
            }));
        }
        Ok(None)
    }

    /// Takes in which known keys are not among those that were read.
    fn lost(&mut self, prefix: &str, entries: &[Entry]) {
        let there: BTreeSet<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        let known = self.known;
        for (key, _) in known.below(prefix).filter(|(key, _)| !there.contains(key)) {
            self.gone(key);
        }
    }

    fn gone(&mut self, key: &str) {
        let path = self.below.path(key).map(str::to_owned);
        self.changes.extend(path.map(Change::Delete));
    }
}
