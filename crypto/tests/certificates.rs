//! Who may be believed: chains, validity, names and kinds of certificate.
#![cfg(feature = "authority")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests argue with unwrap"
)]

mod common;

use std::error::Error;
use std::sync::Arc;

use common::{authority, backends, later, now};
use vitalseal_crypto::certificate::{certificates_in_pem, verify_authority};
use vitalseal_crypto::{
    AuthorityError, CertificateAuthority, CertificateError, DeviceCertificate, DeviceId,
    DeviceSigner, KeyEpoch, KeyError, P256Secret, RecipientCertificate, RemoteSigner, Subscriber,
    SubscriberCertificate, default_backend, new_device_key_and_csr,
};

fn device() -> DeviceId {
    "monitor-001".parse().unwrap()
}

#[test]
fn what_is_no_certificate_says_why() {
    let said = |refused: CertificateError| refused.to_string();
    let nothing = said(certificates_in_pem("").unwrap_err());
    assert!(nothing.contains("no certificate"), "{nothing}");
    let parse = |bytes: usize| said(DeviceCertificate::from_der(&vec![0x30; bytes]).unwrap_err());
    assert!(parse(8192).contains("does not parse"));
    assert!(parse(8193).contains("larger than any certificate"));
}

#[test]
fn a_point_that_is_said_to_lie_on_another_curve_is_no_key() {
    let (_, csr) = new_device_key_and_csr(&device()).unwrap();
    let issued = authority().issue_device(&csr, &device(), now()).unwrap();
    let mut der = issued.certificate.der().to_vec();
    // The last arc of prime256v1 (RFC 5480 §2.1.1.1), 1.2.840.10045.3.1.7, makes it prime192v1.
    let p256 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let at = der.windows(8).position(|bytes| bytes == p256).unwrap();
    der[at + 7] = 1;
    let refused = DeviceCertificate::from_der(&der).unwrap_err().to_string();
    assert!(refused.contains("not on P-256"), "{refused}");
}

#[test]
fn a_chain_verifies_up_to_the_root_and_no_further() {
    let authority = authority();
    let (_, csr) = new_device_key_and_csr(&device()).unwrap();
    let issued = authority.issue_device(&csr, &device(), now()).unwrap();
    let bundle = certificates_in_pem(&authority.bundle_pem()).unwrap();
    assert_eq!(bundle, [authority.issuing_der(), authority.root_der()]);
    let sent = certificates_in_pem(&issued.pem).unwrap();
    assert_eq!(sent, [issued.certificate.der(), authority.issuing_der()]);

    let stranger = self::authority();
    for backend in backends() {
        let certificate = &issued.certificate;
        assert_eq!(
            certificate.verify_issued_by(&bundle[0], now(), backend),
            Ok(())
        );
        assert_eq!(
            verify_authority(&bundle[0], &bundle[1], now(), backend),
            Ok(())
        );
        for foreign in [&bundle[1], stranger.issuing_der(), certificate.der()] {
            assert_eq!(
                certificate.verify_issued_by(foreign, now(), backend),
                Err(CertificateError::ForeignIssuer)
            );
        }
        assert!(verify_authority(&bundle[0], stranger.root_der(), now(), backend).is_err());
        assert!(
            verify_authority(&bundle[0], &bundle[0], now(), backend).is_err(),
            "not a root"
        );
    }
}

#[test]
fn a_certificate_leads_to_whom_the_verifier_trusts_and_not_to_whom_it_brings_along() {
    let (authority, stranger) = (authority(), authority());
    let (_, csr) = new_device_key_and_csr(&device()).unwrap();
    let issued = authority.issue_device(&csr, &device(), now()).unwrap();
    let (issuing, root) = (authority.issuing_der(), authority.root_der());
    for backend in backends() {
        let leads = |trusted: &[&[u8]], shown: &[&[u8]], at| {
            issued.certificate.verify_chain(trusted, shown, at, backend)
        };
        for trusted in [
            &[root, issuing][..],
            &[issuing],
            &[stranger.root_der(), issuing],
        ] {
            assert_eq!(leads(trusted, &[], now()), Ok(()));
        }
        assert_eq!(leads(&[root], &[issuing], now()), Ok(()));
        let foreign = Err(CertificateError::ForeignIssuer);
        for (trusted, shown) in [
            (&[root][..], &[][..]),
            (&[], &[issuing, root]),
            (&[stranger.root_der()], &[issuing, root]),
            (&[stranger.root_der(), stranger.issuing_der()], &[issuing]),
            (&[issued.certificate.der()], &[issued.certificate.der()]),
            (&[b"no certificate"], &[b""]),
        ] {
            assert_eq!(leads(trusted, shown, now()), foreign, "{}", trusted.len());
        }
        for days in [-1, 366, 3 * 365] {
            let then = leads(&[root], &[issuing], later(now(), days));
            assert_eq!(then, Err(CertificateError::NotValidNow), "{days}");
        }
    }
}

