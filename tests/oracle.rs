//! Every optimizer against its reference in float64, step by step: parameters and state, fed one hard stream of gradients,
//! or on functions if it computes the loss again.
//!
//! `tests/fixtures/make.py` makes the numbers; the streams have magnitudes from 1e-9 to 1e2, zeros, sign flips, missing
//! gradients and a learning rate that changes.

mod common;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Tensor, Var};
use candle_optim::hyper::Value;
use candle_optim::{Algorithm, Group, Method, NamedVars, Optim, Registry, Spec};
use common::{
    chain, elementwise, fixture, floats, gradients, indices, named, oracles, runs_here, spec, specs_of, tensor,
};

/// Optimizers without an oracle, and why. `tests/outside` has each as a plain loop.
const WITHOUT: [(&str, &str); 3] = [
    ("sam", "a wrapper: what it does depends on its base and on a loss"),
    ("lookahead", "a wrapper: what it does depends on its base"),
    ("ema", "a wrapper: it averages what its base does"),
];

/// State that we keep and the reference does not, and why.
const OURS_ALONE: [(&str, &str, &str); 8] = [
    ("lion", "step", "neither lion-pytorch nor timm counts steps"),
    ("lion", "initial_lr", "lion-pytorch keeps it in the object, outside the state"),
    ("muon", "step", "PyTorch's Muon counts no steps"),
    ("signum", "step", "pytorch_optimizer's counts calls, which nothing reads"),
    ("lars", "step", "timm's counts no steps"),
    ("asgd", "eval", "PyTorch's ASGD keeps the average `ax` and evaluates with the weights"),
    ("soap", "Q_0", "eigenvectors are left out, since their signs are free"),
    ("soap", "Q_1", "as Q_0"),
];

/// Rows of an oracle that are no state. Muon's reference is PyTorch's with float64 where it says bfloat16; this is
/// PyTorch's own, up to 0.007 away.
const ROUNDED: &str = "p_bf16";

/// What an oracle says of a spec: how much its reference amplifies a change of one ulp, and how far a second
/// implementation is off its parameters.
const OF_THE_SPEC: [&str; 2] = ["amplification", "witness"];

#[test]
fn rounding_in_the_reference_is_near() {
    let mut count = 0;
    for oracle in Registry::default().names().flat_map(oracles).map(|file| Oracle::load(&file)) {
        for (key, rounded) in &oracle.rows {
            let Some(exact) = key.strip_suffix(ROUNDED).map(|key| &oracle.rows[&format!("{key}p")]) else { continue };
            let away = common::largest(floats(exact).iter().zip(floats(rounded)).map(|(a, b)| a - b));
            assert!(away < 0.01, "{key} is {away} away");
            count += 1;
        }
    }
    assert!(count > 0);
}

#[test]
fn f64_follows_the_reference() {
    // Relative to each value, without an absolute part: PyTorch with and without fused multiply-add agrees with itself
    // to 3.8e-13, and the smallest state is far above the subnormal numbers. Sums round in another order than the
    // reference's, and what a closed loop magnifies is measured in the fixture.
    check(DType::F64, |value, _| value, tolerance);
}

#[test]
fn f32_follows_the_reference_in_f64() {
    // Relative to the element's largest value so far, since averages that cross zero keep the error they had there.
    // Measured: 4.0e-5 centered, where v - ḡ² is a difference of near equals, else 1.1e-5.
    check(DType::F32, |_, largest| largest, |spec, _| if is_set(spec, "centered") { 1.6e-4 } else { 4e-5 });
}

/// What f32 cannot follow, optimizers or specs, and why.
const NOT_IN_F32: [(&str, &str); 2] = [
    (
        "prodigy",
        "it starts with steps of 1e-6, and how far these went is a difference of weights near 1: off by a tenth",
    ),
    ("adafactor:lr=0.01", "its eps1 is the epsilon of the type, in f32 above most of these gradients: off by a third"),
];

/// What a spec may be off by in f64.
fn tolerance(spec: &Spec, amplification: f64) -> f64 {
    if elementwise(spec) { 1e-12 } else { (2e-15 * amplification).max(1e-12) }
}

#[test]
fn every_optimizer_has_an_oracle() {
    for name in Registry::default().names() {
        let excused = WITHOUT.iter().any(|(without, _)| *without == name);
        assert!(excused != oracles(name).next().is_some(), "{name}: see WITHOUT, and tests/fixtures/make.py");
    }
    assert!(WITHOUT.iter().all(|(name, _)| Registry::default().names().any(|known| known == *name)));
}

#[test]
fn an_optimizer_names_its_references() {
    for algorithm in Registry::default().all() {
        for file in oracles(algorithm.name()) {
            let parts: Vec<&str> = file.split('/').collect();
            let [_, package, _] = parts[..] else { continue };
            assert!(algorithm.reference().split(", ").any(|named| named == package), "{file}");
        }
        assert!(!algorithm.reference().is_empty(), "{}", algorithm.name());
    }
}

