//! Passwords: drawn by us, stored as argon2id.

use std::sync::LazyLock;

use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

/// Memory per hash. OWASP's password storage recommendation for argon2id at t = 2, p = 1. Our passwords carry 125 random
/// bits and need no stretching at all; the cost is for passwords that people will choose once they may, and one
/// hash takes some 20 ms of one core, which a login can bear.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;

/// Letters and digits that are not mistaken for one another when read from paper: no I, L, O, U. Upper case, so that a
/// password typed into the name field is not a valid user name and therefore never reaches the audit log.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// 25 characters of 5 bits: 125 bits.
const CHARACTERS: usize = 25;

/// Hashing failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// The random number generator of the system failed.
    #[error("drawing random bytes")]
    Random(#[source] getrandom::Error),
    /// argon2 refused its parameters or ran out of memory.
    #[error("hashing a password")]
    Hash,
}

/// Draws a password, five groups of five characters.
pub(super) fn draw() -> Result<Zeroizing<String>, PasswordError> {
    let mut bytes = Zeroizing::new([0_u8; CHARACTERS]);
    getrandom::fill(bytes.as_mut_slice()).map_err(PasswordError::Random)?;
    let mut text = Zeroizing::new(String::with_capacity(CHARACTERS + 4));
    for (i, byte) in bytes.iter().enumerate() {
        if i > 0 && i % 5 == 0 {
            text.push('-');
        }
        text.push(char::from(ALPHABET[usize::from(byte & 31)]));
    }
    Ok(text)
}

/// Hashes a password, in PHC form. Takes tens of milliseconds of a core: not for an async task.
pub(super) fn hash(password: &str) -> Result<String, PasswordError> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(PasswordError::Random)?;
    let hash = argon2()?
        .hash_password_with_salt(password.as_bytes(), &salt)
        .map_err(|_| PasswordError::Hash)?;
    Ok(hash.to_string())
}

/// Whether the password fits the stored hash. For somebody unknown (`None`) the same work is done on a hash that fits nothing,
/// so that the time taken does not tell who exists.
pub(super) fn fits(password: &str, stored: Option<&str>) -> bool {
    static NOBODY: LazyLock<Option<String>> =
        LazyLock::new(|| draw().and_then(|password| hash(&password)).ok());
    let known = stored.is_some();
    let Some(stored) = stored.or(NOBODY.as_deref()) else {
        return false;
    };
    let Ok(argon2) = argon2() else { return false };
    let fits = argon2.verify_password(password.as_bytes(), stored).is_ok();
    fits && known
}

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| PasswordError::Hash)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use vitalseal_storage::ports::UserName;

    use super::*;

    #[test]
    fn a_hash_says_its_parameters_and_fits_one_password_only() {
        let password = draw().unwrap();
        let hash = hash(&password).unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        assert!(fits(&password, Some(&hash)));
        assert!(!fits(&password[1..], Some(&hash)));
        assert!(!fits(&password, None), "nobody has no password that fits");
        assert!(!fits(&password, Some("not a hash")));
    }

    #[test]
    fn passwords_are_long_distinct_and_never_a_user_name() {
        let drawn: HashSet<String> = (0..100).map(|_| draw().unwrap().to_string()).collect();
        assert_eq!(drawn.len(), 100);
        for password in drawn {
            assert_eq!(
                password.split('-').map(str::len).collect::<Vec<_>>(),
                [5; 5]
            );
            assert!(
                password.parse::<UserName>().is_err() || !password.contains(char::is_alphabetic)
            );
        }
    }
}
