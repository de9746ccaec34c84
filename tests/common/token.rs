//! A PKCS#11 token of `SoftHSM2` in a temporary directory: a stand-in for a hardware module, which keeps its objects in
//! files and overwrites none of them.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part of the fixture"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The environment variable by which `SoftHSM2` finds its configuration.
const CONFIGURATION: &str = "SOFTHSM2_CONF";
/// Label of the token.
pub const LABEL: &str = "ward";
/// Its user PIN.
pub const PIN: &str = "48151623-kestrel";

/// Set in the process that [`alone`] starts: where its token is.
const AGAIN: &str = "VITALSEAL_TEST_TOKEN_DIR";

/// Runs a test as a process of its own, over a token of its own: the module reads where its tokens are from the
/// environment when it is loaded. `test` is the test's full name.
pub fn alone(test: &str, body: impl FnOnce(&SoftToken)) {
    if let Some(dir) = std::env::var_os(AGAIN) {
        return body(&SoftToken { dir: dir.into() });
    }
    let dir = tempfile::tempdir().unwrap();
    let soft = SoftToken::init(dir.path());
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CONFIGURATION, soft.configuration())
        .env(AGAIN, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&run.stderr)
    );
}

/// Files of one token.
pub struct SoftToken {
    dir: PathBuf,
}

impl SoftToken {
    /// Initialises a token in an existing directory.
    fn init(dir: &Path) -> Self {
        let token = Self {
            dir: dir.to_owned(),
        };
        fs::create_dir(token.objects()).unwrap();
        let settings = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            token.objects().display()
        );
        fs::write(token.configuration(), settings).unwrap();
        token.write_pin(&format!("{PIN}\n"), 0o600);
        token.add(LABEL);
        token
    }

    /// Initialises one more token, with the same PIN.
    pub fn add(&self, label: &str) {
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--so-pin", "officer-pin"])
            .args(["--label", label, "--pin", PIN])
            .env(CONFIGURATION, self.configuration())
            .output()
            .expect("softhsm2-util is installed (test.sh installs the Debian package softhsm2)");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
    }

    /// Writes the PIN file anew.
    pub fn write_pin(&self, text: &str, mode: u32) {
        fs::write(self.pin_file(), text).unwrap();
        fs::set_permissions(self.pin_file(), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn configuration(&self) -> PathBuf {
        self.dir.join("softhsm2.conf")
    }

    pub fn pin_file(&self) -> PathBuf {
        self.dir.join("token.pin")
    }

    /// Where `SoftHSM2` keeps its files.
    pub fn objects(&self) -> PathBuf {
        self.dir.join("tokens")
    }
}

/// The module, wherever a distribution puts it.
pub fn module() -> PathBuf {
    [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
    ]
    .map(PathBuf::from)
    .into_iter()
    .find(|path| path.exists())
    .expect("SoftHSM2 is installed (test.sh installs the Debian package softhsm2)")
}
