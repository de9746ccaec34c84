//! Logging in against a real registry, and every way not to.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use vitalseal_storage::ports::{
    AccessPolicy as _, Actor, AuditEvent, AuditSink, AuthenticationError, Authenticator as _,
    Identity, Purpose, Role, UserName,
};

use super::*;
use crate::testing::World;

struct Ward {
    world: World,
    login: Login,
    authenticator: TokenAuthenticator,
    credentials: NewCredentials,
    secret: Vec<u8>,
}

impl Ward {
    async fn new() -> Self {
        let world = World::new().await;
        let registry = world.store.registry.clone();
        let name: UserName = "n.okafor".parse().unwrap();
        let actor = Actor::Local { uid: 1000 };
        let credentials = add_user(
            &registry,
            &world.audit,
            actor,
            name.clone(),
            Role::Clinician,
            world.now,
        )
        .await
        .unwrap();
        let secret = registry
            .user(&name)
            .await
            .unwrap()
            .unwrap()
            .totp_secret
            .to_vec();
        let audit: Arc<dyn AuditSink> = Arc::new(world.audit.clone());
        Self {
            login: Login::new(registry.clone(), audit),
            authenticator: TokenAuthenticator::new(registry),
            world,
            credentials,
            secret,
        }
    }

    async fn log_in(&self, user: &str, password: &str, at: Timestamp) -> Result<Token, LoginError> {
        self.login
            .login(user, password, &totp::code_at(&self.secret, at), at)
            .await
    }

    fn later(&self, seconds: i64) -> Timestamp {
        self.world.now + SignedDuration::from_secs(seconds)
    }

    async fn events(&self) -> Vec<AuditEvent> {
        let entries = self.world.audit.entries(0, u64::MAX).await.unwrap();
        entries.into_iter().map(|entry| entry.event).collect()
    }
}

#[tokio::test]
async fn a_login_yields_a_token_that_opens_the_door_until_it_ends() {
    let ward = Ward::new().await;
    let token = ward
        .log_in("n.okafor", &ward.credentials.password, ward.world.now)
        .await
        .unwrap();
    assert!(token.token.starts_with("vs_"));
    assert_eq!(token.expires_at, ward.world.hours(12));

    let door = &ward.authenticator;
    let almost = token.expires_at - SignedDuration::from_micros(1);
    let login = door
        .authenticate("n.okafor", &token.token, almost)
        .await
        .unwrap();
    assert_eq!(
        (login.who.user.as_str(), login.who.role, login.until),
        ("n.okafor", Role::Clinician, token.expires_at)
    );
    let mut other = token.token.to_string();
    other.replace_range(10..11, if &other[10..11] == "A" { "B" } else { "A" });
    let password = ward.credentials.password.as_str();
    for (user, token, at) in [
        ("n.okafor", token.token.as_str(), token.expires_at),
        ("n.okafor", other.as_str(), almost),
        ("n.okafor", password, almost),
        ("n.okafor", "", almost),
        ("somebody.else", token.token.as_str(), almost),
    ] {
        let refused = door.authenticate(user, token, at).await.unwrap_err();
        assert!(matches!(refused, AuthenticationError::Refused));
    }

    let events = ward.events().await;
    let names: Vec<_> = events
        .iter()
        .map(|event| match event {
            AuditEvent::UserAdded { .. } => "added",
            AuditEvent::LoginSucceeded { .. } => "succeeded",
            AuditEvent::TokenIssued { .. } => "issued",
            _ => "other",
        })
        .collect();
    assert_eq!(names, ["added", "succeeded", "issued"]);
    let written = format!("{events:?} {:?} {:?}", ward.credentials, token);
    for secret in [
        &token.token,
        &ward.credentials.password,
        &ward.credentials.totp_secret,
    ] {
        assert!(
            !written.contains(secret.as_str()),
            "no secret in the log or in Debug"
        );
    }
}

