//! One file for each optimizer, and the list of all.
pub use lbfgs::LineSearch;
pub use lookahead::Pullback;
pub use mars::MarsType;
pub use muon::AdjustLr;

mod caution;
mod tensors;

macro_rules! pages { ($($(#[$cfg:meta])? $page:ident: $Params:ident $($DropIn:ident)?;)*) => {
    $($(#[$cfg])? pub mod $page;)*
    $($(#[$cfg])? pub use $page::{$Params $(, $DropIn)?};)*
    impl Default for crate::spec::Registry {
        fn default() -> Self {
            Self(Vec::from([$($(#[$cfg])? crate::spec::entry::<$Params>()),*]))
        }
    }
} }
pages! {
    sgd: ParamsSgd Sgd;
    momentum: ParamsMomentum Momentum;
    rmsprop: ParamsRmsProp RmsProp;
    adam: ParamsAdam Adam;
    adamw: ParamsAdamW AdamW;
    lion: ParamsLion Lion;
    rprop: ParamsRprop Rprop;
    lamb: ParamsLamb Lamb;
    nadam: ParamsNAdam NAdam;
    nadamw: ParamsNAdamW NAdamW;
    radam: ParamsRAdam RAdam;
    adamax: ParamsAdamax Adamax;
    adagrad: ParamsAdagrad Adagrad;
    adadelta: ParamsAdadelta Adadelta;
    asgd: ParamsAsgd Asgd;
    signum: ParamsSignum Signum;
    lars: ParamsLars Lars;
    yogi: ParamsYogi Yogi;
    adabelief: ParamsAdaBelief AdaBelief;
    adan: ParamsAdan Adan;
    ademamix: ParamsAdEmaMix AdEmaMix;
    adopt: ParamsAdopt Adopt;
    mars: ParamsMars Mars;
    madgrad: ParamsMadgrad Madgrad;
    schedule_free_sgd: ParamsScheduleFreeSgd ScheduleFreeSgd;
    schedule_free_adamw: ParamsScheduleFreeAdamW ScheduleFreeAdamW;
    prodigy: ParamsProdigy Prodigy;
    muon: ParamsMuon;
    lbfgs: ParamsLbfgs;
    adafactor: ParamsAdafactor;
    came: ParamsCame;
    novograd: ParamsNovoGrad;
    #[cfg(feature = "linalg")] soap: ParamsSoap;
    lookahead: ParamsLookahead;
    sam: ParamsSam;
    ema: ParamsEma;
}
