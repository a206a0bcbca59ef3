//! How long an epoch takes, evaluation of the test rows included: this crate next to Candle as it comes.
//!
//! `cargo bench --bench epoch -- [--json] [ours] [stock] [wide]`; without a name, all three. Threads are set as for any
//! Candle program, by `RAYON_NUM_THREADS`.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::{AdamW, Module, Optimizer, ParamsAdamW, SGD, VarBuilder, VarMap, linear, loss, seq};
use candle_optim::Spec;
use candle_optim_lab::data::{Circles, Dataset, Rows};
use candle_optim_lab::nn::Activation;
use candle_optim_lab::train::{Settings, train};
use serde_json::json;

// As in the program. Candle, which allocates every tensor anew, gains from it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEED: u32 = 42;
const LR: f64 = 0.01;
const EPOCHS: usize = 2000;
/// As long on the clock as the others take for theirs.
const OUR_EPOCHS: usize = 10 * EPOCHS;
const WARM_UP: usize = 1000;
/// The wide network takes about a thousand times the work.
const WIDE_EPOCHS: usize = 30;
const WIDE_WARM_UP: usize = 3;

/// Microseconds per epoch, by optimizer.
type Times = BTreeMap<&'static str, f64>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let given = |name: &str| args.iter().any(|arg| arg == name);
    let all = !["ours", "stock", "wide"].iter().any(|name| given(name));

    let chapter = Dataset::circles(&Circles::default(), 0.3, SEED)?;
    let mut results = BTreeMap::new();
    let mut diverged = BTreeMap::new();
    if all || given("ours") {
        let specs = ["sgd", "sgd:momentum=0.9", "rmsprop", "adam", "adamw"];
        results.insert("ours", ours(&chapter, &specs, &[16, 16], WARM_UP, OUR_EPOCHS)?);
    }
    if all || given("stock") {
        let adamw = ParamsAdamW { lr: LR, ..Default::default() };
        let runs = [("sgd", stock::<SGD>(&chapter, LR)?), ("adamw", stock::<AdamW>(&chapter, adamw)?)];
        let mut times = Times::new();
        for (name, (time, epoch)) in runs {
            times.insert(name, time);
            diverged.extend(epoch.map(|epoch| (name, epoch)));
        }
        results.insert("stock", times);
    }
    if all || given("wide") {
        let dataset = Dataset::circles(&Circles { samples: 8192, ..Default::default() }, 0.5, SEED)?;
        results.insert("wide", ours(&dataset, &["adam"], &[256, 256], WIDE_WARM_UP, WIDE_EPOCHS)?);
    }

    if given("--json") {
        println!("{}", json!({ "microseconds_per_epoch": results, "stock_diverged_at_epoch": diverged }));
        return Ok(());
    }
    println!("{:8}{:20}{:>12}", "", "optimizer", "µs/epoch");
    for (who, times) in &results {
        for (optimizer, time) in times {
            println!("{who:8}{optimizer:20}{time:12.1}");
        }
    }
    for (optimizer, epoch) in diverged {
        println!("stock {optimizer} diverged at epoch {epoch}");
    }
    Ok(())
}

/// This crate's network, loss and optimizers, as the program uses them. Accuracies are part of it.
fn ours(dataset: &Dataset, specs: &[&'static str], hidden: &[usize], warm_up: usize, epochs: usize) -> Result<Times> {
    let settings = |epochs| Settings {
        epochs,
        batch_size: 0,
        seed: SEED,
        hidden: hidden.to_vec(),
        activation: Activation::Relu,
        dtype: DType::F32,
        stochastic_rounding: false,
        device: Device::Cpu,
    };
    let mut times = Times::new();
    for name in specs {
        let spec = name.parse::<Spec>()?.or_lr(LR);
        train(dataset, &spec, &settings(warm_up), ())?;
        let run = train(dataset, &spec, &settings(epochs), ())?;
        times.insert(name, run.time.as_secs_f64() * 1e6 / epochs as f64);
    }
    Ok(times)
}

/// The chapter's network with Candle's own layers, loss and optimizer, written as in Candle's examples: the time, and
/// the first epoch whose loss is NaN or infinite, which its loss, ln(sigmoid(x)), comes to. It takes as long as any.
fn stock<O: Optimizer>(dataset: &Dataset, config: O::Config) -> Result<(f64, Option<usize>)> {
    let (x, y) = tensors(&dataset.train)?;
    let (x_test, y_test) = tensors(&dataset.test)?;
    let vars = VarMap::new();
    let builder = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let model = seq()
        .add(linear(2, 16, builder.pp("1"))?)
        .add(Tensor::relu)
        .add(linear(16, 16, builder.pp("2"))?)
        .add(Tensor::relu)
        .add(linear(16, 1, builder.pp("3"))?);
    let mut optimizer = O::new(vars.all_vars(), config)?;

    let mut losses = vec![];
    let mut epoch = || -> Result<()> {
        let loss = loss::binary_cross_entropy_with_logit(&model.forward(&x)?, &y)?;
        optimizer.backward_step(&loss)?;
        let test_loss = loss::binary_cross_entropy_with_logit(&model.forward(&x_test)?, &y_test)?;
        losses.push((loss.to_scalar::<f32>()?, test_loss.to_scalar::<f32>()?));
        Ok(())
    };
    (0..WARM_UP).try_for_each(|_| epoch())?;
    let start = Instant::now();
    (0..EPOCHS).try_for_each(|_| epoch())?;
    let time = start.elapsed().as_secs_f64() * 1e6 / EPOCHS as f64;
    let finite = |(loss, test_loss): &(f32, f32)| loss.is_finite() && test_loss.is_finite();
    Ok((time, losses.iter().position(|losses| !finite(losses)).map(|index| index + 1)))
}

fn tensors(rows: &Rows) -> Result<(Tensor, Tensor)> {
    let n = rows.y.len();
    let x = Tensor::from_slice(&rows.x, (n, 2), &Device::Cpu)?.to_dtype(DType::F32)?;
    let y = Tensor::from_iter(rows.y.classes().iter().map(|&class| class as f32), &Device::Cpu)?.reshape((n, 1))?;
    Ok((x, y))
}