#[test]
fn every_hyperparameter_is_set_in_some_fixture() {
    for algorithm in Registry::default().all().filter(|algorithm| oracles(algorithm.name()).next().is_some()) {
        let (name, specs) = (algorithm.name(), specs_of(&*algorithm));
        for field in algorithm.fields() {
            let key = field.key;
            assert!(
                specs.iter().any(|spec| is_set(spec, key)),
                "tests/fixtures/make.py has no spec of {name} that sets {key}"
            );
        }
    }
}

/// Whether the spec gives a hyperparameter another value than its default.
fn is_set(spec: &Spec, key: &str) -> bool {
    let defaults = common::spec(chain(spec)[0].name());
    chain(spec)[0].get(key).ok() != chain(&defaults)[0].get(key).ok()
}

/// Compares all optimizers, specs, variables, recorded steps and elements. An error is divided by its `scale`, a function
/// of the expected magnitude and the element's largest so far, and must not be above the `tolerance` of the spec and of
/// what its reference amplifies.
fn check(dtype: DType, scale: fn(f64, f64) -> f64, tolerance: fn(&Spec, f64) -> f64) {
    let mut failures = vec![];
    for oracle in Registry::default().names().flat_map(oracles).map(|file| Oracle::load(&file)).filter(Oracle::is_open)
    {
        let mut worst = (0f64, String::new());
        let excused = |spec: &Spec| NOT_IN_F32.iter().any(|(what, _)| *what == oracle.name || *what == spec.text());
        let follows = |spec: &Spec| dtype == DType::F64 || !excused(spec);
        for spec in oracle.specs().iter().filter(|spec| follows(spec) && runs_here(spec)) {
            let group = |vars| Group::new(vars, spec.clone());
            let history = oracle.stream.run(group, &oracle.vars(spec), dtype);
            oracle.check_names(spec, &history);
            let tolerance = tolerance(spec, oracle.amplification(spec));
            for found in oracle.errors(spec, &history, scale) {
                if found.error > worst.0 {
                    worst = (found.error, format!("{found:?} of {}", spec.text()));
                }
                if found.error > tolerance {
                    failures.push(format!("{}, {found:?}, allowed {tolerance:.1e}", spec.text()));
                }
            }
        }
        println!("{dtype:?} {}: the largest error is {:.2e}, {}", oracle.file, worst.0, worst.1);
    }
    assert!(failures.is_empty(), "{} differences, the first:\n{}", failures.len(), failures[0]);
}

/// Rows by `VAR|STATE`, one for each recorded step.
type History = BTreeMap<String, Vec<Vec<f64>>>;

/// A place where we and the reference differ.
struct Found {
    error: f64,
    key: String,
    element: usize,
    step: usize,
    values: [f64; 2],
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { error, key, element, step, values: [x, e] } = self;
        write!(f, "{key}[{element}], step {step}: {x:e}, the reference {e:e}, off by {error:.1e}")
    }
}

/// `SPEC|VAR|STATE`; the first stream's only variable has no name.
fn key(parts: &[&str]) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("|")
}

/// The recorded rows of a reference, and what it was fed.
struct Oracle {
    file: String,
    name: String,
    rows: BTreeMap<String, Tensor>,
    stream: Stream,
}

impl Oracle {
    fn load(file: &str) -> Self {
        let (place, rest) = file.split_at("oracle_".len());
        let stream = Stream::load(&fixture(&format!("{place}inputs")));
        let name = rest.split('/').next_back().unwrap();
        Self { file: file.into(), name: name.into(), rows: fixture(file), stream }
    }

    /// Whether it was fed gradients, and not functions.
    fn is_open(&self) -> bool {
        !self.rows.keys().any(|key| key.ends_with("|evaluations"))
    }

    fn specs(&self) -> Vec<Spec> {
        let texts = self.rows.keys().filter_map(|key| key.split('|').find(|part| part.starts_with(&self.name)));
        texts.collect::<BTreeSet<_>>().into_iter().map(spec).collect()
    }

    /// The parts of the keys of a spec, behind the spec.
    fn names(&self, spec: &Spec) -> impl Iterator<Item = &str> {
        let prefix = format!("{}|", spec.text());
        self.rows.keys().filter_map(move |key| key.strip_prefix(&prefix))
    }

    fn vars(&self, spec: &Spec) -> Vec<&str> {
        let var = |name: &'_ str| name.strip_suffix("|p").or((name == "p").then_some("")).map(str::len);
        self.names(spec).filter_map(|name| var(name).map(|len| &name[..len])).collect()
    }

    fn amplification(&self, spec: &Spec) -> f64 {
        self.rows.get(&key(&[spec.text(), "amplification"])).map_or(1., |tensor| floats(tensor)[0])
    }

