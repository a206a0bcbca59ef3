//! One optimizer of another crate that uses everything a rule can have, against a plain loop in f64.
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_optim::{Group, NamedVars, Optim, Registry};

type Fallible<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Steps as long as the group's largest gradient so far is short, on an average of gradients, and averages the weights
/// where a flag is set.
///
/// ```text
/// G = √(Σ g²) over the group       G* = the largest so far       d = √mean(g²) of the tensor
/// m ← β·m + (1 - β)·g              w = 1/t, c = w/Σ w
/// p ← p·(1 - lr·λ) - lr·(m + τ·d·sign m)/(G* + ε)
/// x ← (1 - c)·x + c·p              averages: what to evaluate with; x = p at first
/// ```
mod own {
    use candle_optim::prelude::*;

    hyper! { pub struct ParamsOwn for "own" {
        lr: f64 [0.0..] = 0.1, "Learning rate.";
        beta: f64 [0.0..1.0] = 0.9, "Decay β of the gradient's average.";
        tau: f64 [0.0..] = 0.01, "Weight τ of the sign.";
        eps: f64 [0.0..] = 1e-8, "Added to the norm.";
        weight_decay: f64 [0.0..] = 0.1, "Decoupled weight decay λ.";
        averages: bool = true, "Average the weights.";
    } }

    rule! {
        pub struct Step { decay_factor, step_size, beta, one_minus_beta, tau, weight, one_minus_weight }
        clock of Group
        flags { averages }
        state Kept { m, x as weights if averages }
        sums Totals of Group { grad_sq }
        sums Norms of Tensor { mean_sq, count }
    }

    impl Elementwise for ParamsOwn {
        type Rule = Step;
        const MEASURED: bool = true;
        fn scalars(&self, t: &mut Clock) -> Step {
            t.memory("largest", 0.);
            let weight = 1. / t.step as f64;
            let sum = t.memory("weight_sum", 0.);
            *sum += weight;
            let weight = weight / *sum;
            Step {
                decay_factor: 1. - self.lr * self.weight_decay,
                beta: self.beta,
                one_minus_beta: 1. - self.beta,
                tau: self.tau,
                weight,
                one_minus_weight: 1. - weight,
                averages: self.averages,
                ..Step::ZERO
            }
        }
        fn measured(&self, t: &mut Clock, k: Step) -> Step {
            let largest = t.memory("largest", 0.);
            *largest = largest.max(k.grad_sq.sqrt());
            Step { step_size: self.lr / (*largest + self.eps), ..k }
        }
    }

    impl<R: Real> Rule<R> for Step<R> {
        #[inline(always)]
        fn init(&self, p: R, s: &mut Kept<R>) {
            s.x = p;
        }
        #[inline(always)]
        fn measure_group(&self, _p: R, g: R, _s: Kept<R>) -> Totals<R> {
            Totals { grad_sq: g * g }
        }
        #[inline(always)]
        fn measure(&self, _p: R, g: R, _s: Kept<R>) -> Norms<R> {
            Norms { mean_sq: g * g, count: R::lit(1.) }
        }
        #[inline(always)]
        fn update(&self, p: R, g: R, s: &mut Kept<R>) -> R {
            s.m = ema(s.m, g, self.beta, self.one_minus_beta);
            let d = (self.mean_sq / self.count).sqrt();
            let next = p * self.decay_factor - self.step_size * (s.m + self.tau * d * s.m.sign());
            if self.averages {
                s.x = s.x * self.one_minus_weight + next * self.weight;
            }
            next
        }
        #[inline(always)]
        fn eval(&self, p: R, s: Kept<R>) -> R {
            if self.averages { s.x } else { p }
        }
    }
}

/// Numbers in -1..1 that repeat in no short period.
fn numbers(seed: usize, n: usize) -> Vec<f64> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 20_011) as f64 / 10_005.5 - 1.).collect()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn close(what: &str, a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len(), "{what}");
    let alike = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b.abs().max(1e-3);
    let off = a.iter().zip(b).position(|(a, b)| !alike(*a, *b));
    assert!(off.is_none(), "{what}: {:?}", off.map(|at| (at, a[at], b[at])));
}

/// Of several blocks of a sum, and of less than one.
const SIZES: [usize; 4] = [5000, 3, 4097, 1];
const STEPS: usize = 30;

