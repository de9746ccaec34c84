//! The authority's revocation list and the server's own certificate: renewed in time, and shown by the doors at once.
//!
//! The registry decides who may connect, live; the list says the same to a TLS handshake and to whoever fetches it. Its
//! number is the second in which it was issued, or one more than the number before: so it grows (RFC 5280 §5.2.3) over a
//! restore of an older registry too.

use std::sync::Arc;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use rustls::ServerConfig;
use rustls::sign::CertifiedKey;
use tokio::sync::{Mutex, MutexGuard, watch};
use vitalseal_crypto::{CertificateAuthority, RevocationList, RevokedCertificate, default_backend};
use vitalseal_storage::Store;

use crate::tls::{self, ServerCertificate};

/// A list is of use for a week; renewed every day, six may fail.
const LIST_AGE: SignedDuration = SignedDuration::from_hours(24);

/// A list that is this close to its end could not be renewed for two days: time for somebody to look.
const STALE: SignedDuration = SignedDuration::from_hours(5 * 24);

/// The server's certificate is of use for a year: eleven months may pass before somebody has to look.
const CERTIFICATE_AGE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The newest list, and what the doors show.
#[derive(Debug)]
pub struct Revocations {
    certificate: Arc<ServerCertificate>,
    list: watch::Sender<Arc<RevocationList>>,
    mutual: watch::Sender<Arc<ServerConfig>>,
    optional: watch::Sender<Arc<ServerConfig>>,
    /// Locked while anything here is renewed.
    issued: Mutex<Issued>,
}

/// Of the server's certificate.
#[derive(Debug)]
struct Issued {
    names: Vec<String>,
    at: Timestamp,
}

/// A certificate in other names that is not shown yet. While this is held nothing is renewed.
pub(super) struct Renamed<'a> {
    certificate: &'a ServerCertificate,
    certified: Arc<CertifiedKey>,
    issued: MutexGuard<'a, Issued>,
    next: Issued,
}

impl Renamed<'_> {
    /// Shows it to the connections to come.
    pub(super) fn show(mut self) {
        self.certificate.show(self.certified);
        *self.issued = self.next;
    }
}

impl Revocations {
    /// Reads the list that is kept, renews it, and issues a certificate in these names.
    ///
    /// # Errors
    /// The kept list is damaged or another authority's; the registry cannot be read or written, or the authority does not
    /// sign.
    pub(super) async fn open(
        store: &Store,
        authority: &CertificateAuthority,
        names: &[String],
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let kept = store.registry.revocation_list().await?;
        let kept = kept
            .map(|der| RevocationList::from_der(&der, authority.issuing_der(), default_backend()));
        let kept = kept.transpose().context(
            "reading the revocation list in the registry: it is damaged, or of another authority than ca-issuing.pem; \
             restore the registry from a backup",
        )?;
        let renewed = renewed(store, authority, kept.as_ref(), now).await?;
        let list = renewed
            .or(kept)
            .context("making the first revocation list")?;
        let certificate = Arc::new(ServerCertificate::new(certified(authority, names, now)?));
        let mutual = tls::mutual(&certificate, &authority.bundle_pem(), &list)?;
        let optional = tls::optional(&certificate, &authority.bundle_pem(), &list)?;
        Ok(Self {
            certificate,
            list: watch::Sender::new(Arc::new(list)),
            mutual: watch::Sender::new(mutual),
            optional: watch::Sender::new(optional),
            issued: Mutex::new(Issued {
                names: names.to_vec(),
                at: now,
            }),
        })
    }

    /// The newest list.
    pub fn list(&self) -> Arc<RevocationList> {
        Arc::clone(&self.list.borrow())
    }

    /// TLS for devices, by the newest list.
    pub(super) fn mutual(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.mutual.subscribe()
    }

    /// TLS for those who may show a certificate, by the newest list.
    pub(super) fn optional(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.optional.subscribe()
    }

    /// TLS for whoever authenticates inside.
    pub(super) fn server(&self) -> anyhow::Result<Arc<ServerConfig>> {
        tls::server(&self.certificate)
    }

    /// Whether nobody could renew the list for too long.
    pub(super) fn is_stale(&self, now: Timestamp) -> bool {
        self.list().next_update().duration_since(now) < STALE
    }