    /// Every state of the reference is one of ours, and the other way around but for OURS_ALONE.
    fn check_names(&self, spec: &Spec, history: &History) {
        let alone = |name: &str| {
            let is =
                |(owner, state, _): &(&str, &str, &str)| *owner == self.name && name.ends_with(&format!("|{state}"));
            OURS_ALONE.iter().any(is)
        };
        let ours: Vec<&str> = history.keys().map(String::as_str).filter(|name| !alone(name)).collect();
        let is_state = |name: &&str| !name.ends_with(ROUNDED) && !OF_THE_SPEC.contains(name);
        assert!(ours.iter().copied().eq(self.names(spec).filter(is_state)), "{}: state is {ours:?}", spec.text());
    }

    fn errors(&self, spec: &Spec, history: &History, scale: fn(f64, f64) -> f64) -> Vec<Found> {
        let mut all = vec![];
        for (name, rows) in history {
            let Some(expected) = self.rows.get(&key(&[spec.text(), name])) else { continue };
            let recorded = expected.dims()[0];
            assert_eq!(rows.len(), recorded, "{} {name}", spec.text());
            let expected = expected.reshape((recorded, ())).unwrap().to_vec2::<f64>().unwrap();
            let mut largest = vec![0.; expected[0].len()];
            for ((row, expected), &step) in rows.iter().zip(&expected).zip(&self.stream.recorded) {
                assert_eq!(row.len(), expected.len(), "{} {name}", spec.text());
                for (element, (&x, &e)) in row.iter().zip(expected).enumerate() {
                    largest[element] = e.abs().max(largest[element]);
                    let error = if x == e { 0. } else { (x - e).abs() / scale(e.abs(), largest[element]) };
                    let error = if error.is_nan() { f64::INFINITY } else { error };
                    all.push(Found { error, key: name.clone(), element, step, values: [x, e] });
                }
            }
        }
        all
    }
}

/// What optimizers are fed.
struct Stream {
    vars: BTreeMap<String, Fed>,
    lr_factor: Vec<f64>,
    recorded: Vec<usize>,
}

struct Fed {
    dims: Vec<usize>,
    start: Vec<f64>,
    gradients: Vec<Option<Vec<f64>>>,
}

impl Stream {
    fn load(inputs: &BTreeMap<String, Tensor>) -> Self {
        let names = inputs.keys().filter_map(|key| key.strip_suffix("|start").or((key == "start").then_some("")));
        let fed = |name: &str| {
            let [start, gradients, has] =
                ["start", "gradients", "has_gradient"].map(|part| &inputs[&key(&[name, part])]);
            let gradient = |(step, has)| (has == 1).then(|| floats(&gradients.get(step).unwrap()));
            let gradients = indices(has).into_iter().enumerate().map(gradient).collect();
            (name.to_string(), Fed { dims: start.dims().to_vec(), start: floats(start), gradients })
        };
        Self {
            vars: names.map(fed).collect(),
            lr_factor: floats(&inputs["lr_factor"]),
            recorded: indices(&inputs["recorded"]),
        }
    }

    /// Steps along the gradients. The rows are those of the oracle: parameters, state, and the weights to evaluate with
    /// where these are others.
    fn run(&self, group: impl FnOnce(NamedVars) -> Group, names: &[&str], dtype: DType) -> History {
        let shaped = |name: &str, values: &[f64]| tensor(values, dtype).reshape(&self.vars[name].dims[..]).unwrap();
        let vars: Vec<(&str, Var)> = names
            .iter()
            .map(|name| (*name, Var::from_tensor(&shaped(name, &self.vars[*name].start)).unwrap()))
            .collect();
        let by_name: Vec<_> = vars.iter().map(|(name, var)| (*name, var)).collect();
        let mut optim = Optim::new(vec![group(named(&by_name))]).unwrap();
        let lr = optim.lr(0).unwrap();
        let mut history = History::new();
        for (i, lr_factor) in self.lr_factor.iter().enumerate() {
            optim.set(0, "lr", lr * lr_factor).unwrap();
            let given = vars.iter().filter_map(|(name, var)| {
                let gradient = self.vars[*name].gradients[i].as_ref()?;
                Some((var, shaped(name, gradient)))
            });
            optim.step(&gradients(given)).unwrap();
            if self.recorded.contains(&(i + 1)) {
                let mut record = |var: &str, name: &str, tensor: &Tensor| {
                    history.entry(key(&[var, name])).or_default().push(floats(tensor));
                };
                for (key, tensor) in optim.state_dict().unwrap() {
                    // Of a variable without a name, the reference's numbers are left out.
                    if let Some((var, state)) =
                        key.split_once('.').filter(|(var, _)| !var.is_empty() || tensor.rank() > 0)
                    {
                        record(var, state, &tensor);
                    }
                }
                vars.iter().for_each(|(name, var)| record(name, "p", var));
                let _eval = optim.eval().unwrap();
                vars.iter().for_each(|(name, var)| record(name, "eval", var));
            }
        }
        for name in names {
            if history[&key(&[name, "eval"])] == history[&key(&[name, "p"])] {
                history.remove(&key(&[name, "eval"]));
            }
        }
        history
    }
}

