//! The engine makes every elementwise rule an [`Algorithm`]. A step takes one pass over memory, and one more for each
//! kind of sum.
//!
//! | module | what |
//! |---|---|
//! | `walk` | the variables of a group, on several threads |
//! | `pass` | the loops over elements on the CPU, for each type and instruction set |
//! | `reserve` | the memory of the state |
//! | `half_types` | conversion of half precision |
//! | `sums` | the order in which sums are folded |
//! | `cuda` | the rule as a kernel, its compilation and launch |

mod cuda;
mod half_types;
mod pass;
mod reserve;
mod sums;
mod walk;

use std::sync::Arc;

use candle_core::{DType, Tensor};
pub(crate) use reserve::reserve;

use crate::algorithm::{Algorithm, Class, Kernel, Slot, Slots, State, stored, sum};
use crate::clock::{Clock, Span};
use crate::error::{Error, Result};
#[cfg(feature = "cuda")]
use crate::memory::Backend;
use crate::memory::{SlotState, StateBuffer, state_dtypes};
use crate::rule::{Elementwise, Fields, Parts};

impl<E: Elementwise> Algorithm for E {
    fn state_names(&self, dims: &[usize]) -> Vec<&'static str> {
        self.scalars(&mut Clock::first(dims)).state_names()
    }

    fn weight_copies(&self) -> &'static [&'static str] {
        <E::Rule as Parts<f64>>::WEIGHT_COPIES
    }

    fn clock(&self) -> Span {
        <E::Rule as Parts<f64>>::CLOCK
    }

    /// Takes the names from the scalars of a first step, which are then discarded.
    fn memory(&self) -> Vec<(&'static str, f64)> {
        let mut t = Clock::first(&[]);
        let k = self.scalars(&mut t);
        if E::MEASURED {
            self.measured(&mut t, k);
        }
        t.memory.iter().map(|memory| (memory.name, memory.start)).collect()
    }

    fn step(&self, vars: &mut Slots) -> Result<()> {
        step(self, vars)
    }

    fn eval(&self, t: &Clock, p: &Tensor, state: &State) -> Result<Tensor> {
        let k = self.scalars(&mut t.clone());
        Ok(pass::eval(&k, p, state)?)
    }

    fn kernel(&self) -> Option<&dyn Kernel> {
        Some(self)
    }
}

impl<E: Elementwise> Kernel for E {
    fn start(&self, slot: &mut Slot, position: usize) -> Result<()> {
        let k = self.scalars(&mut Clock { step: 1, ..slot.clock.clone() });
        let Some(SlotState::View(view)) = slot.state.get(position) else { return Ok(()) };
        let view = view.clone();
        #[cfg(feature = "cuda")]
        if slot.hot.lock.backend == Backend::Cuda {
            return Ok(cuda::init(slot, &view, &k)?);
        }
        Ok(view.buffer.with(&mut |mut parts| {
            let state = walk::OwnState { parts: &mut parts, from: view.from };
            walk::init(slot, state, &k)
        })?)
    }

    fn state_mask(&self) -> u32 {
        self.scalars(&mut Clock::first(&[])).state_mask()
    }

    fn has_sums(&self) -> bool {
        // Some rules have sums only for matrices.
        let k = self.scalars(&mut Clock::first(&[1, 1]));
        k.has_totals() || k.has_norms()
    }

    fn cuda_source(&self, dims: &[usize], dtype: DType, state_dtype: Option<DType>) -> Result<String> {
        let allowed = state_dtypes(dtype);
        if let Some(asked) = state_dtype.filter(|asked| !allowed.contains(asked)) {
            let allowed = allowed.iter().map(|dtype| dtype.as_str());
            return Err(Error::unknown("state type", asked.as_str(), allowed));
        }
        let k = self.scalars(&mut Clock::first(dims));
        let dtypes: Vec<_> = stored(self, dims, dtype, state_dtype).into_iter().map(|(_, dtype)| dtype).collect();
        Ok(cuda::source(&k, dtype, &dtypes)?)
    }
}

/// The scalars that some variables of a group share at a step.
struct Launch<K> {
    k: K,
    /// The clock after the step.
    after: Clock,
    /// Whether `after` differs from the clock of some variable before the step.
    moves_clock: bool,
}

