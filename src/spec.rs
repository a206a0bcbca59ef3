//! Optimizers chosen at run time: `NAME[:KEY=VALUE[,KEY=VALUE]...]`, e.g. `sgd:lr=0.1,momentum=0.9,nesterov=true`.
//!
//! Every optimizer takes `maximize=true`. A wrapper names its base: `lookahead:k=4,base=adamw,base_lr=0.1`. The default
//! base is the first optimizer of the registry.

use std::fmt;
use std::str::FromStr;

use candle_core::DType;

use crate::algorithm::{Algorithm, Method};
use crate::error::{Error, Result, shown};
use crate::hyper::{Runs, Value};

/// An optimizer with its hyperparameters, read from text. It prints all hyperparameters, given or default, and the
/// printed text reads back to the same optimizer.
///
/// ```
/// use candle_optim::Spec;
///
/// # fn main() -> Result<(), candle_optim::Error> {
/// let spec: Spec = "sgd:lr=0.1,momentum=0.9,nesterov=true".parse()?;
/// assert_eq!(spec.method().name(), "sgd");
/// assert_eq!(spec.to_string().parse::<Spec>()?.resolved(), spec.resolved());
///
/// let error = "adamw:beta3=0.9".parse::<Spec>().unwrap_err().to_string();
/// assert!(error.starts_with("unknown key of adamw 'beta3' (did you mean 'beta2'?)"), "{error}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Spec {
    method: Method,
    text: String,
    has_lr: bool,
}

impl Spec {
    /// The algorithms and the direction.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The text as given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All hyperparameters, given or default, under the keys of a spec: those of a base as `base_KEY`.
    pub fn resolved(&self) -> Vec<(String, Value)> {
        self.outermost().1
    }

    /// The name of the outermost algorithm, and all pairs.
    fn outermost(&self) -> (&'static str, Vec<(String, Value)>) {
        let mut pairs = vec![];
        let name = resolve(&self.method.chain, "", &mut pairs);
        (name, pairs)
    }

    /// Sets the learning rate if the text did not. It does not change a wrapper: its `base_lr` sets the learning rate.
    pub fn or_lr(mut self, lr: f64) -> Self {
        if let ([alone], false) = (&mut self.method.chain[..], self.has_lr) {
            alone.assign("lr", lr.into());
        }
        self
    }
}

impl From<Spec> for Method {
    fn from(spec: Spec) -> Self {
        spec.method
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (name, pairs) = self.outermost();
        let mut pairs: Vec<_> = pairs.into_iter().map(|(key, value)| format!("{key}={}", value.text())).collect();
        if self.method.maximize {
            pairs.push("maximize=true".into());
        }
        let colon = if pairs.is_empty() { "" } else { ":" };
        write!(f, "{name}{colon}{}", pairs.join(","))
    }
}

/// Collects the pairs of all algorithms, with a prefix for those of a base. Returns the name of the outermost.
fn resolve(chain: &[Box<dyn Algorithm>], prefix: &str, pairs: &mut Vec<(String, Value)>) -> &'static str {
    let (outer, base) = match chain {
        [base @ .., outer] if outer.runs() == Some(Runs::After) => (outer, base),
        [outer, base @ ..] => (outer, base),
        [] => unreachable!("a method has an algorithm"),
    };
    pairs.extend(outer.fields().iter().map(|field| (format!("{prefix}{}", field.key), field.value)));
    if !base.is_empty() {
        let at = pairs.len();
        let name = resolve(base, &format!("{prefix}base_"), pairs);
        pairs.insert(at, (format!("{prefix}base"), Value::Word(name)));
    }
    outer.name()
}

/// Reads an optimizer of this crate. [`Registry::parse`] also reads others.
impl FromStr for Spec {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Registry::default().parse(text)
    }
}

/// The optimizers that a spec may name. The default registry has all optimizers of this crate.
#[derive(Debug)]
pub struct Registry(pub(crate) Vec<fn() -> Box<dyn Algorithm>>);

impl Registry {
    /// Adds an optimizer.
    ///
    /// # Errors
    /// The name is taken.
    pub fn register<A: Algorithm + Default>(&mut self) -> Result<()> {
        let name = A::default().name();
        if self.names().any(|known| known == name) {
            return Err(Error::conflict(name, "is registered already"));
        }
        self.0.push(entry::<A>());
        Ok(())
    }

    /// All optimizers with their defaults, in order of registration.
    pub fn all(&self) -> impl Iterator<Item = Box<dyn Algorithm>> {
        self.0.iter().map(|make| make())
    }