/// The largest error of any spec with another method in its place, and whether that keeps the state of the reference.
/// `make` may leave out specs.
fn worst_of(oracle: &Oracle, make: impl Fn(&Spec) -> Option<Method>) -> (f64, bool) {
    let (mut worst, mut has_all) = (0f64, true);
    for (spec, method) in oracle.specs().iter().filter_map(|spec| Some((spec, make(spec)?))) {
        let group = |vars| Group::new(vars, method).maximize(spec.method().maximizes());
        let history = oracle.stream.run(group, &oracle.vars(spec), DType::F64);
        let named = |name: &str| history.contains_key(name) || name.ends_with(ROUNDED) || OF_THE_SPEC.contains(&name);
        has_all &= oracle.names(spec).all(named);
        worst =
            oracle.errors(spec, &history, |value, _| value).iter().fold(worst, |worst, found| found.error.max(worst));
    }
    (worst, has_all)
}

/// Far above any tolerance, and below what each planted mistake makes.
const SEEN: f64 = 1e-5;

/// Every hyperparameter of every optimizer, one at a time: a number off in its fourth digit, a whole number by one, another
/// flag or word. An oracle that does not see it tests nothing.
#[test]
fn the_oracle_sees_every_hyperparameter() {
    // It is about the fixtures, not about the device.
    if !common::device().is_cpu() {
        return;
    }
    for oracle in Registry::default().names().flat_map(oracles).map(|file| Oracle::load(&file)).filter(Oracle::is_open)
    {
        let algorithm = Registry::default().all().find(|algorithm| algorithm.name() == oracle.name).unwrap();
        for field in algorithm.fields() {
            let worst = |off: f64| {
                let (worst, has_all) = worst_of(&oracle, |spec| {
                    let value = chain(spec)[0].get(field.key).ok()?;
                    let others = match value {
                        Value::Number(x) => vec![Value::Number(x * (1. + off)), Value::Number(x + 1.)],
                        value => common::others(value, field.words),
                    };
                    let mut changed = chain(spec)[0].clone();
                    let set = others.into_iter().any(|value| changed.set(field.key, value).is_ok());
                    (set && changed.validate().is_ok()).then(|| changed.into())
                });
                if has_all { worst } else { f64::INFINITY }
            };
            // In the third digit where only signs are taken: few of these depend on the fourth.
            let seen = worst(1e-4) > SEEN || worst(1e-3) > 1e3 * SEEN;
            assert!(seen, "{}: {} is off by {:.1e}, {:.1e}", oracle.file, field.key, worst(1e-4), worst(1e-3));
        }
    }
}

/// Rules with mistakes, each in a key of its own: the hyperparameters of the rule that it spoils.
mod planted {
    use candle_optim::hyper::{Field, Hyper, Runs, Value};
    use candle_optim::prelude::*;
    use candle_optim::{ParamsAdamW, ParamsLion, ParamsNAdam, ParamsRprop, ParamsSgd};

    /// The rule of an optimizer with other scalars.
    #[derive(Clone)]
    pub struct Off<P: Elementwise>(pub P, pub fn(&P, &mut Clock) -> P::Rule);

