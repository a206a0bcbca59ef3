//! Named variables.

use std::collections::BTreeMap;

use candle_core::Var;
use candle_nn::VarMap;

use crate::error::{Error, Result};

/// Variables sorted by name. `take` moves variables out, so that no two groups get the same one. Each variable retains
/// its position in the given list as [`Slot::index`](crate::Slot::index).
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::{VarBuilder, VarMap, linear};
/// use candle_optim::NamedVars;
///
/// # fn main() -> Result<(), candle_optim::Error> {
/// let varmap = VarMap::new();
/// let builder = VarBuilder::from_varmap(&varmap, DType::F32, &Device::Cpu);
/// linear(2, 3, builder.pp("first"))?;
/// linear(3, 1, builder.pp("last"))?;
///
/// let mut vars = NamedVars::from(&varmap);
/// let weights = vars.take("*.weight")?;
/// assert!(weights.names().eq(["first.weight", "last.weight"]));
/// assert!(vars.names().eq(["first.bias", "last.bias"]));
/// assert!(vars.take("*.scale").is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct NamedVars(pub(crate) Vec<(usize, String, Var)>);

impl NamedVars {
    /// Names variables by their position. The list must have the same order in every run. The order of
    /// [`VarMap::all_vars`] differs between runs.
    pub fn numbered(vars: impl IntoIterator<Item = Var>) -> Self {
        Self(vars.into_iter().enumerate().map(|(index, var)| (index, index.to_string(), var)).collect())
    }

    /// Takes the variables whose names match a pattern: `*` is any text, including dots, `?` is any character, and
    /// `[..]` is one of the characters in it.
    ///
    /// # Errors
    /// The pattern matches nothing.
    pub fn take(&mut self, pattern: &str) -> Result<Self> {
        let glob = glob::Pattern::new(pattern)
            .map_err(|error| Error::Syntax { text: pattern.into(), why: error.msg.into() })?;
        if !self.0.iter().any(|(_, name, _)| glob.matches(name)) {
            return Err(Error::unknown("variable", pattern, self.names()));
        }
        Ok(self.take_where(|name, _| glob.matches(name)))
    }

    /// Takes the variables that are `wanted`. It may take none.
    pub fn take_where(&mut self, mut wanted: impl FnMut(&str, &Var) -> bool) -> Self {
        Self(self.0.extract_if(.., |(_, name, var)| wanted(name, var)).collect())
    }

    /// The names, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|(_, name, _)| name.as_str())
    }
}

impl From<Vec<(String, Var)>> for NamedVars {
    fn from(vars: Vec<(String, Var)>) -> Self {
        let mut vars: Vec<_> = vars.into_iter().enumerate().map(|(index, (name, var))| (index, name, var)).collect();
        vars.sort_by(|a, b| a.1.cmp(&b.1));
        Self(vars)
    }
}

/// The index is the position in the order of the names, since a map has no order.
impl From<&VarMap> for NamedVars {
    fn from(map: &VarMap) -> Self {
        let vars = map.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let sorted: BTreeMap<_, _> = vars.iter().collect();
        sorted.into_iter().map(|(name, var)| (name.clone(), var.clone())).collect::<Vec<_>>().into()
    }
}
