//! Files in which `send` and `tail` keep where they are, so that the next run continues there.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most bytes of such a file.
const MOST: u64 = 1 << 20;

/// A file with one JSON object, for one run at a time.
pub struct StateFile {
    path: PathBuf,
    /// Holds the lock until the process ends. It is a file of its own, because the state file is replaced.
    _lock: File,
}

impl StateFile {
    /// Locks the file, which need not exist.
    ///
    /// # Errors
    ///
    /// A sentence, if another run uses the file or it cannot be locked.
    pub fn lock(path: PathBuf) -> Result<Self, String> {
        let name = with_suffix(&path, ".lock");
        let cannot = |error: io::Error| format!("cannot lock {}: {error}", name.display());
        let lock = File::options().write(true).create(true).truncate(false).open(&name).map_err(cannot)?;
        match lock.try_lock() {
            Ok(()) => Ok(StateFile { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(format!("another run uses {}: wait for its end", path.display())),
            Err(TryLockError::Error(error)) => Err(cannot(error)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// A sentence, if the file cannot be read or was not written by [`write`](Self::write).
    pub fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, String> {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|file| file.take(MOST).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", self.path.display())),
            Ok(_) => {}
        }
        let state = serde_json::from_slice(&bytes);
        state
            .map(Some)
            .map_err(|error| format!("{} is not a resume file of this command: {error}", self.path.display()))
    }

    /// Replaces the file as a whole: a process that is killed, or a machine that fails, leaves the old or the new content.
    pub fn write(&self, state: &impl Serialize) -> io::Result<()> {
        let new = with_suffix(&self.path, ".new");
        let mut file = File::create(&new)?;
        let mut text = serde_json::to_vec(state)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_data()?;
        fs::rename(&new, &self.path)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What two names of one file have in common.
#[derive(PartialEq, Eq)]
pub enum Identity {
    /// Device and inode.
    Existing(u64, u64),
    New(PathBuf),
}

impl Identity {
    /// Returns the identity of a file that exists; `None` of a pipe, a device or a folder.
    pub fn of(file: &Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        file.is_file().then(|| Identity::Existing(file.dev(), file.ino()))
    }

    /// Returns the identity of a file that may not exist yet.
    fn at(path: &Path) -> Option<Self> {
        match fs::metadata(path) {
            Ok(file) => Identity::of(&file),
            Err(_) => {
                let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
                Some(Identity::New(folder.canonicalize().ok()?.join(path.file_name()?)))
            }
        }
    }
}

/// Checks that no two options name the same file. The input is a file that is open already.
///
/// # Errors
///
/// A sentence with the two names.
pub fn check_distinct(input: Option<Identity>, files: &[(&str, Option<&Path>)]) -> Result<(), String> {
    let mut seen: Vec<(&str, Identity)> = input.into_iter().map(|input| ("the input", input)).collect();
    for (name, path) in files {
        let Some(identity) = path.and_then(Identity::at) else { continue };
        if let Some((other, _)) = seen.iter().find(|(_, other)| *other == identity) {
            return Err(format!("{other} and {name} are the same file: expected two"));
        }
        seen.push((name, identity));
    }
    Ok(())
}