    /// Whether the newest list names this certificate.
    pub(super) fn holds(&self, serial: &[u8]) -> bool {
        let list = self.list();
        list.revoked().iter().any(|entry| *entry.serial == *serial)
    }

    /// Makes a new list when the registry says another thing than the newest, or that is a day old; and a new server
    /// certificate every month. Connections that stand go on, those to come are met by what is new.
    ///
    /// # Errors
    /// The registry cannot be read or written, or the authority does not sign; what is shown stays.
    pub(crate) async fn renew(
        &self,
        store: &Store,
        authority: &CertificateAuthority,
        now: Timestamp,
    ) -> anyhow::Result<()> {
        let mut issued = self.issued.lock().await;
        if let Some(list) = renewed(store, authority, Some(&self.list()), now).await? {
            let mutual = tls::mutual(&self.certificate, &authority.bundle_pem(), &list)?;
            let optional = tls::optional(&self.certificate, &authority.bundle_pem(), &list)?;
            tracing::info!(
                number = list.number(),
                revoked = list.revoked().len(),
                "new revocation list"
            );
            self.list.send_replace(Arc::new(list));
            self.mutual.send_replace(mutual);
            self.optional.send_replace(optional);
        }
        if now.duration_since(issued.at) >= CERTIFICATE_AGE {
            self.certificate
                .show(certified(authority, &issued.names, now)?);
            issued.at = now;
            tracing::info!("new server certificate");
        }
        Ok(())
    }

    /// Issues a server certificate in other names, for [`Renamed::show`].
    ///
    /// # Errors
    /// A name is none, or the authority does not sign.
    pub(super) async fn rename(
        &self,
        authority: &CertificateAuthority,
        names: &[String],
        now: Timestamp,
    ) -> anyhow::Result<Renamed<'_>> {
        let issued = self.issued.lock().await;
        Ok(Renamed {
            certificate: &self.certificate,
            certified: certified(authority, names, now)?,
            issued,
            next: Issued {
                names: names.to_vec(),
                at: now,
            },
        })
    }
}

/// The next list, kept in the registry; `None` while the newest will do.
async fn renewed(
    store: &Store,
    authority: &CertificateAuthority,
    newest: Option<&RevocationList>,
    now: Timestamp,
) -> anyhow::Result<Option<RevocationList>> {
    let revoked = store.registry.revoked_certificates(now).await?;
    let young = |list: &&RevocationList| now.duration_since(list.this_update()).abs() < LIST_AGE;
    if newest
        .filter(young)
        .is_some_and(|list| says(list, &revoked))
    {
        return Ok(None);
    }
    let second = u64::try_from(now.as_second()).unwrap_or_default();
    let number = newest.map_or(second, |list| second.max(list.number() + 1));
    let list = authority
        .revocation_list(&revoked, number, now)
        .context("signing the revocation list")?;
    store.registry.put_revocation_list(list.der()).await?;
    Ok(Some(list))
}

/// Whether the list holds just these; it keeps whole seconds.
fn says(list: &RevocationList, revoked: &[RevokedCertificate]) -> bool {
    let said =
        |entry: &RevokedCertificate| (entry.serial.clone(), entry.at.as_second(), entry.reason);
    list.revoked().iter().map(said).eq(revoked.iter().map(said))
}

