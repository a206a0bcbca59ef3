//! One optimizer a file, and the registry of them all.
//!
//! The command line, `list`, the README's table and the generic tests read [`REGISTRY`]: an optimizer is known
//! everywhere once its line stands here.

pub mod adam;
pub mod adamw;
pub mod candle;
pub mod momentum;
pub mod rmsprop;
pub mod sgd;

use crate::optimizer::Build;

/// One optimizer of the registry.
pub struct Entry {
    /// Name in a spec.
    pub name: &'static str,
    /// What it is, in a line.
    pub summary: &'static str,
    /// Where it was published.
    pub source: &'static str,
    /// Its hyperparameters at their defaults, which are torch's.
    pub defaults: fn() -> Box<dyn Build>,
}

const fn entry<P: Build + Default + 'static>(name: &'static str, summary: &'static str, source: &'static str) -> Entry {
    Entry { name, summary, source, defaults: || Box::new(P::default()) }
}

/// Every optimizer: ours, then Candle's own.
#[rustfmt::skip]
pub const REGISTRY: &[Entry] = &[
    entry::<sgd::ParamsSgd>("sgd", "Gradient descent; momentum, Nesterov", "Sutskever et al. 2013"),
    entry::<momentum::ParamsMomentum>("momentum", "Momentum as an average of the gradient", "Polyak 1964"),
    entry::<rmsprop::ParamsRmsProp>("rmsprop", "RMSprop; momentum, centered", "Tieleman and Hinton 2012"),
    entry::<adam::ParamsAdam>("adam", "Adam with L2 decay; AMSGrad", "Kingma and Ba 2014, arXiv:1412.6980"),
    entry::<adamw::ParamsAdamW>("adamw", "Adam with decoupled decay; AMSGrad", "Loshchilov and Hutter 2017, arXiv:1711.05101"),
    entry::<candle::ParamsCandleSgd>("candle-sgd", "Candle's own SGD", "candle_nn::SGD"),
    entry::<candle::ParamsCandleAdamW>("candle-adamw", "Candle's own AdamW", "candle_nn::AdamW"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_its_own_name_valid_defaults_and_lr_first() {
        for (i, entry) in REGISTRY.iter().enumerate() {
            let params = (entry.defaults)();
            assert_eq!(params.name(), entry.name);
            assert!(REGISTRY[..i].iter().all(|other| other.name != entry.name), "{} stands twice", entry.name);
            params.validate().unwrap();
            assert_eq!(params.fields()[0].key, "lr", "{}", entry.name);
        }
    }
}
