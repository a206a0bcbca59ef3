//! Hyperparameters: plain structs. Specs, schedules and `set` access their fields by key.

use std::any::Any;
use std::fmt;
use std::ops::{Bound, RangeBounds};

use crate::error::{Error, Result};

/// The value of a hyperparameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// A switch.
    Flag(bool),
    /// One word of a list, or `none` for an optional number.
    Word(&'static str),
}

/// The word for a number that is absent.
const NONE: &str = "none";

impl Value {
    /// Reads the text of a value. Returns `None` for text that is not a number, a flag or one of `words`.
    pub fn parse(text: &str, words: &[&'static str]) -> Option<Self> {
        let word = || words.iter().find(|word| **word == text).copied().map(Self::Word);
        text.parse().map(Self::Number).or_else(|_| text.parse().map(Self::Flag)).ok().or_else(word)
    }

    /// The text of the value in a spec: `5`, where `Display` has 5.0.
    pub fn text(self) -> String {
        self.to_string().trim_end_matches(".0").into()
    }

    /// The number, if it is one.
    pub fn number(self) -> Option<f64> {
        if let Self::Number(x) = self { Some(x) } else { None }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Number(x) => write!(f, "{x:?}"),
            Self::Flag(x) => write!(f, "{x}"),
            Self::Word(x) => f.write_str(x),
        }
    }
}

/// A type that a hyperparameter may have: `f64`, `u32`, `bool`, an `Option` of these, or an enum of
/// [`words!`](crate::words!).
pub trait Setting: Copy + Into<Value> {
    /// The type of its range's bounds.
    type Number;
    /// What a value is, e.g. `a number`.
    const WHAT: &'static str;
    /// The words that a value may be.
    const WORDS: &'static [&'static str] = &[];
    /// Other names of words, which are read but not printed.
    const ALIASES: &'static [&'static str] = &[];
    /// Converts a value, if it is of this type.
    fn read(value: Value) -> Option<Self>;
    /// Whether it lies in a range.
    fn within(self, range: &impl RangeBounds<Self::Number>) -> bool;
    /// The value that `none` stands for in a field whose range includes infinity.
    fn unlimited(_range: &impl RangeBounds<Self::Number>) -> Option<Self> {
        None
    }
}

macro_rules! setting {
    ($($ty:ty, $what:literal, $Variant:ident $x:ident => $to:expr, $from:expr $(, { $($unlimited:tt)* })?;)*) => {$(
        impl From<$ty> for Value {
            fn from($x: $ty) -> Self {
                Self::$Variant($to)
            }
        }
        impl Setting for $ty {
            type Number = $ty;
            const WHAT: &'static str = $what;
            fn read(value: Value) -> Option<Self> {
                if let Value::$Variant($x) = value { $from } else { None }
            }
            fn within(self, range: &impl RangeBounds<$ty>) -> bool {
                range.contains(&self)
            }
            $($($unlimited)*)?
        }
        impl From<Option<$ty>> for Value {
            fn from(x: Option<$ty>) -> Self {
                x.map_or(Self::Word(NONE), Self::from)
            }
        }
        impl Setting for Option<$ty> {
            type Number = $ty;
            const WHAT: &'static str = concat!("none or ", $what);
            const WORDS: &'static [&'static str] = &[NONE];
            fn read(value: Value) -> Option<Self> {
                if value == Value::Word(NONE) { Some(None) } else { <$ty>::read(value).map(Some) }
            }
            fn within(self, range: &impl RangeBounds<$ty>) -> bool {
                self.is_none_or(|x| range.contains(&x))
            }
        }
    )*};
}
setting! {
    f64, "a number", Number x => x, Some(x), {
        fn unlimited(range: &impl RangeBounds<f64>) -> Option<f64> {
            (range.end_bound() == Bound::Included(&f64::INFINITY)).then_some(f64::INFINITY)
        }
    };
    u32, "a whole number", Number x => x.into(), (x.fract() == 0. && x >= 0. && x <= u32::MAX.into()).then_some(x as u32);
    bool, "true or false", Flag x => x, Some(x);
}

impl From<i32> for Value {
    fn from(x: i32) -> Self {
        Self::Number(x.into())
    }
}

impl From<&'static str> for Value {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

