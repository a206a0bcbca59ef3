//! Trains a small convolutional network of `candle_nn`. Only the import of the optimizer differs from Candle's own.
//!
//! ```sh
//! cargo run --release --example cnn
//! ```
use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, Module, Optimizer, VarBuilder, VarMap};
use candle_optim::{AdamW, ParamsAdamW}; // was: use candle_nn::{AdamW, ParamsAdamW};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;

const SIZE: usize = 12;
const CHANNELS: usize = 8;
const IMAGES: usize = 512;
const EPOCHS: usize = 8;
const BATCH: usize = 32;

/// One bar an image, in any row (label 0) or any column (label 1), and noise. The mean image of both classes is the same,
/// so a linear classifier of the pixels would only guess.
fn bars(count: usize, rng: &mut StdRng) -> Result<(Tensor, Tensor)> {
    let (mut pixels, mut labels) = (vec![], vec![]);
    for image in 0..count {
        let vertical = image % 2 == 1;
        let position = rng.random_range(0..SIZE);
        for (row, column) in (0..SIZE * SIZE).map(|at| (at / SIZE, at % SIZE)) {
            let lit = position == if vertical { column } else { row };
            let noise: f32 = rng.sample(StandardNormal);
            pixels.push(f32::from(lit) + 0.3 * noise);
        }
        labels.push(u32::from(vertical));
    }
    let images = Tensor::from_vec(pixels, (count, 1, SIZE, SIZE), &Device::Cpu)?;
    Ok((images, Tensor::from_vec(labels, count, &Device::Cpu)?))
}

struct Cnn {
    conv: Conv2d,
    output: Linear,
}

impl Cnn {
    fn new(vb: VarBuilder) -> Result<Self> {
        let padded = Conv2dConfig { padding: 1, ..Default::default() };
        let conv = candle_nn::conv2d(1, CHANNELS, 3, padded, vb.pp("conv"))?;
        let output = candle_nn::linear(CHANNELS * (SIZE / 2) * (SIZE / 2), 2, vb.pp("output"))?;
        Ok(Self { conv, output })
    }
}

impl Module for Cnn {
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let features = self.conv.forward(images)?.relu()?.max_pool2d(2)?;
        self.output.forward(&features.flatten_from(1)?)
    }
}

fn main() -> Result<()> {
    let mut rng = StdRng::seed_from_u64(42);
    let (images, labels) = bars(IMAGES, &mut rng)?;
    let (test_images, test_labels) = bars(256, &mut rng)?;

    // Candle draws the initial weights without a seed, so the losses differ a little from run to run.
    let varmap = VarMap::new();
    let model = Cnn::new(VarBuilder::from_varmap(&varmap, DType::F32, &Device::Cpu))?;
    let params = ParamsAdamW { lr: 0.01, ..Default::default() };
    let mut optimizer = AdamW::new(varmap.all_vars(), params)?;

    for epoch in 1..=EPOCHS {
        let mut total = 0.;
        for start in (0..IMAGES).step_by(BATCH) {
            let logits = model.forward(&images.narrow(0, start, BATCH)?)?;
            let loss = candle_nn::loss::cross_entropy(&logits, &labels.narrow(0, start, BATCH)?)?;
            optimizer.backward_step(&loss)?;
            total += loss.to_scalar::<f32>()? * BATCH as f32;
        }
        if epoch % 2 == 0 {
            println!("epoch {epoch}: train loss {:.4}", total / IMAGES as f32);
        }
    }

    let predicted = model.forward(&test_images)?.argmax(D::Minus1)?;
    let accuracy = predicted.eq(&test_labels)?.to_dtype(DType::F32)?.mean_all()?.to_scalar::<f32>()?;
    println!("test accuracy {:.1} %", 100. * accuracy);
    assert!(accuracy > 0.9, "the network has not learned the bars");
    Ok(())
}
