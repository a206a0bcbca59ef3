//! Random input: specs, and sequences of calls with variables and gradients of random shapes, types and layouts. Nothing panics, an
//! error is one line and changes nothing, and a result does not depend on the layout.
//!
//! FUZZ_CASES sets the number of cases of each test, FUZZ_SEED the first seed.

mod common;

use std::fmt::Display;

use candle_core::{DType, Device, Tensor, Var};
use candle_optim::{Group, Optim, Registry, Spec};
use common::{bits, gradients, spec, state};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is '{text}'")))
}

/// Runs a test for some seeds. A failure names its seed.
fn with_seeds(cases: u64, test: impl Fn(&mut StdRng)) {
    struct Named(u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("FUZZ_SEED={} FUZZ_CASES=1 runs this case", self.0);
            }
        }
    }
    let first = number("FUZZ_SEED", 0);
    for seed in first..first + number("FUZZ_CASES", cases) {
        let _named = Named(seed);
        test(&mut StdRng::seed_from_u64(seed));
    }
}

fn pick<T: Clone>(rng: &mut StdRng, all: &[T]) -> T {
    all.choose(rng).unwrap().clone()
}

fn check_message(input: &str, error: impl Display) {
    let message = error.to_string();
    // Candle's have a backtrace where RUST_BACKTRACE asks for one.
    let message = message.split("\n   0: ").next().unwrap();
    assert!(!message.contains(char::is_control), "{input:?}: {message:?}");
    assert!((1..3000).contains(&message.chars().count()), "{input:?}: {message}");
}

/// Values at the edges of what a key takes, and beyond.
const VALUES: [&str; 38] = [
    "0",
    "-0",
    "1",
    "-1",
    "0.5",
    "0.999999999999999999",
    "1e-45",
    "5e-324",
    "1e-400",
    "1e38",
    "1e39",
    "1e308",
    "1e400",
    "inf",
    "-inf",
    "nan",
    "NaN",
    "none",
    "None",
    "true",
    "false",
    "TRUE",
    "",
    " ",
    " 1",
    "1 ",
    "1_000",
    "0x10",
    "1e",
    "--1",
    "٣",
    "4294967295",
    "4294967296",
    "18446744073709551616",
    "strong_wolfe",
    "reset",
    "adamw",
    "\u{200b}1",
];

fn random_spec(rng: &mut StdRng) -> String {
    let registry = Registry::default();
    let all: Vec<_> = registry.all().collect();
    let algorithm = all.choose(rng).unwrap();
    let mut text = algorithm.name().to_owned();
    let mut keys: Vec<String> = algorithm.keys().iter().map(|key| key.to_string()).collect();
    keys.extend(["maximize".into(), "base".into(), "base_lr".into(), "base_base".into(), "lrr".into()]);
    let count = rng.random_range(0..4);
    for i in 0..count {
        let key = pick(rng, &keys);
        let value = if rng.random_bool(0.5) { algorithm.field(&key).map(|field| field.value.text()) } else { None };
        let value = value.unwrap_or_else(|| pick(rng, &VALUES).to_string());
        text += &format!("{}{key}={value}", if i == 0 { ':' } else { ',' });
    }
    // Damage: characters left out, doubled or replaced.
    for _ in 0..rng.random_range(0..3) {
        let mut letters: Vec<char> = text.chars().collect();
        let at = rng.random_range(0..letters.len().max(1));
        match rng.random_range(0..4) {
            0 if !letters.is_empty() => drop(letters.remove(at)),
            1 => letters.insert(at, pick(rng, &[':', ',', '=', '\n', '\0', '\u{1b}', '\u{202e}', 'é', ' ', '-'])),
            2 if !letters.is_empty() => letters.insert(at, letters[at]),
            _ => {}
        }
        text = letters.into_iter().collect();
    }
    text
}

