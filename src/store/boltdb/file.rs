//! The format of BoltDB files: pages, a tree of keys for each bucket, two metas of which the newer valid one counts.
//!
//! Owns the reading of a file's bytes and the making of the pages of the next transaction. Never touches a file. What a
//! file says is checked before it is believed: no page is looked at twice, nothing is read outside of the bytes.
//! Source: the format as `bbolt` documents it (page.go, bucket.go, db.go), version 2, unchanged since 2014.

use std::collections::BTreeMap;

use crate::store::Error;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// Page size of a new file. An existing one says its own.
const PAGE_BYTES: usize = 4096;

/// Bytes of a page's header, of an element of a leaf or branch, and of a bucket's header.
const HEADER: usize = 16;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREE: u16 = 0x10;

/// Elements that are buckets themselves.
const BUCKET: u32 = 0x01;

/// There is no list: whoever wants it finds out what is in use.
const NO_FREE_LIST: u64 = u64::MAX;

/// A free list with as many pages or more says its length in its first element.
const COUNT_MAX: usize = 0xFFFF;

/// What one element of a leaf holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    flags: u32,
    pub(super) value: Vec<u8>,
}

impl Item {
    pub(super) fn new(value: Vec<u8>) -> Self {
        Self { flags: 0, value }
    }

    /// A bucket inside ours, which we leave alone.
    pub(super) fn is_bucket(&self) -> bool {
        self.flags & BUCKET != 0
    }
}

/// The keys of one bucket.
pub(super) type Items = BTreeMap<Vec<u8>, Item>;

/// Where a transaction has left the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    page_bytes: usize,
    root: u64,
    sequence: u64,
    /// Where the list of free pages begins, or [`NO_FREE_LIST`].
    free_list: u64,
    /// The first page that was never used.
    pages: u64,
    pub(super) transaction: u64,
}

