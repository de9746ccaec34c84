//! Users, what they may see, and what they log in with.

use super::*;
use crate::ports::Role;
use crate::registry::{NewUser, RegistryError};

#[tokio::test]
async fn people_grants_tokens_and_steps_read_back_and_secrets_are_in_no_file() {
    const TOTP: &[u8] = b"a totp secret of twenty-odd bytes";
    let site = Site::new();
    let store = site.create().await;
    let registry = &store.registry;
    let subject = patient(&store).await;
    let name: crate::ports::UserName = "n.okafor".parse().unwrap();
    let user = || NewUser {
        name: name.clone(),
        role: Role::Clinician,
        password_hash: "$argon2id$…".into(),
        totp_secret: TOTP,
    };
    registry.add_user(user(), at(1)).await.unwrap();
    assert!(matches!(
        registry.add_user(user(), at(1)).await,
        Err(RegistryError::UserExists(_))
    ));
    assert_eq!(
        registry
            .user(&name)
            .await
            .unwrap()
            .unwrap()
            .totp_secret
            .as_slice(),
        TOTP
    );
    for (step, fresh) in [(100, true), (100, false), (99, false), (101, true)] {
        assert_eq!(
            registry.set_totp_step(&name, step).await.unwrap(),
            fresh,
            "step {step}"
        );
    }
    registry.grant(&name, &subject, at(5)).await.unwrap();
    assert_eq!(registry.grants_of(&name, at(4)).await.unwrap(), []);
    assert_eq!(
        registry.grants_of(&name, at(5)).await.unwrap(),
        std::slice::from_ref(&subject)
    );
    registry.put_token([7; 32], &name, at(60)).await.unwrap();
    assert_eq!(
        registry.token([7; 32]).await.unwrap(),
        Some((name.clone(), Role::Clinician, at(60)))
    );
    assert_eq!(registry.token([8; 32]).await.unwrap(), None);
    registry.put_incident("i1", "{}", at(1)).await.unwrap();
    registry
        .put_incident("i1", "{\"a\":1}", at(2))
        .await
        .unwrap();
    assert_eq!(registry.incidents().await.unwrap(), ["{\"a\":1}"]);

    store.keys.erase(&subject, "e", at(9)).await.unwrap();
    assert_eq!(registry.grants_of(&name, at(10)).await.unwrap(), []);
    assert!(matches!(
        registry.grant(&name, &subject, at(10)).await,
        Err(RegistryError::PatientErased(_))
    ));
    assert_eq!(
        registry
            .user(&name)
            .await
            .unwrap()
            .unwrap()
            .totp_secret
            .as_slice(),
        TOTP
    );
    for (path, bytes) in every_file(&site.data()) {
        for needle in [TOTP, b"Nomen Nescio".as_slice(), b"MRN-0042"] {
            assert!(
                !contains(&bytes, needle),
                "{} holds a secret or a name",
                path.display()
            );
        }
    }
    let debug = format!("{:?} {:?}", store, registry.user(&name).await.unwrap());
    assert!(
        !debug.contains("argon2id") && !debug.contains("totp"),
        "{debug}"
    );
}
