//! The seeds of a target, as they are and damaged. Only the workspace's tests use this, so it is no part of the crate.
//!
//! A seed's file name begins with `ok-` when the target takes it and with `no-` when it refuses it. What must never
//! happen is asserted by the target itself.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;

/// Runs every seed of a target, and checks that it is taken or refused as its name says.
pub fn replay(target: &str, body: fn(&[u8]) -> bool) {
    for (name, bytes) in all(target) {
        let expected = match name.get(..3) {
            Some("ok-") => true,
            Some("no-") => false,
            _ => panic!("{target}/{name}: a seed's name begins with ok- or no-"),
        };
        assert_eq!(body(&bytes), expected, "{target}/{name}");
    }
}

/// Seeds with bits flipped, bytes written over, cut out or put in, and pieces of other seeds.
pub fn damaged(target: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let seeds: Vec<Vec<u8>> = all(target).into_iter().map(|(_, bytes)| bytes).collect();
    let others = seeds.clone();
    let damage = (
        any::<Index>(),
        any::<Index>(),
        any::<Index>(),
        0..5_u8,
        any::<u8>(),
    );
    (
        prop::sample::select(seeds),
        prop::collection::vec(damage, 1..4),
    )
        .prop_map(move |(mut bytes, damages)| {
            for (from, to, other, kind, byte) in damages {
                let (from, to) = (from.index(bytes.len() + 1), to.index(bytes.len() + 1));
                let (from, to) = (from.min(to), from.max(to));
                let other = other.get(&others);
                match kind {
                    0 => bytes
                        .get_mut(from)
                        .into_iter()
                        .for_each(|at| *at ^= 1 << (byte % 8)),
                    1 => bytes.get_mut(from).into_iter().for_each(|at| *at = byte),
                    2 => bytes.truncate(from),
                    3 => drop(bytes.splice(from..to, [byte])),
                    // The same place of another seed, where the layouts are alike.
                    _ => {
                        drop(bytes.splice(from..to, other.get(from..to).unwrap_or(other).to_vec()))
                    }
                }
            }
            bytes
        })
}

/// Writes a seed; the tests that make seeds are ignored unless asked for.
pub fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), bytes).unwrap();
}

fn all(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let files =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut seeds: Vec<_> = files
        .map(|file| {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            (name, std::fs::read(file.path()).unwrap())
        })
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{target} has no seeds");
    seeds
}
