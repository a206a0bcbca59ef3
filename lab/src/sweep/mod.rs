//! The fair comparison: many settings of each optimizer on many seeds, and what follows from their runs.
//!
//! | module | what |
//! |---|---|
//! | `seeds` | the seeds of all runs, from the experiment's seed |
//! | `runs` | the table of all runs, `runs.csv` |
//! | `statistics` | every number that is computed from it |

pub mod runs;
pub mod seeds;
pub mod statistics;
