//! Issuing certificates: the authority that a site runs for its own devices.

use std::error::Error;
use std::sync::Arc;

use jiff::Timestamp;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use zeroize::Zeroizing;

use super::issuing_key::IssuingKey;
use super::params::{
    ISSUING_DAYS, LEAF_DAYS, LIST_DAYS, PublicKey, ROOT_DAYS, authority_params, backdated,
    days_after, leaf_params, new_key_pair, random_serial, set_validity,
};
use super::revocation::{self, RevocationList, RevokedCertificate};
use super::{
    CertificateError, DeviceCertificate, RecipientCertificate, Subscriber, SubscriberCertificate,
    parsed,
};
use crate::backend::{Backend, BackendError, P256Point, default_backend};
use crate::ids::{DeviceId, KeyEpoch};
use crate::keys::{KeyError, RecipientKey, blank_debug};
use crate::pem;
use crate::remote::RemoteSigner;

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A certificate request does not parse, is not signed by its own key, or asks for another curve.
    #[error(
        "the certificate request is not one: a PKCS#10 request for a P-256 key, signed by that key, is needed"
    )]
    Request,
    /// The authority's own key or certificates do not parse or do not belong together.
    #[error("the authority's key and certificates do not belong together")]
    Authority,
    /// A server name is neither a DNS name nor an IP address.
    #[error("a server name is neither a DNS name nor an IP address")]
    ServerName,
    /// The validity period is empty or outside the authority's own.
    #[error("the validity period is empty or outside the authority's own")]
    Validity,
    /// Building or signing the certificate failed.
    #[error("signing the certificate")]
    Signing(#[source] rcgen::Error),
    /// The issuing key is somewhere else, and did not sign, or not rightly.
    #[error("signing the certificate with a key that is not on this machine")]
    Remote(#[source] Box<dyn Error + Send + Sync>),
    /// What was issued does not pass our own reading.
    #[error("reading back the issued certificate")]
    Issued(#[from] CertificateError),
    /// The key for a certificate could not be made.
    #[error("making the key for the certificate")]
    Key(#[from] KeyError),
}

impl From<BackendError> for AuthorityError {
    fn from(cause: BackendError) -> Self {
        Self::Key(KeyError::Backend(cause))
    }
}

/// The issuing authority: signs devices', servers' and recipients' certificates.
pub struct CertificateAuthority {
    issuer: Issuer<'static, IssuingKey>,
    issuing_der: Vec<u8>,
    root_der: Vec<u8>,
    not_after: Timestamp,
}

/// A new authority's keys and certificates. The root's key belongs offline; it signs the next issuing CA.
pub struct NewAuthority {
    /// PKCS#8.
    pub root_key_pem: Zeroizing<String>,
    /// The root's self-signed certificate, path length 1.
    pub root_cert_pem: String,
    /// PKCS#8.
    pub issuing_key_pem: Zeroizing<String>,
    /// The issuing CA's certificate, path length 0.
    pub issuing_cert_pem: String,
}

/// What [`CertificateAuthority::create_remote`] makes; the issuing key stays where it is.
pub struct NewChain {
    /// PKCS#8.
    pub root_key_pem: Zeroizing<String>,
    /// The root's self-signed certificate, path length 1.
    pub root_cert_pem: String,
    /// The issuing CA's certificate, path length 0.
    pub issuing_cert_pem: String,
}

/// A device's new certificate.
#[derive(Clone, Debug)]
pub struct IssuedCertificate {
    /// The leaf and the issuing CA, as a TLS client sends them.
    pub pem: String,
    /// The leaf.
    pub certificate: DeviceCertificate,
}

/// A subscriber's new certificate.
#[derive(Clone, Debug)]
pub struct IssuedSubscriber {
    /// The leaf and the issuing CA, as a TLS client sends them.
    pub pem: String,
    /// The leaf.
    pub certificate: SubscriberCertificate,
}

/// A TLS server's key and chain.
pub struct ServerIdentity {
    /// The leaf and the issuing CA.
    pub chain_pem: String,
    /// PKCS#8.
    pub key_pem: Zeroizing<String>,
}

impl CertificateAuthority {
    /// Makes a root and an issuing CA under it, both with new P-256 keys.
    ///
    /// # Errors
    /// [`AuthorityError::Signing`] or [`AuthorityError::Validity`].
    pub fn create(now: Timestamp) -> Result<NewAuthority, AuthorityError> {
        let issuing_key = new_key_pair()?;
        let chain = new_chain(&issuing_key, now)?;
        Ok(NewAuthority {
            root_key_pem: chain.root_key_pem,
            root_cert_pem: chain.root_cert_pem,
            issuing_key_pem: Zeroizing::new(issuing_key.serialize_pem()),
            issuing_cert_pem: chain.issuing_cert_pem,
        })
    }

    /// Makes a root, and under it an issuing CA whose P-256 key is somewhere else.
    ///
    /// # Errors
    /// [`AuthorityError::Authority`] for a key that is not P-256, else as [`Self::create`].
    pub fn create_remote(
        issuing: &dyn RemoteSigner,
        now: Timestamp,
    ) -> Result<NewChain, AuthorityError> {
        let point = P256Point::from_sec1(issuing.public()).ok_or(AuthorityError::Authority)?;
        new_chain(&PublicKey(point), now)
    }

    /// Opens an authority from its stored key and certificates. The root's key is not needed.
    ///
    /// # Errors
    /// [`AuthorityError::Authority`] when they do not parse or do not belong together.
    pub fn open(
        issuing_key_pem: &str,
        issuing_cert_pem: &str,
        root_cert_pem: &str,
    ) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(issuing_key_pem).map_err(|_| AuthorityError::Authority)?;
        Self::assemble(IssuingKey::Here(key), issuing_cert_pem, root_cert_pem)
    }

    /// Opens an authority whose issuing key is somewhere else.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_remote(
        issuing: Arc<dyn RemoteSigner>,
        issuing_cert_pem: &str,
        root_cert_pem: &str,
    ) -> Result<Self, AuthorityError> {
        let key = IssuingKey::remote(issuing)?;
        Self::assemble(key, issuing_cert_pem, root_cert_pem)
    }

    fn assemble(
        key: IssuingKey,
        issuing_cert_pem: &str,
        root_cert_pem: &str,
    ) -> Result<Self, AuthorityError> {
        let issuing_der = pem::first(issuing_cert_pem, "CERTIFICATE")
            .ok_or(AuthorityError::Authority)?
            .to_vec();
        let root_der = pem::first(root_cert_pem, "CERTIFICATE")
            .ok_or(AuthorityError::Authority)?
            .to_vec();
        let not_after =
            parsed::not_after_of(&issuing_der).map_err(|_| AuthorityError::Authority)?;
        let named = parsed::public_key_of(&issuing_der).map_err(|_| AuthorityError::Authority)?;
        if key.der_bytes() != named.as_sec1() {
            return Err(AuthorityError::Authority);
        }
        // Checked at the end of its validity: whether it is valid now is for those who verify.
        super::verify_authority(&issuing_der, &root_der, not_after, default_backend())
            .map_err(|_| AuthorityError::Authority)?;
        let issuer = Issuer::from_ca_cert_der(&issuing_der.as_slice().into(), key)
            .map_err(|_| AuthorityError::Authority)?;
        Ok(Self {
            issuer,
            issuing_der,
            root_der,
            not_after,
        })
    }

    /// The issuing CA and the root, as PEM: what devices and clients trust.
    pub fn bundle_pem(&self) -> String {
        self.issuing_pem() + &pem::encode("CERTIFICATE", &self.root_der)
    }

    /// The issuing CA's DER, for [`DeviceCertificate::verify_issued_by`].
    pub fn issuing_der(&self) -> &[u8] {
        &self.issuing_der
    }

    /// The root's DER, for [`verify_authority`](super::verify_authority).
    pub fn root_der(&self) -> &[u8] {
        &self.root_der
    }

    /// Issues a device's certificate for one year.
    ///
    /// Of the request only the public key is taken: name, usages and extensions are ours to say.
    ///
    /// # Errors
    /// [`AuthorityError::Request`], or [`AuthorityError::Validity`] near the authority's own end.
    pub fn issue_device(
        &self,
        csr_pem: &str,
        device: &DeviceId,
        now: Timestamp,
    ) -> Result<IssuedCertificate, AuthorityError> {
        let der = self.sign_client(csr_pem, device.as_str(), now)?;
        let certificate = DeviceCertificate::from_der(&der)?;
        Ok(IssuedCertificate {
            pem: certificate.to_pem() + &self.issuing_pem(),
            certificate,
        })
    }

    /// Issues a display's or a service's certificate for one year; of the request only the public key is taken.
    ///
    /// # Errors
    /// As [`Self::issue_device`].
    pub fn issue_subscriber(
        &self,
        csr_pem: &str,
        subscriber: &Subscriber,
        now: Timestamp,
    ) -> Result<IssuedSubscriber, AuthorityError> {
        let der = self.sign_client(csr_pem, &subscriber.to_string(), now)?;
        let certificate = SubscriberCertificate::from_der(&der)?;
        Ok(IssuedSubscriber {
            pem: certificate.to_pem() + &self.issuing_pem(),
            certificate,
        })
    }

    fn sign_client(
        &self,
        csr_pem: &str,
        name: &str,
        now: Timestamp,
    ) -> Result<Vec<u8>, AuthorityError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|_| AuthorityError::Request)?;
        let key = PublicKey::of_request(&request)?;
        let mut params = leaf_params(name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, &key, backdated(now)?, self.leaf_end(now)?)
    }

    /// Issues a TLS server's certificate for one year, with a new key. The names are DNS names or IP addresses.
    ///
    /// # Errors
    /// [`AuthorityError::ServerName`] for an empty list or a bad name, else as [`Self::issue_device`].
    pub fn issue_server(
        &self,
        names: &[&str],
        now: Timestamp,
    ) -> Result<ServerIdentity, AuthorityError> {
        let first = names.first().ok_or(AuthorityError::ServerName)?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).map_err(|_| AuthorityError::ServerName)?;
        params.distinguished_name = leaf_params(first).distinguished_name;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = new_key_pair()?;
        let der = self.sign(params, &key, backdated(now)?, self.leaf_end(now)?)?;
        Ok(ServerIdentity {
            chain_pem: pem::encode("CERTIFICATE", &der) + &self.issuing_pem(),
            key_pem: Zeroizing::new(key.serialize_pem()),
        })
    }

    /// Makes the server's envelope key of an epoch, and the certificate that devices check.
    ///
    /// # Errors
    /// [`AuthorityError::Validity`] for an empty period or one that outlives the authority.
    pub fn issue_recipient(
        &self,
        epoch: KeyEpoch,
        not_before: Timestamp,
        not_after: Timestamp,
        backend: &dyn Backend,
    ) -> Result<RecipientKey, AuthorityError> {
        let key = backend.generate_p256()?;
        let mut params = leaf_params(&format!("vitalseal recipient {epoch}"));
        params.key_usages = vec![KeyUsagePurpose::KeyAgreement];
        let der = self.sign(params, &PublicKey(*key.public()), not_before, not_after)?;
        let certificate = RecipientCertificate::from_der(&der)?;
        Ok(RecipientKey::from_parts(
            certificate.kid().clone(),
            certificate,
            key,
        )?)
    }

    /// Makes a list of all that is revoked, of use for a week. `number` must be above that of every list before
    /// (RFC 5280 §5.2.3). What was signed is read back and verified before it leaves here.
    ///
    /// # Errors
    /// [`AuthorityError::Signing`], or [`AuthorityError::Remote`]; [`AuthorityError::Validity`] for an instant before 1970.
    pub fn revocation_list(
        &self,
        revoked: &[RevokedCertificate],
        number: u64,
        now: Timestamp,
    ) -> Result<RevocationList, AuthorityError> {
        let (from, until) = (backdated(now)?, days_after(now, LIST_DAYS)?);
        let der = revocation::sign(&self.issuer, revoked, number, from, until)?;
        let read = RevocationList::from_der(&der, &self.issuing_der, default_backend())?;
        Ok(read)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Result<Vec<u8>, AuthorityError> {
        if not_after > self.not_after {
            return Err(AuthorityError::Validity);
        }
        set_validity(&mut params, not_before, not_after)?;
        params.serial_number = Some(random_serial()?);
        let certificate = params
            .signed_by(key, &self.issuer)
            .map_err(|error| self.issuer.key().explain(error))?;
        Ok(certificate.der().to_vec())
    }

    fn leaf_end(&self, now: Timestamp) -> Result<Timestamp, AuthorityError> {
        Ok(days_after(now, LEAF_DAYS)?.min(self.not_after))
    }

    fn issuing_pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.issuing_der)
    }
}

