//! The Wycheproof sets for our primitives, through both backends, with every case accounted for.
//!
//! Our trait is narrower than the sets: one key size, one IV size, one output length. What it cannot be asked stands
//! in the table as outside, by reason; a changed filter changes the table, and the table is the assertion. What is
//! malformed by its length alone is refused by the trait's types, which take arrays, and is counted apart.
#![cfg(feature = "authority")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests argue with unwrap"
)]

mod common;

use std::collections::BTreeMap;
use std::fmt;

use vitalseal_crypto::{Backend, BackendError, P256Point};
use wycheproof::TestResult;
use wycheproof::{aead, ecdh, ecdsa, hkdf, keywrap};

#[test]
fn every_case_of_every_set_is_taken_refused_or_outside_the_profile() {
    for backend in common::backends() {
        let sets = [
            ("ECDSA P-256", ecdsa_p256(backend)),
            ("ECDH P-256", ecdh_p256(backend)),
            ("AES-GCM", aes_gcm(backend)),
            ("AES-KW", aes_kw(backend)),
            ("HKDF-SHA-256", hkdf_sha256(backend)),
        ];
        let mut table = format!("{:13}{}\n", "set", Tally::HEADINGS);
        for (name, tally) in sets {
            table += &format!("{name:13}{tally}\n");
        }
        println!("{}\n{table}", backend.name());
        insta::allow_duplicates! {
            insta::assert_snapshot!(table, @r"
            set          cases  valid: taken  invalid: refused  acceptable: taken  refused  (refused by length)  outside
            ECDSA P-256    262           173                89                  0        0                   21        0
            ECDH P-256     355           330                24                  0        1                    9        0
            AES-GCM        316            39                27                  0        0                    0      250
                            39 outside: IVs of other than 96 bits
                           211 outside: keys of other than 256 bits
            AES-KW         165             4                54                  0        1                   43      106
                             9 outside: wrapped keys of other than 256 bits
                            97 outside: wrapping keys of other than 256 bits
            HKDF-SHA-256    86            83                 0                  0        0                    0        3
                             3 outside: outputs longer than any HKDF has
            ");
        }
    }
}

/// Signatures as COSE carries them, `r || s`.
fn ecdsa_p256(backend: &dyn Backend) -> Tally {
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let mut tally = Tally::of(set.number_of_tests);
    for group in &set.test_groups {
        let key = P256Point::from_sec1(&group.key.key).expect("the set's keys are uncompressed");
        for case in &group.tests {
            let answer = match <&[u8; 64]>::try_from(case.sig.as_slice()) {
                Ok(signature) => Answer::to(backend.verify(&key, &[&case.msg], signature), &()),
                Err(_) => Answer::Misfit,
            };
            tally.enter(case.tc_id, case.result, answer);
        }
    }
    tally
}

/// The set with bare points: keys that carry their curve's parameters never reach a backend.
fn ecdh_p256(backend: &dyn Backend) -> Tally {
    let set = ecdh::TestSet::load(ecdh::TestName::EcdhSecp256r1Ecpoint).unwrap();
    let mut tally = Tally::of(set.number_of_tests);
    for case in set.test_groups.iter().flat_map(|group| &group.tests) {
        let answer = match P256Point::from_sec1(&case.public_key) {
            Some(peer) => {
                let own = backend.p256_from_scalar(&scalar(&case.private_key));
                let agreed = own.and_then(|own| backend.agree(&own, &peer));
                Answer::to(agreed.map(|x| x.to_vec()), &case.shared_secret)
            }
            None => Answer::Misfit,
        };
        tally.enter(case.tc_id, case.result, answer);
    }
    tally
}

/// Each valid case in both directions: sealing is a function of its input here, as the IV is given.
fn aes_gcm(backend: &dyn Backend) -> Tally {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let mut tally = Tally::of(set.number_of_tests);
    for group in &set.test_groups {
        assert_eq!(group.tag_size, 128, "the set has no other tags");
        for case in &group.tests {
            let answer = match (
                <&[u8; 32]>::try_from(case.key.as_slice()),
                <&[u8; 12]>::try_from(case.nonce.as_slice()),
            ) {
                (Ok(key), Ok(iv)) => {
                    let sealed = [case.ct.as_slice(), &case.tag].concat();
                    let opened = backend.open(key, iv, &case.aad, &sealed);
                    if case.result == TestResult::Valid {
                        let ours = backend.seal(key, iv, &case.aad, &case.pt);
                        assert_eq!(ours, Ok(sealed), "tcId {} sealed", case.tc_id);
                    }
                    Answer::to(opened.map(|text| text.to_vec()), &case.pt)
                }
                (Err(_), _) => Answer::Outside("keys of other than 256 bits"),
                (_, Err(_)) => Answer::Outside("IVs of other than 96 bits"),
            };
            tally.enter(case.tc_id, case.result, answer);
        }
    }
    tally
}

/// Each valid case in both directions.
fn aes_kw(backend: &dyn Backend) -> Tally {
    let set = keywrap::TestSet::load(keywrap::TestName::AesKeyWrap).unwrap();
    let mut tally = Tally::of(set.number_of_tests);
    for case in set.test_groups.iter().flat_map(|group| &group.tests) {
        let answer = match (
            <&[u8; 32]>::try_from(case.key.as_slice()),
            <&[u8; 40]>::try_from(case.ct.as_slice()),
        ) {
            (Ok(kek), Ok(wrapped)) => {
                if let (TestResult::Valid, Ok(key)) = (case.result, case.pt.as_slice().try_into()) {
                    let ours = backend.wrap(kek, key);
                    assert_eq!(ours, Ok(*wrapped), "tcId {} wrapped", case.tc_id);
                }
                let key = backend.unwrap(kek, wrapped);
                Answer::to(key.map(|key| key.to_vec()), &case.pt)
            }
            (Err(_), _) => Answer::Outside("wrapping keys of other than 256 bits"),
            (_, Err(_)) if case.result == TestResult::Valid => {
                Answer::Outside("wrapped keys of other than 256 bits")
            }
            (_, Err(_)) => Answer::Misfit,
        };
        tally.enter(case.tc_id, case.result, answer);
    }
    tally
}

/// Expansion is by blocks, so an output of any length begins as ours does (RFC 5869 §2.3).
fn hkdf_sha256(backend: &dyn Backend) -> Tally {
    let set = hkdf::TestSet::load(hkdf::TestName::HkdfSha256).unwrap();
    let mut tally = Tally::of(set.number_of_tests);
    for case in set.test_groups.iter().flat_map(|group| &group.tests) {
        let answer = if case.result == TestResult::Invalid {
            Answer::Outside("outputs longer than any HKDF has")
        } else {
            let common = case.size.min(32);
            let okm = backend.hkdf_sha256(&case.salt, &case.ikm, &case.info);
            let begins = okm.map(|okm| okm[..common].to_vec());
            Answer::to(begins, &case.okm[..common].to_vec())
        };
        tally.enter(case.tc_id, case.result, answer);
    }
    tally
}

/// The set writes a scalar as a signed integer of any length; the number is what counts.
fn scalar(integer: &[u8]) -> [u8; 32] {
    let first = integer.iter().position(|byte| *byte != 0).unwrap();
    let digits = &integer[first..];
    let mut scalar = [0; 32];
    scalar[32 - digits.len()..].copy_from_slice(digits);
    scalar
}

/// What became of one case.
enum Answer {
    /// Taken, with the published result.
    Taken,
    /// Taken, with another result.
    Differs,
    /// Refused by the backend.
    Refused,
    /// Of a length that the trait's types do not take.
    Misfit,
    /// A question that the trait cannot be asked.
    Outside(&'static str),
}

impl Answer {
    fn to<T: PartialEq>(result: Result<T, BackendError>, published: &T) -> Self {
        match result {
            Ok(result) if result == *published => Self::Taken,
            Ok(_) => Self::Differs,
            Err(error) => {
                assert_eq!(error, BackendError::Refused);
                Self::Refused
            }
        }
    }
}

/// What became of the cases of one set. Its `Display` checks that none is missing.
#[derive(Default)]
struct Tally {
    cases: usize,
    valid_taken: usize,
    invalid_refused: usize,
    acceptable_taken: usize,
    acceptable_refused: usize,
    /// Of the refused, those that no backend saw.
    misfit: usize,
    outside: BTreeMap<&'static str, usize>,
}

impl Tally {
    const HEADINGS: &str = "cases  valid: taken  invalid: refused  acceptable: taken  refused  \
                            (refused by length)  outside";

    fn of(cases: usize) -> Self {
        Self {
            cases,
            ..Self::default()
        }
    }

    fn enter(&mut self, tc_id: usize, expected: TestResult, answer: Answer) {
        if let Answer::Misfit = answer {
            self.misfit += 1;
        }
        let count = match (expected, answer) {
            (_, Answer::Outside(reason)) => self.outside.entry(reason).or_default(),
            (_, Answer::Differs) => panic!("tcId {tc_id}: another result than the published one"),
            (TestResult::Valid, Answer::Taken) => &mut self.valid_taken,
            (TestResult::Valid, _) => panic!("tcId {tc_id} is valid and was refused"),
            (TestResult::Invalid, Answer::Taken) => panic!("tcId {tc_id} is invalid and was taken"),
            (TestResult::Invalid, _) => &mut self.invalid_refused,
            (TestResult::Acceptable, Answer::Taken) => &mut self.acceptable_taken,
            (TestResult::Acceptable, _) => &mut self.acceptable_refused,
        };
        *count += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outside = self.outside.values().sum::<usize>();
        let entered = self.valid_taken
            + self.invalid_refused
            + self.acceptable_taken
            + self.acceptable_refused
            + outside;
        assert_eq!(entered, self.cases, "every case is accounted for");
        write!(
            f,
            "{:5}{:14}{:18}{:19}{:9}{:21}{outside:9}",
            self.cases,
            self.valid_taken,
            self.invalid_refused,
            self.acceptable_taken,
            self.acceptable_refused,
            self.misfit,
        )?;
        for (reason, count) in &self.outside {
            write!(f, "\n{:13}{count:5} outside: {reason}", "")?;
        }
        Ok(())
    }
}
