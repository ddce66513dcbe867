//! Where a value came from, so that every message about it can say so.

use std::fmt;

use super::error::Place;

/// The layer that gave a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the configuration file.
    File(Place),
    /// An environment variable, by name.
    Environment(&'static str),
    /// A command-line flag, such as `--max-age`.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::File(place) => place.fmt(f),
            Self::Environment(name) => write!(f, "${name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value in force.
    pub value: T,
    /// The layer that gave it.
    pub origin: Origin,
}

impl<T> Setting<T> {
    /// A value from a named layer.
    pub fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }

    /// The default: used when no other layer has a word.
    pub fn default(value: T) -> Self {
        Self::new(value, Origin::Default)
    }

    /// Puts a flag's value, if one was given, over this one.
    #[must_use]
    pub fn or_flag(self, flag: &'static str, value: Option<T>) -> Self {
        match value {
            Some(value) => Self::new(value, Origin::Flag(flag)),
            None => self,
        }
    }

    /// The same origin with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Setting<U> {
        Setting::new(change(self.value), self.origin)
    }
}
