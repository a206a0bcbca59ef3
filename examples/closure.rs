//! Two methods that compute the loss more than once a step, and so take a closure: L-BFGS with a line search on Rosenbrock's
//! function, and SAM in front of SGD on a function whose minima differ in sharpness.
//!
//! ```sh
//! cargo run --release --example closure
//! ```
use candle_core::{Device, Result, Tensor, Var};
use candle_optim::{Group, NamedVars, Optim, ParamsSam, ParamsSgd, Spec};

/// (1 - x)² + 100·(y - x²)²: a narrow curved valley, with its minimum 0 at (1, 1).
fn rosenbrock(xy: &Tensor) -> Result<Tensor> {
    let (x, y) = (xy.get(0)?, xy.get(1)?);
    let valley = (y - x.sqr()?)?.sqr()?;
    x.affine(-1., 1.)?.sqr()? + valley.affine(100., 0.)?
}

/// (x·y - 1)²: each point of the hyperbola x·y = 1 is a minimum, and (1, 1) is the flattest. The largest curvature there is
/// 2·(x² + y²).
fn hyperbola(xy: &Tensor) -> Result<Tensor> {
    (xy.get(0)? * xy.get(1)?)?.affine(1., -1.)?.sqr()
}

fn lbfgs() -> Result<()> {
    let xy = Var::new(&[-1.5, 2.], &Device::Cpu)?;
    let spec: Spec = "lbfgs:line_search_fn=strong_wolfe".parse()?;
    let mut optim = Optim::new(vec![Group::new(NamedVars::numbered([xy.clone()]), spec)])?;
    let mut evaluations = 0;
    for step in 1..=3 {
        // A step takes up to 20 iterations and calls the closure in each. It returns the loss before the first.
        let (loss, _) = optim.step_with(|| {
            evaluations += 1;
            rosenbrock(&xy)
        })?;
        println!("lbfgs step {step}: from loss {:.1e}, {evaluations:2} evaluations so far", loss.to_scalar::<f64>()?);
    }
    let found = xy.to_vec1::<f64>()?;
    println!("lbfgs: minimum at ({:.6}, {:.6})", found[0], found[1]);
    assert!(found.iter().all(|x| (x - 1.).abs() < 1e-5));
    Ok(())
}

/// Takes 500 steps from (3, 0.5), and returns the curvature where they end.
fn descend(group: impl Fn(NamedVars) -> Group) -> Result<f64> {
    let xy = Var::new(&[3., 0.5], &Device::Cpu)?;
    let mut optim = Optim::new(vec![group(NamedVars::numbered([xy.clone()]))])?;
    for _ in 0..500 {
        optim.step_with(|| hyperbola(&xy))?;
    }
    let (found, name) = (xy.to_vec1::<f64>()?, optim.groups()[0].method().name());
    let curvature = 2. * (found[0].powi(2) + found[1].powi(2));
    println!("{name}: ends at ({:.2}, {:.2}), curvature {curvature:.1}", found[0], found[1]);
    Ok(curvature)
}

fn main() -> Result<()> {
    lbfgs()?;
    let sgd = ParamsSgd { lr: 0.05, ..Default::default() };
    let sam = ParamsSam { rho: 0.2, ..Default::default() };
    let alone = descend(|vars| Group::new(vars, sgd.clone()))?;
    // SAM moves nothing itself. It hands SGD the gradient at the worst point nearby, which leads away from sharp minima.
    let after_sam = descend(|vars| Group::new(vars, sam.clone()).then(sgd.clone()))?;
    assert!(after_sam < 4.5 && alone > 10.);
    Ok(())
}
