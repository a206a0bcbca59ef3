//! Hyperparameters: typed structs for Rust, and the same fields by name for specs, `list` and files.

use crate::error::{Error, Result};

/// The value of a hyperparameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Real(f64),
    /// A switch.
    Flag(bool),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Real(x) if *x != 0. && (x.abs() < 1e-3 || x.abs() >= 1e6) => write!(f, "{x:e}"),
            Self::Real(x) => write!(f, "{x}"),
            Self::Flag(x) => write!(f, "{x}"),
        }
    }
}

impl From<f64> for Value {
    fn from(x: f64) -> Self {
        Self::Real(x)
    }
}

impl From<bool> for Value {
    fn from(x: bool) -> Self {
        Self::Flag(x)
    }
}

/// The values a hyperparameter may take; infinite and NaN are never among them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowed {
    /// Zero or more.
    NonNegative,
    /// From 0 up to, but not including, 1.
    Fraction,
    /// Any finite number.
    Finite,
    /// `true` or `false`.
    Flag,
}

impl Allowed {
    /// Whether `value` is among them.
    pub fn contains(self, value: Value) -> bool {
        match (self, value) {
            (Self::NonNegative, Value::Real(x)) => x >= 0. && x.is_finite(),
            (Self::Fraction, Value::Real(x)) => (0. ..1.).contains(&x),
            (Self::Finite, Value::Real(x)) => x.is_finite(),
            (Self::Flag, Value::Flag(_)) => true,
            _ => false,
        }
    }

    /// Reads a value; none if it is not of this type or not allowed.
    pub(crate) fn parse(self, text: &str) -> Option<Value> {
        let value = match self {
            Self::Flag => Value::Flag(text.parse().ok()?),
            _ => Value::Real(text.parse().ok()?),
        };
        self.contains(value).then_some(value)
    }
}

impl std::fmt::Display for Allowed {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Self::NonNegative => "a finite number of at least 0",
            Self::Fraction => "a number from 0 up to, but not including, 1",
            Self::Finite => "a finite number",
            Self::Flag => "true or false",
        })
    }
}

/// One hyperparameter as it stands in a spec.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name, which is that of the Rust field.
    pub key: &'static str,
    /// What it does, in a line.
    pub doc: &'static str,
    /// What it may be.
    pub allowed: Allowed,
}

/// The hyperparameters of one optimizer, reached by name.
pub trait Params: std::fmt::Debug + Send + Sync {
    /// Name of the optimizer in a spec.
    fn name(&self) -> &'static str;
    /// What there is to set; `lr` comes first.
    fn fields(&self) -> &'static [Field];
    /// The value of a key; none if there is no such key.
    fn get(&self, key: &str) -> Option<Value>;
    /// Sets a key, unchecked; false if there is no such key or the value is of another type. [`Params::validate`]
    /// checks.
    fn set(&mut self, key: &str, value: Value) -> bool;
    /// The learning rate.
    fn lr(&self) -> f64;
    /// Sets the learning rate.
    fn set_lr(&mut self, lr: f64);
    /// A restriction on several fields together, as the reason why it is broken.
    fn conflict(&self) -> Option<&'static str> {
        None
    }

    /// Checks every value against its range, and the values together.
    fn validate(&self) -> Result<()> {
        let error = |key: &str, value: String, allowed: String| {
            Err(Error::Value { optimizer: self.name().into(), key: key.into(), value, allowed })
        };
        for Field { key, allowed, .. } in self.fields() {
            match self.get(key) {
                Some(value) if allowed.contains(value) => {}
                Some(value) => return error(key, value.to_string(), allowed.to_string()),
                None => return error(key, "nothing".into(), allowed.to_string()),
            }
        }
        match self.conflict() {
            Some(reason) => Err(Error::Conflict { optimizer: self.name().into(), reason: reason.into() }),
            None => Ok(()),
        }
    }
}

/// Declares the hyperparameters of an optimizer: the struct, its defaults, and its fields by name.
macro_rules! params {
    (
        $(#[$doc:meta])*
        pub struct $params:ident for $name:literal {
            $(#[doc = $field_doc:literal] $field:ident: $type:ty = $default:expr, $allowed:ident;)*
        }
        $(conflict $conflict:expr;)?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $params {
            $(#[doc = $field_doc] pub $field: $type,)*
        }

        impl Default for $params {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::params::Params for $params {
            fn name(&self) -> &'static str {
                $name
            }

            fn fields(&self) -> &'static [$crate::params::Field] {
                &[$($crate::params::Field {
                    key: stringify!($field),
                    doc: $field_doc,
                    allowed: $crate::params::Allowed::$allowed,
                },)*]
            }

            fn get(&self, key: &str) -> Option<$crate::params::Value> {
                match key {
                    $(stringify!($field) => Some(self.$field.into()),)*
                    _ => None,
                }
            }

            fn set(&mut self, key: &str, value: $crate::params::Value) -> bool {
                match key {
                    $(stringify!($field) => $crate::params::assign(&mut self.$field, value),)*
                    _ => false,
                }
            }

            fn lr(&self) -> f64 {
                self.lr
            }

            fn set_lr(&mut self, lr: f64) {
                self.lr = lr;
            }

            $(fn conflict(&self) -> Option<&'static str> {
                let conflict: fn(&Self) -> Option<&'static str> = $conflict;
                conflict(self)
            })?
        }
    };
}
pub(crate) use params;

/// Sets a field if the value is of its type.
pub(crate) fn assign<T: TryFrom<Value>>(field: &mut T, value: Value) -> bool {
    T::try_from(value).map(|value| *field = value).is_ok()
}

impl TryFrom<Value> for f64 {
    type Error = ();
    fn try_from(value: Value) -> Result<Self, ()> {
        if let Value::Real(x) = value { Ok(x) } else { Err(()) }
    }
}

impl TryFrom<Value> for bool {
    type Error = ();
    fn try_from(value: Value) -> Result<Self, ()> {
        if let Value::Flag(x) = value { Ok(x) } else { Err(()) }
    }
}