fn broken(why: &str) -> Error {
    Error::Protocol(format!("the BoltDB file is damaged: {why}"))
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Error> {
    bytes
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .copied()
        .ok_or_else(|| broken("it ends too early"))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Error> {
    Ok(u16::from_le_bytes(number(bytes, at)?))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Error> {
    Ok(u32::from_le_bytes(number(bytes, at)?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Error> {
    Ok(u64::from_le_bytes(number(bytes, at)?))
}

fn size_at(bytes: &[u8], at: usize) -> Result<usize, Error> {
    Ok(u32_at(bytes, at)? as usize)
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A value's identity: another write has another one unless it wrote the very same.
pub(super) fn fingerprint(stored: &[u8]) -> u64 {
    checksum(stored)
}

/// The meta of one page, if it is whole.
fn meta_at(bytes: &[u8], at: usize) -> Result<Meta, Error> {
    let meta = bytes
        .get(at + HEADER..at + HEADER + 64)
        .ok_or_else(|| broken("it ends too early"))?;
    if u32_at(meta, 0)? != MAGIC || u32_at(meta, 4)? != VERSION {
        return Err(broken("it is no BoltDB file of version 2"));
    }
    if u64_at(meta, 56)? != checksum(&meta[..56]) {
        return Err(broken("a checksum is wrong"));
    }
    let page_bytes = size_at(meta, 8)?;
    if !page_bytes.is_power_of_two() || !(1024..=65536).contains(&page_bytes) {
        return Err(broken("its page size is impossible"));
    }
    Ok(Meta {
        page_bytes,
        root: u64_at(meta, 16)?,
        sequence: u64_at(meta, 24)?,
        free_list: u64_at(meta, 32)?,
        pages: u64_at(meta, 40)?,
        transaction: u64_at(meta, 48)?,
    })
}

/// Bytes from the start of a file among which both metas are, whatever its page size.
pub(super) const METAS_BYTES: usize = 2 * 65536;

/// The newer of the metas that are whole.
pub(super) fn meta(bytes: &[u8]) -> Result<Meta, Error> {
    let first = meta_at(bytes, 0);
    // Where the first is damaged, the second is where files of any page size may have it.
    let second = match &first {
        Ok(first) => meta_at(bytes, first.page_bytes),
        Err(_) => (10..=16)
            .map(|bits| 1 << bits)
            .find_map(|size| {
                meta_at(bytes, size)
                    .ok()
                    .filter(|meta| meta.page_bytes == size)
            })
            .ok_or_else(|| broken("neither of its metas is whole")),
    };
    match (first, second) {
        (Ok(first), Ok(second)) if second.transaction > first.transaction => Ok(second),
        (Ok(first), _) => Ok(first),
        (Err(_), second) => second,
    }
}

/// A file's bytes at its newest transaction, and which of its pages are in use.
pub(super) struct File<'a> {
    bytes: &'a [u8],
    pub(super) meta: Meta,
    used: Vec<bool>,
}

impl<'a> File<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let meta = meta(bytes)?;
        let pages = usize::try_from(meta.pages).unwrap_or(usize::MAX);
        if pages > bytes.len() / meta.page_bytes || pages < 2 {
            return Err(broken("pages are missing"));
        }
        let mut used = vec![false; pages];
        used[..2].fill(true);
        Ok(Self { bytes, meta, used })
    }

    /// The bytes of a page and those it overflows into. Each page is part of one tree at most.
    fn page(&mut self, id: u64) -> Result<&'a [u8], Error> {
        let size = self.meta.page_bytes;
        let first = usize::try_from(id).unwrap_or(usize::MAX);
        if first >= self.used.len() {
            return Err(broken("a page that does not exist"));
        }
        let overflow = size_at(self.bytes, first * size + 12)?;
        let end = first.saturating_add(overflow).saturating_add(1);
        let pages = self
            .used
            .get_mut(first..end)
            .ok_or_else(|| broken("a page that does not exist"))?;
        if pages.contains(&true) {
            return Err(broken("a page is used twice"));
        }
        pages.fill(true);
        Ok(&self.bytes[first * size..end * size])
    }

    /// The elements of the tree that begins with a page.
    fn tree(&mut self, root: u64) -> Result<Items, Error> {
        let mut items = Items::new();
        let mut waiting = vec![root];
        while let Some(id) = waiting.pop() {
            let page = self.page(id)?;
            if u16_at(page, 8)? == BRANCH {
                for index in 0..usize::from(u16_at(page, 10)?) {
                    waiting.push(u64_at(page, HEADER + index * 16 + 8)?);
                }
            } else {
                leaf(page, &mut items)?;
            }
        }
        Ok(items)
    }

    /// The elements of a bucket that is the value of an element, and its sequence.
    fn bucket(&mut self, value: &[u8]) -> Result<(Items, u64), Error> {
        let (root, sequence) = (u64_at(value, 0)?, u64_at(value, 8)?);
        if root != 0 {
            return Ok((self.tree(root)?, sequence));
        }
        // A small one is inside its own value.
        let mut items = Items::new();
        leaf(&value[HEADER..], &mut items)?;
        Ok((items, sequence))
    }

    /// The keys of a bucket. None, if there is no such bucket.
    pub(super) fn read(mut self, name: &[u8]) -> Result<Items, Error> {
        let root = self.tree(self.meta.root)?;
        match root.get(name) {
            Some(item) if item.is_bucket() => Ok(self.bucket(&item.value)?.0),
            _ => Ok(Items::new()),
        }
    }

    /// The next transaction, in which a bucket has other keys: what to write where, in this order, the meta last.
    pub(super) fn write(
        mut self,
        name: &[u8],
        change: impl FnOnce(&mut Items),
    ) -> Result<Transaction, Error> {
        let mut root = self.tree(self.meta.root)?;
        let (mut items, sequence) = match root.get(name) {
            Some(item) if item.is_bucket() => self.bucket(&item.value)?,
            _ => (Items::new(), 0),
        };
        // What is not rewritten stays where it is, so its pages must be known.
        let mut others: Vec<Vec<u8>> = root
            .iter()
            .filter(|(other, _)| *other != name)
            .map(|(_, item)| item)
            .chain(items.values())
            .filter(|item| item.is_bucket())
            .map(|item| item.value.clone())
            .collect();
        // The free list is read never and written always: what the trees do not use is free. Until this transaction counts,
        // the last one's list is needed all the same.
        if self.meta.free_list != NO_FREE_LIST {
            self.page(self.meta.free_list)?;
        }
        let rewritten = self.used.clone();
        while let Some(value) = others.pop() {
            let (inner, _) = self.bucket(&value)?;
            others.extend(
                inner
                    .into_values()
                    .filter(Item::is_bucket)
                    .map(|item| item.value),
            );
        }
        change(&mut items);
        let mut pages = Pages {
            size: self.meta.page_bytes,
            free: (2..self.used.len()).filter(|id| !self.used[*id]).collect(),
            end: self.used.len(),
            written: Vec::new(),
        };
        let bucket = pages.tree(&items);
        let header = [bucket.to_le_bytes(), sequence.to_le_bytes()].concat();
        let item = Item {
            flags: BUCKET,
            value: header,
        };
        root.insert(name.to_vec(), item);
        let root = pages.tree(&root);
        // Pages of the trees that were rewritten are free from now on.
        let freed = (2..rewritten.len()).filter(|id| rewritten[*id]).collect();
        let list = pages.free_list(freed);
        let meta = Meta {
            root,
            free_list: list,
            pages: pages.end as u64,
            transaction: self.meta.transaction + 1,
            ..self.meta
        };
        Ok(Transaction {
            page_bytes: meta.page_bytes,
            file_bytes: pages.end * meta.page_bytes,
            pages: pages.written,
            meta: (meta.transaction % 2, meta.page()),
        })
    }
}

/// What a transaction writes.
pub(super) struct Transaction {
    pub(super) page_bytes: usize,
    /// How long the file must be at least.
    pub(super) file_bytes: usize,
    /// The numbers of first pages, and their bytes.
    pub(super) pages: Vec<(usize, Vec<u8>)>,
    /// Which of the two metas, and its bytes. Written when the pages are safe.
    pub(super) meta: (u64, Vec<u8>),
}

impl Meta {
    fn page(&self) -> Vec<u8> {
        let mut page = header(self.transaction % 2, META, 0, 0);
        let start = page.len();
        page.extend(MAGIC.to_le_bytes());
        page.extend(VERSION.to_le_bytes());
        let size = u32::try_from(self.page_bytes).expect("at most 65536");
        page.extend(size.to_le_bytes());
        page.extend(0_u32.to_le_bytes());
        for value in [
            self.root,
            self.sequence,
            self.free_list,
            self.pages,
            self.transaction,
        ] {
            page.extend(value.to_le_bytes());
        }
        let sum = checksum(&page[start..]);
        page.extend(sum.to_le_bytes());
        page
    }
}

/// The elements of a leaf.
fn leaf(page: &[u8], items: &mut Items) -> Result<(), Error> {
    if u16_at(page, 8)? != LEAF {
        return Err(broken("a page is not what it should be"));
    }
    for index in 0..usize::from(u16_at(page, 10)?) {
        let at = HEADER + index * 16;
        let (flags, position) = (u32_at(page, at)?, size_at(page, at + 4)?);
        let (key_bytes, value_bytes) = (size_at(page, at + 8)?, size_at(page, at + 12)?);
        let start = at.saturating_add(position);
        let middle = start.saturating_add(key_bytes);
        let end = middle.saturating_add(value_bytes);
        let (Some(key), Some(value)) = (page.get(start..middle), page.get(middle..end)) else {
            return Err(broken("a key is outside of its page"));
        };
        let item = Item {
            flags,
            value: value.to_vec(),
        };
        items.insert(key.to_vec(), item);
    }
    Ok(())
}

fn header(id: u64, kind: u16, count: usize, overflow: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(id.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    let count = u16::try_from(count).expect("a page has fewer elements than that");
    bytes.extend(count.to_le_bytes());
    let overflow = u32::try_from(overflow).expect("values are bounded");
    bytes.extend(overflow.to_le_bytes());
    bytes
}

/// The pages of a transaction.
struct Pages {
    size: usize,
    /// Not used by the last transaction, nor yet by this one.
    free: Vec<usize>,
    end: usize,
    written: Vec<(usize, Vec<u8>)>,
}

/// One element of a page being made.
struct Element {
    flags: u32,
    /// Of a branch, the page below.
    below: Option<u64>,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Pages {
    /// A place for so many pages in a row: the first free one that is big enough, or the end of the file.
    fn place(&mut self, count: usize) -> usize {
        let mut run = 0;
        for index in 0..self.free.len() {
            let follows = index > 0 && self.free[index - 1] + 1 == self.free[index];
            run = if follows { run + 1 } else { 1 };
            if run == count {
                let first = index + 1 - count;
                let id = self.free[first];
                self.free.drain(first..=index);
                return id;
            }
        }
        self.end += count;
        self.end - count
    }

    /// Makes a tree; its first page.
    fn tree(&mut self, items: &Items) -> u64 {
        let elements = items.iter().map(|(key, item)| Element {
            flags: item.flags,
            below: None,
            key: key.clone(),
            value: item.value.clone(),
        });
        let mut level = self.level(elements.collect());
        while level.len() > 1 {
            let elements = level.into_iter().map(|(key, id)| Element {
                flags: 0,
                below: Some(id),
                key,
                value: Vec::new(),
            });
            level = self.level(elements.collect());
        }
        match level.pop() {
            Some((_, id)) => id,
            None => self.elements(&[]),
        }
    }

    /// Makes the pages of one level; the first key and the number of each.
    fn level(&mut self, elements: Vec<Element>) -> Vec<(Vec<u8>, u64)> {
        let mut pages = Vec::new();
        let mut page: Vec<Element> = Vec::new();
        let mut bytes = HEADER;
        for element in elements {
            let more = 16 + element.key.len() + element.value.len();
            // A branch has at least two, so that there are always fewer of them than pages below.
            let least = if element.below.is_some() { 2 } else { 1 };
            if page.len() >= least && bytes + more > self.size {
                pages.push((page[0].key.clone(), self.elements(&page)));
                page.clear();
                bytes = HEADER;
            }
            bytes += more;
            page.push(element);
        }
        if !page.is_empty() {
            pages.push((page[0].key.clone(), self.elements(&page)));
        }
        pages
    }

    /// Makes one page.
    fn elements(&mut self, elements: &[Element]) -> u64 {
        let rows = HEADER + 16 * elements.len();
        let data = elements.iter().map(|e| e.key.len() + e.value.len());
        let count = (rows + data.sum::<usize>()).div_ceil(self.size);
        let kind = match elements.first() {
            Some(Element { below: Some(_), .. }) => BRANCH,
            _ => LEAF,
        };
        let id = self.place(count);
        let mut bytes = header(id as u64, kind, elements.len(), count - 1);
        let mut position = rows;
        for (index, element) in elements.iter().enumerate() {
            let size = |length: usize| u32::try_from(length).expect("values are bounded");
            let offset = size(position - HEADER - 16 * index).to_le_bytes();
            let key = size(element.key.len()).to_le_bytes();
            match element.below {
                Some(below) => bytes.extend(
                    [offset, key]
                        .concat()
                        .into_iter()
                        .chain(below.to_le_bytes()),
                ),
                None => {
                    let flags = element.flags.to_le_bytes();
                    let value = size(element.value.len()).to_le_bytes();
                    bytes.extend([flags, offset, key, value].concat());
                }
            }
            position += element.key.len() + element.value.len();
        }
        for element in elements {
            bytes.extend(&element.key);
            bytes.extend(&element.value);
        }
        self.written.push((id, bytes));
        id as u64
    }

    /// Makes the page that says which pages are free: those that were not taken, and those that this transaction frees.
    fn free_list(&mut self, freed: Vec<usize>) -> u64 {
        let bytes = |length: usize| HEADER + 8 * (length + usize::from(length >= COUNT_MAX));
        let count = bytes(self.free.len() + freed.len()).div_ceil(self.size);
        // What is on the list cannot also hold it.
        let id = self.place(count);
        let mut free = freed;
        free.append(&mut self.free);
        free.sort_unstable();
        let shown = free.len().min(COUNT_MAX);
        let mut page = header(id as u64, FREE, shown, count - 1);
        if shown == COUNT_MAX {
            page.extend((free.len() as u64).to_le_bytes());
        }
        for id in free {
            page.extend((id as u64).to_le_bytes());
        }
        self.written.push((id, page));
        id as u64
    }
}

/// A file without any bucket.
pub(super) fn empty() -> Vec<u8> {
    let mut pages = Vec::new();
    for transaction in 0..2 {
        let meta = Meta {
            page_bytes: PAGE_BYTES,
            root: 3,
            sequence: 0,
            free_list: 2,
            pages: 4,
            transaction,
        };
        pages.push(meta.page());
    }
    pages.push(header(2, FREE, 0, 0));
    pages.push(header(3, LEAF, 0, 0));
    for page in &mut pages {
        page.resize(PAGE_BYTES, 0);
    }
    pages.concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bytes after a transaction.
    fn apply(mut bytes: Vec<u8>, transaction: &Transaction) -> Vec<u8> {
        bytes.resize(bytes.len().max(transaction.file_bytes), 0);
        let (meta, page) = &transaction.meta;
        let meta = usize::try_from(*meta).unwrap();
        for (id, page) in transaction.pages.iter().chain([&(meta, page.clone())]) {
            let at = id * transaction.page_bytes;
            bytes[at..at + page.len()].copy_from_slice(page);
        }
        bytes
    }

    fn written(bytes: &[u8], bucket: &[u8], change: impl FnOnce(&mut Items)) -> Vec<u8> {
        let transaction = File::new(bytes).unwrap().write(bucket, change).unwrap();
        apply(bytes.to_vec(), &transaction)
    }

    fn put(bytes: &[u8], bucket: &[u8], key: &str, value: &[u8]) -> Vec<u8> {
        written(bytes, bucket, |items| {
            items.insert(key.as_bytes().to_vec(), Item::new(value.to_vec()));
        })
    }

    fn read(bytes: &[u8], bucket: &[u8]) -> Vec<(String, Vec<u8>)> {
        let items = File::new(bytes).unwrap().read(bucket).unwrap();
        items
            .into_iter()
            .map(|(key, item)| (String::from_utf8(key).unwrap(), item.value))
            .collect()
    }

    #[test]
    fn keys_come_back_and_other_buckets_stay() {
        let bytes = empty();
        assert_eq!(read(&bytes, b"traefik"), []);
        let bytes = put(&bytes, b"other", "x", b"1");
        let bytes = put(&bytes, b"traefik", "b", &[7; 10_000]);
        let bytes = put(&bytes, b"traefik", "a", b"");
        assert_eq!(
            read(&bytes, b"traefik"),
            [("a".to_owned(), vec![]), ("b".to_owned(), vec![7; 10_000])]
        );
        assert_eq!(read(&bytes, b"other"), [("x".to_owned(), b"1".to_vec())]);
        assert_eq!(meta(&bytes).unwrap().transaction, 4);
    }

    #[test]
    fn a_file_does_not_grow_for_ever() {
        let mut bytes = written(&empty(), b"traefik", |items| {
            for number in 0..2000 {
                let key = format!("frontends/f{number:05}/backend");
                items.insert(key.into_bytes(), Item::new(vec![1; 30]));
            }
        });
        let first = bytes.len();
        // Also with values that need several pages in a row.
        for round in 0..200 {
            bytes = put(&bytes, b"traefik", "alias", &[round]);
            bytes = put(&bytes, b"traefik", "certificate", &[round; 9000]);
        }
        assert!(bytes.len() < 4 * first, "{} from {first}", bytes.len());
        assert_eq!(read(&bytes, b"traefik").len(), 2002);
    }

    #[test]
    fn a_transaction_that_was_cut_short_never_happened() {
        let before = put(&empty(), b"traefik", "a", b"1");
        let transaction = File::new(&before)
            .unwrap()
            .write(b"traefik", |items| {
                items.insert(b"a".to_vec(), Item::new(b"2".to_vec()));
            })
            .unwrap();
        // All pages, but not the meta; and a meta of which only a part arrived.
        let mut cut = apply(before.clone(), &transaction);
        let meta = usize::try_from(transaction.meta.0).unwrap() * transaction.page_bytes;
        let page = meta..meta + transaction.page_bytes;
        cut[page.clone()].copy_from_slice(&before[page.clone()]);
        assert_eq!(read(&cut, b"traefik")[0].1, b"1");
        cut[page.start + 70] ^= 1;
        assert_eq!(read(&cut, b"traefik")[0].1, b"1");
    }

    proptest! {
        #[test]
        fn damaged_files_are_errors_and_never_panics(
            at in 0_usize..8 * PAGE_BYTES,
            byte in any::<u8>(),
            length in 0_usize..8 * PAGE_BYTES,
        ) {
            let mut bytes = put(&empty(), b"traefik", "key", b"value");
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(bytes.len().min(length.max(1)));
            if let Ok(file) = File::new(&bytes) {
                let _ = file.read(b"traefik");
            }
            if let Ok(file) = File::new(&bytes) {
                let _ = file.write(b"traefik", |_| {});
            }
        }

        #[test]
        fn any_keys_come_back(keys in proptest::collection::btree_map(".{1,40}", proptest::collection::vec(any::<u8>(), 0..5000), 0..60)) {
            let bytes = written(&empty(), b"traefik", |items| {
                for (key, value) in &keys {
                    items.insert(key.clone().into_bytes(), Item::new(value.clone()));
                }
            });
            let expected: Vec<_> = keys.into_iter().collect();
            prop_assert_eq!(read(&bytes, b"traefik"), expected);
        }
    }
}
