//! Where the keys of a store are, as its configuration says: root keys in files or on a token, the issuing
//! authority's and the audit log's key sealed in the registry or on that token.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use vitalseal_compliance::audit::AuditLog;
use vitalseal_crypto::{CertificateAuthority, certificates_in_pem};
use vitalseal_storage::{
    FileRootProvider, KeyCustody, Pkcs11RootProvider, Pkcs11Signer, RootProvider, SigningPurpose,
    Store, StorePaths, Token, TokenSettings,
};
use zeroize::Zeroizing;

use crate::config::{Config, Pkcs11};
use crate::files;
use crate::secrets;

/// Who keeps the root keys, and where key snapshots go.
pub(crate) fn open(config: &Config) -> KeyCustody {
    let roots: Arc<dyn RootProvider> = match &config.keys.pkcs11 {
        Some(pkcs11) => Arc::new(Pkcs11RootProvider::new(token(pkcs11))),
        None => Arc::new(FileRootProvider::new(&config.root_keys)),
    };
    KeyCustody {
        roots,
        snapshots: config.keys.snapshots.clone(),
    }
}

/// Makes the certificate authority of a new store. The root CA's key goes beside the root keys, so that it can be
/// moved offline; the issuing key onto the token or, sealed, into the registry.
///
/// # Errors
/// The token refuses, or the keys or certificates cannot be written.
pub(crate) async fn create_authority(
    config: &Config,
    store: &Store,
    paths: &StorePaths,
    now: Timestamp,
) -> anyhow::Result<CertificateAuthority> {
    let making = "creating the certificate authority";
    let (root_key, root, issuing) = match issuing_token(config) {
        Some(pkcs11) => {
            let signer = Pkcs11Signer::generate(token(pkcs11), SigningPurpose::IssuingCa)?;
            let new = CertificateAuthority::create_remote(&signer, now).context(making)?;
            (new.root_key_pem, new.root_cert_pem, new.issuing_cert_pem)
        }
        None => {
            let new = CertificateAuthority::create(now).context(making)?;
            let key = new.issuing_key_pem.as_bytes();
            store.keys.put_secret(secrets::ISSUING_KEY, key).await?;
            (new.root_key_pem, new.root_cert_pem, new.issuing_cert_pem)
        }
    };
    if !paths.root_keys().exists() {
        files::create_private_dir(paths.root_keys())?;
    }
    files::write_private(&paths.root_authority_key(), root_key.as_bytes())?;
    files::write_public(&paths.root_certificate(), root.as_bytes())?;
    files::write_public(&paths.issuing_certificate(), issuing.as_bytes())?;
    open_authority(config, store, paths).await
}

/// Opens the certificate authority.
///
/// # Errors
/// A key or certificate is missing, or they do not belong together.
pub(crate) async fn open_authority(
    config: &Config,
    store: &Store,
    paths: &StorePaths,
) -> anyhow::Result<CertificateAuthority> {
    let issuing = read(&paths.issuing_certificate())?;
    let root = read(&paths.root_certificate())?;
    let opened = match issuing_token(config) {
        Some(pkcs11) => {
            let signer = Pkcs11Signer::open(token(pkcs11), SigningPurpose::IssuingCa)?;
            CertificateAuthority::open_remote(Arc::new(signer), &issuing, &root)
        }
        None => {
            let key = secret_text(store, secrets::ISSUING_KEY).await?;
            CertificateAuthority::open(&key, &issuing, &root)
        }
    };
    opened.with_context(|| {
        format!(
            "opening the certificate authority of {} and {}",
            paths.issuing_certificate().display(),
            paths.root_certificate().display()
        )
    })
}

/// Whom the certificates of devices lead to: the issuing and the root authority's, as DER.
///
/// # Errors
/// They cannot be read.
pub(crate) fn trusted(paths: &StorePaths) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut trusted = Vec::new();
    for file in [paths.issuing_certificate(), paths.root_certificate()] {
        let found = certificates_in_pem(&read(&file)?);
        trusted.extend(found.with_context(|| format!("reading {}", file.display()))?);
    }
    Ok(trusted)
}