/// The gradient of a variable at a step. Each misses some; one starts late, and no variable has one at step 5.
fn gradient(at: usize, var: usize) -> Option<Vec<f64>> {
    let missing = at == 5 || at % 7 == var || (var == 2 && at < 3);
    let scale = 10f64.powi((at % 5) as i32 - 2);
    (!missing).then(|| numbers(100 * at + var, SIZES[var]).into_iter().map(|x| x * scale).collect())
}

#[test]
fn equal_to_a_plain_loop() -> Fallible {
    for averages in [true, false] {
        let params = own::ParamsOwn { averages, ..Default::default() };
        let own::ParamsOwn { lr, beta, tau, eps, weight_decay, .. } = params;
        let start = |at: usize| numbers(at + 1, SIZES[at]);
        let vars: Vec<Var> = (0..4).map(|at| Var::new(start(at), &Device::Cpu)).collect::<Result<_, _>>()?;
        let mut optim = Optim::new(vec![Group::new(NamedVars::numbered(vars.clone()), params)])?;

        let mut p: [Vec<f64>; 4] = std::array::from_fn(start);
        let mut kept: [Option<(Vec<f64>, Vec<f64>)>; 4] = Default::default();
        let (mut largest, mut weight_sum) = (0f64, 0.);
        for at in 0..STEPS {
            let given: [Option<Vec<f64>>; 4] = std::array::from_fn(|var| gradient(at, var));
            let mut grads = GradStore::default();
            for (var, g) in vars.iter().zip(&given) {
                if let Some(g) = g {
                    grads.insert(var, Tensor::new(g.as_slice(), &Device::Cpu)?);
                }
            }
            optim.step(&grads)?;

            let weight = 1. / (at + 1) as f64;
            weight_sum += weight;
            let c = weight / weight_sum;
            let norm = given.iter().flatten().flatten().map(|g| g * g).sum::<f64>().sqrt();
            largest = largest.max(norm);
            for ((p, kept), g) in p.iter_mut().zip(&mut kept).zip(&given) {
                let Some(g) = g else { continue };
                let (m, x) = kept.get_or_insert_with(|| (vec![0.; p.len()], p.clone()));
                let d = (g.iter().map(|g| g * g).sum::<f64>() / g.len() as f64).sqrt();
                for i in 0..p.len() {
                    m[i] = beta * m[i] + (1. - beta) * g[i];
                    let sign = if m[i] > 0. {
                        1.
                    } else if m[i] < 0. {
                        -1.
                    } else {
                        0.
                    };
                    p[i] -= lr * weight_decay * p[i];
                    p[i] -= lr * (m[i] + tau * d * sign) / (largest + eps);
                    x[i] += c * (p[i] - x[i]);
                }
            }

            let state = optim.state_dict()?;
            for (var, (p, kept)) in p.iter().zip(&kept).enumerate() {
                let what = |name: &str| format!("averages={averages}, step {at}, {var}.{name}");
                close(&what("p"), &values(&vars[var]), p);
                for (name, expected) in [("step", (at + 1) as f64), ("largest", largest), ("weight_sum", weight_sum)] {
                    close(&what(name), &values(&state[&format!("{var}.{name}")]), &[expected]);
                }
                let (m, x) = kept.clone().unzip();
                for (name, expected) in [("m", m), ("x", x.filter(|_| averages))] {
                    let found = state.get(&format!("{var}.{name}")).map(values);
                    assert_eq!(found.is_some(), expected.is_some(), "{}", what(name));
                    close(&what(name), &found.unwrap_or_default(), &expected.unwrap_or_default());
                }
            }
            let trained: Vec<_> = vars.iter().map(|var| values(var)).collect();
            assert_eq!(optim.has_eval(), averages);
            let eval = optim.eval()?;
            for (var, (p, kept)) in p.iter().zip(&kept).enumerate() {
                let expected = kept.as_ref().filter(|_| averages).map_or(p, |(_, x)| x);
                close(&format!("averages={averages}, step {at}, {var} evaluated"), &values(&vars[var]), expected);
            }
            drop(eval);
            assert_eq!(vars.iter().map(|var| values(var)).collect::<Vec<_>>(), trained);
        }
    }
    Ok(())
}

