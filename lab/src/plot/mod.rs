//! Pictures, as PNG and SVG.
//!
//! | module | what |
//! |---|---|
//! | `paper` | what all pictures share |
//! | `losses` | the chapter's figure |

mod losses;
mod paper;

pub use losses::Figure;
pub use paper::{Axis, DASHES, FONT, INK, PALETTE, Picture, fitted, mesh, register_font, ticks, title_font};
