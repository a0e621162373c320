//! The lookup: a request comes in, the first frontend that matches it comes out.
//!
//! Frontends stand under the host they ask for, or the end of a host, or a field value, or under none of these; there
//! they stand in a tree of path prefixes. A request visits only the nodes on its own way, so it does not matter how
//! many frontends other hosts have. At each node the candidates stand in priority order, each with the matchers that
//! its place has not answered.
//! Never allocates on a lookup: the caller brings a `Scratch`. Never knows backends or modifiers.
//! Read next: `matcher.rs` (the tests that remain). `compile/twin.rs` says the same thing slowly, in tests.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::matcher::{Answer, Matcher, PathPattern, PrefixPattern, Request, Slash};
use super::{FrontendId, Scratch, escape};
use crate::http::Head;
use crate::limits::{FIELD_NAMES_INDEXED_MAX, FRONTEND_PLACES_MAX};

/// What a request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    Frontend(FrontendId),
    /// 301 to [`Scratch::location`]: the path differs from the rule's by its last slash only.
    Redirect,
    /// No frontend: 404.
    None,
}

/// The frontends of one entry point, ready for lookups.
///
/// Flat lists and indices into them: a copy for another core is a few large copies, and a walk touches few lines of
/// cache.
#[derive(Clone, Debug, Default)]
pub struct Trie {
    hosts: Table,
    tails: Table,
    /// Field names that frontends are indexed by, with the roots for their values.
    fields: Vec<(Box<[u8]>, Table)>,
    /// Root of the frontends that stand under no host, tail or field.
    any: Option<u32>,
    nodes: Vec<Node>,
    /// First byte of each node's label; the children of a node stand together, so one search finds the child.
    firsts: Vec<u8>,
    labels: Vec<u8>,
    candidates: Vec<Candidate>,
    matchers: Vec<Matcher>,
    paths: Vec<PathPattern>,
    prefixes: Vec<PrefixPattern>,
}

/// A frontend as `Trie::new` takes it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Also its place in the order: a smaller number is asked first.
    pub frontend: FrontendId,
    /// All must match.
    pub matchers: Vec<Matcher>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    label: u32,
    label_len: u32,
    children: u32,
    /// At most 256.
    children_len: u32,
    candidates: u32,
    candidates_len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    frontend: u32,
    /// Which alternative of the path matcher it is here for: an earlier one goes first.
    alternative: u32,
    place: Place,
    matchers: u32,
    matchers_len: u32,
}

/// What the node a candidate stands at leaves open about the path.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Nothing.
    Here,
    /// Whether the path ends here, give or take a slash.
    End(Slash),
    Path(u32),
    Prefix(u32),
}

/// The best answer so far: the smallest (frontend, alternative).
#[derive(Clone, Copy, Debug)]
struct Best {
    frontend: u32,
    alternative: u32,
    redirect: bool,
}

const NOBODY: u32 = u32::MAX;

impl Trie {
    /// The frontend that answers `head`.
    pub fn lookup(&self, head: &Head, scratch: &mut Scratch) -> Lookup {
        scratch.original_target = None;
        let Scratch {
            host: host_room,
            path: path_room,
            value,
            location,
            alias,
            ..
        } = scratch;

        let authority = lower_case(head, host_room);
        let mut path = head.path();
        if memchr::memchr(b'%', path).is_some() {
            path_room.clear();
            escape::decode(path, path_room);
            path = path_room;
        }
        let (host, host_cut) = hosts_of(authority);
        let request = Request {
            head,
            host,
            host_cut,
            path,
        };

        let mut best = Best {
            frontend: NOBODY,
            alternative: 0,
            redirect: false,
        };
        // An empty host is never stored, so it is never found.
        if let Some(root) = self.hosts.find(host) {
            self.walk(root, request, &mut best, value);
        }
        if !alias.is_empty()
            && let Some(root) = self.hosts.find(alias)
        {
            self.walk(root, request, &mut best, value);
        }
        if self.tails.longest > 0 {
            self.walk_tails(request, &mut best, value);
        }
        for (name, values) in &self.fields {
            for found in head.values_named(name) {
                if let Some(root) = values.find(found) {
                    self.walk(root, request, &mut best, value);
                }
            }
        }
        if let Some(root) = self.any {
            self.walk(root, request, &mut best, value);
        }

        if best.frontend == NOBODY {
            Lookup::None
        } else if best.redirect {
            write_location(head, path.ends_with(b"/"), location);
            Lookup::Redirect
        } else {
            Lookup::Frontend(FrontendId(best.frontend))
        }
    }

