//! Time-based one-time codes, RFC 6238: HMAC-SHA-1, 30 s, 6 digits, which every authenticator app speaks.

use jiff::Timestamp;
use totp_rs::{Algorithm, Builder, Secret, Totp};

/// Bytes of a secret: the length of the HMAC's output, RFC 4226 §4 (R6).
pub(super) const SECRET_BYTES: usize = 20;

const STEP_SECONDS: u64 = 30;

/// Steps accepted before and after the present one, RFC 6238 §5.2: a clock half a minute off, a slow typist.
const SKEW_STEPS: u16 = 1;

/// The time step that `code` belongs to, if it is right for one of the accepted steps. Whoever calls this must make sure
/// that no step is used twice (RFC 6238 §5.2).
pub(super) fn matching_step(secret: &[u8], code: &str, now: Timestamp) -> Option<u64> {
    let secret: [u8; SECRET_BYTES] = secret.try_into().ok()?;
    let seconds = u64::try_from(now.as_second()).ok()?;
    if code.len() != 6 || !code.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    totp(secret).check(code, seconds)
}

fn totp(secret: [u8; SECRET_BYTES]) -> Totp {
    // "Noncompliant" only skips checks of digits and secret length, which are constants here; RFC 6238 is what it computes.
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_skew(SKEW_STEPS)
        .with_step_duration(STEP_SECONDS)
        .with_secret(Secret::from(secret))
        .build_noncompliant()
}

/// The code of an instant, as the person's app would show it.
#[cfg(test)]
pub(super) fn code_at(secret: &[u8], at: Timestamp) -> String {
    let secret: [u8; SECRET_BYTES] = secret.try_into().unwrap();
    totp(secret)
        .generate(u64::try_from(at.as_second()).unwrap())
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8; SECRET_BYTES] = b"12345678901234567890";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    /// RFC 6238 appendix B, SHA-1; its eight digits end in our six.
    #[test]
    fn rfc_6238_vectors() {
        let vectors = [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ];
        for (seconds, code) in vectors {
            assert_eq!(code_at(SECRET, at(seconds)), code);
            let step = u64::try_from(seconds).unwrap() / 30;
            assert_eq!(matching_step(SECRET, code, at(seconds)), Some(step));
        }
    }

    #[test]
    fn one_step_early_or_late_is_taken_two_are_not() {
        let code = code_at(SECRET, at(3_000));
        for (now, step) in [
            (2_940, None),
            (2_970, Some(100)),
            (3_029, Some(100)),
            (3_059, Some(100)),
            (3_060, None),
        ] {
            assert_eq!(matching_step(SECRET, &code, at(now)), step, "at {now}");
        }
    }

    #[test]
    fn what_is_not_six_digits_matches_nothing() {
        for code in [
            "", "28708", "2870820", "28708٢", "+87082", "287 082", "abcdef",
        ] {
            assert_eq!(matching_step(SECRET, code, at(59)), None, "{code:?}");
        }
        assert_eq!(matching_step(b"short", "287082", at(59)), None);
    }
}
