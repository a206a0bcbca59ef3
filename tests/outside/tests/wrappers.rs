//! Wrappers against plain loops, in f64: what they do depends on their base, so no package is their oracle.
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use candle_optim::{Group, Optim, Spec};

type Fallible<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const START: [f64; 5] = [1., -2., 0.5, 3., -0.25];

fn values(var: &Tensor) -> Vec<f64> {
    var.to_vec1().unwrap()
}

fn close(what: &str, a: &[f64], b: &[f64]) {
    let alike = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * b.abs().max(1e-3);
    assert!(a.len() == b.len() && a.iter().zip(b).all(alike), "{what}: {a:?} {b:?}");
}

/// The gradient of Σ x⁴/4 + Σ c·x, with another c for each element.
fn slope(p: &[f64]) -> Vec<f64> {
    p.iter().enumerate().map(|(i, x)| x * x * x + 0.1 * i as f64).collect()
}

fn loss(a: &Var, b: &Var) -> candle_core::Result<Tensor> {
    let all = Tensor::cat(&[a.as_tensor(), b.as_tensor()], 0)?;
    let slopes = Tensor::new(&[0f64, 0.1, 0.1 * 2., 0.1 * 3., 0.1 * 4.], &Device::Cpu)?;
    (all.sqr()?.sqr()? / 4.)?.sum_all()? + (all * slopes)?.sum_all()?
}

/// Two variables of one group, of START.
fn make(spec: &str) -> Fallible<(Var, Var, Optim)> {
    let (a, b) = (Var::new(&START[..3], &Device::Cpu)?, Var::new(&START[3..], &Device::Cpu)?);
    let vars = vec![("a".to_string(), a.clone()), ("b".to_string(), b.clone())];
    let optim = Optim::new(vec![Group::new(vars, spec.parse::<Spec>()?)])?;
    Ok((a, b, optim))
}

fn all(a: &Var, b: &Var) -> Vec<f64> {
    [values(a), values(b)].concat()
}

fn sgd(p: &mut [f64], g: &[f64], buffer: &mut Option<Vec<f64>>, lr: f64) {
    let buffer = match buffer {
        None => buffer.insert(g.to_vec()),
        Some(buffer) => {
            buffer.iter_mut().zip(g).for_each(|(b, g)| *b = 0.9 * *b + g);
            buffer
        }
    };
    p.iter_mut().zip(buffer.iter()).for_each(|(p, b)| *p -= lr * b);
}

#[test]
fn sam_takes_the_gradient_at_the_worst_point_nearby() -> Fallible {
    for (spec, adaptive) in [
        ("sam:rho=0.1,base=sgd,base_lr=0.02,base_momentum=0.9", false),
        ("sam:rho=0.5,adaptive=true,base=sgd,base_lr=0.02,base_momentum=0.9", true),
    ] {
        let rho = if adaptive { 0.5 } else { 0.1 };
        let (a, b, mut optim) = make(spec)?;
        let (mut p, mut buffer) = (START.to_vec(), None);
        for step in 0..20 {
            optim.step_with(|| loss(&a, &b))?;
            let g = slope(&p);
            // By the sizes of the weights, twice: t²·g/‖t·g‖ with t = |p|.
            let t: Vec<f64> = p.iter().map(|p| if adaptive { p.abs() } else { 1. }).collect();
            let norm = g.iter().zip(&t).map(|(g, t)| (t * g) * (t * g)).sum::<f64>().sqrt();
            let e = g.iter().zip(&t).map(|(g, t)| rho * t * t * g / (norm + 1e-12));
            let worst: Vec<f64> = p.iter().zip(e).map(|(p, e)| p + e).collect();
            sgd(&mut p, &slope(&worst), &mut buffer, 0.02);
            close(&format!("{spec}, step {step}"), &all(&a, &b), &p);
        }
    }
    Ok(())
}

#[test]
fn sam_keeps_to_the_variables_that_have_a_gradient() -> Fallible {
    let (a, b, mut optim) = make("sam:rho=0.5,base_lr=0.1")?;
    optim.step_with(|| a.sqr()?.sqr()?.sum_all())?;
    assert_eq!(values(&b), START[3..]);
    let g: Vec<f64> = START[..3].iter().map(|x| 4. * x * x * x).collect();
    let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
    let moved = START[..3].iter().zip(&g).map(|(p, g)| p - 0.1 * 4. * (p + 0.5 * g / (norm + 1e-12)).powi(3));
    close("a", &values(&a), &moved.collect::<Vec<_>>());
    Ok(())
}

