//! Credentials on their one way out, to the operator who asked for them, and the code that an
//! authenticator app would show.

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;
use totp_rs::{Algorithm, Builder, Secret};
use vitalseal_compliance::access::NewCredentials;

/// What a new user is handed, once. The only place where credentials are serialized.
#[derive(Serialize)]
pub(crate) struct CredentialsView<'a> {
    user: &'a str,
    password: &'a str,
    totp_secret: &'a str,
}

impl<'a> From<&'a NewCredentials> for CredentialsView<'a> {
    fn from(made: &'a NewCredentials) -> Self {
        let NewCredentials {
            user,
            password,
            totp_secret,
        } = made;
        Self {
            user: user.as_str(),
            password,
            totp_secret,
        }
    }
}

/// The six digits that an authenticator app shows at `now` for a secret in base 32 (RFC 6238).
///
/// # Errors
/// The secret is not base 32, or `now` is before 1970.
pub fn totp_code(secret: &str, now: Timestamp) -> anyhow::Result<String> {
    let secret = Secret::try_from_base32(secret).context("reading the TOTP secret")?;
    let totp = Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_step_duration(30)
        .with_secret(secret)
        .build_noncompliant();
    let seconds = u64::try_from(now.as_second()).context("reading the time")?;
    Ok(totp.generate(seconds).to_string())
}
