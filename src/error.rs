//! Everything that can be wrong with what a user asks of an optimizer.

/// An error of this crate. Each names the input, its value, and what is allowed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name, key or choice that does not exist.
    #[error("unknown {what} '{given}'{}; allowed: {}", suggestion(given, allowed), allowed.join(", "))]
    Unknown {
        /// What was looked up, e.g. `optimizer`.
        what: String,
        /// As the user wrote it.
        given: String,
        /// All that exist.
        allowed: Vec<String>,
    },
    /// A key that stands twice in one spec.
    #[error("'{key}' is given twice in '{spec}'")]
    Repeated {
        /// The key.
        key: String,
        /// The whole spec.
        spec: String,
    },
    /// A spec that does not have the form `NAME[:KEY=VALUE[,KEY=VALUE]...]`.
    #[error("'{spec}' is not an optimizer: {why}; write NAME[:KEY=VALUE[,KEY=VALUE]...], e.g. adam:lr=0.01,beta1=0.9")]
    Syntax {
        /// The whole spec.
        spec: String,
        /// What is wrong with it.
        why: String,
    },
    /// A hyperparameter outside its range, or not of its type.
    #[error("{optimizer}: {key} = {value} is not allowed: it must be {allowed}")]
    Value {
        /// Name of the optimizer.
        optimizer: String,
        /// Name of the hyperparameter.
        key: String,
        /// As given.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// Hyperparameters that do not go together.
    #[error("{optimizer}: {reason}")]
    Conflict {
        /// Name of the optimizer.
        optimizer: String,
        /// What does not go together, and what is allowed.
        reason: String,
    },
    /// A gradient that does not fit its parameter.
    #[error("the gradient of parameter {index} is {gradient}, but the parameter is {parameter}")]
    Gradient {
        /// Position of the parameter in the list the optimizer was made from.
        index: usize,
        /// Shape, type and device of the gradient.
        gradient: String,
        /// Shape, type and device of the parameter.
        parameter: String,
    },
    /// A parameter that an optimizer cannot take.
    #[error("parameter {index} {why}")]
    Parameter {
        /// Position in the list.
        index: usize,
        /// What is wrong with it.
        why: String,
    },
    /// An error of Candle's own.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    pub(crate) fn unknown<S: Into<String>>(what: &str, given: &str, allowed: impl IntoIterator<Item = S>) -> Self {
        let allowed = allowed.into_iter().map(Into::into).collect();
        Self::Unknown { what: what.into(), given: given.into(), allowed }
    }
}

/// For functions whose signature is Candle's.
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            error => candle_core::Error::Wrapped(Box::new(error)),
        }
    }
}

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn suggestion(given: &str, allowed: &[String]) -> String {
    nearest(given, allowed.iter().map(String::as_str))
        .map_or_else(String::new, |name| format!(" (did you mean '{name}'?)"))
}

/// The allowed name most like `given`, if one is like it at all.
pub fn nearest<'a>(given: &str, allowed: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Half of the letters right: 'f23' still suggests 'f32'.
    const ALIKE: f64 = 0.5;
    allowed
        .into_iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(&given.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
