//! A section that is copied by reference, and compared by it first: of thousands, one is different.
//!
//! Owns nothing else. Whoever changes one gets a copy of its own, so nobody sees it change.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::option::{Kind, Show, Value, Visitor, Written};
use super::tree::Node;
use super::units::{ConfigError, Place};

/// A value that many hold.
#[derive(Default)]
pub struct Shared<T>(Arc<T>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Value> Value for Shared<T> {
    fn kind() -> Kind {
        T::kind()
    }

    fn read(node: &Node) -> Result<Self, ConfigError> {
        T::read(node).map(Self::from)
    }

    fn written(&self) -> Written {
        T::written(self)
    }

    fn place(&self) -> Option<&Place> {
        T::place(self)
    }

    fn visit<'a>(&'a self, path: &mut Vec<&'a str>, place: &Place, visitor: Visitor<'_>) {
        T::visit(self, path, place, visitor);
    }
}

impl<T: Show> Show for Shared<T> {
    fn show(&self) -> String {
        T::show(self)
    }
}
