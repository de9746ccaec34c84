//! Keys are in this process's memory: it leaves no core, lets no debugger of the same user in, and stays out of swap
//! where the system allows that.

use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl::{get_dumpable, set_dumpable};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// Whether the process's memory may be swapped out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryLock {
    /// Everything that is touched from now on stays in memory.
    Locked,
    /// The limit on locked memory is finite. Locking under it would make a later allocation fail, and with it the
    /// server, so nothing was locked.
    Limited,
    /// The system refused.
    Refused(Errno),
}

/// Keeps keys out of core files and away from debuggers.
///
/// # Errors
/// The system refused.
pub(crate) fn forbid_core_dumps() -> anyhow::Result<()> {
    set_dumpable(false).context("forbidding core dumps")?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("forbidding core dumps")
}

/// Keeps this process out of swap. Pages are locked as they are touched, so that what is only reserved costs nothing.
pub(crate) fn lock() -> MemoryLock {
    // A privileged process is not held to the limit, and an unlimited one has none.
    let unlimited =
        getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == RLIM_INFINITY);
    if !unlimited && !has_ipc_lock() {
        return MemoryLock::Limited;
    }
    let on_fault = MlockAllFlags::from_bits_retain(nix::libc::MCL_ONFAULT);
    let flags = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault;
    match mlockall(flags) {
        Ok(()) => MemoryLock::Locked,
        Err(errno) => MemoryLock::Refused(errno),
    }
}

/// Whether a core or a debugger may have this process's memory, as the kernel tells it.
///
/// # Errors
/// The system refused.
pub(crate) fn is_dumpable() -> anyhow::Result<bool> {
    get_dumpable().context("asking whether core dumps are forbidden")
}

/// Whether memory of this process is locked, as the kernel tells it.
pub(crate) fn is_locked() -> bool {
    status("VmLck:").is_some_and(|kib| kib.trim_end_matches("kB").trim() != "0")
}

/// `CAP_IPC_LOCK` is bit 14 of the effective capabilities, `capabilities(7)`.
fn has_ipc_lock() -> bool {
    let effective = status("CapEff:").and_then(|bits| u64::from_str_radix(&bits, 16).ok());
    effective.is_some_and(|bits| bits >> 14 & 1 == 1)
}

/// A line of `/proc/self/status`, `proc_pid_status(5)`.
fn status(field: &str) -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().to_owned())
}
