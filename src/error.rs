//! The errors of this crate.

/// An error of this crate. Its message names the input, the value, and what is allowed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name, key or choice that does not exist.
    #[error("unknown {what} '{}'{}; allowed: {}", shown(given), suggestion(given, allowed), allowed.join(", "))]
    Unknown {
        /// What was looked up, e.g. `optimizer`.
        what: String,
        /// As the user wrote it.
        given: String,
        /// The names that exist: all of them, or the most similar.
        allowed: Vec<String>,
    },
    /// A spec or a pattern that cannot be read.
    #[error("cannot read '{}': {why}", shown(text))]
    Syntax {
        /// The whole text.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A hyperparameter outside its range, or not of its type.
    #[error("{optimizer}: {key} = {value} is not allowed: it must be {allowed}")]
    Value {
        /// The name of the optimizer.
        optimizer: &'static str,
        /// The name of the hyperparameter.
        key: &'static str,
        /// As given.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// Two inputs that contradict each other.
    #[error("{what}: {why}")]
    Conflict {
        /// The input.
        what: String,
        /// The contradiction, and what is allowed.
        why: String,
    },
    /// A variable that an optimizer cannot move, or a gradient that does not fit its variable.
    #[error("variable '{}' {why}", shown(name))]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A state of another optimizer.
    #[error("the state does not fit: {0}")]
    State(String),
    /// A file that cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Where it is.
        path: std::path::PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// An error of Candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn unknown<S: Into<String>>(what: &str, given: &str, allowed: impl IntoIterator<Item = S>) -> Self {
        let mut allowed: Vec<String> = allowed.into_iter().map(Into::into).collect();
        if allowed.len() > MANY {
            allowed.sort_by(|a, b| likeness(given, b).total_cmp(&likeness(given, a)));
            allowed.truncate(MANY);
            allowed.push("..".into());
        }
        Self::Unknown { what: what.into(), given: given.into(), allowed }
    }

    pub(crate) fn conflict(what: &str, why: impl Into<String>) -> Self {
        Self::Conflict { what: what.into(), why: why.into() }
    }

    pub(crate) fn file(path: &std::path::Path, error: std::io::Error) -> Self {
        Self::File { path: path.into(), error }
    }

    pub(crate) fn variable(name: &str, why: impl Into<String>) -> Self {
        Self::Variable { name: name.into(), why: why.into() }
    }
}

/// Lets `?` work in functions that return Candle's result.
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            error => candle_core::Error::Wrapped(Box::new(error)),
        }
    }
}

/// An error lists at most this many names, the most similar first.
const MANY: usize = 20;

/// The user's text on one line, shortened if it is long. Invisible characters are escaped.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 120;
    let escape = |c: char| match c {
        '\'' | '"' | '\\' => c.to_string(),
        c => c.escape_debug().to_string(),
    };
    let cut = if text.chars().nth(LONGEST).is_some() { "…" } else { "" };
    text.chars().take(LONGEST).map(escape).collect::<String>() + cut
}

fn likeness(a: &str, b: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(a, b)
}

fn suggestion(given: &str, allowed: &[String]) -> String {
    let nearest = allowed.iter().max_by(|a, b| likeness(given, a).total_cmp(&likeness(given, b)));
    let alike = nearest.filter(|name| likeness(given, name) >= 0.5);
    alike.map_or_else(String::new, |name| format!(" (did you mean '{name}'?)"))
}
