//! Where `tail` writes, and the resume file beside it.
//!
//! The resume file has the cursor behind the lines that are written and, with an output file, the bytes that they take in
//! it. A process that starts again cuts the output there and continues at the cursor, so each line is in the file once,
//! wherever the process before was killed.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::commands::state::{StateFile, check_distinct};

/// The content of a resume file.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resume {
    followed: Followed,
    /// `--since` of the first run as a point in time: where to start as long as there is no cursor.
    since: Option<String>,
    /// Where the next stream starts; `None` before the server has named a position.
    cursor: Option<String>,
    output: Option<Written>,
}

/// What the records come from.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Followed {
    pub url: String,
    /// The query string of `--user`, `--action` and `--q`.
    pub filter: String,
}

/// What is in the output file up to the cursor.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    file: String,
    bytes: u64,
}

/// What `tail` writes to.
pub struct Output {
    /// The output file; without it standard output.
    file: Option<File>,
    resume: Option<StateFile>,
    state: Resume,
}

impl Output {
    /// Opens the files. The output file is cut to the lines that the resume file knows.
    ///
    /// # Errors
    ///
    /// A sentence, if a file cannot be used or the two do not belong together.
    pub fn open(
        output: Option<&Path>,
        resume: Option<PathBuf>,
        followed: Followed,
        since: Option<String>,
    ) -> Result<Self, String> {
        let new = Resume { followed: followed.clone(), since, ..Resume::default() };
        check_distinct(None, &[("--output", output), ("--resume-file", resume.as_deref())])?;
        let Some(resume) = resume.map(StateFile::lock).transpose()? else {
            return Ok(Output { file: None, resume: None, state: new });
        };
        let earlier: Option<Resume> = resume.read()?;
        let is_new = earlier.is_none();
        let mut state = earlier.unwrap_or(new);
        let shown = resume.path().display();
        if state.followed != followed {
            let Followed { url, filter } = state.followed;
            return Err(format!(
                "{shown} belongs to {url} with the filter `{filter}`: give the same --url and the same filter options, or \
                 another resume file"
            ));
        }
        let file = match (output, &state.output) {
            (None, None) => None,
            (None, Some(Written { file, .. })) => {
                return Err(format!("{shown} was written with --output {file}: name both"));
            }
            (Some(path), _) => {
                let cannot = |error: io::Error| format!("cannot write {}: {error}", path.display());
                // The file is created only if nothing is wrong.
                let name = std::path::absolute(path).map_err(cannot)?;
                let name = path.canonicalize().unwrap_or(name).to_string_lossy().into_owned();
                let length = path.metadata().map_or(0, |file| file.len());
                let bytes = match &state.output {
                    Some(known) if known.file != name => {
                        return Err(format!("{shown} was written with --output {}, not {name}", known.file));
                    }
                    Some(known) if known.bytes > length => {
                        let known = known.bytes;
                        return Err(format!("{name} has {length} bytes, expected at least {known}: name new files"));
                    }
                    Some(known) => known.bytes,
                    None if !is_new => return Err(format!("{shown} was written without --output: name a new file")),
                    None if length > 0 => {
                        return Err(format!("{name} is not empty and {shown} does not exist: name a new file"));
                    }
                    None => 0,
                };
                let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(cannot)?;
                let name = path.canonicalize().map_err(cannot)?.to_string_lossy().into_owned();
                state.output = Some(Written { file: name, bytes });
                Some(cut(file, bytes).map_err(cannot)?)
            }
        };
        resume.write(&state).map_err(|error| format!("cannot write {shown}: {error}"))?;
        Ok(Output { file, resume: Some(resume), state })
    }

    /// Where the stream starts, if an earlier run has left that.
    pub fn cursor(&self) -> Option<&str> {
        self.state.cursor.as_deref()
    }

    /// Where the stream starts without a cursor.
    pub fn since(&self) -> Option<&str> {
        self.state.since.as_deref()
    }

    /// Writes lines, and then that they are written.
    pub fn write(&mut self, lines: &[u8], cursor: Option<&str>) -> io::Result<()> {
        match (&mut self.file, &mut self.state.output) {
            (Some(file), Some(written)) if !lines.is_empty() => {
                file.write_all(lines)?;
                file.sync_data()?;
                written.bytes += lines.len() as u64;
            }
            (Some(_), _) => {}
            (None, _) => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()?;
            }
        }
        if let Some(resume) = &self.resume
            && cursor.is_some()
            && cursor != self.state.cursor.as_deref()
        {
            self.state.cursor = cursor.map(str::to_owned);
            resume.write(&self.state)?;
        }
        Ok(())
    }
}

/// Removes what is behind this many bytes, and continues there.
fn cut(mut file: File, bytes: u64) -> io::Result<File> {
    file.set_len(bytes)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}
