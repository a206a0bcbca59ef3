//! The step count of a variable, and the numbers that an algorithm stores between steps.

/// The step count of a variable, and the numbers that an algorithm stores between steps. Checkpoints contain both.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// The number of this step; the first is 1.
    pub step: u64,
    /// Whether the variable had a gradient before this step. A group's clock also counts steps without a gradient.
    pub started: bool,
    /// The dimensions of the variable.
    pub dims: Vec<usize>,
    pub(crate) memory: Vec<Memory>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Memory {
    pub name: &'static str,
    pub start: f64,
    pub now: f64,
}

impl Clock {
    pub(crate) fn first(dims: &[usize]) -> Self {
        Self { step: 1, dims: dims.into(), ..Self::default() }
    }

    /// `beta` to the power of the step.
    pub fn power(&self, beta: f64) -> f64 {
        beta.powf(self.step as f64)
    }

    /// The number of dimensions of the variable.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// A number that the clock stores between steps. It is `start` before the first step. Call this at every step.
    pub fn memory(&mut self, name: &'static str, start: f64) -> &mut f64 {
        let at = self.memory.iter().position(|memory| memory.name == name).unwrap_or_else(|| {
            self.memory.push(Memory { name, start, now: start });
            self.memory.len() - 1
        });
        &mut self.memory[at].now
    }

    /// Copies the count and the numbers of another clock.
    pub(crate) fn follow(&mut self, other: &Self) {
        self.step = other.step;
        self.memory.clone_from(&other.memory);
    }

    pub(crate) fn agrees(&self, other: &Self) -> bool {
        (self.step, self.started) == (other.step, other.started) && self.memory == other.memory
    }
}

/// The scope of a sum or of a clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Span {
    /// One variable.
    Tensor,
    /// All variables of the group.
    Group,
}
