//! An optimizer named in a line: `NAME[:KEY=VALUE[,KEY=VALUE]...]`, e.g. `sgd:lr=0.1,momentum=0.9,nesterov=true`.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Var};

use crate::error::{Error, Result};
use crate::optimizer::{Build, DynOptimizer};
use crate::params::{Params, Value};
use crate::rules::{Entry, REGISTRY};

/// An optimizer with its hyperparameters, as text and as values. Displays as it was given.
///
/// ```
/// use candle_optim::Spec;
///
/// let spec: Spec = "adamw:lr=0.01,weight_decay=0.1".parse()?;
/// assert_eq!(spec.params().lr(), 0.01);
/// assert_eq!("adamv".parse::<Spec>().unwrap_err().to_string().lines().count(), 1);
/// # Ok::<(), candle_optim::Error>(())
/// ```
#[derive(Debug)]
pub struct Spec {
    text: String,
    given: Vec<&'static str>,
    params: Box<dyn Build>,
}

impl FromStr for Spec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, pairs) = match text.split_once(':') {
            Some((name, pairs)) => (name, pairs.split(',').collect()),
            None => (text, vec![]),
        };
        let syntax = |why: String| Error::Syntax { spec: text.into(), why };
        if name.is_empty() {
            return Err(syntax("the name is missing".into()));
        }
        let mut params = (entry(name)?.defaults)();
        let mut given = vec![];
        for pair in pairs {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| syntax(format!("'{pair}' is not of the form KEY=VALUE")))?;
            let field = params.fields().iter().find(|field| field.key == key).ok_or_else(|| {
                Error::unknown(&format!("key of {name}"), key, params.fields().iter().map(|field| field.key))
            })?;
            if given.contains(&field.key) {
                return Err(Error::Repeated { key: key.into(), spec: text.into() });
            }
            let parsed = field.allowed.parse(value).ok_or_else(|| Error::Value {
                optimizer: name.into(),
                key: key.into(),
                value: value.into(),
                allowed: field.allowed.to_string(),
            })?;
            params.set(key, parsed);
            given.push(field.key);
        }
        params.validate()?;
        Ok(Self { text: text.into(), given, params })
    }
}

/// The optimizer of this name.
pub fn entry(name: &str) -> Result<&'static Entry> {
    REGISTRY
        .iter()
        .find(|entry| entry.name == name)
        .ok_or_else(|| Error::unknown("optimizer", name, REGISTRY.iter().map(|entry| entry.name)))
}

impl Spec {
    /// The hyperparameters.
    pub fn params(&self) -> &dyn Params {
        &*self.params
    }

    /// Uses `lr` if the spec set none.
    pub fn or_lr(mut self, lr: f64) -> Self {
        if !self.given.contains(&"lr") {
            self.params.set_lr(lr);
        }
        self
    }

    /// All hyperparameters with their values, given or default.
    pub fn resolved(&self) -> impl Iterator<Item = (&'static str, Value)> {
        self.params.fields().iter().filter_map(|field| Some((field.key, self.params.get(field.key)?)))
    }

    /// The optimizer that steps `vars`.
    pub fn build(&self, vars: Vec<Var>) -> Result<Box<dyn DynOptimizer>> {
        self.build_with(vars, None)
    }

    /// The optimizer that steps `vars`, its state of type `state_dtype` as in
    /// [`Optim::with_state_dtype`](crate::Optim::with_state_dtype).
    pub fn build_with(&self, vars: Vec<Var>, state_dtype: Option<DType>) -> Result<Box<dyn DynOptimizer>> {
        self.params.build(vars, state_dtype)
    }

    /// The CUDA kernel with which it steps parameters of type `dtype`.
    ///
    /// # Errors
    /// One of Candle's own optimizers, or types it cannot step.
    pub fn cuda_source(&self, dtype: DType, state_dtype: Option<DType>) -> Result<String> {
        self.params.cuda_source(dtype, state_dtype)
    }

    /// Bytes of state it keeps for each parameter of type `dtype`.
    pub fn state_bytes(&self, dtype: DType, state_dtype: Option<DType>) -> usize {
        self.params.state_bytes(dtype, state_dtype)
    }
}

impl Clone for Spec {
    fn clone(&self) -> Self {
        Self { text: self.text.clone(), given: self.given.clone(), params: self.params.boxed() }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Spec>().unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_given_keeps_its_default() {
        let spec: Spec = "sgd:momentum=0.9,nesterov=true".parse().unwrap();
        let values: Vec<_> = spec.or_lr(0.5).resolved().map(|(key, value)| format!("{key}={value}")).collect();
        let expected = "lr=0.5 momentum=0.9 dampening=0 nesterov=true weight_decay=0 maximize=false";
        assert_eq!(values.join(" "), expected);
        let spec: Spec = "adam:lr=1e-4".parse().unwrap();
        assert_eq!(spec.or_lr(0.5).params().lr(), 1e-4);
    }

    #[test]
    fn every_mistake_is_named_with_what_is_allowed() {
        for (text, parts) in [
            ("adm", &["unknown optimizer 'adm'", "did you mean 'adam'", "rmsprop"][..]),
            ("", &["the name is missing"]),
            ("adam:", &["'' is not of the form KEY=VALUE"]),
            ("adam:beta=0.9", &["unknown key of adam 'beta'", "did you mean 'beta", "eps"]),
            ("adam:lr=0.1,lr=0.2", &["'lr' is given twice"]),
            ("adam:lr=-1", &["lr = -1", "at least 0"]),
            ("adam:lr=nan", &["lr = nan", "finite"]),
            ("adam:lr=inf", &["lr = inf", "finite"]),
            ("adam:lr=fast", &["lr = fast"]),
            ("adam:beta2=1", &["beta2 = 1", "not including, 1"]),
            ("adam:amsgrad=1", &["amsgrad = 1", "true or false"]),
            ("sgd:nesterov=true", &["sgd: nesterov needs momentum"]),
        ] {
            for part in parts {
                assert!(error(text).contains(part), "{text}: {}", error(text));
            }
            assert_eq!(error(text).lines().count(), 1);
        }
    }
}
