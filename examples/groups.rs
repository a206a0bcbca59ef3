//! Parameter groups on a small regression: Muon moves the hidden matrices, AdamW with caution the rest. A schedule, clipping,
//! an average of the weights and a checkpoint go with them.
//!
//! ```sh
//! cargo run --release --example groups
//! ```
use std::error::Error;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module, VarBuilder, VarMap};
use candle_optim::{Cosine, Group, LinearWarmup, NamedVars, Optim, ParamsAdamW, ParamsEma, ParamsMuon, Schedule};

const WARMUP: u64 = 20;
const STEPS: u64 = 200;

struct Model {
    varmap: VarMap,
    layers: Vec<Linear>,
}

impl Model {
    fn new() -> candle_core::Result<Self> {
        let varmap = VarMap::new();
        let vb = VarBuilder::from_varmap(&varmap, DType::F32, &Device::Cpu);
        let shapes = [("hidden.0", 1, 32), ("hidden.1", 32, 32), ("output", 32, 1)];
        let layers = shapes.map(|(name, inputs, outputs)| candle_nn::linear(inputs, outputs, vb.pp(name)));
        Ok(Self { varmap, layers: layers.into_iter().collect::<candle_core::Result<_>>()? })
    }

    /// The mean squared error on sin 3x.
    fn loss(&self) -> candle_core::Result<Tensor> {
        let x = Tensor::arange(-32f32, 32., &Device::Cpu)?.affine(1. / 32., 0.)?.unsqueeze(1)?;
        let hidden = self.layers[..2].iter().try_fold(x.clone(), |x, layer| layer.forward(&x)?.tanh())?;
        candle_nn::loss::mse(&self.layers[2].forward(&hidden)?, &(x * 3.)?.sin()?)
    }

    /// Makes the same groups in the same order at every call, since a checkpoint fits only those.
    fn optimizer(&self) -> candle_core::Result<Optim> {
        let mut vars = NamedVars::from(&self.varmap);
        let matrices = vars.take("hidden.*.weight")?;
        let muon = ParamsMuon { lr: 0.05, weight_decay: 0., ..Default::default() };
        let adamw = ParamsAdamW { lr: 3e-3, caution: true, ..Default::default() };
        let ema = ParamsEma { decay: 0.9 };
        // `vars` now has what `take` left: the biases and the output layer.
        let groups = vec![Group::new(matrices, muon).then(ema.clone()), Group::new(vars, adamw).then(ema)];
        let schedule = LinearWarmup { steps: WARMUP }.then(Cosine { steps: STEPS - WARMUP, min_lr: 0. });
        Ok(Optim::new(groups)?.schedule(schedule).clip_grad_norm(1.))
    }

    fn train(&self, optim: &mut Optim, until: u64) -> candle_core::Result<f32> {
        while optim.steps() < until {
            optim.backward_step(&self.loss()?)?;
        }
        self.loss()?.to_scalar()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("candle-optim-groups-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let (weights, state) = (dir.join("weights.safetensors"), dir.join("optimizer.safetensors"));

    let model = Model::new()?;
    let mut optim = model.optimizer()?;
    for group in optim.groups() {
        let names: Vec<_> = group.slots().iter().map(|slot| slot.name.as_str()).collect();
        println!("{:9} moves {}", group.method().name(), names.join(", "));
    }

    println!("step   0: loss {:.6}", model.loss()?.to_scalar::<f32>()?);
    let half = model.train(&mut optim, STEPS / 2)?;
    let averages = optim.eval()?;
    let averaged = model.loss()?.to_scalar::<f32>()?;
    drop(averages); // The variables hold the trained weights again.
    println!("step {}: loss {half:.6}, with the averaged weights {averaged:.6}", STEPS / 2);

    // The optimizer's file holds its state and its step count, but not the weights.
    model.varmap.save(&weights)?;
    optim.save(&state)?;
    let uninterrupted = model.train(&mut optim, STEPS)?;

    let mut resumed = Model::new()?;
    let mut optim = resumed.optimizer()?;
    resumed.varmap.load(&weights)?;
    optim.load(&state)?;
    let loss = resumed.train(&mut optim, STEPS)?;
    println!("step {STEPS}: loss {loss:.6}, resumed; {uninterrupted:.6} without a break");
    assert!(loss == uninterrupted && loss < 0.01);
    Ok(std::fs::remove_dir_all(dir)?)
}