#[test]
fn specs() {
    with_seeds(4000, |rng| {
        let text = random_spec(rng);
        let read: Spec = match text.parse() {
            Ok(read) => read,
            Err(error) => return check_message(&text, error),
        };
        let printed = read.to_string();
        assert_eq!(spec(&printed).to_string(), printed, "{text:?}");
        // What can be read can be used.
        let vars = [vec![1., -2., 3., 0.5], vec![0.; 4]].map(|values| {
            let matrix = Tensor::from_vec(values, (2, 2), &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
            Var::from_tensor(&matrix).unwrap()
        });
        let group = Group::new(common::named(&[("a", &vars[0]), ("b", &vars[1])]), read);
        match Optim::new(vec![group]) {
            Ok(mut optim) => {
                for _ in 0..3 {
                    let along = vars.each_ref().map(|var| (var, var.ones_like().unwrap()));
                    common::step(&mut optim, along).unwrap_or_else(|error| panic!("{text:?}: {error}"));
                }
            }
            Err(error) => check_message(&text, error),
        }
    });
}

const DTYPES: [DType; 7] = [DType::F32, DType::F64, DType::BF16, DType::F16, DType::U8, DType::U32, DType::I64];

fn random_dims(rng: &mut StdRng) -> Vec<usize> {
    (0..rng.random_range(0..4)).map(|_| pick(rng, &[0, 1, 2, 3, 7, 33])).collect()
}

/// Numbers, some at the edges of their type.
fn random_tensor(rng: &mut StdRng, dims: &[usize], dtype: DType) -> Tensor {
    let edges = [0., -0., 1e-45, 1e-30, 1., 65504., 1e19, 1e38, f64::INFINITY, f64::NAN];
    let ordinary = rng.random_bool(0.9);
    let value = |_| if ordinary { rng.random_range(-2.0..2.0) } else { *edges.choose(rng).unwrap() };
    let values: Vec<f64> = (0..dims.iter().product()).map(value).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// The same elements, which lie in memory otherwise.
fn laid_out(rng: &mut StdRng, tensor: &Tensor) -> Tensor {
    let rank = tensor.rank();
    match rng.random_range(0..4) {
        0 if rank > 1 => {
            let swapped = tensor.transpose(0, rank - 1).unwrap().contiguous().unwrap();
            swapped.transpose(0, rank - 1).unwrap()
        }
        1 if rank > 0 => {
            let longer = Tensor::cat(&[tensor, tensor], 0).unwrap();
            longer.narrow(0, tensor.dims()[0], tensor.dims()[0]).unwrap()
        }
        2 if rank > 0 => {
            Tensor::cat(&[tensor, tensor], rank - 1).unwrap().narrow(rank - 1, 0, tensor.dims()[rank - 1]).unwrap()
        }
        _ => tensor.clone(),
    }
}

/// What a case does at a step: a gradient for some variables, which need not fit.
type Step = Vec<Option<Tensor>>;

#[test]
fn variables_and_gradients() {
    let names: Vec<&str> = Registry::default().names().filter(|name| !["sam", "lbfgs"].contains(name)).collect();
    with_seeds(1500, |rng| {
        let float = |rng: &mut StdRng| {
            let dtypes = if rng.random_bool(0.97) { &DTYPES[..4] } else { &DTYPES };
            pick(rng, dtypes)
        };
        let starts: Vec<Tensor> = (0..rng.random_range(1..5))
            .map(|_| {
                let (dims, dtype) = (random_dims(rng), float(rng));
                random_tensor(rng, &dims, dtype)
            })
            .collect();
        let methods: Vec<Spec> = starts.iter().map(|_| spec(pick::<&str>(rng, &names))).collect();
        let (state_bf16, stochastic) = (rng.random_bool(0.3), rng.random_bool(0.3));
        let steps: Vec<Step> = (0..4)
            .map(|_| {
                let gradient = |start: &Tensor| {
                    if rng.random_bool(0.2) {
                        return None;
                    }
                    let dims = if rng.random_bool(0.98) { start.dims().to_vec() } else { random_dims(rng) };
                    let dtype = if rng.random_bool(0.98) { start.dtype() } else { pick(rng, &DTYPES) };
                    Some(random_tensor(rng, &dims, dtype))
                };
                starts.iter().map(gradient).collect()
            })
            .collect();

        // Each case twice: as it is, and with gradients that lie in memory otherwise.
        let run = |layout: &mut dyn FnMut(&Tensor) -> Tensor| {
            let vars: Vec<Var> = starts.iter().map(common::copy).collect();
            let groups = vars.iter().zip(&methods).enumerate().map(|(i, (var, method))| {
                let group =
                    Group::new(vec![(i.to_string(), var.clone())], method.clone()).stochastic_rounding(stochastic);
                if state_bf16 { group.state_dtype(DType::BF16) } else { group }
            });
            let mut optim = match Optim::new(groups.collect()) {
                Ok(optim) => optim,
                Err(error) => {
                    check_message("Optim::new", error);
                    return None;
                }
            };
            let all = |optim: &Optim| (vars.iter().map(|var| bits(var)).collect::<Vec<_>>(), state(optim));
            for step in &steps {
                let before = all(&optim);
                let given = vars.iter().zip(step).filter_map(|(var, gradient)| Some((var, layout(gradient.as_ref()?))));
                if let Err(error) = optim.step(&gradients(given)) {
                    assert!(matches!(error, candle_optim::Error::Variable { .. }), "{error}");
                    check_message("step", error);
                    assert_eq!(all(&optim), before, "an error changed something");
                }
                let saved = optim.state_dict().unwrap();
                optim.load_state_dict(&saved).unwrap();
            }
            drop(optim.eval().unwrap());
            Some(all(&optim))
        };
        let plain = run(&mut Tensor::clone);
        let mut layouts = StdRng::seed_from_u64(7);
        assert_eq!(run(&mut |gradient| laid_out(&mut layouts, gradient)), plain, "{methods:?}");
    });
}