#[test]
fn validity_is_judged_at_the_time_given() {
    let authority = authority();
    let (_, csr) = new_device_key_and_csr(&device()).unwrap();
    let certificate = authority
        .issue_device(&csr, &device(), now())
        .unwrap()
        .certificate;
    let at = |days| {
        certificate.verify_issued_by(
            authority.issuing_der(),
            later(now(), days),
            default_backend(),
        )
    };
    assert_eq!(at(-1), Err(CertificateError::NotValidNow));
    assert_eq!(at(0), Ok(()));
    assert_eq!(at(365), Ok(()));
    assert_eq!(at(366), Err(CertificateError::NotValidNow));
    assert_eq!(certificate.not_after(), later(now(), 365));

    // Near the issuing CA's own end a device's certificate ends with it, and after that none is issued.
    let late = authority
        .issue_device(&csr, &device(), later(now(), 5 * 365 - 10))
        .unwrap();
    assert_eq!(late.certificate.not_after(), later(now(), 5 * 365));
    let too_late = authority.issue_device(&csr, &device(), later(now(), 5 * 365 + 1));
    assert!(matches!(too_late, Err(AuthorityError::Validity)));
}

/// A device asks for a name, and gets its own.
#[test]
fn a_request_with_another_name_gets_the_devices() {
    let (key, csr) = new_device_key_and_csr(&"somebody-else".parse().unwrap()).unwrap();
    let issued = authority().issue_device(&csr, &device(), now()).unwrap();
    assert_eq!(*issued.certificate.device(), device());
    assert!(!String::from_utf8_lossy(issued.certificate.der()).contains("somebody-else"));
    let signer = DeviceSigner::from_pkcs8_pem(&key, &issued.pem).unwrap();
    assert_eq!(
        (signer.device(), signer.thumbprint()),
        (&device(), issued.certificate.thumbprint())
    );

    let (other_key, _) = new_device_key_and_csr(&device()).unwrap();
    assert_eq!(
        DeviceSigner::from_pkcs8_pem(&other_key, &issued.pem).unwrap_err(),
        KeyError::Mismatch
    );
    assert_eq!(
        DeviceSigner::from_pkcs8_pem(&issued.pem, &issued.pem).unwrap_err(),
        KeyError::Malformed
    );
}

#[test]
fn a_request_that_its_key_did_not_sign_is_refused() {
    let authority = authority();
    let (_, csr) = new_device_key_and_csr(&device()).unwrap();
    let broken: String = {
        let mut lines: Vec<_> = csr.lines().map(str::to_owned).collect();
        let line = lines.len() - 3;
        let swapped = if lines[line].as_bytes()[10] == b'A' {
            "B"
        } else {
            "A"
        };
        lines[line].replace_range(10..11, swapped);
        lines.join("\n")
    };
    for request in [broken.as_str(), "", &authority.bundle_pem()] {
        let refused = authority.issue_device(request, &device(), now());
        assert!(matches!(refused, Err(AuthorityError::Request)));
    }
    let other_curve = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&other_curve)
        .unwrap();
    let refused = authority.issue_device(&request.pem().unwrap(), &device(), now());
    assert!(matches!(refused, Err(AuthorityError::Request)));
}