    impl<P: Elementwise> std::fmt::Debug for Off<P> {
        fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            self.0.fmt(f)
        }
    }

    /// Gives a struct the keys of its first field.
    macro_rules! keys_of_the_first_field { ($($Name:ident $(<$P:ident>)?),*) => {$(
        impl $(<$P: Elementwise + Clone>)? Hyper for $Name $(<$P>)? {
            fn name(&self) -> &'static str {
                self.0.name()
            }
            fn summary(&self) -> &'static str {
                self.0.summary()
            }
            fn source(&self) -> &'static str {
                self.0.source()
            }
            fn runs(&self) -> Option<Runs> {
                self.0.runs()
            }
            fn keys(&self) -> &'static [&'static str] {
                self.0.keys()
            }
            fn field_at(&self, index: usize) -> Option<Field> {
                self.0.field_at(index)
            }
            fn assign_at(&mut self, index: usize, value: Value) -> bool {
                self.0.assign_at(index, value)
            }
        }
    )*} }
    keys_of_the_first_field!(
        Off<P>,
        AverageFirst,
        EpsInTheRoot,
        LargestCorrected,
        DecayLast,
        KeepsTheGradient,
        CorrectedOnce
    );

    impl<P: Elementwise + Clone> Elementwise for Off<P> {
        type Rule = P::Rule;
        const MEASURED: bool = P::MEASURED;
        fn scalars(&self, t: &mut Clock) -> P::Rule {
            self.1(&self.0, t)
        }
        fn measured(&self, t: &mut Clock, k: P::Rule) -> P::Rule {
            self.0.measured(t, k)
        }
    }

    /// Lion that takes the sign of the average that it keeps.
    #[derive(Clone, Debug, Default)]
    pub struct AverageFirst(pub ParamsLion);

    rule! {
        pub struct LionStep from (h: AverageFirst, t) {
            lr = h.0.lr, decay_factor = 1. - h.0.lr * h.0.weight_decay, beta2 = h.0.beta2, one_minus_beta2 = 1. - h.0.beta2,
        }
        state Average { exp_avg }
    }

    impl<R: Real> Rule<R> for LionStep<R> {
        #[inline(always)]
        fn update(&self, p: R, g: R, s: &mut Average<R>) -> R {
            s.exp_avg = ema(s.exp_avg, g, self.beta2, self.one_minus_beta2);
            p * self.decay_factor - self.lr * s.exp_avg.sign()
        }
    }

    /// Adam's ε moved into the root.
    #[derive(Clone, Debug, Default)]
    pub struct EpsInTheRoot(pub ParamsAdamW);

    rule! {
        pub struct AdamStep from (h: EpsInTheRoot, t) {
            beta1 = h.0.beta1, one_minus_beta1 = 1. - h.0.beta1, beta2 = h.0.beta2, one_minus_beta2 = 1. - h.0.beta2,
            eps = h.0.eps, correction2 = 1. - t.power(h.0.beta2), decay_factor = 1. - h.0.lr * h.0.weight_decay,
            step_size = h.0.lr / (1. - t.power(h.0.beta1)),
        }
        state Moments { exp_avg, exp_avg_sq }
    }

    impl<R: Real> Rule<R> for AdamStep<R> {
        #[inline(always)]
        fn update(&self, p: R, g: R, s: &mut Moments<R>) -> R {
            s.exp_avg = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1);
            s.exp_avg_sq = ema(s.exp_avg_sq, g * g, self.beta2, self.one_minus_beta2);
            p * self.decay_factor - self.step_size * s.exp_avg / (s.exp_avg_sq / self.correction2 + self.eps).sqrt()
        }
    }

    /// AMSGrad of the corrected average.
    #[derive(Clone, Debug, Default)]
    pub struct LargestCorrected(pub ParamsAdamW);

    rule! {
        pub struct AmsGradStep from (h: LargestCorrected, t) {
            beta1 = h.0.beta1, one_minus_beta1 = 1. - h.0.beta1, beta2 = h.0.beta2, one_minus_beta2 = 1. - h.0.beta2,
            eps = h.0.eps, correction2 = 1. - t.power(h.0.beta2), decay_factor = 1. - h.0.lr * h.0.weight_decay,
            step_size = h.0.lr / (1. - t.power(h.0.beta1)),
        }
        state AmsGradMoments { exp_avg, exp_avg_sq, max_exp_avg_sq }
    }

    impl<R: Real> Rule<R> for AmsGradStep<R> {
        #[inline(always)]
        fn update(&self, p: R, g: R, s: &mut AmsGradMoments<R>) -> R {
            s.exp_avg = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1);
            s.exp_avg_sq = ema(s.exp_avg_sq, g * g, self.beta2, self.one_minus_beta2);
            s.max_exp_avg_sq = s.max_exp_avg_sq.max(s.exp_avg_sq / self.correction2);
            p * self.decay_factor - self.step_size * s.exp_avg / (s.max_exp_avg_sq.sqrt() + self.eps)
        }
    }

    /// SGD that adds the decay after the momentum.
    #[derive(Clone, Debug, Default)]
    pub struct DecayLast(pub ParamsSgd);

    rule! {
        pub struct SgdStep from (h: DecayLast, t) {
            lr = h.0.lr, weight_decay = h.0.weight_decay, momentum = h.0.momentum,
            of_g = if t.step == 1 { 1. } else { 1. - h.0.dampening },
        }
        state Buffer { momentum_buffer }
    }

    impl<R: Real> Rule<R> for SgdStep<R> {
        #[inline(always)]
        fn update(&self, p: R, g: R, s: &mut Buffer<R>) -> R {
            s.momentum_buffer = self.momentum * s.momentum_buffer + self.of_g * g;
            p - self.lr * (s.momentum_buffer + self.weight_decay * p)
        }
    }

    /// Rprop that keeps a gradient whose sign changed.
    #[derive(Clone, Debug, Default)]
    pub struct KeepsTheGradient(pub ParamsRprop);

    rule! {
        pub struct RpropStep from (h: KeepsTheGradient, t) {
            lr = h.0.lr, etaminus = h.0.etaminus, etaplus = h.0.etaplus, step_min = h.0.step_min, step_max = h.0.step_max,
        }
        state Signs { prev, step_size }
    }

    impl<R: Real> Rule<R> for RpropStep<R> {
        #[inline(always)]
        fn init(&self, _p: R, s: &mut Signs<R>) {
            s.step_size = self.lr;
        }
        #[inline(always)]
        fn update(&self, p: R, g: R, s: &mut Signs<R>) -> R {
            let agreement = g.sign() * s.prev.sign();
            let factor = agreement.if_positive(self.etaplus, (-agreement).if_positive(self.etaminus, R::lit(1.)));
            s.step_size = (s.step_size * factor).max(self.step_min).min(self.step_max);
            s.prev = g;
            p - (-agreement).if_positive(R::lit(0.), g).sign() * s.step_size
        }
    }

    /// NAdam whose numerator has the Nesterov average once corrected instead of g and m corrected apart.
    #[derive(Clone, Debug, Default)]
    pub struct CorrectedOnce(pub ParamsNAdam);

    rule! {
        pub struct NAdamStep from (h: CorrectedOnce, t) {
            lr = h.0.lr, beta1 = h.0.beta1, one_minus_beta1 = 1. - h.0.beta1, beta2 = h.0.beta2,
            one_minus_beta2 = 1. - h.0.beta2, eps = h.0.eps, correction1 = 1. - t.power(h.0.beta1),
            root_correction = (1. - t.power(h.0.beta2)).sqrt(), l2 = h.0.weight_decay,
            mu_product = { *t.memory("mu_product", 1.) *= h.0.beta1; 1. },
        }
        state NMoments { exp_avg, exp_avg_sq }
    }

    impl<R: Real> Rule<R> for NAdamStep<R> {
        #[inline(always)]
        fn update(&self, p: R, g: R, s: &mut NMoments<R>) -> R {
            let g = g + self.l2 * p;
            s.exp_avg = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1);
            s.exp_avg_sq = ema(s.exp_avg_sq, g * g, self.beta2, self.one_minus_beta2);
            let ahead = ema(s.exp_avg, g, self.beta1, self.one_minus_beta1) / self.correction1;
            p - self.lr * ahead / (s.exp_avg_sq.sqrt() / self.root_correction + self.eps)
        }
    }
}

