//! Result files, each written whole or not at all, and all of them or none.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::{Builder, NamedTempFile};

/// A folder for results, and the files that are ready to appear in it.
pub struct Output {
    folder: PathBuf,
    staged: Vec<(NamedTempFile, PathBuf)>,
}

impl Output {
    /// The folder for results, made if it does not exist. `names` are the files to come.
    ///
    /// # Errors
    /// No folder and cannot become one, not writable, or something that is not a file has one of the names.
    pub fn open(folder: &Path, names: &[&str]) -> Result<Self> {
        let shown = folder.display();
        ensure!(
            !folder.exists() || folder.is_dir(),
            "--out '{shown}' is a file; allowed: a folder, or a name not taken"
        );
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the output folder '{shown}'"))?;
        for name in names {
            let path = folder.join(name);
            ensure!(!path.is_dir(), "'{}' is a folder, where a result file is to be written", path.display());
        }
        let output = Self { folder: folder.into(), staged: vec![] };
        output.temporary().with_context(|| format!("cannot write to the output folder '{shown}'"))?;
        Ok(output)
    }

    /// Writes a file under a temporary name.
    pub fn stage(&mut self, name: &str, contents: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        let write = || -> std::io::Result<NamedTempFile> {
            let mut file = self.temporary()?;
            file.write_all(contents)?;
            file.as_file().sync_data()?;
            Ok(file)
        };
        let file =
            write().with_context(|| format!("cannot write '{}'; earlier results are unchanged", path.display()))?;
        self.staged.push((file, path));
        Ok(())
    }

    /// Gives all staged files their names.
    pub fn commit(self) -> Result<()> {
        for (file, path) in self.staged {
            file.persist(&path).with_context(|| format!("cannot write '{}'", path.display()))?;
        }
        Ok(())
    }

    fn temporary(&self) -> std::io::Result<NamedTempFile> {
        let mut builder = Builder::new();
        builder.prefix(".candle-optim-");
        // Results are ordinary files, subject to the umask, where a temporary file is its owner's alone.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        builder.tempfile_in(&self.folder)
    }
}
