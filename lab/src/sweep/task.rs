//! A share of the work, for one process of an array on one machine or many.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};

/// One task of several.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Task {
    /// Its index, from 0.
    pub number: usize,
    /// The number of tasks.
    pub of: usize,
    /// Its source, such as an option or a scheduler.
    source: &'static str,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "task {} of {}, from 0, by {}", self.number, self.of, self.source)
    }
}

impl Task {
    /// The task that does all of the work.
    pub const ALONE: Self = Self { number: 0, of: 1, source: "" };

    /// Reads `I/N`, or `auto` to take the task from the environment.
    ///
    /// # Errors
    /// An invalid task, or an environment that contradicts itself.
    pub fn read(text: &str) -> Result<Self, String> {
        let read = || match text {
            "auto" => Self::from_environment(&|name| std::env::var(name).ok()),
            _ => {
                let allowed = "it must be I/N with whole numbers, I from 0 to N - 1, or auto";
                let (number, of) = text.split_once('/').context(allowed)?;
                Self::new(number.parse().context(allowed)?, of.parse().context(allowed)?, "--task").context(allowed)
            }
        };
        read().map_err(|error| format!("{error:#}"))
    }

    fn new(number: usize, of: usize, source: &'static str) -> Result<Self> {
        ensure!(number < of, "task {number} of {of}");
        Ok(Self { number, of, source })
    }

    /// The task that a scheduler has set in the environment.
    ///
    /// Slurm: an array with `SLURM_ARRAY_TASK_ID`, `_MIN`, `_MAX`, `_STEP` and `_COUNT`. Kubernetes: an indexed job has
    /// `JOB_COMPLETION_INDEX`, and its manifest sets `JOB_COMPLETIONS`. MPI: rank and size as Open MPI, MPICH or `srun`
    /// say.
    fn from_environment(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let number = |name: &str| -> Result<Option<usize>> {
            let Some(text) = variable(name) else { return Ok(None) };
            let number = text.trim().parse().ok();
            Ok(Some(number.with_context(|| format!("{name} is '{text}'; allowed: a whole number"))?))
        };
        let needed =
            |name: &str| number(name)?.with_context(|| format!("{name} is not set; --task I/N needs no variable"));
        if let Some(id) = number("SLURM_ARRAY_TASK_ID")? {
            let [min, max, step, count] =
                ["MIN", "MAX", "STEP", "COUNT"].map(|end| needed(&format!("SLURM_ARRAY_TASK_{end}")));
            let (min, max, step, count) = (min?, max?, step?.max(1), count?);
            let regular = count > 0 && id >= min && max == min + step * (count - 1) && (id - min).is_multiple_of(step);
            ensure!(
                regular && id <= max,
                "Slurm's array has {count} tasks from {min} to {max} by {step}, and this is {id}; allowed: an array such as \
                 0-{}",
                count.max(1) - 1
            );
            return Self::new((id - min) / step, count, "Slurm");
        }
        if let Some(index) = number("JOB_COMPLETION_INDEX")? {
            return Self::new(index, needed("JOB_COMPLETIONS")?, "Kubernetes");
        }
        for (rank, size) in [
            ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
            ("PMI_RANK", "PMI_SIZE"),
            ("SLURM_PROCID", "SLURM_NTASKS"),
        ] {
            if let Some(number) = number(rank)? {
                return Self::new(number, needed(size)?, "MPI");
            }
        }
        bail!("auto finds no task of Slurm, Kubernetes or MPI in the environment; allowed: I/N")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<(usize, usize), String> {
        let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, x)| x.to_string());
        let task = Task::from_environment(&variable).map_err(|error| error.to_string())?;
        Ok((task.number, task.of))
    }

    fn slurm(id: &str, min: &str, max: &str, step: &str, count: &str) -> Result<(usize, usize), String> {
        let names = ["ID", "MIN", "MAX", "STEP", "COUNT"].map(|end| format!("SLURM_ARRAY_TASK_{end}"));
        let values = [id, min, max, step, count];
        of(&names.iter().map(String::as_str).zip(values).collect::<Vec<_>>())
    }

    #[test]
    fn tasks_are_those_of_the_scheduler() {
        assert_eq!(slurm("2", "0", "3", "1", "4"), Ok((2, 4)));
        assert_eq!(slurm("5", "1", "9", "2", "5"), Ok((2, 5)));
        assert_eq!(of(&[("JOB_COMPLETION_INDEX", "3"), ("JOB_COMPLETIONS", "4")]), Ok((3, 4)));
        assert_eq!(of(&[("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")]), Ok((1, 2)));
        assert_eq!(of(&[("PMI_RANK", "0"), ("PMI_SIZE", "2")]), Ok((0, 2)));
        assert_eq!(of(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "3")]), Ok((0, 3)));
    }

    #[test]
    fn a_scheduler_that_contradicts_itself_is_refused() {
        // An array of 1, 5 and 7 has no step.
        for (id, min, max, step, count) in
            [("5", "1", "7", "1", "3"), ("9", "0", "3", "1", "4"), ("2", "1", "9", "2", "5"), ("0", "0", "0", "1", "0")]
        {
            assert!(slurm(id, min, max, step, count).unwrap_err().contains(&format!("this is {id}")));
        }
        assert!(slurm("x", "0", "3", "1", "4").unwrap_err().contains("SLURM_ARRAY_TASK_ID is 'x'"));
        assert!(of(&[("SLURM_ARRAY_TASK_ID", "1")]).unwrap_err().contains("SLURM_ARRAY_TASK_MIN is not set"));
        assert!(of(&[("JOB_COMPLETION_INDEX", "3")]).unwrap_err().contains("JOB_COMPLETIONS is not set"));
        assert!(of(&[("JOB_COMPLETION_INDEX", "4"), ("JOB_COMPLETIONS", "4")]).is_err());
        assert!(of(&[]).unwrap_err().contains("allowed: I/N"));
    }

    #[test]
    fn tasks_are_numbered_from_0() {
        assert_eq!(Task::read("0/1").map(|task| (task.number, task.of)), Ok((0, 1)));
        for text in ["4/4", "1", "-1/3", "a/b", "1/0", ""] {
            assert!(Task::read(text).unwrap_err().contains("I/N"), "{text}");
        }
    }
}
