//! Sealed blobs and file keys: what was sealed opens in its own place, under its own key, and nowhere else.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests argue with unwrap"
)]

use serde_json::Value;
use vitalseal_crypto::{
    BLOB_OVERHEAD, Backend, BlobContext, BlobKey, FileKey, Kek, KeyError, Kid, StoreKey,
    SubjectPseudonym, blob_kid, danger, default_backend, open_blob, rust_crypto, seal_blob,
};

fn backends() -> [&'static dyn Backend; 2] {
    [rust_crypto(), default_backend()]
}

fn subject() -> SubjectPseudonym {
    "pd4e9ab304d4896f9e17fd8f0816496da".parse().unwrap()
}

fn place(subject: &SubjectPseudonym) -> BlobContext<'_> {
    BlobContext {
        table: "vitals",
        subject,
        bucket_start_us: 1_767_312_000_000_000,
        bucket_seconds: 3600,
        schema_version: 1,
        column: "sealed",
    }
}

/// The layout is what its tables say: the vector was made from them by another library.
#[test]
fn the_published_vector_opens() {
    let vector: Value = serde_json::from_str(include_str!("vectors/blob.json")).unwrap();
    let bytes = |name: &str| hex::decode(vector[name].as_str().unwrap()).unwrap();
    let kek = danger::test_doors::kek_from_bytes(
        Kid::from_bytes(&bytes("kid")).unwrap(),
        &bytes("kek").try_into().unwrap(),
    );
    let subject = vector["subject"].as_str().unwrap().parse().unwrap();
    let context = BlobContext {
        table: vector["table"].as_str().unwrap(),
        subject: &subject,
        bucket_start_us: vector["bucket_start_us"].as_i64().unwrap(),
        bucket_seconds: vector["bucket_seconds"]
            .as_u64()
            .unwrap()
            .try_into()
            .unwrap(),
        schema_version: vector["schema_version"]
            .as_u64()
            .unwrap()
            .try_into()
            .unwrap(),
        column: vector["column"].as_str().unwrap(),
    };
    let blob = bytes("blob");
    assert_eq!(blob_kid(&blob).unwrap(), *kek.kid());
    assert_eq!(blob.len(), bytes("plaintext").len() + BLOB_OVERHEAD);
    for backend in backends() {
        let key = BlobKey::Patient(&kek);
        assert_eq!(
            *open_blob(&blob, key, &context, backend).unwrap(),
            bytes("plaintext")
        );
        let again = seal_blob(&bytes("plaintext"), key, &context, backend).unwrap();
        assert_ne!(again, blob, "content key and IV are new each time");
        assert_eq!(
            *open_blob(&again, key, &context, backend).unwrap(),
            bytes("plaintext")
        );
    }
}

#[test]
fn a_blob_opens_in_its_own_place_only() {
    let (backend, own) = (default_backend(), subject());
    let other = format!("p{:032}", 0).parse().unwrap();
    let kek = Kek::generate(backend).unwrap();
    let key = BlobKey::Patient(&kek);
    let here = place(&own);
    let blob = seal_blob(b"62 /min", key, &here, backend).unwrap();
    assert_eq!(*open_blob(&blob, key, &here, backend).unwrap(), b"62 /min");
    let elsewhere = [
        BlobContext {
            table: "waveforms",
            ..here
        },
        BlobContext {
            subject: &other,
            ..here
        },
        BlobContext {
            bucket_start_us: here.bucket_start_us + 1,
            ..here
        },
        BlobContext {
            bucket_start_us: -here.bucket_start_us,
            ..here
        },
        BlobContext {
            bucket_seconds: 86_400,
            ..here
        },
        BlobContext {
            schema_version: 2,
            ..here
        },
        BlobContext {
            column: "evidence",
            ..here
        },
        BlobContext { table: "", ..here },
        BlobContext { column: "", ..here },
    ];
    for context in elsewhere {
        let opened = open_blob(&blob, key, &context, backend);
        assert_eq!(opened.unwrap_err(), KeyError::Open, "{context:?}");
    }
}

