//! Displays and services: enrolled once, revoked for ever, in the revocation list, and kept out by a restore.

use vitalseal_crypto::{CertificateAuthority, SubscriberCertificate, new_device_key_and_csr};

use super::snapshot::{ONE, beside, copy_by_hand, create, open};
use super::*;
use crate::ports::{Role, Ward, Wards};
use crate::registry::{NewUser, RegistryError};

fn certificate(name: &str) -> SubscriberCertificate {
    let new = CertificateAuthority::create(at(0)).unwrap();
    let authority = CertificateAuthority::open(
        &new.issuing_key_pem,
        &new.issuing_cert_pem,
        &new.root_cert_pem,
    );
    let (_, csr) = new_device_key_and_csr(&device(1)).unwrap();
    let issued = authority
        .unwrap()
        .issue_subscriber(&csr, &name.parse().unwrap(), at(1));
    issued.unwrap().certificate
}

fn wards(names: &[&str]) -> BTreeSet<Ward> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_subscriber_is_enrolled_once_and_revoked_for_ever() {
    let site = Site::new();
    let store = site.create().await;
    let registry = &store.registry;
    let mut changed = registry.listeners_changed();
    let (display, service) = (certificate("display:icu"), certificate("service:icu"));
    let some = Wards::These(wards(&["icu", "er-2"]));
    registry
        .enroll_subscriber(&display, &some, at(2))
        .await
        .unwrap();
    registry
        .enroll_subscriber(&service, &Wards::All, at(2))
        .await
        .unwrap();
    let rows = registry.subscribers().await.unwrap();
    let shown: Vec<_> = rows
        .iter()
        .map(|row| (row.subscriber.to_string(), &row.wards))
        .collect();
    let expected = [
        ("display:icu".to_owned(), &some),
        ("service:icu".to_owned(), &Wards::All),
    ];
    assert_eq!(shown, expected);
    assert_eq!(rows[0].certificate, *display.thumbprint());
    assert!(
        registry
            .revoked_certificates(at(3))
            .await
            .unwrap()
            .is_empty()
    );

    let name = display.subscriber();
    registry
        .revoke_subscriber(name, "lost", at(4))
        .await
        .unwrap();
    registry
        .revoke_subscriber(name, "again", at(5))
        .await
        .unwrap();
    let row = registry.subscriber(name).await.unwrap().unwrap();
    assert_eq!(
        (row.revoked_at, row.revoked_reason.as_deref()),
        (Some(at(4)), Some("lost"))
    );
    let again = registry
        .enroll_subscriber(&certificate("display:icu"), &some, at(6))
        .await;
    assert!(matches!(again, Err(RegistryError::SubscriberExists(_))));
    let listed = registry.revoked_certificates(at(7)).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&*listed[0].serial, listed[0].at),
        (display.serial(), at(4))
    );
    assert!(changed.has_changed().unwrap());
    changed.mark_unchanged();
    let nobody = "display:er".parse().unwrap();
    let unknown = registry.revoke_subscriber(&nobody, "lost", at(8)).await;
    assert!(matches!(unknown, Err(RegistryError::UnknownSubscriber(_))));
    assert!(!changed.has_changed().unwrap());
}

#[tokio::test]
async fn a_person_hears_the_wards_that_were_granted() {
    let site = Site::new();
    let store = site.create().await;
    let registry = &store.registry;
    let user: crate::ports::UserName = "nora".parse().unwrap();
    let [icu, er] = ["icu", "er"].map(|ward| ward.parse::<Ward>().unwrap());
    let unknown = registry.grant_ward(&user, &icu, at(2)).await;
    assert!(matches!(unknown, Err(RegistryError::UnknownUser(_))));
    let new = NewUser {
        name: user.clone(),
        role: Role::Clinician,
        password_hash: "x".to_owned(),
        totp_secret: b"secret",
    };
    registry.add_user(new, at(1)).await.unwrap();
    assert!(registry.wards_of(&user).await.unwrap().is_empty());
    for ward in [&icu, &er, &icu] {
        registry.grant_ward(&user, ward, at(2)).await.unwrap();
    }
    assert_eq!(
        registry.wards_of(&user).await.unwrap(),
        wards(&["icu", "er"])
    );
}

#[tokio::test]
async fn no_older_copy_lets_in_who_was_revoked_since() {
    let site = Site::new();
    let store = create(&site, ONE).await;
    let registry = &store.registry;
    let erased = patient(&store).await;
    let (before, since) = (certificate("display:icu"), certificate("service:pager"));
    registry
        .enroll_subscriber(&before, &Wards::All, at(1))
        .await
        .unwrap();
    let copy = copy_by_hand(&site);
    registry
        .enroll_subscriber(&since, &Wards::All, at(2))
        .await
        .unwrap();
    for subscriber in [before.subscriber(), since.subscriber()] {
        registry
            .revoke_subscriber(subscriber, "lost", at(3))
            .await
            .unwrap();
    }
    // An erasure writes a snapshot.
    store.keys.erase(&erased, "e1", at(4)).await.unwrap();

    beside(&copy, &site);
    let joined = open(&copy, ONE).await.unwrap();
    for subscriber in [before.subscriber(), since.subscriber()] {
        let row = joined
            .registry
            .subscriber(subscriber)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(row.revoked_at, Some(at(3)), "{subscriber}");
    }
}
