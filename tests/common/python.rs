//! Python, for third-party programs that tests run.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A Python with the packages in `dev/requirements.txt`: the one of `dev/test`, or the one that `dev/setup` makes.
pub fn command() -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let interpreter = std::env::var_os("FOOTFALL_TEST_PYTHON").map(PathBuf::from).unwrap_or_else(|| {
        let installed = Command::new(root.join("dev/setup")).arg("python").status().expect("dev/setup can be run");
        assert!(installed.success(), "dev/setup python");
        root.join(".cache/python/bin/python")
    });
    Command::new(interpreter)
}