/// The spec's hyperparameters, in another type with the same keys.
fn filled<P: Algorithm>(mut params: P, spec: &Spec) -> Option<Method> {
    chain(spec)[0].fields().iter().for_each(|field| assert!(params.assign(field.key, field.value)));
    Some(params.into())
}

/// Mistakes of the kind that one makes: each is seen.
#[test]
fn the_oracle_sees_planted_mistakes() {
    use candle_optim::optimizers::{
        adamw, adan, adopt, asgd, lamb, lars, lion, madgrad, mars, nadam, prodigy, radam, rprop, schedule_free_sgd,
        yogi,
    };
    use candle_optim::rule::Elementwise;
    use candle_optim::*;
    use planted::*;

    fn late<P: Elementwise>(h: &P, t: &mut Clock) -> P::Rule {
        t.step += 1;
        let k = h.scalars(t);
        t.step -= 1;
        k
    }
    let see = |oracle: &str, mistake: &str, make: &dyn Fn(&Spec) -> Option<Method>| {
        let (worst, has_all) = worst_of(&Oracle::load(oracle), make);
        println!("{oracle}, {mistake}: off by {worst:.1e}");
        assert!(has_all && worst > SEEN, "{oracle}, {mistake}: off by {worst:e}");
    };
    macro_rules! see { ($($file:literal, $Params:ident, $mistake:literal, $scalars:expr;)*) => {$(
        see($file, $mistake, &|spec| filled(Off($Params::default(), $scalars), spec));
    )*} }
    see! {
        "oracle/timm/adamw", ParamsAdamW, "a step late", late;
        "oracle/timm/adamw", ParamsAdamW, "decay doubled",
            |h, t| adamw::Step { decay_factor: 1. - 2. * h.lr * h.weight_decay, ..h.scalars(t) };
        "oracle_adamw", ParamsAdamW, "a bias corrected twice", |h, t| {
            let k = h.scalars(t);
            adamw::Step { step_size: k.step_size / (1. - t.power(h.beta1)), ..k }
        };
        "oracle/torch/radam", ParamsRAdam, "rectified from ρ > 4 on", |h, t| {
            let (k, power) = (h.scalars(t), t.power(h.beta2));
            let most = 2. / (1. - h.beta2) - 1.;
            let rho = most - 2. * t.step as f64 * power / (1. - power);
            let r = ((rho - 4.) * (rho - 2.) * most / ((most - 4.) * (most - 2.) * rho)).sqrt();
            if rho > 4. { radam::Step { plain: 0., adaptive: (k.plain + h.lr) * r * (1. - power).sqrt(), ..k } } else { k }
        };
        "oracle/torch/radam", ParamsRAdam, "a step late", late;
        "oracle/timm/nadamw", ParamsNAdamW, "a step late", late;
        "oracle/torch/adamax", ParamsAdamax, "a step late", late;
        "oracle/torch/adagrad", ParamsAdagrad, "a step late", late;
        "oracle/torch/asgd", ParamsAsgd, "the average of the first steps alone", |h, t| asgd::Step { mu: 0., one_minus_mu: 1., ..h.scalars(t) };
        "oracle/torch-optimizer/yogi", ParamsYogi, "from zero", |h, t| yogi::Step { initial_accumulator: 0., ..h.scalars(t) };
        "oracle/adabelief-pytorch/adabelief", ParamsAdaBelief, "a step late", late;
        "oracle/timm/adan", ParamsAdan, "no first gradient", |h, t| adan::Step { had_grad: 1., ..h.scalars(t) };
        "oracle/timm/adan", ParamsAdan, "1 - β₂ in the step", |h, t| {
            let k = h.scalars(t);
            adan::Step { of_d: k.of_d / h.beta2 * (1. - h.beta2), ..k }
        };
        "oracle/pytorch_optimizer/ademamix", ParamsAdEmaMix, "a step late", late;
        "oracle/timm/adopt", ParamsAdopt, "the limit of the next step", |h, t| {
            let k = h.scalars(t);
            adopt::Step { limit: if t.step == 1 { 0. } else { (t.step as f64).powf(h.clip_exp) }, ..k }
        };
        "oracle/timm/lars", ParamsLars, "no trust ratio", |h, t| lars::Step { adapts: false, ..h.scalars(t) };
        "oracle/timm/lars", ParamsLars, "dampening from the first step on",
            |h, t| lars::Step { one_minus_dampening: 1. - h.dampening, ..h.scalars(t) };
        "oracle/timm/mars", ParamsMars, "a gradient before the first",
            |h, t| mars::Step { of_difference: h.gamma * h.beta1 / (1. - h.beta1), ..h.scalars(t) };
        "oracle/madgrad/madgrad", ParamsMadgrad, "no root of the step", |h, t| madgrad::Step { k: h.lr + h.eps, ..h.scalars(t) };
        "oracle/schedulefree/schedulefreeadamw", ParamsScheduleFreeAdamW, "a step late", late;
        "oracle/lion-pytorch/lion", ParamsLion, "one average for both",
            |h, t| lion::Step { beta1: h.beta2, one_minus_beta1: 1. - h.beta2, ..h.scalars(t) };
        "oracle/lion-pytorch/lion", ParamsLion, "decay outside the learning rate",
            |h, t| lion::Step { decay_factor: 1. - h.weight_decay, ..h.scalars(t) };
        "oracle/torch/rprop", ParamsRprop, "factors swapped",
            |h, t| rprop::Step { etaminus: h.etaplus, etaplus: h.etaminus, ..h.scalars(t) };
        "oracle/torch/nadam", ParamsNAdam, "a step late", late;
        "oracle/torch/nadam", ParamsNAdam, "μ of this step for the next", |h, t| {
            let k = h.scalars(t);
            nadam::Step { of_m: k.of_m * 0.999, ..k }
        };
        "oracle/schedulefree/schedulefreesgd", ParamsScheduleFreeSgd, "a step late", late;
        "oracle/schedulefree/schedulefreesgd", ParamsScheduleFreeSgd, "a step of y without the average's weight",
            |h, t| schedule_free_sgd::Step { y_step: h.lr * (h.momentum - 1.), ..h.scalars(t) };
        "oracle/timm/lamb", ParamsLamb, "a step late", late;
        "oracle/timm/lamb", ParamsLamb, "the second average not corrected", |h, t| lamb::Step { inverse_root_correction: 1., ..h.scalars(t) };
        "oracle/timm/lamb", ParamsLamb, "the norm not clipped", |h, t| lamb::Step { clips: false, ..h.scalars(t) };
        "oracle/timm/lamb", ParamsLamb, "no trust ratio", |h, t| lamb::Step { adapts: false, ..h.scalars(t) };
        "oracle/prodigyopt/prodigy", ParamsProdigy, "d for d²", |h, t| {
            let d = *t.memory("d", h.d0);
            let k = h.scalars(t);
            prodigy::Step { of_v: k.of_v / d, ..k }
        };
        "oracle/prodigyopt/prodigy", ParamsProdigy, "β₂ for its root", |h, t| prodigy::Step { beta3: h.beta2, ..h.scalars(t) };
    }
    see("oracle/lion-pytorch/lion", "the average first", &|spec| filled(AverageFirst::default(), spec));
    see("oracle_adamw", "ε in the root", &|spec| {
        // The rule has no AMSGrad.
        (!is_set(spec, "amsgrad")).then(|| filled(EpsInTheRoot::default(), spec)).flatten()
    });
    see("oracle_adamw", "the largest of the corrected average", &|spec| {
        is_set(spec, "amsgrad").then(|| filled(LargestCorrected::default(), spec)).flatten()
    });
    see("oracle_sgd", "the decay after the momentum", &|spec| {
        (is_set(spec, "momentum") && !is_set(spec, "nesterov")).then(|| filled(DecayLast::default(), spec)).flatten()
    });
    see("oracle/torch/rprop", "a gradient kept whose sign changed", &|spec| filled(KeepsTheGradient::default(), spec));
    see("oracle/torch/nadam", "one correction for both", &|spec| filled(CorrectedOnce::default(), spec));
}

