//! The configuration of providers as JSON, written piece by piece as its reader takes it.
//!
//! Owns what is still to be written: with 10,000 frontends a page is megabytes long, and neither the control thread nor its
//! memory must feel it. Holds on to the configuration it began with, whatever comes after. Never names a provider.
//! Read next: `shape.rs`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::shape::{self, Manner};
use super::text::{self, Object};
use crate::config::Dynamic;
use crate::limits::OWN_PAGE_PIECE_BYTES;
use crate::snapshot::internal::Kind;

/// What is still to be written.
#[derive(Debug)]
pub(super) struct Listing {
    parts: VecDeque<Part>,
    default_entry_points: Arc<[String]>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    /// Backends or frontends behind this name, as the fields of an object.
    Items {
        of: Arc<Dynamic>,
        kind: Kind,
        after: Option<String>,
    },
}

impl Listing {
    pub(super) fn new(default_entry_points: Arc<[String]>) -> Self {
        Self {
            parts: VecDeque::new(),
            default_entry_points,
        }
    }

    fn text(&mut self, text: impl Into<String>) {
        self.parts.push_back(Part::Text(text.into()));
    }

    /// An object with all these providers.
    pub(super) fn providers<'a>(
        mut self,
        providers: impl Iterator<Item = (&'a String, &'a Arc<Dynamic>)>,
    ) -> Self {
        self.text("{");
        for (at, (name, dynamic)) in providers.enumerate() {
            let mut field = Vec::new();
            if at > 0 {
                field.push(b',');
            }
            text::string(&mut field, name);
            field.push(b':');
            self.text(String::from_utf8_lossy(&field));
            self = self.provider(dynamic);
        }
        self.text("}");
        self
    }

    /// One provider.
    pub(super) fn provider(mut self, dynamic: &Arc<Dynamic>) -> Self {
        self.text("{");
        let sets = [
            (Kind::Backends, "\"backends\":", dynamic.backends.is_empty()),
            (
                Kind::Frontends,
                "\"frontends\":",
                dynamic.frontends.is_empty(),
            ),
        ];
        let mut separator = "";
        for (kind, name, is_empty) in sets {
            if !is_empty {
                self.text(format!("{separator}{name}"));
                self = self.set(dynamic, kind);
                separator = ",";
            }
        }
        self.text("}");
        self
    }

    /// Its backends or frontends.
    pub(super) fn set(mut self, dynamic: &Arc<Dynamic>, kind: Kind) -> Self {
        self.text("{");
        self.parts.push_back(Part::Items {
            of: Arc::clone(dynamic),
            kind,
            after: None,
        });
        self.text("}");
        self
    }

    /// The next piece; the last one if it is shorter than [`OWN_PAGE_PIECE_BYTES`].
    fn piece(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < OWN_PAGE_PIECE_BYTES {
            match self.parts.front_mut() {
                None => break,
                Some(Part::Text(text)) => {
                    out.extend_from_slice(text.as_bytes());
                    self.parts.pop_front();
                }
                Some(Part::Items { of, kind, after }) => {
                    let manner = Manner::Served(&self.default_entry_points);
                    let next = match kind {
                        Kind::Backends => item(&mut out, &of.backends, after.as_ref(), |o, v| {
                            shape::backend(o, v, manner);
                        }),
                        Kind::Frontends => item(&mut out, &of.frontends, after.as_ref(), |o, v| {
                            shape::frontend(o, v, manner);
                        }),
                    };
                    match next {
                        Some(name) => *after = Some(name),
                        None => drop(self.parts.pop_front()),
                    }
                }
            }
        }
        out
    }

    /// As the body of an answer: whole if it is short, so that its length is known.
    pub(super) fn page(mut self) -> Page {
        let first = self.piece();
        Page {
            next: Some(first.into()),
            rest: (!self.parts.is_empty()).then_some(self),
        }
    }
}

/// Writes the item behind `after` as a field, and returns its name; `None` at the end.
fn item<T>(
    out: &mut Vec<u8>,
    items: &std::collections::BTreeMap<String, T>,
    after: Option<&String>,
    fill: impl FnOnce(&mut Object<'_>, &T),
) -> Option<String> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let (name, value) = items.range::<String, _>((from, Bound::Unbounded)).next()?;
    if after.is_some() {
        out.push(b',');
    }
    text::string(out, name);
    out.push(b':');
    Object::write(out, |object| fill(object, value));
    Some(name.clone())
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Page {
    next: Option<Bytes>,
    rest: Option<Listing>,
}

impl Page {
    pub(super) fn whole(text: impl Into<Bytes>) -> Self {
        Self {
            next: Some(text.into()),
            rest: None,
        }
    }
}

impl Body for Page {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.next.take().or_else(|| {
            let listing = self.rest.as_mut()?;
            let piece = listing.piece();
            if listing.parts.is_empty() {
                self.rest = None;
            }
            Some(piece.into())
        });
        Poll::Ready(
            piece
                .filter(|piece| !piece.is_empty())
                .map(|piece| Ok(Frame::data(piece))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let next = self.next.as_ref().map_or(0, Bytes::len) as u64;
        match self.rest {
            None => SizeHint::with_exact(next),
            Some(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::dynamic_from_toml;

    fn dynamic(frontends: usize) -> Arc<Dynamic> {
        let toml: String = (0..frontends)
            .map(|at| {
                format!("[frontends.f{at:05}]\nbackend = 'b'\n[backends.b{at:05}.servers.s]\nurl = 'http://a'\n")
            })
            .collect();
        Arc::new(dynamic_from_toml("f", &toml).expect("valid").0)
    }

    fn read(mut page: Page) -> (Vec<u8>, usize) {
        let (mut whole, mut longest) = (Vec::new(), 0);
        let mut context = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut page).poll_frame(&mut context) {
            let piece = frame.into_data().expect("data");
            longest = longest.max(piece.len());
            whole.extend_from_slice(&piece);
        }
        assert!(page.is_end_stream());
        (whole, longest)
    }

    #[test]
    fn a_long_page_is_the_same_in_short_pieces() {
        let big = dynamic(2_000);
        let default: Arc<[String]> = Arc::new(["http".to_owned()]);
        let mut expected = b"{\"a\\\"\":{},\"big\":".to_vec();
        Object::write(&mut expected, |object| {
            shape::dynamic(object, &big, Manner::Served(&default));
        });
        expected.push(b'}');
        let providers = [
            ("a\"".to_owned(), Arc::default()),
            ("big".to_owned(), Arc::clone(&big)),
        ];
        let listing = Listing::new(default).providers(providers.iter().map(|(n, d)| (n, d)));
        let page = listing.page();
        assert_eq!(page.size_hint().exact(), None);
        let (found, longest) = read(page);
        assert!(found == expected, "the same bytes");
        assert!(longest < 2 * OWN_PAGE_PIECE_BYTES, "{longest}");
    }

    #[test]
    fn the_length_of_a_short_page_is_known() {
        let page = Listing::new(Arc::new([]))
            .set(&dynamic(0), Kind::Backends)
            .page();
        assert_eq!(page.size_hint().exact(), Some(2));
        assert_eq!(read(page).0, b"{}");
        assert_eq!(read(Page::whole("")).0, b"");
    }
}