    /// The host that is asked for, in lower case, if rules name hosts and none names this one: another name of it could matter.
    pub fn unnamed_host<'a>(&self, head: &'a Head, scratch: &'a mut Scratch) -> Option<&'a [u8]> {
        if self.hosts.slots.is_empty() {
            return None;
        }
        let (host, _) = hosts_of(lower_case(head, &mut scratch.host));
        (!host.is_empty() && self.hosts.find(host).is_none()).then_some(host)
    }

    /// Frontends under the whole host as `HostRegexp` sees it, and under every end of it that begins with a dot.
    fn walk_tails(&self, request: Request<'_>, best: &mut Best, room: &mut Vec<u8>) {
        let host = request.host_cut;
        if let Some(root) = self.tails.find(host) {
            self.walk(root, request, best, room);
        }
        // A peer's host of many dots costs no more than the longest tail that was configured.
        let from = host.len().saturating_sub(self.tails.longest).max(1);
        for at in from..host.len() {
            if host[at] == b'.'
                && let Some(root) = self.tails.find(&host[at..])
            {
                self.walk(root, request, best, room);
            }
        }
    }

    /// Asks all candidates on the way of the path that could be better than `best`.
    fn walk(&self, root: u32, request: Request<'_>, best: &mut Best, room: &mut Vec<u8>) {
        let mut node = &self.nodes[root as usize];
        let mut rest = request.path;
        loop {
            self.ask(node, rest, request, best, room);
            let Some(first) = rest.first() else { return };
            let children = node.children as usize;
            let firsts = &self.firsts[children..children + node.children_len as usize];
            let Some(child) = memchr::memchr(*first, firsts) else {
                return;
            };
            node = &self.nodes[children + child];
            let label = &self.labels[node.label as usize..(node.label + node.label_len) as usize];
            let Some(after) = rest.strip_prefix(label) else {
                return;
            };
            rest = after;
        }
    }

    fn ask(
        &self,
        node: &Node,
        rest: &[u8],
        request: Request<'_>,
        best: &mut Best,
        room: &mut Vec<u8>,
    ) {
        let candidates = &self.candidates
            [node.candidates as usize..(node.candidates + node.candidates_len) as usize];
        for candidate in candidates {
            if (candidate.frontend, candidate.alternative) >= (best.frontend, best.alternative) {
                return;
            }
            if let Some(redirect) = self.test(candidate, rest, request, room) {
                *best = Best {
                    frontend: candidate.frontend,
                    alternative: candidate.alternative,
                    redirect,
                };
                return;
            }
        }
    }

    /// Whether a candidate matches as a whole, and whether only by a redirect.
    fn test(
        &self,
        candidate: &Candidate,
        rest: &[u8],
        request: Request<'_>,
        room: &mut Vec<u8>,
    ) -> Option<bool> {
        let placed = match candidate.place {
            Place::Here => Answer::Yes,
            Place::End(slash) => slash.test_rest(rest),
            Place::Path(at) => self.paths[at as usize].test(request.path),
            Place::Prefix(at) if self.prefixes[at as usize].test(request.path) => Answer::Yes,
            Place::Prefix(_) => Answer::No,
        };
        if placed == Answer::No {
            return None;
        }
        let (mut path, mut redirect) = (placed == Answer::YesPath, placed == Answer::Redirect);
        let from = candidate.matchers as usize;
        for matcher in &self.matchers[from..from + candidate.matchers_len as usize] {
            match matcher.test(request, room) {
                Answer::No => return None,
                Answer::Yes => {}
                Answer::YesPath => path = true,
                Answer::Redirect => redirect = true,
            }
        }
        // One matcher that wants the slash and one that does not can never both be content.
        (!(path && redirect)).then_some(redirect)
    }
}

/// The authority of a request, copied into `room` if it has upper-case letters.
fn lower_case<'a>(head: &'a Head, room: &'a mut Vec<u8>) -> &'a [u8] {
    let authority = head.authority();
    if !authority.iter().any(u8::is_ascii_uppercase) {
        return authority;
    }
    room.clear();
    room.extend(authority.iter().map(u8::to_ascii_lowercase));
    room
}

/// The host as `Host` and as `HostRegexp` see it.
fn hosts_of(authority: &[u8]) -> (&[u8], &[u8]) {
    let Some(first) = memchr::memchr(b':', authority) else {
        return (authority.trim_ascii(), authority);
    };
    (
        without_port(authority).unwrap_or(authority).trim_ascii(),
        &authority[..first],
    )
}