/// The same optimizer by name, in another type, in another order, resumed and on one thread: the same bits.
#[test]
fn it_is_an_optimizer_like_the_rest() -> Fallible {
    let mut registry = Registry::default();
    registry.register::<own::ParamsOwn>()?;
    assert!(registry.markdown().contains("| `own` |"));
    let run = |dtype: DType, order: [usize; 4], resumes: bool| -> Fallible<Vec<Vec<f64>>> {
        let tensor = |numbers: &[f64]| Tensor::new(numbers, &Device::Cpu)?.to_dtype(dtype);
        let vars: Vec<Var> =
            (0..4).map(|at| Var::from_tensor(&tensor(&numbers(at + 1, SIZES[at]))?)).collect::<Result<_, _>>()?;
        let make = || -> Fallible<Optim> {
            let listed: Vec<_> = order.iter().map(|at| (at.to_string(), vars[*at].clone())).collect();
            let group = Group::new(listed, registry.parse("own:lr=0.05,averages=true")?);
            Ok(Optim::new(vec![group.state_dtype(DType::BF16)])?)
        };
        let mut optim = make()?;
        for at in 0..10 {
            if resumes && at == 6 {
                let state = optim.state_dict()?;
                optim = make()?;
                optim.load_state_dict(&state)?;
            }
            let mut grads = GradStore::default();
            for (at, var, g) in vars.iter().enumerate().filter_map(|(i, var)| Some((i, var, gradient(at, i)?))) {
                assert_eq!(g.len(), SIZES[at]);
                grads.insert(var, tensor(&g)?);
            }
            optim.step(&grads)?;
        }
        let trained: Vec<_> = vars.iter().map(|var| values(var)).collect();
        let _eval = optim.eval()?;
        Ok(trained.into_iter().chain(vars.iter().map(|var| values(var))).collect())
    };
    for dtype in [DType::F64, DType::F32, DType::BF16] {
        let whole = run(dtype, [0, 1, 2, 3], false)?;
        assert!(whole.iter().flatten().all(|x| x.is_finite()));
        assert_eq!(whole, run(dtype, [3, 1, 0, 2], true)?, "{dtype:?}");
    }
    let error = registry.parse("own:averages=maybe").unwrap_err().to_string();
    assert!(error.contains("it must be true or false"), "{error}");
    Ok(())
}

/// A number on the clock that depends on the past alone, not on the scalars of the step.
mod remembers {
    use candle_optim::prelude::*;

    hyper! { pub struct ParamsRemembers for "remembers" { lr: f64 [0.0..] = 1., "Learning rate."; } }

    rule! { pub struct Step { lr } }

    impl Elementwise for ParamsRemembers {
        type Rule = Step;
        fn scalars(&self, t: &mut Clock) -> Step {
            let largest = t.memory("largest_lr", 0.);
            *largest = largest.max(self.lr);
            Step { lr: self.lr }
        }
    }

    impl<R: Real> Rule<R> for Step<R> {
        fn update(&self, p: R, g: R, _s: &mut Self::State) -> R {
            p - self.lr * g
        }
    }
}

#[test]
fn clocks_that_become_equal_are_kept_for_each_variable() {
    let [a, b] = [1., 2.].map(|x| Var::new(&[x], &Device::Cpu).unwrap());
    let vars = vec![("a".to_string(), a.clone()), ("b".to_string(), b.clone())];
    let mut optim = Optim::new(vec![Group::new(vars, remembers::ParamsRemembers::default())]).unwrap();
    let mut step = |lr: f64, vars: &[&Var]| {
        optim.set(0, "lr", lr).unwrap();
        let mut grads = GradStore::default();
        vars.iter().for_each(|var| drop(grads.insert(var, var.ones_like().unwrap())));
        optim.step(&grads).unwrap();
        let state = optim.state_dict().unwrap();
        ["a.largest_lr", "b.largest_lr"].map(|key| state[key].to_scalar::<f64>().unwrap())
    };
    assert_eq!(step(1., &[&a]), [1., 0.]);
    assert_eq!(step(0.5, &[&b]), [1., 0.5]);
    // The second step of both: before it their clocks differ, after it they agree.
    assert_eq!(step(1., &[&a, &b]), [1., 1.]);
}
