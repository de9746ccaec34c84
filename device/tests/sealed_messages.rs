//! What the sealer makes, the server opens: to the same readings, under the device's signature, chained.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests argue as tests do"
)]

mod common;

use std::collections::HashSet;

use jiff::SignedDuration;
use vitalseal_crypto::{
    CertificateError, DeviceCertificate, NoSenderKeys, Opened, Received, RecipientKey,
    RecipientKeyRing, default_backend,
};
use vitalseal_device::recording::{HeartRateRecording, PulseRecording};
use vitalseal_device::simulated::SimulatedPatient;
use vitalseal_device::{
    AddressError, AgreementMode, DeviceIdentity, IdentityError, Message, Outbox, Sealer,
    SealerError, Waiting,
};
use vitalseal_vitals::{MAX_READINGS, senml, waveform};

use common::{authority, device, enrol, now, recipient, subject};

fn sealer(mode: AgreementMode) -> (Sealer, DeviceCertificate, RecipientKeyRing) {
    let authority = authority(now());
    let (identity, certificate) = enrol(&authority, now());
    let key: RecipientKey = recipient(&authority, now());
    let trusted = identity
        .trust_recipient(&key.certificate().to_pem(), now())
        .unwrap();
    let sealer = Sealer::new(identity, subject(), trusted, mode, 7);
    (sealer, certificate, RecipientKeyRing::new(vec![key]))
}

fn open(message: &Message, certificate: &DeviceCertificate, keys: &RecipientKeyRing) -> Opened {
    let received = Received::decode(&message.bytes).unwrap();
    let verified = received.verify(certificate, default_backend()).unwrap();
    verified
        .open(keys, &NoSenderKeys, default_backend())
        .unwrap()
}

const MODES: [AgreementMode; 3] = [
    AgreementMode::Es,
    AgreementMode::Ss {
        messages_per_session: 2,
    },
    AgreementMode::Ss {
        messages_per_session: 0,
    },
];

#[test]
fn messages_open_to_the_readings_and_chain_to_the_one_before() {
    let recording = HeartRateRecording::embedded().unwrap();
    for mode in MODES {
        let (mut sealer, certificate, keys) = sealer(mode);
        let mut previous = None;
        for (sequence, minute) in (0..).zip(recording.readings().chunks(60).take(5)) {
            let message = sealer.seal(minute, now()).unwrap();
            let opened = open(&message, &certificate, &keys);
            assert_eq!(senml::decode(opened.payload()).unwrap(), minute);
            assert_eq!(opened.header().message_id(), message.id);
            assert_eq!((message.id.boot, message.id.sequence), (7, sequence));
            assert_eq!(message.id.device, device());
            assert_eq!(opened.header().subject, subject());
            assert_eq!(opened.header().issued_at, now());
            assert_eq!(opened.header().previous, previous, "{mode:?} {sequence}");
            assert_eq!(*opened.signed_hash(), message.signed_hash);
            previous = Some(message.signed_hash);
        }
    }
}

#[test]
fn waveforms_and_simulated_readings_travel_too() {
    let (mut sealer, certificate, keys) = sealer(AgreementMode::Es);
    let pulse = PulseRecording::embedded().unwrap();
    for waveform in pulse.waveforms_from(now(), MAX_READINGS).unwrap() {
        let message = sealer.seal_waveform(&waveform, now()).unwrap();
        let opened = open(&message, &certificate, &keys);
        assert_eq!(
            waveform::decode(opened.payload()).unwrap(),
            waveform.readings()
        );
    }
    let readings = SimulatedPatient::new(1).step(now());
    let message = sealer.seal(&readings, now()).unwrap();
    let opened = open(&message, &certificate, &keys);
    assert_eq!(senml::decode(opened.payload()).unwrap(), readings);
}

#[test]
fn a_refused_batch_uses_no_number_and_a_new_recipient_takes_over() {
    let (mut sealer, certificate, _) = sealer(AgreementMode::Ss {
        messages_per_session: 9,
    });
    let readings = HeartRateRecording::embedded().unwrap().readings().to_vec();
    let too_many = vec![readings[0]; MAX_READINGS + 1];
    for refused in [&[][..], &too_many] {
        assert!(matches!(
            sealer.seal(refused, now()),
            Err(SealerError::Count)
        ));
    }
    let first = sealer.seal(&readings[..9], now()).unwrap();
    let other = recipient(&authority(now()), now());
    sealer.set_recipient(other.certificate().clone());
    let second = sealer.seal(&readings[9..18], now()).unwrap();
    assert_eq!((first.id.sequence, second.id.sequence), (0, 1));
    let opened = open(&second, &certificate, &RecipientKeyRing::new(vec![other]));
    assert_eq!(opened.header().previous, Some(first.signed_hash));
}

#[test]
fn every_message_differs_even_if_its_readings_do_not() {
    let readings = HeartRateRecording::embedded().unwrap().readings()[..1].to_vec();
    for mode in MODES {
        let (mut sealer, ..) = sealer(mode);
        let hashes: HashSet<_> = (0..8)
            .map(|_| sealer.seal(&readings, now()).unwrap().signed_hash)
            .collect();
        assert_eq!(hashes.len(), 8);
    }
}