/// The host of `host:port` or `[host]:port`, `None` if the text is neither.
fn without_port(authority: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memrchr(b':', authority)?;
    let host = &authority[..colon];
    if let Some(bracketed) = host.strip_prefix(b"[") {
        let inside = bracketed.strip_suffix(b"]")?;
        return memchr::memchr2(b'[', b']', inside)
            .is_none()
            .then_some(inside);
    }
    memchr::memchr3(b':', b'[', b']', host)
        .is_none()
        .then_some(host)
}

/// The path with its last slash taken away or one added, and the query as it was.
fn write_location(head: &Head, ends_with_slash: bool, location: &mut Vec<u8>) {
    let path = head.path();
    location.clear();
    if path.starts_with(b"//") {
        // Else a client would take what follows for the name of another host.
        location.extend_from_slice(b"/.");
    }
    if ends_with_slash {
        let escaped = path.len().saturating_sub(3);
        let end = if path.ends_with(b"/") {
            path.len().saturating_sub(1)
        } else {
            escaped
        };
        escape::encode_location(&path[..end], location);
    } else {
        escape::encode_location(path, location);
        location.push(b'/');
    }
    if let Some(query) = head.query() {
        location.push(b'?');
        escape::encode_location(query, location);
    }
}

/// Text to root, by open addressing. Requests only ask; what is stored comes from the configuration.
#[derive(Clone, Debug, Default)]
struct Table {
    /// A power of two, at most half full, or empty.
    slots: Vec<Slot>,
    text: Vec<u8>,
    /// Bytes of the longest key.
    longest: usize,
}

/// A key, and the root it leads to.
type Stored = (Box<[u8]>, u32);

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    key: u32,
    key_len: u32,
    /// `NOBODY` marks a free slot.
    root: u32,
}

impl Table {
    fn new(roots: Vec<Stored>) -> Self {
        if roots.is_empty() {
            return Self::default();
        }
        let free = Slot {
            hash: 0,
            key: 0,
            key_len: 0,
            root: NOBODY,
        };
        let mut table = Self {
            slots: vec![free; (roots.len() * 2).next_power_of_two()],
            ..Self::default()
        };
        for (key, root) in roots {
            let hash = hash(&key);
            let mut at = hash as usize & (table.slots.len() - 1);
            while table.slots[at].root != NOBODY {
                at = (at + 1) & (table.slots.len() - 1);
            }
            table.slots[at] = Slot {
                hash,
                key: index(table.text.len()),
                key_len: index(key.len()),
                root,
            };
            table.text.extend_from_slice(&key);
            table.longest = table.longest.max(key.len());
        }
        table
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        if self.slots.is_empty() || key.len() > self.longest {
            return None;
        }
        let hash = hash(key);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = &self.slots[at];
            if slot.root == NOBODY {
                return None;
            }
            if slot.hash == hash
                && self.text[slot.key as usize..(slot.key + slot.key_len) as usize] == *key
            {
                return Some(slot.root);
            }
            at = (at + 1) & mask;
        }
    }
}

/// Eight bytes a step. Needs no secret: a peer cannot store keys, only ask for them.
fn hash(key: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = (key.len() as u64).wrapping_mul(FACTOR);
    let mut chunks = key.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("a chunk has eight bytes"));
        hash = (hash.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    }
    let tail = chunks
        .remainder()
        .iter()
        .fold(0, |word, byte| word << 8 | u64::from(*byte));
    hash = (hash.rotate_left(23) ^ tail).wrapping_mul(FACTOR);
    hash ^= hash >> 29;
    u32::try_from(hash.wrapping_mul(FACTOR) >> 32).expect("the upper half of a word")
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("a configuration has fewer than 2^32 of anything")
}

/// What a root is reached by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Host(Box<[u8]>),
    Tail(Box<[u8]>),
    /// Lower-case name, value.
    Field(Box<[u8]>, Box<[u8]>),
    Any,
}

/// A path of the index, with what it leaves open.
struct Spot {
    prefix: Box<[u8]>,
    place: Place,
}