/// Declares a hyperparameter that is one of a list of words. `Original = "original" | "none"` also reads `none`.
#[macro_export]
macro_rules! words {
    ($(#[$doc:meta])* $vis:vis enum $Name:ident { $($Word:ident = $word:literal $(| $alias:literal)*),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        $vis enum $Name {
            $(#[doc = concat!("`", $word, "`")] $Word),*
        }

        impl From<$Name> for $crate::hyper::Value {
            fn from(word: $Name) -> Self {
                Self::Word(match word { $($Name::$Word => $word),* })
            }
        }

        impl $crate::hyper::Setting for $Name {
            type Number = $Name;
            const WHAT: &'static str = concat!("one of", $(" ", $word),*);
            const WORDS: &'static [&'static str] = &[$($word),*];
            const ALIASES: &'static [&'static str] = &[$($($alias),*)*];
            fn read(value: $crate::hyper::Value) -> Option<Self> {
                match value {
                    $($crate::hyper::Value::Word($word $(| $alias)*) => Some(Self::$Word),)*
                    _ => None,
                }
            }
            fn within(self, _: &impl std::ops::RangeBounds<$Name>) -> bool {
                true
            }
        }
    };
}

/// A hyperparameter with its present value. Making one allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name, which is that of the Rust field.
    pub key: &'static str,
    /// What it does, in a line.
    pub doc: &'static str,
    /// Its value.
    pub value: Value,
    /// What a value is, e.g. `a number`.
    pub what: &'static str,
    /// The range, e.g. ` in 0.0..1.0`, or nothing.
    pub range: &'static str,
    /// The words that the value may be.
    pub words: &'static [&'static str],
    /// Other names of the words.
    pub aliases: &'static [&'static str],
    /// Whether the value is allowed.
    pub valid: bool,
}

impl Field {
    #[doc(hidden)]
    pub fn new<T: Setting>(
        key: &'static str,
        doc: &'static str,
        value: T,
        range: &'static str,
        within: impl RangeBounds<T::Number>,
    ) -> Self {
        let inside = value.within(&within);
        let (value, words, what) = match T::unlimited(&within) {
            Some(none) if none.into() == value.into() => (Value::Word(NONE), <Option<f64>>::WORDS, <Option<f64>>::WHAT),
            Some(_) => (value.into(), <Option<f64>>::WORDS, <Option<f64>>::WHAT),
            None => (value.into(), T::WORDS, T::WHAT),
        };
        let valid = inside && value.number().is_none_or(f64::is_finite);
        let (range, aliases) = (range.strip_suffix("=f64::INFINITY").unwrap_or(range), T::ALIASES);
        Self { key, doc, value, what, range, words, aliases, valid }
    }

    #[doc(hidden)]
    pub fn read<T: Setting>(value: Value, within: impl RangeBounds<T::Number>) -> Option<T> {
        T::read(value).or_else(|| T::unlimited(&within).filter(|_| value == Value::Word(NONE)))
    }

    /// Reads the text of a value, or returns `None` for text that is not a number, a flag or one of the field's words.
    pub(crate) fn parse(&self, text: &str) -> Option<Value> {
        Value::parse(text, self.words).or_else(|| Value::parse(text, self.aliases))
    }

    /// The error of a value that `optimizer` does not allow.
    fn refused(&self, optimizer: &'static str) -> Error {
        Error::Value { optimizer, key: self.key, value: self.value.to_string(), allowed: self.allowed() }
    }

    /// The allowed values, e.g. `a number in 0.0..1.0`. Infinite numbers and NaN are never allowed.
    pub fn allowed(&self) -> String {
        format!("{}{}", self.what, self.range)
    }
}

/// Prints `k=5`, as in a spec.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value.text())
    }
}

/// When a wrapper runs: before or after the optimizer that it wraps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Runs {
    /// Before it: SAM, which replaces the gradients.
    Before,
    /// After it: Lookahead and averages.
    After,
}