/// Whoever could pass a certificate of another kind for a recipient's would read what is sealed.
#[test]
fn the_kinds_of_certificate_do_not_mix() {
    let authority = authority();
    let (_, csr) = new_device_key_and_csr(&device()).unwrap();
    let leaf = authority
        .issue_device(&csr, &device(), now())
        .unwrap()
        .certificate;
    let server = authority
        .issue_server(&["monitor-001", "127.0.0.1"], now())
        .unwrap();
    let recipient = authority
        .issue_recipient(KeyEpoch(9), now(), later(now(), 1), default_backend())
        .unwrap();
    let recipient = recipient.certificate();

    assert!(RecipientCertificate::from_der(leaf.der()).is_err());
    assert!(RecipientCertificate::from_pem(&server.chain_pem).is_err());
    assert!(RecipientCertificate::from_der(authority.issuing_der()).is_err());
    assert!(DeviceCertificate::from_pem(&server.chain_pem).is_err());
    assert!(DeviceCertificate::from_der(recipient.der()).is_err());
    assert!(DeviceCertificate::from_der(authority.root_der()).is_err());
    let display: Subscriber = "display:monitor-001".parse().unwrap();
    let shown = authority.issue_subscriber(&csr, &display, now()).unwrap();
    assert!(DeviceCertificate::from_pem(&shown.pem).is_err());
    assert!(RecipientCertificate::from_pem(&shown.pem).is_err());
    assert!(SubscriberCertificate::from_der(leaf.der()).is_err());
    assert!(SubscriberCertificate::from_pem(&server.chain_pem).is_err());
    assert!(SubscriberCertificate::from_der(recipient.der()).is_err());
    let read = SubscriberCertificate::from_pem(&shown.pem).unwrap();
    assert_eq!((read.subscriber(), &read), (&display, &shown.certificate));
    for no_subscriber in [
        "display",
        "display:",
        "screen:icu",
        "display:a:b",
        "monitor-001",
    ] {
        assert!(
            no_subscriber.parse::<Subscriber>().is_err(),
            "{no_subscriber}"
        );
    }

    assert_eq!(
        RecipientCertificate::from_pem(&recipient.to_pem()).as_ref(),
        Ok(recipient)
    );
    assert_eq!(DeviceCertificate::from_pem(&leaf.to_pem()), Ok(leaf));
    assert_eq!(
        recipient.verify_issued_by(authority.issuing_der(), later(now(), 2), default_backend()),
        Err(CertificateError::NotValidNow)
    );
    let empty = authority.issue_recipient(KeyEpoch(9), now(), now(), default_backend());
    assert!(matches!(empty, Err(AuthorityError::Validity)));
}

#[test]
fn an_authority_opens_only_with_what_belongs_together() {
    let (one, two) = (
        CertificateAuthority::create(now()).unwrap(),
        CertificateAuthority::create(now()).unwrap(),
    );
    let open = |key: &str, cert: &str, root: &str| CertificateAuthority::open(key, cert, root);
    assert!(
        open(
            &one.issuing_key_pem,
            &one.issuing_cert_pem,
            &one.root_cert_pem
        )
        .is_ok()
    );
    for (key, cert, root) in [
        (
            &two.issuing_key_pem,
            &one.issuing_cert_pem,
            &one.root_cert_pem,
        ),
        (
            &one.issuing_key_pem,
            &two.issuing_cert_pem,
            &one.root_cert_pem,
        ),
        (
            &one.issuing_key_pem,
            &one.issuing_cert_pem,
            &two.root_cert_pem,
        ),
    ] {
        assert!(matches!(
            open(key, cert, root),
            Err(AuthorityError::Authority)
        ));
    }
}

