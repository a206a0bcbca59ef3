//! PyTorch's CPU generator and what `nn.Linear` draws from it.

use rand_mt::Mt;

/// `torch.Generator` on the CPU: equal seeds and calls give equal bits.
#[derive(Clone, Debug)]
pub struct Generator {
    bits: Mt,
}

impl Generator {
    /// `torch.manual_seed(seed)`; as in torch, only the low 32 bits of the seed count
    /// (`aten/src/ATen/core/MT19937RNGEngine.h`).
    pub fn manual_seed(seed: u64) -> Self {
        Self { bits: Mt::new(seed as u32) }
    }

    /// One element of float32 `uniform_(from, to)`: 24 random bits on [`from`, `to`)
    /// (`aten/src/ATen/core/TransformationHelper.h`, `uniform_real`).
    pub fn uniform_f32(&mut self, from: f32, to: f32) -> f32 {
        const BITS: u32 = 24;
        let unit = (self.bits.next_u32() % (1 << BITS)) as f32 / (1 << BITS) as f32;
        // torch's AVX2 and AVX-512 kernels are compiled with contraction: one rounding, not two.
        unit.mul_add(to - from, from)
    }

    /// `torch.randperm(n)`: a random order of 0, 1, ..., `n` - 1
    /// (`aten/src/ATen/native/TensorFactories.cpp`, `randperm_cpu`).
    ///
    /// From `n` = (2³² - 1) / 20 on, torch uses another method, which is not implemented here.
    pub fn randperm(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in 0..n.saturating_sub(1) {
            order.swap(i, i + self.bits.next_u32() as usize % (n - i));
        }
        order
    }

    /// Weight and bias of a new `nn.Linear(inputs, outputs)`: `outputs` × `inputs` values, row by
    /// row, and `outputs` values (`torch/nn/modules/linear.py`, `reset_parameters`).
    pub fn linear(&mut self, inputs: usize, outputs: usize) -> (Vec<f32>, Vec<f32>) {
        // kaiming_uniform_(a=√5) gives the weight the same bound as the bias; its different formula rounds to the same
        // float32 for every number of inputs up to 10⁸. Without inputs, torch draws a bias of zeros.
        let bound = if inputs == 0 { 0.0 } else { (inputs as f64).sqrt().recip() as f32 };
        let mut draw = |len| (0..len).map(|_| self.uniform_f32(-bound, bound)).collect();
        (draw(inputs * outputs), draw(outputs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn randperm_holds_every_index_once() {
        let mut rng = Generator::manual_seed(1);
        for n in [0, 1, 2, 31, 1000] {
            let mut order = rng.randperm(n);
            order.sort_unstable();
            assert!(order.into_iter().eq(0..n));
        }
    }

    #[test]
    fn linear_has_the_shapes_and_bounds_of_torch() {
        for (inputs, outputs) in [(16, 3), (4, 0), (0, 4)] {
            let (weight, bias) = Generator::manual_seed(2).linear(inputs, outputs);
            assert_eq!((weight.len(), bias.len()), (inputs * outputs, outputs));
            let bound = 1.0 / (inputs.max(1) as f32).sqrt();
            assert!(weight.iter().chain(&bias).all(|w| w.abs() <= bound));
        }
    }

    #[test]
    fn only_the_low_half_of_the_seed_counts() {
        let order = Generator::manual_seed(7).randperm(50);
        assert_eq!(Generator::manual_seed(7 + (1 << 32)).randperm(50), order);
    }
}