/// Access to the hyperparameters of one optimizer by key. [`hyper!`](crate::hyper!) implements it.
pub trait Hyper: Any + fmt::Debug + Send + Sync {
    /// The name of the optimizer in a spec.
    fn name(&self) -> &'static str;
    /// A description in one line.
    fn summary(&self) -> &'static str;
    /// The publication.
    fn source(&self) -> &'static str;
    /// The packages with which its steps are compared.
    fn reference(&self) -> &'static str {
        ""
    }
    /// When it runs, if it is a wrapper. A wrapper needs another optimizer in its group.
    fn runs(&self) -> Option<Runs>;
    /// All keys; `lr` comes first.
    fn keys(&self) -> &'static [&'static str];
    /// The hyperparameter at this position of `keys`.
    fn field_at(&self, index: usize) -> Option<Field>;
    /// Sets the hyperparameter at this position without a check of its range. Returns false for an unknown position or
    /// a value of another type.
    fn assign_at(&mut self, index: usize, value: Value) -> bool;
    /// The reason why the values contradict each other, if they do.
    fn conflict(&self) -> Option<&'static str> {
        None
    }

    /// The position of a key.
    fn index(&self, key: &str) -> Option<usize> {
        self.keys().iter().position(|known| *known == key)
    }

    /// The hyperparameter of this key.
    fn field(&self, key: &str) -> Option<Field> {
        self.field_at(self.index(key)?)
    }

    /// Sets a key without a check of its range. Returns false for an unknown key or a value of another type.
    fn assign(&mut self, key: &str, value: Value) -> bool {
        self.index(key).is_some_and(|index| self.assign_at(index, value))
    }

    /// All hyperparameters.
    fn fields(&self) -> Vec<Field> {
        (0..self.keys().len()).filter_map(|index| self.field_at(index)).collect()
    }

    #[doc(hidden)]
    fn unknown(&self, key: &str, more: &[&'static str]) -> Error {
        Error::unknown(&format!("key of {}", self.name()), key, self.keys().iter().chain(more).copied())
    }

    /// The value of a key.
    ///
    /// # Errors
    /// There is no such key.
    fn get(&self, key: &str) -> Result<Value> {
        Ok(self.field(key).ok_or_else(|| self.unknown(key, &[]))?.value)
    }

    /// Sets a key.
    ///
    /// # Errors
    /// There is no such key, or the value is not allowed. Nothing changes then.
    fn set(&mut self, key: &str, value: Value) -> Result<()> {
        let index = self.index(key).ok_or_else(|| self.unknown(key, &[]))?;
        self.set_at(index, value)
    }

    #[doc(hidden)]
    fn set_at(&mut self, index: usize, value: Value) -> Result<()> {
        let Some(before) = self.field_at(index) else { return Ok(()) };
        if self.assign_at(index, value) && self.field_at(index).is_some_and(|field| field.valid) {
            return Ok(());
        }
        self.assign_at(index, before.value);
        Err(Field { value, ..before }.refused(self.name()))
    }

    /// Checks each value against its range, and the values against each other.
    ///
    /// # Errors
    /// The first value that is not allowed, or a contradiction.
    fn validate(&self) -> Result<()> {
        let fields = (0..self.keys().len()).filter_map(|index| self.field_at(index));
        if let Some(field) = fields.into_iter().find(|field| !field.valid) {
            return Err(field.refused(self.name()));
        }
        self.conflict().map_or(Ok(()), |why| Err(Error::conflict(self.name(), why)))
    }
}

/// Declares the hyperparameters of an optimizer: the struct, its defaults and ranges, and access to its fields by key.
///
/// The name may be followed by a summary, a source, and the packages with which the steps are compared.
/// `lr: f64 [0.0..] = 1e-3, "Learning rate.";` declares a field with its range, default and documentation. Its type is
/// `f64`, `u32`, `bool`, an `Option` of these, or an enum of [`words!`](crate::words!). Infinite numbers are not
/// allowed, unless the range ends in `..=f64::INFINITY`; infinity is then written `none`. `runs Before base` or
/// `runs After base` declares a wrapper. `conflict |h| ..` returns the reason why values contradict each other, or
/// `None`.
#[macro_export]
macro_rules! hyper {
    (
        $(#[$doc:meta])* $vis:vis struct $Name:ident for $name:literal $(, $summary:literal, $source:literal $(, $reference:literal)?)? {
            $($field:ident: $ty:ty $([$range:expr])? = $default:expr, $text:literal;)*
        }
        $(runs $Runs:ident base)?
        $(conflict |$h:ident| $conflict:expr)?
    ) => {
        #[doc = concat!("Hyperparameters of `", $name, "`.")]
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $Name {
            $(#[doc = $text] pub $field: $ty,)*
        }

        impl Default for $Name {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        impl $crate::hyper::Hyper for $Name {
            fn name(&self) -> &'static str {
                $name
            }
            fn summary(&self) -> &'static str {
                concat!($($summary)?)
            }
            fn source(&self) -> &'static str {
                concat!($($source)?)
            }
            fn reference(&self) -> &'static str {
                concat!($($($reference)?)?)
            }
            fn runs(&self) -> Option<$crate::hyper::Runs> {
                $crate::__or!(@expr [$(Some($crate::hyper::Runs::$Runs))?] None)
            }
            fn keys(&self) -> &'static [&'static str] {
                &[$(stringify!($field)),*]
            }
            fn field_at(&self, index: usize) -> Option<$crate::hyper::Field> {
                let mut at = 0..;
                $(if at.next() == Some(index) {
                    return Some($crate::hyper::Field::new(
                        stringify!($field), $text, self.$field, concat!($(" in ", stringify!($range))?),
                        $crate::__or!(@expr [$($range)?] ..),
                    ));
                })*
                None
            }
            fn assign_at(&mut self, index: usize, value: $crate::hyper::Value) -> bool {
                let mut at = 0..;
                $(if at.next() == Some(index) {
                    let read = $crate::hyper::Field::read(value, $crate::__or!(@expr [$($range)?] ..));
                    return read.map(|value| self.$field = value).is_some();
                })*
                false
            }
            $(fn conflict(&self) -> Option<&'static str> {
                let $h = self;
                $conflict
            })?
        }
    };
}
