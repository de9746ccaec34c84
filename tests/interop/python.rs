//! Runs the scripts of this folder, for tests of every crate.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The environment that `test.sh` makes; without it these tests cannot speak for anyone, so they fail.
fn python() -> PathBuf {
    std::env::var_os("VITALSEAL_INTEROP_PYTHON")
        .map(PathBuf::from)
        .unwrap_or_else(|| cache().join("interop/bin/python"))
}

/// Where `test.sh` keeps what it makes.
pub fn cache() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").expect("a home directory")).join(".cache")
    });
    cache.join("vitalseal")
}

/// One script to its end.
pub fn run(script: &str, args: &[&str]) -> Output {
    let python = python();
    command(script, args)
        .output()
        .unwrap_or_else(|error| panic!("{} ({error}); run ./test.sh once", python.display()))
}

/// One script, not started yet.
pub fn command(script: &str, args: &[&str]) -> Command {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("tests/interop"))
        .find(|folder| folder.is_dir())
        .expect("the scripts are in the checkout");
    let mut command = Command::new(python());
    command
        .arg(scripts.join(script))
        .args(args)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
