//! The library of faults, built for whoever is to be struck.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Compiles `interpose.c` into `dir`; preloaded, it does to a process what its `VS_FAULT_…` variables say.
pub(crate) fn compile(dir: &Path) -> PathBuf {
    let library = dir.join("interpose.so");
    let mut compiler = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-x", "c", "-o"])
        .arg(&library)
        .args(["-", "-ldl", "-lpthread"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("a C compiler, which the dependencies need too");
    let source = include_bytes!("../../storage/tests/faults/interpose.c");
    compiler.stdin.take().unwrap().write_all(source).unwrap();
    assert!(compiler.wait().unwrap().success());
    library
}