#[tokio::test]
async fn a_code_is_good_once_even_for_two_at_the_same_time() {
    let ward = Ward::new().await;
    let password = &ward.credentials.password;
    let (one, other) = tokio::join!(
        ward.log_in("n.okafor", password, ward.world.now),
        ward.log_in("n.okafor", password, ward.world.now)
    );
    assert!(one.is_ok() != other.is_ok(), "exactly one of the two");
    let again = ward.log_in("n.okafor", password, ward.world.now).await;
    assert!(matches!(again, Err(LoginError::Refused)));
    assert!(
        ward.log_in("n.okafor", password, ward.later(30))
            .await
            .is_ok()
    );
    let older = totp::code_at(&ward.secret, ward.world.now);
    let older = ward
        .login
        .login("n.okafor", password, &older, ward.later(31))
        .await;
    assert!(
        matches!(older, Err(LoginError::Refused)),
        "nor is one from before the last used"
    );
}

#[tokio::test]
async fn whatever_is_wrong_the_error_is_the_same() {
    let ward = Ward::new().await;
    let now = ward.world.now;
    let right = ward.credentials.password.as_str();
    let code = totp::code_at(&ward.secret, now);
    let wrong_code = if code == "000000" { "000001" } else { "000000" };
    for (user, password, code) in [
        ("n.okafor", "wrong", code.as_str()),
        ("n.okafor", right, wrong_code),
        ("n.okafor", right, ""),
        ("nobody", right, code.as_str()),
        (right, "n.okafor", code.as_str()),
        ("", "", ""),
        ("n.okafor", &"x".repeat(1 << 20), code.as_str()),
    ] {
        let refused = ward
            .login
            .login(user, password, code, now)
            .await
            .unwrap_err();
        assert_eq!(refused.to_string(), LoginError::Refused.to_string());
    }
    let failed: Vec<_> = ward
        .events()
        .await
        .into_iter()
        .filter_map(|event| match event {
            AuditEvent::LoginFailed { user } => Some(user.to_string()),
            _ => None,
        })
        .collect();
    let known = "n.okafor".to_owned();
    assert_eq!(failed.iter().filter(|user| **user == known).count(), 4);
    assert!(failed.contains(&"nobody".to_owned()));
    assert_eq!(
        failed.len(),
        5,
        "a password typed as a name is not written down"
    );
}

#[tokio::test]
async fn five_failures_lock_known_and_unknown_names_alike() {
    let ward = Ward::new().await;
    for user in ["n.okafor", "nobody"] {
        for _ in 0..5 {
            let refused = ward.log_in(user, "wrong", ward.world.now).await;
            assert!(matches!(refused, Err(LoginError::Refused)));
        }
        let locked = ward
            .log_in(user, &ward.credentials.password, ward.later(29))
            .await;
        assert!(matches!(locked, Err(LoginError::LockedOut(until)) if until == ward.later(30)));
    }
    let password = &ward.credentials.password;
    assert!(
        ward.log_in("n.okafor", password, ward.later(30))
            .await
            .is_ok()
    );
    for _ in 0..4 {
        let refused = ward.log_in("n.okafor", "wrong", ward.later(60)).await;
        assert!(
            matches!(refused, Err(LoginError::Refused)),
            "a success starts the count anew"
        );
    }
}

#[tokio::test]
async fn only_a_clinician_treating_sees_anybody_and_only_their_care_team() {
    let ward = Ward::new().await;
    let world = &ward.world;
    let registry = &world.store.registry;
    let (mine, _other) = (world.patient("Ada").await, world.patient("Grace").await);
    let user: UserName = "n.okafor".parse().unwrap();
    registry.grant(&user, &mine, world.now).await.unwrap();
    let policy = CareTeamPolicy::new(registry.clone());
    for role in [Role::Clinician, Role::Dpo, Role::Admin] {
        for purpose in [
            Purpose::Treatment,
            Purpose::EmergencyTreatment,
            Purpose::Payment,
            Purpose::Operations,
            Purpose::Research,
            Purpose::PublicHealth,
            Purpose::PatientRequest,
        ] {
            let who = Identity {
                user: user.clone(),
                role,
            };
            let seen = policy
                .patients_readable_by(&who, purpose, world.now)
                .await
                .unwrap();
            let expected = match (role, purpose) {
                (Role::Clinician, Purpose::Treatment) => vec![mine.clone()],
                _ => vec![],
            };
            assert!(seen.patients().iter().eq(&expected), "{role} for {purpose}");
        }
    }
    let stranger = Identity {
        user: "stranger".parse().unwrap(),
        role: Role::Clinician,
    };
    let seen = policy
        .patients_readable_by(&stranger, Purpose::Treatment, world.now)
        .await
        .unwrap();
    assert!(seen.patients().is_empty());
}