/// A key for a new device and the request for its certificate: (PKCS#8 PEM, PKCS#10 PEM).
///
/// # Errors
/// [`AuthorityError::Signing`].
pub fn new_device_key_and_csr(
    device: &DeviceId,
) -> Result<(Zeroizing<String>, String), AuthorityError> {
    let key = new_key_pair()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = leaf_params(device.as_str()).distinguished_name;
    let request = params
        .serialize_request(&key)
        .and_then(|request| request.pem())
        .map_err(AuthorityError::Signing)?;
    Ok((Zeroizing::new(key.serialize_pem()), request))
}

fn new_chain(issuing_key: &impl PublicKeyData, now: Timestamp) -> Result<NewChain, AuthorityError> {
    let root_key = new_key_pair()?;
    let mut root = authority_params("vitalseal root CA", 1);
    set_validity(&mut root, backdated(now)?, days_after(now, ROOT_DAYS)?)?;
    let root_cert = root
        .self_signed(&root_key)
        .map_err(AuthorityError::Signing)?;

    let mut issuing = authority_params("vitalseal issuing CA", 0);
    set_validity(
        &mut issuing,
        backdated(now)?,
        days_after(now, ISSUING_DAYS)?,
    )?;
    let issuer = Issuer::from_params(&root, &root_key);
    let issuing_cert = issuing
        .signed_by(issuing_key, &issuer)
        .map_err(AuthorityError::Signing)?;
    Ok(NewChain {
        root_key_pem: Zeroizing::new(root_key.serialize_pem()),
        root_cert_pem: root_cert.pem(),
        issuing_cert_pem: issuing_cert.pem(),
    })
}

blank_debug! { CertificateAuthority NewAuthority NewChain ServerIdentity }