#[test]
fn lookahead_returns_to_slow_weights() -> Fallible {
    for reset in [false, true] {
        let pullback = if reset { "reset" } else { "none" };
        let base = "base=sgd,base_lr=0.02,base_momentum=0.9";
        let (a, b, mut optim) = make(&format!("lookahead:k=3,alpha=0.7,pullback_momentum={pullback},{base}"))?;
        let (mut p, mut slow, mut buffer) = (START.to_vec(), START.to_vec(), None);
        for step in 1..=20 {
            optim.step_with(|| loss(&a, &b))?;
            let g = slope(&p);
            sgd(&mut p, &g, &mut buffer, 0.02);
            if step % 3 == 0 {
                slow.iter_mut().zip(&p).for_each(|(slow, p)| *slow += 0.7 * (p - *slow));
                p.clone_from(&slow);
                if let (true, Some(buffer)) = (reset, &mut buffer) {
                    buffer.fill(0.);
                }
            }
            let state = optim.state_dict()?;
            let of = |name: &str| [values(&state[&format!("a.{name}")]), values(&state[&format!("b.{name}")])].concat();
            close(&format!("{pullback}, step {step}"), &all(&a, &b), &p);
            close(&format!("{pullback}, step {step}: slow"), &of("slow"), &slow);
            close(&format!("{pullback}, step {step}: buffer"), &of("momentum_buffer"), buffer.as_ref().unwrap());
        }
    }
    Ok(())
}

#[test]
fn an_average_of_the_weights_is_what_to_evaluate_with() -> Fallible {
    let (a, b, mut optim) = make("ema:decay=0.8,base=sgd,base_lr=0.02,base_momentum=0.9")?;
    let (mut p, mut average, mut buffer) = (START.to_vec(), START.to_vec(), None);
    for step in 0..20 {
        // b has no gradient at first: its average starts where its steps do.
        let mut grads = GradStore::default();
        let g = slope(&p);
        grads.insert(&a, Tensor::new(&g[..3], &Device::Cpu)?);
        if step >= 4 {
            grads.insert(&b, Tensor::new(&g[3..], &Device::Cpu)?);
        }
        optim.step(&grads)?;
        let given = if step >= 4 { 5 } else { 3 };
        let mut moved = p.clone();
        sgd(
            &mut moved,
            &g.iter().enumerate().map(|(i, g)| if i < given { *g } else { 0. }).collect::<Vec<_>>(),
            &mut buffer,
            0.02,
        );
        p[..given].copy_from_slice(&moved[..given]);
        average.iter_mut().zip(&p).take(given).for_each(|(average, p)| *average = 0.8 * *average + 0.2 * p);
        close(&format!("step {step}"), &all(&a, &b), &p);
        let eval = optim.eval()?;
        close(&format!("step {step}, evaluated"), &all(&a, &b), &average);
        drop(eval);
        close(&format!("step {step}, back"), &all(&a, &b), &p);
    }
    Ok(())
}

/// A wrapper around a wrapper: SAM inside, Lookahead outside.
#[test]
fn wrappers_nest() -> Fallible {
    let (a, b, mut optim) = make("lookahead:k=2,alpha=0.5,base=sam,base_rho=0.1,base_base=sgd,base_base_lr=0.05")?;
    let (mut p, mut slow) = (START.to_vec(), START.to_vec());
    for step in 1..=10 {
        optim.step_with(|| loss(&a, &b))?;
        let g = slope(&p);
        let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
        let worst: Vec<f64> = p.iter().zip(&g).map(|(p, g)| p + 0.1 * g / (norm + 1e-12)).collect();
        p.iter_mut().zip(slope(&worst)).for_each(|(p, g)| *p -= 0.05 * g);
        if step % 2 == 0 {
            slow.iter_mut().zip(&p).for_each(|(slow, p)| *slow += 0.5 * (p - *slow));
            p.clone_from(&slow);
        }
        close(&format!("step {step}"), &all(&a, &b), &p);
    }
    Ok(())
}