/// Makes the audit log of a new store.
///
/// # Errors
/// The token refuses, or the log or its key cannot be written.
pub(crate) async fn create_audit(
    config: &Config,
    store: &Store,
    paths: &StorePaths,
) -> anyhow::Result<AuditLog> {
    let (path, origin) = (paths.audit(), secrets::AUDIT_ORIGIN);
    let making = "creating the audit log";
    let log = match audit_token(config) {
        Some(pkcs11) => {
            let signer = Pkcs11Signer::generate(token(pkcs11), SigningPurpose::AuditLog)?;
            AuditLog::create_remote(&path, origin, Arc::new(signer))
                .await
                .context(making)?
        }
        None => {
            let created = AuditLog::create(&path, origin).await.context(making)?;
            let key = created.skey.as_bytes();
            store.keys.put_secret(secrets::AUDIT_KEY, key).await?;
            created.log
        }
    };
    files::write_public(&paths.audit_vkey(), log.key().as_str().as_bytes())?;
    Ok(log)
}

/// Opens the audit log.
///
/// # Errors
/// The log or its key is missing, or the log does not match its signed head.
pub(crate) async fn open_audit(
    config: &Config,
    store: &Store,
    paths: &StorePaths,
) -> anyhow::Result<Arc<AuditLog>> {
    let (path, vkey) = (paths.audit(), read(&paths.audit_vkey())?);
    let opened = match audit_token(config) {
        Some(pkcs11) => {
            let signer = Pkcs11Signer::open(token(pkcs11), SigningPurpose::AuditLog)?;
            AuditLog::open_remote(&path, Arc::new(signer), vkey.trim()).await
        }
        None => {
            let skey = secret_text(store, secrets::AUDIT_KEY).await?;
            AuditLog::open(&path, &skey, vkey.trim()).await
        }
    };
    let opened = opened.with_context(|| {
        format!(
            "opening the audit log {} with {}",
            path.display(),
            paths.audit_vkey().display()
        )
    })?;
    Ok(Arc::new(opened))
}

/// After a failed `init`: takes from the token what that call made there. Its label was drawn for it, so nothing else
/// has that label; what the token will not give up now is worth nothing without the data.
pub(crate) fn discard(config: &Config) {
    let Some(pkcs11) = &config.keys.pkcs11 else {
        return;
    };
    let token = token(pkcs11);
    for purpose in [SigningPurpose::IssuingCa, SigningPurpose::AuditLog] {
        let _ = Pkcs11Signer::destroy(&token, purpose);
    }
    let roots = Pkcs11RootProvider::new(token);
    for slot in roots.slots().unwrap_or_default() {
        let _ = roots.destroy(slot);
    }
}

fn issuing_token(config: &Config) -> Option<&Pkcs11> {
    config.keys.pkcs11.as_ref().filter(|it| it.issuing_ca)
}

fn audit_token(config: &Config) -> Option<&Pkcs11> {
    config.keys.pkcs11.as_ref().filter(|it| it.audit_log)
}

fn token(pkcs11: &Pkcs11) -> Arc<Token> {
    Token::new(TokenSettings {
        module: pkcs11.module.clone(),
        token: pkcs11.token.clone(),
        pin_file: pkcs11.pin_file.clone(),
        label: pkcs11.label.clone(),
    })
}

async fn secret_text(store: &Store, name: &str) -> anyhow::Result<Zeroizing<String>> {
    let secret = store
        .keys
        .secret(name)
        .await
        .with_context(|| format!("opening the secret {name}"))?
        .with_context(|| format!("the store holds no secret {name}; it was not made by `init`"))?;
    let text =
        std::str::from_utf8(&secret).with_context(|| format!("reading the secret {name}"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| {
        format!(
            "reading {}, a part of the store; if it is gone, restore it from a backup",
            path.display()
        )
    })
}