/// One step of a group: the sums over the group if the rule has any, then each variable.
fn step<E: Elementwise>(h: &E, vars: &mut Slots) -> Result<()> {
    let (is_last, slots) = (vars.is_last, &mut *vars.all);
    let (mut launches, of_class) = launches(h, slots, vars.classes);
    let steps = |slot: &Slot| if slot.hot.grad.is_some() { of_class[slot.hot.class as usize] } else { None };
    let _totals = totals(slots, vars.buffers, &mut launches, &steps, h)?;
    // Most rules do not change the clock. A pass over a thousand variables takes as long as the updates of some of
    // them.
    if E::MEASURED || launches.iter().any(|launch| launch.moves_clock) {
        for slot in &mut *slots {
            if let Some(launch) = of_class[slot.hot.class as usize] {
                slot.clock.follow(&launches[launch].after);
            }
        }
    }
    walk::each(slots, vars.buffers, &|slot, state| match steps(slot) {
        Some(launch) => {
            walk::step(slot, state, &launches[launch].k)?;
            if is_last {
                // Dropped here, while it is in the cache.
                slot.hot.grad = None;
            }
            Ok(())
        }
        None => Ok(()),
    })?;
    #[cfg(feature = "cuda")]
    cuda::step(slots, vars.buffers, &steps, &|launch| launches[launch].k, &_totals)?;
    Ok(())
}

/// Computes the scalars of each class, and merges equal ones. The second result is the position of each class's
/// scalars, or `None` for a class that takes no step.
fn launches<E: Elementwise>(h: &E, slots: &[Slot], classes: &[Class]) -> (Vec<Launch<E::Rule>>, Vec<Option<usize>>) {
    let always_counts = <E::Rule as Parts<f64>>::CLOCK == Span::Group;
    let mut launches: Vec<Launch<E::Rule>> = vec![];
    let mut launch = |class: &Class| {
        if !class.has_grad && !always_counts {
            return None;
        }
        let clock = &slots[class.first].clock;
        let mut after = clock.clone();
        let k = h.scalars(&mut after);
        let same = |launch: &Launch<E::Rule>| launch.k == k && launch.after.agrees(&after);
        let (moves_clock, position) = (!after.agrees(clock), launches.iter().position(same));
        let launch = position.unwrap_or_else(|| {
            launches.push(Launch { k, after, moves_clock: false });
            launches.len() - 1
        });
        // Clocks that differ before the step may agree after it.
        launches[launch].moves_clock |= moves_clock;
        Some(launch)
    };
    let of_class = classes.iter().map(&mut launch).collect();
    (launches, of_class)
}

/// The sums over a group.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
enum Totals {
    /// The rule has none.
    None,
    Host(Vec<f64>),
    #[cfg(feature = "cuda")]
    Device(cuda::DeviceTotals),
}

/// Computes the sums over the group, and stores them in each set of scalars. On a GPU the sums stay on the device,
/// unless the host computes scalars from them or some variables of the group are elsewhere.
fn totals<E: Elementwise>(
    slots: &mut [Slot],
    buffers: &[Arc<StateBuffer>],
    launches: &mut [Launch<E::Rule>],
    steps: &(dyn Fn(&Slot) -> Option<usize> + Sync),
    h: &E,
) -> Result<Totals> {
    if !launches.iter().any(|launch| launch.k.has_totals()) {
        return Ok(Totals::None);
    }
    let asks = |slot: &Slot| steps(slot).filter(|launch| launches[*launch].k.has_totals());
    walk::each(slots, buffers, &|slot, state| match asks(slot) {
        Some(launch) => walk::measure_group(slot, state, &launches[launch].k),
        None => Ok(()),
    })?;
    #[cfg(feature = "cuda")]
    {
        let on_devices = cuda::sums(slots, buffers, &asks, &|launch| launches[launch].k)?;
        let count = slots.iter().filter(|slot| asks(slot).is_some()).count();
        match &on_devices[..] {
            [all] if all.covers(count) && !E::MEASURED => return Ok(all.total()?),
            some => some.iter().try_for_each(|sums| sums.download(slots))?,
        }
    }
    let names = <<E::Rule as Parts<f64>>::Totals as Fields<f64>>::NAMES;
    let mut parts: Vec<f64> = vec![];
    let mut total = |term: usize| {
        parts.clear();
        parts.extend(slots.iter().filter(|slot| asks(slot).is_some()).map(|slot| slot.sums[term]));
        sum(&mut parts)
    };
    let sums: Vec<f64> = (0..names.len()).map(&mut total).collect();
    for Launch { k, after, .. } in launches {
        *k = k.with_totals(Fields::from_fn(|term| sums[term]));
        if E::MEASURED {
            *k = h.measured(after, *k);
        }
    }
    Ok(Totals::Host(sums))
}