    /// The names, in order of registration.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.all().map(|algorithm| algorithm.name())
    }

    /// A Markdown table of all optimizers with their keys.
    pub fn markdown(&self) -> String {
        let row = |algorithm: &dyn Algorithm| {
            let keys: Vec<_> = algorithm.fields().iter().map(|field| format!("`{field}`")).collect();
            vec![algorithm.summary().into(), keys.join(" "), algorithm.source().into()]
        };
        self.table("| optimizer | what it is | keys and defaults | source |\n|---|---|---|---|\n", row)
    }

    /// A Markdown table of all optimizers. It shows what a step computes with, the bytes of state for each number of an
    /// f32 matrix, and the packages that the steps are compared with.
    pub fn overview(&self) -> String {
        let row = |algorithm: &dyn Algorithm| {
            let [summary, reference, source] = [algorithm.summary(), algorithm.reference(), algorithm.source()];
            vec![
                summary.into(),
                kind(algorithm).into(),
                state_bytes(algorithm).to_string(),
                reference.into(),
                source.into(),
            ]
        };
        let header =
            "| optimizer | what it is | computes with | state | compared with | source |\n|---|---|---|--:|---|---|\n";
        self.table(header, row)
    }

    fn table(&self, header: &str, row: impl Fn(&dyn Algorithm) -> Vec<String>) -> String {
        let line = |algorithm: &dyn Algorithm| format!("| `{}` | {} |\n", algorithm.name(), row(algorithm).join(" | "));
        header.to_owned() + &self.all().map(|algorithm| line(&*algorithm)).collect::<String>()
    }

    /// Reads a spec.
    ///
    /// # Errors
    /// An unknown name or key, a value that is not allowed, or a key given twice.
    pub fn parse(&self, text: &str) -> Result<Spec> {
        let (name, list) = text.split_once(':').unwrap_or((text, ""));
        let syntax =
            |pair: &str, why: &str| Error::Syntax { text: text.into(), why: format!("'{}' {why}", shown(pair)) };
        let (mut pairs, mut given, mut maximize) = (vec![], vec![], false);
        for pair in list.split(',').filter(|_| text.contains(':')) {
            let (key, value) = pair.split_once('=').ok_or_else(|| syntax(pair, "is not of the form KEY=VALUE"))?;
            let (key, value) = (key.trim(), value.trim());
            if given.contains(&key) {
                return Err(syntax(pair, "is given twice"));
            }
            given.push(key);
            match key {
                "maximize" => {
                    maximize = value.parse().map_err(|_| syntax(pair, "is not allowed: it must be true or false"))?
                }
                _ => pairs.push((key, value)),
            }
        }
        let chain = self.chain(name.trim(), &pairs, &syntax)?;
        Ok(Spec { method: Method { chain, maximize }, text: text.into(), has_lr: given.contains(&"lr") })
    }

    fn chain(
        &self,
        name: &str,
        pairs: &[(&str, &str)],
        syntax: &impl Fn(&str, &str) -> Error,
    ) -> Result<Vec<Box<dyn Algorithm>>> {
        let known = self.all().find(|algorithm| algorithm.name() == name);
        let mut outer = known.ok_or_else(|| Error::unknown("optimizer", name, self.names()))?;
        let (mut base, mut of_base) = (self.names().next().unwrap_or_default(), vec![]);
        for &(key, value) in pairs {
            match (outer.runs(), key, key.strip_prefix("base_")) {
                (Some(_), "base", _) => base = value,
                (Some(_), _, Some(key)) => of_base.push((key, value)),
                _ => {
                    let more: &[_] = if outer.runs().is_some() { &["base", "maximize"] } else { &["maximize"] };
                    let field = outer.field(key).ok_or_else(|| outer.unknown(key, more))?;
                    let why = || format!("is not allowed: it must be {}", field.allowed());
                    let parsed = field.parse(value);
                    outer.set(key, parsed.ok_or_else(|| syntax(&format!("{key}={value}"), &why()))?)?;
                }
            }
        }
        outer.validate()?;
        let mut chain = if outer.runs().is_some() { self.chain(base, &of_base, syntax)? } else { vec![] };
        chain.insert(if outer.runs() == Some(Runs::After) { chain.len() } else { 0 }, outer);
        Ok(chain)
    }
}

/// What a step computes with, at the defaults.
fn kind(algorithm: &dyn Algorithm) -> &'static str {
    match (algorithm.kernel(), algorithm.runs(), algorithm.evaluates()) {
        (_, Some(_), _) => "around another",
        (_, _, true) => "the loss again",
        (Some(kernel), ..) if kernel.has_sums() => "elements, sums",
        (Some(_), ..) => "elements",
        (None, ..) => "tensors",
    }
}

/// The bytes of state for each number of an f32 matrix.
fn state_bytes(algorithm: &dyn Algorithm) -> f64 {
    const DIMS: [usize; 2] = [64, 64];
    let elements = |name| algorithm.state_dims(name, &DIMS).iter().product::<usize>();
    let all: usize = algorithm.state_names(&DIMS).into_iter().map(elements).sum();
    let bytes = (all * DType::F32.size_in_bytes()) as f64 / DIMS.iter().product::<usize>() as f64;
    (bytes * 100.).round() / 100.
}

pub(crate) fn entry<A: Algorithm + Default>() -> fn() -> Box<dyn Algorithm> {
    || Box::new(A::default())
}