/// RFC 5280 §4.2.1.9: how deep authorities may stand, and that only authorities may issue.
#[test]
fn an_authority_goes_no_deeper_than_its_path_length() {
    use rcgen::{
        BasicConstraints::Constrained, BasicConstraints::Unconstrained, IsCa, KeyUsagePurpose,
    };

    struct Node {
        der: Vec<u8>,
        params: rcgen::CertificateParams,
        key: rcgen::KeyPair,
    }
    let node = |name: &str, is_ca, usage, issuer: Option<&Node>| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        (params.not_before, params.not_after) = (
            rcgen::date_time_ymd(2026, 1, 1),
            rcgen::date_time_ymd(2027, 1, 1),
        );
        (params.is_ca, params.key_usages) = (is_ca, vec![usage]);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = match issuer {
            None => params.self_signed(&key),
            Some(issuer) => params.signed_by(
                &key,
                &rcgen::Issuer::from_params(&issuer.params, &issuer.key),
            ),
        };
        let der = certificate.unwrap().der().to_vec();
        Node { der, params, key }
    };
    let sign = KeyUsagePurpose::KeyCertSign;
    let root = |constraint| node("root", IsCa::Ca(constraint), sign, None);
    let (none, shallow, deep) = (
        root(Constrained(0)),
        root(Constrained(1)),
        root(Unconstrained),
    );
    let issuing = |root| node("issuing", IsCa::Ca(Constrained(0)), sign, Some(root));
    let no_ca = |root| node("issuing", IsCa::ExplicitNoCa, sign, Some(root));
    let mute = |root| {
        let usage = KeyUsagePurpose::DigitalSignature;
        node("issuing", IsCa::Ca(Constrained(0)), usage, Some(root))
    };
    for backend in backends() {
        let verify =
            |issuing: &Node, root: &Node| verify_authority(&issuing.der, &root.der, now(), backend);
        assert_eq!(verify(&issuing(&shallow), &shallow), Ok(()));
        assert_eq!(verify(&issuing(&deep), &deep), Ok(()));
        assert_eq!(
            verify(&issuing(&none), &none),
            Err(CertificateError::PathLength)
        );
        for unfit in [no_ca(&shallow), mute(&shallow)] {
            assert_eq!(
                verify(&unfit, &shallow),
                Err(CertificateError::ForeignIssuer)
            );
        }
        let below = issuing(&shallow);
        let deeper = node("deeper", IsCa::Ca(Constrained(0)), sign, Some(&below));
        assert_eq!(
            verify(&deeper, &below),
            Err(CertificateError::ForeignIssuer),
            "not a root"
        );

        let usage = KeyUsagePurpose::DigitalSignature;
        for (issuer, expected) in [
            (&below, Ok(())),
            (&none, Ok(())),
            (&no_ca(&shallow), Err(CertificateError::ForeignIssuer)),
            (&mute(&shallow), Err(CertificateError::ForeignIssuer)),
        ] {
            let leaf = node("monitor-001", IsCa::NoCa, usage, Some(issuer));
            let leaf = DeviceCertificate::from_der(&leaf.der).unwrap();
            assert_eq!(leaf.verify_issued_by(&issuer.der, now(), backend), expected);
        }
    }
}

/// A key that is not on this machine: it signs with `with`, whatever it says that it is.
#[derive(Debug)]
struct Remote {
    named: P256Secret,
    with: Option<P256Secret>,
}

impl RemoteSigner for Remote {
    fn public(&self) -> &[u8] {
        self.named.public().as_sec1()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn Error + Send + Sync>> {
        let key = self.with.as_ref().ok_or("the token is in a drawer")?;
        Ok(default_backend().sign(key, &[message])?)
    }
}

#[test]
fn a_remote_key_issues_as_a_near_one_does_and_what_it_signs_is_checked_first() {
    let backend = default_backend();
    let named = || backend.p256_from_scalar(&[7; 32]).unwrap();
    let chain = CertificateAuthority::create_remote(
        &Remote {
            named: named(),
            with: None,
        },
        now(),
    )
    .unwrap();
    let (_, csr) = new_device_key_and_csr(&device()).unwrap();
    let open = |with| {
        let signer = Arc::new(Remote {
            named: named(),
            with,
        });
        CertificateAuthority::open_remote(signer, &chain.issuing_cert_pem, &chain.root_cert_pem)
            .unwrap()
    };
    let issue = |with| open(with).issue_device(&csr, &device(), now());
    let issued = issue(Some(named())).unwrap().certificate;
    let issuing = &certificates_in_pem(&chain.issuing_cert_pem).unwrap()[0];
    for backend in backends() {
        assert_eq!(issued.verify_issued_by(issuing, now(), backend), Ok(()));
    }

    let another = issue(Some(backend.generate_p256().unwrap()));
    assert!(matches!(another, Err(AuthorityError::Remote(_))));
    match issue(None) {
        Err(AuthorityError::Remote(cause)) => assert!(cause.to_string().contains("drawer")),
        other => panic!("{other:?}"),
    }
    let list = |with| open(with).revocation_list(&[], 1, now());
    assert_eq!(list(Some(named())).unwrap().number(), 1);
    assert!(matches!(list(None), Err(AuthorityError::Remote(_))));
    let stranger = Arc::new(Remote {
        named: backend.generate_p256().unwrap(),
        with: None,
    });
    let opened =
        CertificateAuthority::open_remote(stranger, &chain.issuing_cert_pem, &chain.root_cert_pem);
    assert!(matches!(opened, Err(AuthorityError::Authority)));
}
