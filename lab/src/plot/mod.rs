//! Pictures, as PNG and SVG.
//!
//! | module | what |
//! |---|---|
//! | `paper` | what all pictures share |
//! | `look` | how an optimizer looks |
//! | `scale` | how numbers lie on an axis |
//! | `legend` | the title and the legend |
//! | `thin` | fewer points of a long line |
//! | `losses` | the chapter's figure |
//! | `panels` | any other figure of the report |

mod legend;
mod look;
mod losses;
mod panels;
mod paper;
mod scale;
pub mod thin;

pub use look::{Look, PALETTE, dash, looks, marker};
pub use losses::Figure;
pub use panels::Panels;
pub use paper::{Axis, Drawn, FONT, GRAY, INK, Picture, fitted, mesh, register_font, title_font};
pub use scale::{Scale, ends};
