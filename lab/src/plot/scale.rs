//! How numbers lie on an axis: logarithmically if they span more than a decade.

use super::paper::{Axis, ticks};

/// The minimum and the maximum of numbers, which are not NaN; without numbers, infinity and its negative.
pub fn ends(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)))
}

/// How numbers lie on an axis.
pub struct Scale {
    /// Whether the axis is logarithmic.
    pub log: bool,
    /// Whether zero stands at the lower end of a logarithmic axis.
    zero: bool,
    /// The lower end; its base-10 logarithm if the axis is logarithmic.
    pub from: f64,
    /// The upper end, in the same form.
    pub to: f64,
}

impl Scale {
    /// A scale for finite `numbers`: logarithmic if they span more than a decade.
    pub fn new(numbers: impl Iterator<Item = f64> + Clone, always_log: bool) -> Self {
        let (least, most) = ends(numbers.clone());
        if least > most {
            return Self::exact(0., 1.);
        }
        let positive = numbers.filter(|&x| x >= f64::MIN_POSITIVE).fold(f64::INFINITY, f64::min);
        if least >= 0. && positive < most && (always_log || most / positive > 10. || most / least > 10.) {
            let zero = least < positive;
            let (from, to) = (positive.log10() - f64::from(zero), most.log10());
            let margin = 0.04 * (to - from);
            return Self { log: true, zero, from: from - margin, to: to + margin };
        }
        let log = always_log && least > 0.;
        let (from, to) = if log { (least.log10(), most.log10()) } else { (least, most) };
        Self::around(from, to, log)
    }

    /// A linear scale for finite `numbers`.
    pub fn linear(numbers: impl Iterator<Item = f64>) -> Self {
        let (least, most) = ends(numbers);
        if least > most { Self::exact(0., 1.) } else { Self::around(least, most, false) }
    }

    /// A linear scale between two numbers.
    pub fn exact(from: f64, to: f64) -> Self {
        Self { log: false, zero: false, from, to }
    }

    /// A range with room for ticks, even for a single number, or for numbers close to zero.
    fn around(from: f64, to: f64, log: bool) -> Self {
        let least = if log { 0.5 } else { (1e-3 * from.abs().max(to.abs())).max(1e-300) };
        let margin = (0.04 * (to - from)).max(least);
        Self { log, zero: false, from: from - margin, to: to + margin }
    }

    /// Where a number lies.
    pub fn at(&self, x: f64) -> f64 {
        let x = if self.log { x.log10() } else { x };
        // The ends of an axis that points down are reversed.
        x.clamp(self.from.min(self.to), self.from.max(self.to))
    }

    /// The axis with its ticks.
    pub fn axis(&self) -> Axis {
        if !self.log {
            return Axis::new(self.from, self.to, 0.);
        }
        // Nothing lies between zero and the lowest positive number, a decade above it.
        let from = if self.zero { self.from + 1. } else { self.from };
        // Ticks are decades if there are two or more, else round numbers within them.
        let mut all = if self.to - from < 2. {
            let decades = from.floor() as i32..=self.to.ceil() as i32;
            let round = decades.flat_map(|power| [1., 2., 5.].map(|n| f64::from(power) + f64::log10(n)));
            round.filter(|x| (from..self.to).contains(x)).collect()
        } else {
            ticks(from, self.to, 1.)
        };
        if self.zero {
            all.insert(0, self.from);
        }
        Axis::with_ticks(self.from, self.to, all)
    }

    /// The label of a tick.
    pub fn label(&self, at: f64) -> String {
        let x = if self.log { 10f64.powf(at) } else { at };
        if x.abs() < 1e-300 || self.zero && at <= self.from {
            return "0".into();
        }
        // The digits that distinguish a tick from the next, which is a tenth of the range away or more.
        let digits =
            if self.log { 1. } else { x.abs().log10().floor() - ((self.to - self.from) / 10.).log10().floor() };
        let text: f64 = format!("{x:.0$e}", digits.clamp(0., 15.) as usize).parse().unwrap_or(x);
        if (1e-4..1e5).contains(&text.abs()) { format!("{text}") } else { format!("{text:e}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_of_more_than_a_decade_are_logarithmic() {
        let scale = |numbers: &[f64]| Scale::new(numbers.iter().copied(), false);
        assert!(!scale(&[0.2, 0.7]).log && !scale(&[-1., 100.]).log && !scale(&[0.5]).log && !scale(&[]).log);
        let wide = scale(&[0.001, 0.7]);
        assert!(wide.log && wide.from < -3. && wide.to > 0.7f64.log10());
        // Zero stands at the end, a decade below the other numbers.
        let with_zero = scale(&[0., 1e-3, 1.]);
        assert!(with_zero.log && with_zero.at(0.) == with_zero.from && with_zero.from < -4.);
        assert_eq!([-2., 0., 5., -7.].map(|at| wide.label(at)), ["0.01", "1", "1e5", "1e-7"]);
        assert_eq!([with_zero.from, -3.].map(|at| with_zero.label(at)), ["0", "0.001"]);
    }

    #[test]
    fn ticks_of_a_narrow_axis_differ() {
        for (from, to) in [(0.6921, 0.6929), (1., 1.0001), (-0.5, -0.49), (123.4, 123.5), (0., 7.), (0.2, 0.7)] {
            let scale = Scale::new([from, to].into_iter(), false);
            let labels: Vec<String> = ticks(scale.from, scale.to, 0.).iter().map(|at| scale.label(*at)).collect();
            let distinct: std::collections::HashSet<&String> = labels.iter().collect();
            assert!(labels.len() >= 3 && distinct.len() == labels.len(), "{labels:?}");
        }
    }
}