fn certified(
    authority: &CertificateAuthority,
    names: &[String],
    now: Timestamp,
) -> anyhow::Result<Arc<CertifiedKey>> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let identity = authority
        .issue_server(&names, now)
        .context("issuing the server certificate")?;
    tls::certified(&identity)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use vitalseal_crypto::{DeviceId, new_device_key_and_csr};
    use vitalseal_storage::ports::{Clock as _, SystemClock};
    use vitalseal_storage::{FileRootProvider, StorePaths};

    use super::*;

    struct Site {
        store: Store,
        authority: CertificateAuthority,
        now: Timestamp,
        _dir: TempDir,
    }

    impl Site {
        async fn new() -> Self {
            let (dir, now) = (tempfile::tempdir().unwrap(), SystemClock.now());
            let roots = dir.path().join("root");
            let paths = StorePaths::new(&dir.path().join("data"), Some(&roots));
            let roots = Arc::new(FileRootProvider::new(&roots));
            Self {
                store: Store::create(&paths, roots, now).await.unwrap(),
                authority: authority(now),
                now,
                _dir: dir,
            }
        }

        async fn open(&self, hours: i64) -> anyhow::Result<Revocations> {
            let (names, now) = (["localhost".to_owned()], self.at(hours));
            Revocations::open(&self.store, &self.authority, &names, now).await
        }

        async fn renewed(&self, revocations: &Revocations, hours: i64) -> u64 {
            let renewed = revocations.renew(&self.store, &self.authority, self.at(hours));
            renewed.await.unwrap();
            revocations.list().number()
        }

        fn at(&self, hours: i64) -> Timestamp {
            self.now + SignedDuration::from_hours(hours)
        }

        async fn device(&self) -> DeviceId {
            let device: DeviceId = "monitor-1".parse().unwrap();
            let (_, csr) = new_device_key_and_csr(&device).unwrap();
            let issued = self
                .authority
                .issue_device(&csr, &device, self.now)
                .unwrap();
            let registry = &self.store.registry;
            registry
                .enroll_device(&issued.certificate, self.now)
                .await
                .unwrap();
            device
        }
    }

    fn authority(now: Timestamp) -> CertificateAuthority {
        let new = CertificateAuthority::create(now).unwrap();
        let (key, issuing, root) = (
            &new.issuing_key_pem,
            &new.issuing_cert_pem,
            &new.root_cert_pem,
        );
        CertificateAuthority::open(key, issuing, root).unwrap()
    }

    #[tokio::test]
    async fn a_list_is_made_anew_when_it_is_wrong_or_old_and_its_number_always_grows() {
        let site = Site::new().await;
        let (registry, device) = (&site.store.registry, site.device().await);
        let revocations = site.open(0).await.unwrap();
        let first = revocations.list().number();
        assert_eq!(site.renewed(&revocations, 23).await, first);
        registry
            .suspend_device(&device, "lost", site.at(23))
            .await
            .unwrap();
        let held = site.renewed(&revocations, 23).await;
        assert!(held > first && revocations.list().revoked().len() == 1);
        assert_eq!(site.renewed(&revocations, 23).await, held);
        registry
            .reinstate_device(&device, "found", site.at(23))
            .await
            .unwrap();
        let free = site.renewed(&revocations, 23).await;
        assert!(free > held && revocations.list().revoked().is_empty());
        let next_day = site.renewed(&revocations, 47).await;
        assert!(next_day > free);
        // The clock is set back by two days, and by one hour.
        let set_back = site.renewed(&revocations, -1).await;
        assert!(set_back > next_day);
        assert_eq!(site.renewed(&revocations, -2).await, set_back);
        // A start goes on from there.
        let started = site.open(-2).await.unwrap();
        assert_eq!(started.list().number(), set_back);
    }

    #[tokio::test]
    async fn a_list_that_could_not_be_renewed_for_two_days_is_told_of_while_it_is_of_use() {
        let site = Site::new().await;
        let revocations = site.open(0).await.unwrap();
        assert!(!revocations.is_stale(site.at(47)));
        assert!(revocations.is_stale(site.at(49)));
        assert!(site.at(49) < revocations.list().next_update());
        site.renewed(&revocations, 49).await;
        assert!(!revocations.is_stale(site.at(49)));
    }

    #[tokio::test]
    async fn a_list_that_is_damaged_or_another_authoritys_stops_the_start() {
        let site = Site::new().await;
        let kept = site.open(0).await.unwrap().list();
        let mut damaged = kept.der().to_vec();
        damaged[40] ^= 1;
        let foreign = authority(site.now)
            .revocation_list(&[], 1, site.now)
            .unwrap();
        for der in [&b""[..], &damaged, foreign.der()] {
            site.store.registry.put_revocation_list(der).await.unwrap();
            let refused = site.open(1).await.unwrap_err();
            assert!(
                format!("{refused:#}").contains("reading the revocation list"),
                "{refused:#}"
            );
        }
        site.store
            .registry
            .put_revocation_list(kept.der())
            .await
            .unwrap();
        assert_eq!(site.open(1).await.unwrap().list(), kept);
    }
}