/// A loss of the fixture's functions, by variable.
type Function = fn(&dyn Fn(&str) -> Tensor, &dyn Fn(&str) -> Tensor) -> candle_core::Result<Tensor>;

/// `x` gives a variable, `c` the fixture's numbers.
const FUNCTIONS: [(&str, Function); 4] = [
    ("rosenbrock", |x, _| {
        let (x0, x1) = (x("x").get(0)?, x("x").get(1)?);
        (1. - &x0)?.sqr()? + (100. * (x1 - x0.sqr()?)?.sqr()?)?
    }),
    ("booth", |x, _| {
        let (x0, x1) = (x("x").get(0)?, x("x").get(1)?);
        ((&x0 + (2. * &x1)?)? - 7.)?.sqr()? + (((2. * x0)? + x1)? - 5.)?.sqr()?
    }),
    ("exponentials", |x, _| {
        let (x0, x1) = (x("x").get(0)?, x("x").get(1)?);
        ((&x0 + (3. * &x1)?)?.exp()? + (&x0 - (2. * x1)?)?.exp()?)? + x0.neg()?.exp()?
    }),
    ("quadratic", |x, c| {
        let half = |var: &str| {
            let square = (x(var) - c(&key(&[var, "center"])))?.sqr()?;
            ((c(&key(&[var, "curvature"])) * square)? * 0.5)?.sum_all()
        };
        half("x")? + half("y")?
    }),
];