/// The lengths stand before the names: a letter that moves from one name to the next is another place.
#[test]
fn names_do_not_run_into_each_other() {
    let (backend, subject) = (default_backend(), subject());
    let key = StoreKey::generate(backend).unwrap();
    let key = BlobKey::Store(&key);
    let all =
        [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc")].map(|(table, column)| BlobContext {
            table,
            column,
            ..place(&subject)
        });
    for (at, sealed) in all.iter().enumerate() {
        let blob = seal_blob(b"", key, sealed, backend).unwrap();
        for (by, opened) in all.iter().enumerate() {
            assert_eq!(open_blob(&blob, key, opened, backend).is_ok(), at == by);
        }
    }
}

#[test]
fn every_changed_bit_and_every_missing_byte_is_refused() {
    let (backend, subject) = (default_backend(), subject());
    let kek = Kek::generate(backend).unwrap();
    let key = BlobKey::Patient(&kek);
    let blob = seal_blob(b"62 /min", key, &place(&subject), backend).unwrap();
    for bit in 0..blob.len() * 8 {
        let mut changed = blob.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let expected = if bit < 8 {
            KeyError::Malformed
        } else {
            KeyError::Open
        };
        let opened = open_blob(&changed, key, &place(&subject), backend);
        assert_eq!(opened.unwrap_err(), expected, "bit {bit}");
    }
    for length in 0..blob.len() {
        assert!(open_blob(&blob[..length], key, &place(&subject), backend).is_err());
    }
    for length in 0..BLOB_OVERHEAD - 16 {
        assert_eq!(blob_kid(&blob[..length]).unwrap_err(), KeyError::Malformed);
    }
    let longer = [&blob[..], &[0]].concat();
    assert!(open_blob(&longer, key, &place(&subject), backend).is_err());
}

/// A patient's readings do not open under the store's key, nor under another patient's that bears the same name.
#[test]
fn a_blob_opens_under_its_own_key_only() {
    let (backend, subject) = (default_backend(), subject());
    let (one, two) = (
        Kek::generate(backend).unwrap(),
        Kek::generate(backend).unwrap(),
    );
    let store = StoreKey::generate(backend).unwrap();
    let namesake = danger::test_doors::kek_from_bytes(one.kid().clone(), &[7; 32]);
    let blob = seal_blob(b"62", BlobKey::Patient(&one), &place(&subject), backend).unwrap();
    for key in [
        BlobKey::Patient(&two),
        BlobKey::Store(&store),
        BlobKey::Patient(&namesake),
    ] {
        assert_eq!(
            open_blob(&blob, key, &place(&subject), backend).unwrap_err(),
            KeyError::Open
        );
    }
    let short = danger::test_doors::kek_from_bytes(Kid::from_bytes(&[7]).unwrap(), &[7; 32]);
    assert_eq!(
        seal_blob(b"62", BlobKey::Patient(&short), &place(&subject), backend).unwrap_err(),
        KeyError::Malformed,
        "the layout has room for sixteen bytes"
    );
}

#[test]
fn a_store_key_wraps_the_keys_of_its_own_files() {
    let backend = default_backend();
    let (one, two) = (
        StoreKey::generate(backend).unwrap(),
        StoreKey::generate(backend).unwrap(),
    );
    assert_eq!(one.kid().as_bytes().len(), 16);
    let file = FileKey::generate(backend).unwrap();
    let wrapped = one.wrap_file_key(&file).unwrap();

    let kept = danger::store_key_to_bytes(&one);
    let one = danger::store_key_from_bytes(one.kid().clone(), kept.as_slice()).unwrap();
    let again = one.unwrap_file_key(&wrapped).unwrap();
    assert_eq!(
        danger::file_key_to_bytes(&again),
        danger::file_key_to_bytes(&file)
    );
    assert_eq!(two.unwrap_file_key(&wrapped).unwrap_err(), KeyError::Unwrap);
    assert_eq!(
        one.unwrap_file_key(&wrapped[1..]).unwrap_err(),
        KeyError::Malformed
    );
    assert_eq!(
        danger::store_key_from_bytes(one.kid().clone(), &kept[1..]).unwrap_err(),
        KeyError::Malformed
    );
}
