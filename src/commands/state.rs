//! Files in which `send` and `tail` keep where they are, so that the next run continues there.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most bytes of such a file.
const MOST: u64 = 1 << 20;

/// A file with one JSON object.
pub struct StateFile(PathBuf);

impl StateFile {
    pub fn at(path: PathBuf) -> Self {
        StateFile(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the file; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// A sentence, if the file cannot be read or was not written by [`write`](Self::write).
    pub fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, String> {
        let mut bytes = Vec::new();
        let read = File::open(&self.0).and_then(|file| file.take(MOST).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", self.0.display())),
            Ok(_) => {}
        }
        let state = serde_json::from_slice(&bytes);
        state.map(Some).map_err(|error| format!("{} is not a resume file of this command: {error}", self.0.display()))
    }

    /// Replaces the file as a whole: a process that is killed, or a machine that fails, leaves the old or the new content.
    pub fn write(&self, state: &impl Serialize) -> io::Result<()> {
        let mut name = self.0.clone().into_os_string();
        name.push(".new");
        let new = PathBuf::from(name);
        let mut file = File::create(&new)?;
        let mut text = serde_json::to_vec(state)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_data()?;
        fs::rename(&new, &self.0)
    }
}