/// Methods that compute the loss again: on each function, the variables, the loss before each step, and how often they
/// computed it.
#[test]
fn closure_methods_follow_the_reference() {
    let mut seen = BTreeSet::new();
    for oracle in Registry::default().names().flat_map(oracles).map(|file| Oracle::load(&file)).filter(|o| !o.is_open())
    {
        let functions: BTreeSet<&str> = oracle.rows.keys().filter_map(|key| key.split('|').next()).collect();
        let mut worst = (0f64, String::new());
        for name in functions {
            let Some((_, function)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
                panic!("{}: no function is named {name}", oracle.file)
            };
            seen.insert(name.to_string());
            for spec in oracle.specs().iter().filter(|spec| runs_here(spec)) {
                let row = |part: &str| oracle.rows.get(&key(&[name, spec.text(), part]));
                // A few are left out, where rounding decides the way.
                let Some(amplification) = row("amplification").map(|tensor| floats(tensor)[0]) else { continue };
                let allowed = tolerance(spec, amplification);
                let (losses, evaluations) = (floats(row("loss").unwrap()), floats(row("evaluations").unwrap()));
                let (history, counts) = follow(spec, &oracle.rows, name, *function, losses.len());
                assert_eq!(counts, evaluations, "{name} {}: evaluations", spec.text());
                let largest = common::largest(losses.iter().copied());
                for (part, rows) in history {
                    let expected = row(&part).unwrap_or_else(|| panic!("{name} {}: {part}", spec.text()));
                    let expected = expected.reshape((losses.len(), ())).unwrap().to_vec2::<f64>().unwrap();
                    for (call, (row, expected)) in rows.iter().zip(&expected).enumerate() {
                        for (&x, &e) in row.iter().zip(expected) {
                            let scale = if part == "loss" { largest } else { e.abs() };
                            let error = if x == e { 0. } else { (x - e).abs() / scale };
                            let found = format!(
                                "{name} {}: {part}, call {}: {x:e}, the reference {e:e}",
                                spec.text(),
                                call + 1
                            );
                            assert!(error <= allowed, "{found}, off by {error:.1e}, allowed {allowed:.1e}");
                            // The largest share of what is allowed.
                            if error / allowed > worst.0 {
                                worst =
                                    (error / allowed, format!("{found}, off by {error:.1e}, allowed {allowed:.1e}"));
                            }
                        }
                    }
                }
            }
        }
        println!("{}: {}", oracle.file, worst.1);
    }
    assert_eq!(seen.len(), FUNCTIONS.len(), "{seen:?}");
}

/// Minimizes a function. The rows by `VAR|p` and `loss`, and how often the loss was computed.
fn follow(
    spec: &Spec,
    fixture: &BTreeMap<String, Tensor>,
    function: &str,
    loss: Function,
    calls: usize,
) -> (History, Vec<f64>) {
    let numbers = |part: &str| fixture[&key(&[function, part])].to_device(common::device()).unwrap();
    let prefix = format!("{function}|");
    let names = fixture.keys().filter_map(|key| key.strip_prefix(&prefix)?.strip_suffix("|start"));
    let vars: BTreeMap<&str, Var> =
        names.map(|name| (name, Var::from_tensor(&numbers(&key(&[name, "start"]))).unwrap())).collect();
    let by_name: Vec<_> = vars.iter().map(|(name, var)| (*name, var)).collect();
    let mut optim = Optim::new(vec![Group::new(named(&by_name), spec.clone())]).unwrap();
    // The function is negated where the method maximizes it.
    let sign = if spec.method().maximizes() { -1. } else { 1. };
    let (count, mut counts, mut history) = (Cell::new(0.), vec![], History::new());
    for _ in 0..calls {
        let (before, _) = optim
            .step_with(|| {
                count.set(count.get() + 1.);
                loss(&|name| vars[name].as_tensor().clone(), &numbers)? * sign
            })
            .unwrap();
        history.entry("loss".into()).or_default().push(floats(&before));
        vars.iter().for_each(|(name, var)| history.entry(key(&[name, "p"])).or_default().push(floats(var)));
        counts.push(count.get());
    }
    (history, counts)
}
