//! Test functions instead of a network: the path of each optimizer, step by step.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor, Var};
use candle_optim::{Error, Spec};

use super::optimizer::{Stepper, Storage};

/// A function of one or more numbers, with its usual starting point.
#[derive(Debug)]
pub struct Function {
    /// Name on the command line.
    pub name: &'static str,
    /// Its formula.
    pub formula: &'static str,
    /// The default start; also says how many numbers the function takes.
    pub start: &'static [f64],
    /// Whether it takes any other number of numbers.
    pub any_dimension: bool,
    /// The value at a point `[n]`, differentiable; a scalar.
    value: fn(&Tensor) -> candle_core::Result<Tensor>,
}

/// All test functions.
pub const FUNCTIONS: &[Function] = &[
    Function { name: "square", formula: "x²", start: &[5.], any_dimension: true, value: |x| x.sqr()?.sum_all() },
    Function {
        name: "ravine",
        formula: "½(x² + 50y²)",
        start: &[5., 1.],
        any_dimension: false,
        value: |x| {
            let [x, y] = coordinates(x)?;
            (x.sqr()? + (y.sqr()? * 50.)?)? * 0.5
        },
    },
    Function {
        name: "rosenbrock",
        formula: "Σ 100(xᵢ₊₁ - xᵢ²)² + (1 - xᵢ)²",
        start: &[-1.5, 2.],
        any_dimension: true,
        value: |x| {
            let n = x.dim(0)? - 1;
            let (head, tail) = (x.narrow(0, 0, n)?, x.narrow(0, 1, n)?);
            let valley = ((tail - head.sqr()?)?.sqr()? * 100.)?;
            (valley + head.affine(-1., 1.)?.sqr()?)?.sum_all()
        },
    },
    Function {
        name: "himmelblau",
        formula: "(x² + y - 11)² + (x + y² - 7)²",
        start: &[0., 0.],
        any_dimension: false,
        value: |x| {
            let [x, y] = coordinates(x)?;
            ((x.sqr()? + &y)? - 11.)?.sqr()? + ((&x + y.sqr()?)? - 7.)?.sqr()?
        },
    },
    Function {
        name: "booth",
        formula: "(x + 2y - 7)² + (2x + y - 5)²",
        start: &[0., 0.],
        any_dimension: false,
        value: |x| {
            let [x, y] = coordinates(x)?;
            let (a, b) = ((&x + (&y * 2.)?)? - 7., ((&x * 2.)? + &y)? - 5.);
            a?.sqr()? + b?.sqr()?
        },
    },
    Function {
        name: "beale",
        formula: "(1.5 - x + xy)² + (2.25 - x + xy²)² + (2.625 - x + xy³)²",
        start: &[1., 1.],
        any_dimension: false,
        value: |x| {
            let [x, y] = coordinates(x)?;
            let term = |constant: f64, power: f64| ((&x * y.powf(power)?)? - &x)?.affine(1., constant)?.sqr();
            (term(1.5, 1.)? + term(2.25, 2.)?)? + term(2.625, 3.)?
        },
    },
    Function {
        name: "rastrigin",
        formula: "Σ xᵢ² - 10 cos(2πxᵢ) + 10",
        start: &[3.2, -2.3],
        any_dimension: true,
        value: |x| (x.sqr()? - (x * std::f64::consts::TAU)?.cos()?.affine(10., -10.)?)?.sum_all(),
    },
    Function {
        name: "sphere",
        formula: "Σ xᵢ²",
        start: &[3., -2.],
        any_dimension: true,
        value: |x| x.sqr()?.sum_all(),
    },
    Function {
        name: "quadratic",
        formula: "½ Σ cᵢxᵢ², c from 1 to 1000 in equal ratios",
        start: &[1., 1.],
        any_dimension: true,
        value: |x| {
            let last = (x.dim(0)? - 1) as f64;
            let curvature: Vec<f64> = (0..x.dim(0)?).map(|i| 1000f64.powf(i as f64 / last)).collect();
            (x.sqr()? * Tensor::new(curvature, x.device())?)?.sum_all()? * 0.5
        },
    },
    Function {
        name: "saddle",
        formula: "x² - y²",
        start: &[2., 0.01],
        any_dimension: false,
        value: |x| {
            let [x, y] = coordinates(x)?;
            x.sqr()? - y.sqr()?
        },
    },
    Function {
        name: "ackley",
        formula: "20 + e - 20 exp(-√(mean x²)/5) - exp(mean cos(2πx))",
        start: &[2.3, -1.7],
        any_dimension: true,
        value: |x| {
            // The slope of the root is infinite at 0; the maximum makes it 0.
            let distance = x.sqr()?.mean_all()?.maximum(1e-300)?.sqrt()?;
            let waves = (x * std::f64::consts::TAU)?.cos()?.mean_all()?.exp()?;
            ((distance * -0.2)?.exp()?.affine(-20., 20. + std::f64::consts::E)? - waves)?.sum_all()
        },
    },
];

