//! One file for each optimizer, and the list of all.
pub use lbfgs::LineSearch;
pub use lookahead::Pullback;
pub use muon::AdjustLr;

macro_rules! pages { ($($page:ident: $Params:ident $($DropIn:ident)?;)*) => {
    $(pub mod $page;)*
    $(pub use $page::{$Params $(, $DropIn)?};)*
    impl Default for crate::spec::Registry {
        fn default() -> Self {
            Self(vec![$(crate::spec::entry::<$Params>()),*])
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
    schedule_free_sgd: ParamsScheduleFreeSgd ScheduleFreeSgd;
    prodigy: ParamsProdigy Prodigy;
    muon: ParamsMuon;
    lbfgs: ParamsLbfgs;
    lookahead: ParamsLookahead;
    sam: ParamsSam;
    ema: ParamsEma;
}
