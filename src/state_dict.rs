//! The optimizer's state by name, in memory and in files.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use crate::algorithm::State;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::group::Group;
use crate::optim::Optim;

impl Optim {
    /// The state by name: tensors such as `blocks.0.weight.exp_avg`, the clocks' numbers such as
    /// `blocks.0.weight.step`, and `step`. A variable has no state tensors before its first step.
    ///
    /// # Errors
    /// The variables have no names to save it by.
    pub fn state_dict(&self) -> Result<BTreeMap<String, Tensor>> {
        self.check_names()?;
        let count = |x: u64| Tensor::new(x as i64, &Device::Cpu);
        let mut dict = BTreeMap::from([("step".into(), count(self.steps)?)]);
        for slot in self.slots() {
            let name = &slot.name;
            dict.insert(format!("{name}.step"), count(slot.clock.step)?);
            for memory in &slot.clock.memory {
                dict.insert(format!("{name}.{}", memory.name), Tensor::new(memory.now, &Device::Cpu)?);
            }
            for (key, tensor) in slot.tensors()? {
                dict.insert(format!("{name}.{key}"), tensor.copy()?);
            }
        }
        Ok(dict)
    }

    fn check_names(&self) -> Result<()> {
        if self.unnamed {
            let why = "the variables have no names to save it by: make the optimizer with NamedVars";
            return Err(Error::State(why.into()));
        }
        Ok(())
    }

    /// Replaces the state.
    ///
    /// # Errors
    /// A name is missing or unknown, or a tensor has another shape or type. Nothing changes then.
    pub fn load_state_dict(&mut self, dict: &BTreeMap<String, Tensor>) -> Result<()> {
        self.check_names()?;
        let mut given = Given(dict.clone());
        let steps = given.count("step")?;
        let mut loaded = vec![];
        for group in &self.groups {
            for slot in &group.slots {
                let prefix = &slot.name;
                let mut clock = Clock { step: given.count(&format!("{prefix}.step"))?, ..slot.clock.clone() };
                for memory in &mut clock.memory {
                    memory.now = given.take(&format!("{prefix}.{}", memory.name), DType::F64, &[])?.to_scalar()?;
                }
                let layout = group.method.state(slot.var.dims(), slot.var.dtype(), group.state_dtype);
                let has = |(name, ..): &(&str, _, _)| dict.contains_key(&format!("{prefix}.{name}"));
                let started = group.has_state(clock.step).unwrap_or_else(|| layout.iter().any(has));
                let mut state = State::new();
                for (name, dtype, dims) in layout.into_iter().filter(|_| started) {
                    let tensor = given.take(&format!("{prefix}.{name}"), dtype, &dims)?;
                    state.insert(name, tensor.to_device(slot.var.device())?);
                }
                loaded.push((clock, started, state));
            }
        }
        given.nothing_left()?;
        self.groups.iter_mut().try_for_each(Group::reserve)?;
        self.groups.iter_mut().for_each(Group::forget);
        let slots = self.groups.iter_mut().flat_map(|group| &mut group.slots);
        for (slot, (clock, started, state)) in slots.zip(loaded) {
            slot.restore(clock, started, state)?;
        }
        self.steps = steps;
        Ok(())
    }

    /// The name of each group's optimizer, under the keys `group.0`, `group.1` and so on.
    fn optimizers(&self) -> BTreeMap<String, String> {
        let name = |(at, group): (usize, &crate::Group)| (format!("group.{at}"), group.method.name());
        self.groups.iter().enumerate().map(name).collect()
    }

    /// Saves the state as safetensors, with the optimizers' names as metadata. A crash leaves no partial file at
    /// `path`.
    ///
    /// # Errors
    /// The variables have no names, or the file cannot be written. An existing file then stays unchanged.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut part = path.as_ref().as_os_str().to_owned();
        part.push(".part");
        let names: HashMap<_, _> = self.optimizers().into_iter().collect();
        let part = Path::new(&part);
        let written = safetensors::serialize_to_file(self.state_dict()?, Some(names), part);
        let saved = written.map_err(io_error).and_then(|()| std::fs::rename(part, &path));
        saved.map_err(|error| {
            let _ = std::fs::remove_file(part);
            Error::file(path.as_ref(), error)
        })
    }

    /// Loads a saved state with [`Optim::load_state_dict`].
    ///
    /// # Errors
    /// The state is of another optimizer or does not fit. Nothing changes then.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let failed = |error| Error::file(path.as_ref(), error);
        let bytes = std::fs::read(&path).map_err(failed)?;
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).map_err(|error| failed(io_error(error)))?;
        let saved: BTreeMap<_, _> = header.metadata().clone().unwrap_or_default().into_iter().collect();
        if saved != self.optimizers() {
            return Err(Error::State(format!("it is of {saved:?}, not of {:?}", self.optimizers())));
        }
        self.load_state_dict(&candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?.into_iter().collect())
    }
}

fn io_error(error: safetensors::SafeTensorError) -> std::io::Error {
    match error {
        safetensors::SafeTensorError::IoError(error) => error,
        error => std::io::Error::other(error),
    }
}

/// The tensors of a state dict that are still to be used.
struct Given(BTreeMap<String, Tensor>);

impl Given {
    fn take(&mut self, key: &str, dtype: DType, dims: &[usize]) -> Result<Tensor> {
        let given = self.0.remove(key).ok_or_else(|| Error::State(format!("'{key}' is missing")))?;
        if (given.dtype(), given.dims()) != (dtype, dims) {
            let describe = |dtype: DType, dims: &[usize]| format!("{} {dims:?}", dtype.as_str());
            let (is, wanted) = (describe(given.dtype(), given.dims()), describe(dtype, dims));
            return Err(Error::State(format!("'{key}' is {is}, not {wanted}")));
        }
        Ok(given)
    }

    fn count(&mut self, key: &str) -> Result<u64> {
        let count = self.take(key, DType::I64, &[])?.to_scalar::<i64>()?;
        u64::try_from(count).map_err(|_| Error::State(format!("'{key}' is {count}; allowed: 0 and above")))
    }

    fn nothing_left(&self) -> Result<()> {
        self.0.keys().next().map_or(Ok(()), |key| Err(Error::State(format!("'{key}' is not expected"))))
    }
}