fn coordinates(x: &Tensor) -> candle_core::Result<[Tensor; 2]> {
    Ok([x.get(0)?, x.get(1)?])
}

impl Function {
    /// The function of this name.
    ///
    /// # Errors
    /// No function has this name.
    pub fn named(name: &str) -> Result<&'static Self, Error> {
        FUNCTIONS
            .iter()
            .find(|function| function.name == name)
            .ok_or_else(|| crate::unknown("function", name, FUNCTIONS.iter().map(|function| function.name)))
    }

    /// The value at a point `[n]` of f64, differentiable; a scalar.
    ///
    /// # Errors
    /// A point of fewer numbers than the function takes.
    pub fn value(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        (self.value)(x)
    }

    /// Checks that the function takes the point `start`.
    ///
    /// # Errors
    /// Too few or too many numbers.
    pub fn check_start(&self, start: &[f64]) -> Result<()> {
        let (given, usual) = (start.len(), self.start.len());
        let fits = given == usual || self.any_dimension && given > usual;
        let or_more = if self.any_dimension { " or more" } else { "" };
        ensure!(fits, "--start has {given} numbers, but {} takes {usual}{or_more}", self.name);
        Ok(())
    }
}

/// The path of one optimizer: the start, then the point to evaluate after each step.
#[derive(Clone, Debug)]
pub struct Path {
    /// The optimizer's spec, as given.
    pub optimizer: String,
    /// Points with the values of the function there.
    pub points: Vec<(Vec<f64>, f64)>,
}

/// Bytes of the path of one optimizer.
pub fn bytes_needed(numbers: usize, steps: usize) -> f64 {
    (steps as f64 + 1.) * (size_of::<(Vec<f64>, f64)>() + numbers * size_of::<f64>()) as f64
}

/// Minimizes `function` from `start` in f64, by its gradient.
pub fn minimize(function: &Function, start: &[f64], steps: usize, spec: &Spec) -> Result<Path> {
    let x = Var::new(start, &Device::Cpu)?;
    let value = || (function.value)(&x);
    let mut optimizer = Stepper::new(spec, vec![("x".into(), x.clone())], Storage::default())?;
    let mut points = Vec::with_capacity(steps + 1);
    points.push((x.to_vec1()?, value()?.to_scalar()?));
    for _ in 0..steps {
        optimizer.step(&value()?, value)?;
        let _swapped = optimizer.eval()?;
        points.push((x.to_vec1()?, value()?.to_scalar()?));
    }
    Ok(Path { optimizer: spec.text().into(), points })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_its_known_minimum_there_with_no_gradient() {
        let minima: &[(&str, &[f64], f64)] = &[
            ("square", &[0.], 0.),
            ("ravine", &[0., 0.], 0.),
            ("rosenbrock", &[1., 1., 1.], 0.),
            ("himmelblau", &[3., 2.], 0.),
            ("booth", &[1., 3.], 0.),
            ("beale", &[3., 0.5], 0.),
            ("rastrigin", &[0., 0., 0.], 0.),
            ("sphere", &[0., 0.], 0.),
            ("quadratic", &[0., 0., 0., 0., 0.], 0.),
            // Not a minimum, but a stationary point.
            ("saddle", &[0., 0.], 0.),
            ("ackley", &[0., 0., 0.], 0.),
        ];
        assert_eq!(minima.len(), FUNCTIONS.len());
        for (name, point, minimum) in minima {
            let x = Var::new(*point, &Device::Cpu).unwrap();
            let value = (Function::named(name).unwrap().value)(&x).unwrap();
            assert!((value.to_scalar::<f64>().unwrap() - minimum).abs() < 1e-12, "{name}");
            let gradient = value.backward().unwrap().get(&x).unwrap().to_vec1::<f64>().unwrap();
            assert!(gradient.iter().all(|g| g.abs() < 1e-12), "{name}: {gradient:?}");
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        for function in FUNCTIONS {
            let point: Vec<f64> = function.start.iter().map(|x| x * 0.9 + 0.1).collect();
            let value = |x: &[f64]| (function.value)(&Var::new(x, &Device::Cpu).unwrap()).unwrap();
            let x = Var::new(point.as_slice(), &Device::Cpu).unwrap();
            let gradient = (function.value)(&x).unwrap().backward().unwrap().get(&x).unwrap().to_vec1::<f64>().unwrap();
            for i in 0..point.len() {
                let at = |h: f64| {
                    let mut moved = point.clone();
                    moved[i] += h;
                    value(&moved).to_scalar::<f64>().unwrap()
                };
                let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
                assert!((slope - gradient[i]).abs() < 1e-6 * slope.abs().max(1.), "{}", function.name);
            }
        }
    }
}
