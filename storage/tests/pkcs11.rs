//! Root and signing keys on a token, against `SoftHSM2` as Debian ships it; each test in a process of its own.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test argues with panics"
)]

#[path = "../../tests/common/errors.rs"]
mod errors;
#[path = "../../tests/common/files.rs"]
mod files;
#[path = "../../tests/common/postgres.rs"]
mod postgres;
#[path = "common/registry.rs"]
mod registry;
#[path = "../../tests/common/token.rs"]
mod token;

use std::path::Path;
use std::sync::Arc;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeInfo, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use jiff::Timestamp;
use vitalseal_crypto::{
    CertificateAuthority, DeviceId, KeyEpoch, RemoteSigner as _, RootKey, danger, default_backend,
    new_device_key_and_csr,
};
use vitalseal_storage::pkcs11::TokenRefusal;
use vitalseal_storage::{
    KeySlot, Pkcs11RootProvider, Pkcs11Signer, RootError, RootProvider, SigningPurpose, Store,
    StorePaths, Token, TokenError, TokenSettings,
};

use errors::chain;
use files::{copy_tree, files_below};
use postgres::Schema;
use token::{LABEL, PIN, SoftToken, module};

const FIRST: KeySlot = KeySlot::Root(KeyEpoch(0));
const SLOT: KeySlot = KeySlot::Root(KeyEpoch(7));
const OBJECT: &str = "vitalseal-north-root-7";

/// Tests that run as processes of their own, each over a new token.
macro_rules! on_a_token {
    ($(fn $name:ident($soft:ident: &SoftToken) $body:block)*) => {$(
        #[test]
        fn $name() {
            token::alone(stringify!($name), |$soft| $body);
        }
    )*};
}