#[test]
fn a_recipient_is_trusted_only_from_the_own_authority_and_in_its_time() {
    let own = authority(now());
    let (identity, _) = enrol(&own, now());
    let pem = recipient(&own, now()).certificate().to_pem();
    identity.trust_recipient(&pem, now()).unwrap();
    let late = now() + SignedDuration::from_hours(48);
    assert_eq!(
        identity.trust_recipient(&pem, late),
        Err(CertificateError::NotValidNow)
    );
    let foreign = recipient(&authority(now()), now()).certificate().to_pem();
    assert_eq!(
        identity.trust_recipient(&foreign, now()),
        Err(CertificateError::ForeignIssuer)
    );
    for damaged in [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        assert!(identity.trust_recipient(damaged, now()).is_err());
    }
    // A device's certificate is issued by the same authority, and still is no place to send readings to.
    assert!(
        identity
            .trust_recipient(identity.certificate_pem(), now())
            .is_err()
    );
}

#[test]
fn an_identity_says_what_is_missing_and_never_shows_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let Err(IdentityError::Read { path, .. }) = DeviceIdentity::load(directory.path()) else {
        panic!("an empty directory is no identity");
    };
    assert!(path.ends_with(vitalseal_device::KEY_FILE));

    let authority = authority(now());
    let (one, _) = enrol(&authority, now());
    let (other, _) = enrol(&authority, now());
    let write = |file, text: &str| std::fs::write(directory.path().join(file), text).unwrap();
    write(vitalseal_device::KEY_FILE, one.key_pem());
    write(vitalseal_device::CERTIFICATE_FILE, one.certificate_pem());
    write(vitalseal_device::AUTHORITY_FILE, one.authority_pem());
    let loaded = DeviceIdentity::load(directory.path()).unwrap();
    assert_eq!(
        format!("{loaded:?}"),
        "DeviceIdentity { device: DeviceId(monitor-001), .. }"
    );

    write(vitalseal_device::KEY_FILE, other.key_pem());
    let refused = DeviceIdentity::load(directory.path());
    assert!(
        matches!(refused, Err(IdentityError::Key(_))),
        "a key of another certificate"
    );
}

#[test]
fn nothing_is_sealed_for_a_key_that_the_server_has_destroyed() {
    let (mut sealer, ..) = sealer(AgreementMode::Es);
    let recording = HeartRateRecording::embedded().unwrap();
    let readings = &recording.readings()[..5];
    let end = sealer.recipient().not_after();
    let first = sealer.seal(readings, end).unwrap();
    let late = sealer.seal(readings, end + SignedDuration::from_secs(1));
    assert!(matches!(late, Err(SealerError::RecipientExpired { .. })));
    // The refusal used no sequence number: the server will see no gap.
    let next = sealer.seal(readings, end).unwrap();
    assert_eq!(next.id.sequence, first.id.sequence + 1);
}

#[test]
fn a_message_that_waits_is_addressed_with_its_own_content_key_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority(now());
    let (identity, certificate) = enrol(&authority, now());
    let (first, present) = (recipient(&authority, now()), recipient(&authority, now()));
    let outbox = Outbox::open(directory.path()).unwrap();
    let (es, to) = (AgreementMode::Es, first.certificate().clone());
    let mut sealer = Sealer::new(identity, subject(), to, es, outbox.boot());
    let readings = HeartRateRecording::embedded().unwrap().readings()[..5].to_vec();
    let message = sealer.seal(&readings, now()).unwrap();
    outbox.push(&message).unwrap();
    drop(outbox);

    let waiting = || {
        let outbox = Outbox::open(directory.path()).unwrap();
        outbox.read(message.position()).unwrap()
    };
    let addressed = waiting().address(present.certificate()).unwrap();
    let to = first.certificate().clone();
    let keys = RecipientKeyRing::new(vec![present]);
    let received = Received::decode(&addressed).unwrap();
    let verified = received.verify(&certificate, default_backend()).unwrap();
    let opened = verified.open(&keys, &NoSenderKeys, default_backend());
    assert_eq!(senml::decode(opened.unwrap().payload()).unwrap(), readings);
    assert_eq!(waiting().address(&to).unwrap(), message.bytes);

    let another = recipient(&authority, now());
    let another = another.certificate();
    // A content key of another message does not make this one somebody else's.
    let swapped = Waiting {
        content_key: Some(sealer.seal(&readings, now()).unwrap().content_key),
        ..waiting()
    };
    assert!(matches!(
        swapped.address(another),
        Err(AddressError::Readdress(_))
    ));
    std::fs::remove_file(directory.path().join("outbox.key")).unwrap();
    assert!(matches!(
        waiting().address(another),
        Err(AddressError::ContentKey)
    ));
    assert_eq!(waiting().address(&to).unwrap(), message.bytes);
}
