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
            "reading the revocation list in the registry: it is damaged, or of another authority than ca.pem; \
             restore the registry from a backup",
        )?;
        let renewed = renewed(store, authority, kept.as_ref(), now).await?;
        let list = renewed
            .or(kept)
            .context("making the first revocation list")?;
        let certificate = Arc::new(ServerCertificate::new(certified(authority, names, now)?));
        let mutual = tls::mutual(&certificate, &authority.bundle_pem(), &list)?;
        Ok(Self {
            certificate,
            list: watch::Sender::new(Arc::new(list)),
            mutual: watch::Sender::new(mutual),
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
            tracing::info!(
                number = list.number(),
                revoked = list.revoked().len(),
                "new revocation list"
            );
            self.list.send_replace(Arc::new(list));
            self.mutual.send_replace(mutual);
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