on_a_token! {

fn a_root_key_lives_under_a_key_that_never_leaves_the_token(soft: &SoftToken) {
    let roots = Pkcs11RootProvider::new(token(soft));
    assert_eq!(roots.name(), "pkcs11 (token ward)", "nothing was opened yet");
    roots.create(FIRST, default_backend()).unwrap();
    let made = roots.create(SLOT, default_backend()).unwrap();
    assert_eq!(roots.name(), "pkcs11 (token ward, SoftHSM project SoftHSM v2)");
    let other = KeySlot::Recipient(KeyEpoch(7));
    let cover = roots.create(other, default_backend()).unwrap();
    assert_eq!(bytes(&roots.load(SLOT, &made.blob).unwrap()), bytes(&made.key));
    let again = roots.create(SLOT, default_backend());
    assert!(matches!(again, Err(RootError::Exists { .. })));
    assert_eq!(roots.slots().unwrap(), [FIRST, SLOT, other]);

    // RFC 3394: 32 bytes and a check of 8, behind the byte that names the mechanism.
    assert_eq!((made.blob[0], made.blob.len()), (1, 41));
    for at in 0..made.blob.len() {
        let mut flipped = made.blob.clone();
        flipped[at] ^= 1;
        assert!(roots.load(SLOT, &flipped).is_err(), "byte {at}");
    }
    for foreign in [&cover.blob[..], &made.blob[..40], &[]] {
        // `Missing` would be taken for "destroyed".
        let refused = roots.load(SLOT, foreign).unwrap_err();
        assert!(!matches!(refused, RootError::Missing { .. }), "{refused}");
    }

    // Whoever sits in the same process, logged in, gets no further than the token allows.
    let session = logged_in();
    let [object] = find(&session, OBJECT)[..] else { panic!("one object") };
    let wanted = [
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::NeverExtractable(true),
        Attribute::Local(true),
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
        Attribute::Derive(false),
        Attribute::Private(true),
    ];
    let types: Vec<AttributeType> = wanted.iter().map(Attribute::attribute_type).collect();
    assert_eq!(session.get_attributes(object, &types).unwrap(), wanted);
    let value = session.get_attribute_info(object, &[AttributeType::Value]).unwrap();
    assert!(matches!(value[..], [AttributeInfo::Sensitive]), "{value:?}");
    assert_eq!(session.get_attributes(object, &[AttributeType::Value]).unwrap(), []);
    assert!(session.encrypt(&Mechanism::AesEcb, object, &[0; 16]).is_err());
    assert!(session.update_attributes(object, &[Attribute::Encrypt(true)]).is_err());
    assert_eq!(session.find_objects(&[Attribute::Token(false)]).unwrap(), [], "left in the session");
    for file in files_below(&soft.objects()) {
        let held = std::fs::read(&file).unwrap();
        let found = held.windows(32).any(|window| window == bytes(&made.key));
        assert!(!found, "the root key is in {}", file.display());
    }

    roots.destroy(SLOT).unwrap();
    roots.destroy(SLOT).unwrap();
    assert_eq!(find(&session, OBJECT), []);
    assert_eq!(roots.slots().unwrap(), [FIRST, other]);
    for blob in [&made.blob[..], &[]] {
        assert!(matches!(roots.load(SLOT, blob), Err(RootError::Missing { .. })));
    }
}

fn a_lost_login_session_or_module_is_opened_again_and_never_taken_for_a_destroyed_key(soft: &SoftToken) {
    let roots = Pkcs11RootProvider::new(token(soft));
    roots.create(FIRST, default_backend()).unwrap();
    let key = roots.create(SLOT, default_backend()).unwrap();
    let log_out = || logged_in().logout().unwrap();
    let finalize = || Pkcs11::new(module()).unwrap().finalize().unwrap();
    let start_anew = || {
        finalize();
        let args = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        Pkcs11::new(module()).unwrap().initialize(args).unwrap();
    };
    for (what, lose) in [
        ("login", &log_out as &dyn Fn()),
        ("module", &finalize),
        ("session", &start_anew),
    ] {
        lose();
        let loaded = roots.load(SLOT, &key.blob);
        assert_eq!(bytes(&loaded.unwrap()), bytes(&key.key), "{what}");
        lose();
        assert_eq!(roots.slots().unwrap(), [FIRST, SLOT], "{what}");
        lose();
        let exists = roots.create(SLOT, default_backend());
        assert!(matches!(exists, Err(RootError::Exists { .. })), "{what}");
        let next = KeySlot::Recipient(KeyEpoch(9));
        lose();
        let made = roots.create(next, default_backend()).unwrap();
        lose();
        roots.destroy(next).unwrap();
        assert_eq!(find(&logged_in(), "vitalseal-north-recipient-9"), [], "{what}");
        lose();
        let gone = roots.load(next, &made.blob);
        assert!(matches!(gone, Err(RootError::Missing { .. })), "{what}");
    }
}

fn a_token_whose_storage_went_away_has_not_destroyed_its_keys(soft: &SoftToken) {
    let roots = Pkcs11RootProvider::new(token(soft));
    let key = roots.create(FIRST, default_backend()).unwrap();
    let session = logged_in();
    let drawer = soft.objects().with_extension("drawer");
    std::fs::rename(soft.objects(), &drawer).unwrap();
    std::fs::create_dir(soft.objects()).unwrap();
    assert_eq!(find(&session, "vitalseal-north-root-0"), [], "the module reports no error");
    let attempts = [
        roots.load(FIRST, &key.blob).map(drop),
        roots.load(FIRST, &[]).map(drop),
        roots.destroy(FIRST),
        roots.create(SLOT, default_backend()).map(drop),
    ];
    for attempt in attempts {
        let said = chain(&attempt.unwrap_err());
        assert!(said.contains("storage gone"), "{said}");
    }
}

fn a_pin_file_or_token_that_cannot_be_meant_is_refused_with_its_reason(soft: &SoftToken) {
    let refusal = |settings| {
        let error = Pkcs11RootProvider::new(Token::new(settings)).slots().unwrap_err();
        let said = chain(&error);
        assert!(said.contains(LABEL) || said.contains("elsewhere"), "{said}");
        match error {
            RootError::Token(TokenError { why, .. }) => *why,
            other => panic!("{other}"),
        }
    };
    soft.write_pin(PIN, 0o640);
    assert!(matches!(refusal(settings(soft)), TokenRefusal::PinFileOpen(_, 0o640)));
    soft.write_pin("\n", 0o600);
    assert!(matches!(refusal(settings(soft)), TokenRefusal::NoPin(_)));
    std::fs::remove_file(soft.pin_file()).unwrap();
    assert!(matches!(refusal(settings(soft)), TokenRefusal::PinFile(..)));
    let elsewhere = TokenSettings { token: "elsewhere".into(), ..settings(soft) };
    assert!(matches!(refusal(elsewhere), TokenRefusal::NoToken(there) if there == LABEL));
    let module = TokenSettings { module: "/nowhere/elsewhere.so".into(), ..settings(soft) };
    assert!(matches!(refusal(module), TokenRefusal::Module(_)));
    soft.add(LABEL);
    Pkcs11::new(token::module()).unwrap().finalize().unwrap();
    assert!(matches!(refusal(settings(soft)), TokenRefusal::TwinTokens(2)));
}

fn a_wrong_pin_is_presented_once_and_never_shown(soft: &SoftToken) {
    // A session keeps the module going, so that its flags stay comparable.
    let session = logged_in();
    // CKF_USER_PIN_COUNT_LOW: a wrong PIN was entered since the last right one.
    let was_tried = || {
        let module = Pkcs11::new(module()).unwrap();
        let slot = session.get_session_info().unwrap().slot_id();
        module.get_token_info(slot).unwrap().user_pin_count_low()
    };
    session.logout().unwrap();
    soft.write_pin("not-the-pin\n", 0o600);
    let first = Pkcs11RootProvider::new(token(soft));
    for attempt in 0..3 {
        // Neither again by itself, nor by another part of the process.
        for roots in [&first, &Pkcs11RootProvider::new(token(soft))] {
            let said = chain(&roots.slots().unwrap_err());
            assert!(said.contains("CKR_PIN_INCORRECT") && said.contains("token.pin"), "{said}");
            assert!(!said.contains("not-the-pin") && !format!("{roots:?}").contains("not-the-pin"));
            if attempt == 0 && std::ptr::eq(roots, &first) {
                assert!(was_tried());
                session.login(UserType::User, Some(&AuthPin::new(PIN.into()))).unwrap();
                session.logout().unwrap();
            }
            assert!(!was_tried());
        }
        // Right from here on, and still not tried: whoever corrects a file also starts the server again.
        soft.write_pin(PIN, 0o600);
    }
}

fn two_objects_of_one_label_are_told_and_none_is_touched(soft: &SoftToken) {
    let roots = Pkcs11RootProvider::new(token(soft));
    roots.create(FIRST, default_backend()).unwrap();
    let key = roots.create(SLOT, default_backend()).unwrap();
    let template = [
        Attribute::Token(true),
        Attribute::ValueLen(32.into()),
        Attribute::Label(OBJECT.into()),
    ];
    let session = logged_in();
    let twin = session.generate_key(&Mechanism::AesKeyGen, &template).unwrap();
    let attempts = [
        roots.load(SLOT, &key.blob).map(drop),
        roots.destroy(SLOT),
        roots.create(SLOT, default_backend()).map(drop),
    ];
    for attempt in attempts {
        let error = attempt.unwrap_err();
        let RootError::Token(TokenError { why, .. }) = &error else { panic!("{error}") };
        let twins = matches!(&**why, TokenRefusal::TwinObjects(label, 2) if label == OBJECT);
        assert!(twins, "{}", chain(&error));
    }
    assert_eq!(find(&session, OBJECT).len(), 2);
    session.destroy_object(twin).unwrap();
    assert_eq!(bytes(&roots.load(SLOT, &key.blob).unwrap()), bytes(&key.key));

    // Another store's objects on the same token are not ours, however alike the labels.
    for label in ["north-root-1", "nort", "north2"] {
        let settings = TokenSettings { label: label.into(), ..settings(soft) };
        let other = Pkcs11RootProvider::new(Token::new(settings));
        assert_eq!(other.slots().unwrap(), [], "{label}");
        other.create(FIRST, default_backend()).unwrap();
        other.create(SLOT, default_backend()).unwrap();
    }
    assert_eq!(roots.slots().unwrap(), [FIRST, SLOT]);
}

fn certificates_and_the_audit_log_are_signed_by_keys_that_stay_on_the_token(soft: &SoftToken) {
    let now: Timestamp = "2026-05-04T03:02:01Z".parse().unwrap();
    let roots = Pkcs11RootProvider::new(token(soft));
    roots.create(FIRST, default_backend()).unwrap();
    let made = Pkcs11Signer::generate(token(soft), SigningPurpose::IssuingCa).unwrap();
    let chain = CertificateAuthority::create_remote(&made, now).unwrap();
    assert!(Pkcs11Signer::generate(token(soft), SigningPurpose::IssuingCa).is_err());

    // Another process would find it the same way.
    let found = Pkcs11Signer::open(token(soft), SigningPurpose::IssuingCa).unwrap();
    let open = |signer| {
        CertificateAuthority::open_remote(signer, &chain.issuing_cert_pem, &chain.root_cert_pem)
    };
    let authority = open(Arc::new(found)).unwrap();
    let device: DeviceId = "monitor-1".parse().unwrap();
    let (_, csr) = new_device_key_and_csr(&device).unwrap();
    logged_in().logout().unwrap();
    let issued = authority.issue_device(&csr, &device, now).unwrap();
    let held = issued.certificate.verify_issued_by(authority.issuing_der(), now, default_backend());
    assert_eq!(held, Ok(()));

    let audit = Pkcs11Signer::generate(token(soft), SigningPurpose::AuditLog).unwrap();
    assert_eq!(audit.public().len(), 32);
    // RFC 8032: the same message has the same signature, also by a handle of its own.
    let again = Pkcs11Signer::open(token(soft), SigningPurpose::AuditLog).unwrap();
    assert_eq!(audit.sign(b"head").unwrap(), again.sign(b"head").unwrap());
    assert!(open(Arc::new(audit)).is_err(), "a key for one purpose is none for the other");

    let session = logged_in();
    let private = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap();
    assert_eq!(private.len(), 2);
    for key in private {
        let types = [AttributeType::Sensitive, AttributeType::Extractable, AttributeType::Local];
        let held = session.get_attributes(key, &types).unwrap();
        let wanted = [Attribute::Sensitive(true), Attribute::Extractable(false), Attribute::Local(true)];
        assert_eq!(held, wanted);
        assert_eq!(session.get_attributes(key, &[AttributeType::Value]).unwrap(), []);
    }

    Pkcs11Signer::destroy(&token(soft), SigningPurpose::IssuingCa).unwrap();
    assert!(Pkcs11Signer::open(token(soft), SigningPurpose::IssuingCa).is_err());
    let said = authority.issue_device(&csr, &device, now).unwrap_err();
    assert!(self::chain(&said).contains("vitalseal-north-issuing-ca"), "{}", self::chain(&said));
}

fn an_erasure_ends_every_copy_of_the_data_with_an_object_of_the_token(soft: &SoftToken) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let at = |hour: i64| Timestamp::from_second(1_780_000_000 + hour * 3600).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
        let schema = Schema::new();
        let paths = paths(&data, schema.as_ref());
        let roots = || Arc::new(Pkcs11RootProvider::new(token(soft)));
        let store = Store::create(&paths, roots(), at(0)).await.unwrap();
        let gone = store.registry.add_patient(Some("A"), None, at(0)).await.unwrap();
        let stays = store.registry.add_patient(Some("B"), None, at(0)).await.unwrap();
        store.close().await;
        copy_tree(&data, &copy);
        let copied = schema.as_ref().map(Schema::copy);

        let store = Store::open(&paths, roots(), at(1)).await.unwrap();
        let erased = store.keys.erase(&gone, "erasure-1", at(1)).await.unwrap();
        assert_eq!(erased.root_provider, "pkcs11 (token ward, SoftHSM project SoftHSM v2)");
        store.close().await;
        let session = logged_in();
        assert_eq!(find(&session, "vitalseal-north-root-0"), []);
        assert_eq!(find(&session, "vitalseal-north-root-1").len(), 1);

        let store = Store::open(&paths, roots(), at(2)).await.unwrap();
        assert!(store.keys.patient_keys(&gone).await.unwrap().is_none());
        assert!(store.keys.patient_keys(&stays).await.unwrap().is_some());
        store.close().await;

        let copy = self::paths(&copy, copied.as_ref());
        let said = chain(&Store::open(&copy, roots(), at(2)).await.unwrap_err());
        assert!(said.contains("epoch 0") && said.contains("token ward"), "{said}");
    });
}

}

fn paths(data: &Path, schema: Option<&Schema>) -> StorePaths {
    StorePaths::new(data, None).with_registry(registry::place(schema.map(Schema::address)))
}

fn settings(soft: &SoftToken) -> TokenSettings {
    TokenSettings {
        module: module(),
        token: LABEL.to_owned(),
        pin_file: soft.pin_file(),
        label: "north".to_owned(),
    }
}

fn token(soft: &SoftToken) -> Arc<Token> {
    Token::new(settings(soft))
}

fn bytes(key: &RootKey) -> Vec<u8> {
    danger::root_key_to_bytes(key).to_vec()
}

/// A session beside those of the code under test, in the same process; logged in as they are.
fn logged_in() -> Session {
    let module = Pkcs11::new(module()).unwrap();
    // Whether the module runs is part of some tests.
    let _ = module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
    let slot = module.get_slots_with_initialized_token().unwrap()[0];
    let session = module.open_rw_session(slot).unwrap();
    let _ = session.login(UserType::User, Some(&AuthPin::new(PIN.into())));
    session
}

fn find(session: &Session, label: &str) -> Vec<ObjectHandle> {
    session
        .find_objects(&[Attribute::Label(label.into())])
        .unwrap()
}
