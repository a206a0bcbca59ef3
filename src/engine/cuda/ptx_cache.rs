//! Compiled kernels on disk, in the user's cache folder. To compile one takes about a tenth of a second.
//!
//! An entry holds all that it was compiled from, and a checksum. A damaged entry is ignored, and so is an entry of
//! another source with the same hash. A folder that cannot be written only costs time.

use std::fs;
use std::path::{Path, PathBuf};

const TITLE: &str = "// candle-optim, compiled kernel, 1\n";

/// The folder of this user's entries, or `None` if the user has no home folder.
pub(super) fn folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = variable("XDG_CACHE_HOME").or_else(|| variable("LOCALAPPDATA"));
    let caches = caches.or_else(|| Some(variable("HOME")?.join(".cache")))?;
    caches.is_absolute().then(|| caches.join("candle-optim"))
}

/// The cached PTX of `key`, which holds all that the PTX depends on.
pub(super) fn read(folder: &Path, key: &str) -> Option<String> {
    let entry = fs::read_to_string(path(folder, key)).ok()?;
    let ptx = entry.strip_prefix(&head(key))?;
    let (sum, ptx) = ptx.split_once('\n')?;
    (sum == hex(ptx)).then(|| ptx.to_owned())
}

/// Stores the PTX of `key`, whole or not at all: another process may read the folder meanwhile, or write to it.
pub(super) fn write(folder: &Path, key: &str, ptx: &str) -> std::io::Result<()> {
    let target = path(folder, key);
    let draft = target.with_extension(format!("{}.tmp", std::process::id()));
    fs::create_dir_all(folder)?;
    let written = fs::write(&draft, format!("{}{}\n{ptx}", head(key), hex(ptx)));
    let stored = written.and_then(|()| fs::rename(&draft, target));
    if stored.is_err() {
        let _ = fs::remove_file(draft);
    }
    stored
}

fn path(folder: &Path, key: &str) -> PathBuf {
    folder.join(format!("{}.ptx", hex(key)))
}

fn head(key: &str) -> String {
    format!("{TITLE}{key}\n")
}

/// FNV-1a of 64 bits (Fowler, Noll and Vo), in hexadecimal. `std`'s hash may change with the compiler.
fn hex(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() -> std::io::Result<()> {
        let folder = std::env::temp_dir().join(format!("candle-optim-ptx-{}", std::process::id()));
        assert_eq!(read(&folder, "key"), None);
        write(&folder, "key", ".version 9.0\nret;\n")?;
        assert_eq!(read(&folder, "key").as_deref(), Some(".version 9.0\nret;\n"));
        assert_eq!(read(&folder, "other"), None);
        let entry = path(&folder, "key");
        let whole = fs::read(&entry)?;
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&entry, &damaged)?;
            assert_eq!(read(&folder, "key"), None, "byte {at}");
            fs::write(&entry, &whole[..at])?;
            assert_eq!(read(&folder, "key"), None, "cut at {at}");
        }
        // The damaged entry is overwritten.
        write(&folder, "key", "ret;")?;
        assert_eq!(read(&folder, "key").as_deref(), Some("ret;"));
        // An entry of another key under this one's name.
        fs::rename(&entry, path(&folder, "other"))?;
        assert_eq!(read(&folder, "other"), None);
        assert_eq!(fs::read_dir(&folder)?.count(), 1);
        fs::remove_dir_all(folder)
    }
}