impl Trie {
    /// Sorts frontends into their places. Those that no request can match get none.
    pub fn new(entries: Vec<Entry>) -> Self {
        let mut trie = Self::default();
        let mut builder = Builder::default();
        let mut field_names = BTreeSet::new();
        for Entry { frontend, matchers } in entries {
            if matchers.iter().any(Matcher::is_never) {
                continue;
            }
            let (keys, mut matchers) = keys(matchers, &mut field_names);
            let spots = trie.spots(&mut matchers, keys.len());
            let from = index(trie.matchers.len());
            let candidate = Candidate {
                frontend: frontend.0,
                alternative: 0,
                place: Place::Here,
                matchers: from,
                matchers_len: index(matchers.len()),
            };
            trie.matchers.append(&mut matchers);
            for key in keys {
                let root = builder.root(key);
                for (alternative, spot) in spots.iter().enumerate() {
                    let node = builder.node(root, &spot.prefix);
                    let candidate = Candidate {
                        alternative: index(alternative),
                        place: spot.place,
                        ..candidate
                    };
                    builder.nodes[node as usize].candidates.push(candidate);
                }
            }
        }
        builder.finish(&mut trie);
        trie
    }

    /// Takes the matcher out of `matchers` that says most about the path, and gives its places in the tree. Without
    /// one, or with too many places, the place is the root and leaves `matchers` as they are.
    fn spots(&mut self, matchers: &mut Vec<Matcher>, roots: usize) -> Vec<Spot> {
        // The shortest prefix of its alternatives is what a matcher is worth.
        let worth = |matcher: &Matcher| match matcher {
            Matcher::Path(patterns) => Some((
                patterns.len(),
                patterns.iter().map(|one| one.prefix.len()).min()?,
            )),
            Matcher::PathPrefix(patterns) => Some((
                patterns.len(),
                patterns.iter().map(|one| one.prefix.len()).min()?,
            )),
            _ => None,
        };
        // Of two lists of whole paths each must be asked as a list: its first fitting alternative decides.
        let lists = matchers
            .iter()
            .filter(|matcher| matches!(matcher, Matcher::Path(list) if list.len() > 1))
            .count();
        let whole = matchers
            .iter()
            .filter(|matcher| matches!(matcher, Matcher::Path(_)))
            .count();
        let best = (0..matchers.len())
            .filter(|at| lists == 0 || whole == 1 || !matches!(matchers[*at], Matcher::Path(_)))
            .filter_map(|at| worth(&matchers[at]).map(|(places, len)| (at, places, len)))
            .filter(|(_, places, _)| places.saturating_mul(roots) <= FRONTEND_PLACES_MAX)
            .max_by_key(|(at, _, len)| (*len, std::cmp::Reverse(*at)));
        let Some((best, ..)) = best else {
            return vec![Spot {
                prefix: Box::default(),
                place: Place::Here,
            }];
        };
        match matchers.remove(best) {
            Matcher::Path(patterns) => patterns
                .into_iter()
                .map(|pattern| self.path_spot(pattern))
                .collect(),
            Matcher::PathPrefix(patterns) => patterns
                .into_iter()
                .map(|pattern| self.prefix_spot(pattern))
                .collect(),
            _ => unreachable!("only path matchers have a worth"),
        }
    }

    fn path_spot(&mut self, pattern: PathPattern) -> Spot {
        if pattern.regex.is_none() {
            return Spot {
                prefix: pattern.prefix,
                place: Place::End(pattern.slash),
            };
        }
        let prefix = pattern.prefix.clone();
        self.paths.push(pattern);
        Spot {
            prefix,
            place: Place::Path(index(self.paths.len() - 1)),
        }
    }

    fn prefix_spot(&mut self, pattern: PrefixPattern) -> Spot {
        if pattern.regex.is_none() {
            return Spot {
                prefix: pattern.prefix,
                place: Place::Here,
            };
        }
        let prefix = pattern.prefix.clone();
        self.prefixes.push(pattern);
        Spot {
            prefix,
            place: Place::Prefix(index(self.prefixes.len() - 1)),
        }
    }
}

