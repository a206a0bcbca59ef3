//! The fair comparison: many settings of each optimizer on many seeds, and what follows from their runs.
//!
//! | module | what |
//! |---|---|
//! | `seeds` | the seeds of all runs, from the experiment's seed |
//! | `runs` | the table of all runs, `runs.csv` |

pub mod runs;
pub mod seeds;