/// What the frontend stands under, and the matchers that this leaves open.
fn keys(
    mut matchers: Vec<Matcher>,
    field_names: &mut BTreeSet<Box<[u8]>>,
) -> (Vec<Key>, Vec<Matcher>) {
    // Names that all `Host` matchers have.
    let mut hosts: Option<BTreeSet<Box<[u8]>>> = None;
    matchers.retain(|matcher| {
        let Matcher::Host(names) = matcher else {
            return true;
        };
        let names = names.iter().filter(|name| !name.is_empty()).cloned();
        hosts = Some(match hosts.take() {
            None => names.collect(),
            Some(before) => names.filter(|name| before.contains(name)).collect(),
        });
        false
    });
    if let Some(hosts) = hosts {
        return (hosts.into_iter().map(Key::Host).collect(), matchers);
    }
    for matcher in &matchers {
        if let Matcher::HostRegexp(patterns) = matcher {
            let tails: BTreeSet<Box<[u8]>> = patterns
                .iter()
                .map(|pattern| pattern.key().into())
                .collect();
            if !tails.contains(&[][..]) {
                return (tails.into_iter().map(Key::Tail).collect(), matchers);
            }
        }
    }
    for at in 0..matchers.len() {
        if let Matcher::Header {
            name,
            value: Some(value),
        } = &matchers[at]
        {
            let name: Box<[u8]> = name.to_ascii_lowercase().into();
            if field_names.contains(&name) || field_names.len() < FIELD_NAMES_INDEXED_MAX {
                let key = Key::Field(name.clone(), value.clone());
                field_names.insert(name);
                matchers.remove(at);
                return (vec![key], matchers);
            }
        }
    }
    (vec![Key::Any], matchers)
}

/// A trie that still grows.
#[derive(Default)]
struct Builder {
    roots: BTreeMap<Key, u32>,
    nodes: Vec<Growing>,
}

#[derive(Default)]
struct Growing {
    label: Box<[u8]>,
    children: Vec<u32>,
    candidates: Vec<Candidate>,
}

impl Builder {
    fn root(&mut self, key: Key) -> u32 {
        let next = index(self.nodes.len());
        let root = *self.roots.entry(key).or_insert(next);
        if root == next {
            self.nodes.push(Growing::default());
        }
        root
    }

    /// The node at the end of `path`, made if there is none.
    fn node(&mut self, root: u32, path: &[u8]) -> u32 {
        let (mut node, mut rest) = (root, path);
        while let Some(first) = rest.first() {
            let children = &self.nodes[node as usize].children;
            let Some(at) = children
                .iter()
                .position(|child| self.nodes[*child as usize].label[0] == *first)
            else {
                let leaf = index(self.nodes.len());
                self.nodes.push(Growing {
                    label: rest.into(),
                    ..Growing::default()
                });
                self.nodes[node as usize].children.push(leaf);
                return leaf;
            };
            let child = children[at];
            let label = &self.nodes[child as usize].label;
            let common = label.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if common < label.len() {
                // The label forks: a node for the common part takes the child's place.
                let (upper, lower) = (label[..common].into(), label[common..].into());
                self.nodes[child as usize].label = lower;
                let fork = index(self.nodes.len());
                self.nodes.push(Growing {
                    label: upper,
                    children: vec![child],
                    ..Growing::default()
                });
                self.nodes[node as usize].children[at] = fork;
                node = fork;
            } else {
                node = child;
            }
            rest = &rest[common..];
        }
        node
    }

    /// Lays the nodes out level by level, the children of a node side by side.
    fn finish(mut self, trie: &mut Trie) {
        let mut places: HashMap<u32, u32> = HashMap::new();
        let mut queue: Vec<u32> = self.roots.values().copied().collect();
        for (place, root) in queue.iter().enumerate() {
            places.insert(*root, index(place));
        }
        let mut at = 0;
        while let Some(&id) = queue.get(at) {
            let Growing {
                label,
                children,
                mut candidates,
            } = std::mem::take(&mut self.nodes[id as usize]);
            candidates.sort_by_key(|candidate| (candidate.frontend, candidate.alternative));
            trie.nodes.push(Node {
                label: index(trie.labels.len()),
                label_len: index(label.len()),
                children: index(queue.len()),
                children_len: index(children.len()),
                candidates: index(trie.candidates.len()),
                candidates_len: index(candidates.len()),
            });
            trie.firsts.push(label.first().copied().unwrap_or_default());
            trie.labels.extend_from_slice(&label);
            trie.candidates.append(&mut candidates);
            queue.extend(children);
            at += 1;
        }

        let (mut hosts, mut tails) = (Vec::new(), Vec::new());
        let mut fields: BTreeMap<Box<[u8]>, Vec<Stored>> = BTreeMap::new();
        for (key, root) in self.roots {
            let place = places[&root];
            match key {
                Key::Host(name) => hosts.push((name, place)),
                Key::Tail(tail) => tails.push((tail, place)),
                Key::Field(name, value) => fields.entry(name).or_default().push((value, place)),
                Key::Any => trie.any = Some(place),
            }
        }
        trie.hosts = Table::new(hosts);
        trie.tails = Table::new(tails);
        trie.fields = fields
            .into_iter()
            .map(|(name, values)| (name, Table::new(values)))
            .collect();
    }
}
