//! P-256 keys as both backends take them: bytes whose validity each backend checks again.

use std::fmt;

use zeroize::Zeroizing;

/// A public key: an uncompressed SEC 1 point, `04 || x || y`.
///
/// The type holds bytes; that they are a point of the curve is checked by whatever uses them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct P256Point([u8; 65]);

impl P256Point {
    /// Takes `04 || x || y`; `None` for any other length or form.
    pub fn from_sec1(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 65] = bytes.try_into().ok()?;
        (bytes[0] == 4).then_some(Self(bytes))
    }

    /// Takes the coordinates as a `COSE_Key` carries them.
    pub fn from_coordinates(x: &[u8; 32], y: &[u8; 32]) -> Self {
        let mut bytes = [4; 65];
        bytes[1..33].copy_from_slice(x);
        bytes[33..].copy_from_slice(y);
        Self(bytes)
    }

    /// `04 || x || y`.
    pub fn as_sec1(&self) -> &[u8; 65] {
        &self.0
    }

    /// The x coordinate.
    pub fn x(&self) -> &[u8] {
        &self.0[1..33]
    }

    /// The y coordinate.
    pub fn y(&self) -> &[u8] {
        &self.0[33..]
    }
}

impl fmt::Debug for P256Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P256Point({}…)", hex::encode(&self.0[1..5]))
    }
}

/// A private key and its public half. Boxed, so that moving it leaves no copy; wiped on drop.
pub struct P256Secret {
    scalar: Box<Zeroizing<[u8; 32]>>,
    public: P256Point,
}

impl P256Secret {
    pub(crate) fn from_parts(scalar: &[u8; 32], public: P256Point) -> Self {
        let mut boxed = Box::new(Zeroizing::new([0; 32]));
        boxed.copy_from_slice(scalar);
        Self {
            scalar: boxed,
            public,
        }
    }

    /// The public half.
    pub fn public(&self) -> &P256Point {
        &self.public
    }

    pub(crate) fn scalar(&self) -> &[u8; 32] {
        &self.scalar
    }
}

impl fmt::Debug for P256Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("P256Secret").finish_non_exhaustive()
    }
}

/// The private scalar of a PKCS#8 key (RFC 5958), if it is a P-256 key.
pub(crate) fn scalar_from_pkcs8(der: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    use p256::pkcs8::DecodePrivateKey as _;

    let key = p256::SecretKey::from_pkcs8_der(der).ok()?;
    let mut scalar = Zeroizing::new([0; 32]);
    let mut bytes = key.to_bytes();
    scalar.copy_from_slice(&bytes);
    zeroize::Zeroize::zeroize(bytes.as_mut_slice());
    Some(scalar)
}

/// An ECDSA signature as X.509 writes it (RFC 3279 §2.2.3), turned into `r || s`.
pub(crate) fn signature_from_der(der: &[u8]) -> Option<[u8; 64]> {
    p256::ecdsa::Signature::from_der(der)
        .ok()
        .map(|signature| signature.to_bytes().into())
}

/// `r || s`, turned into an ECDSA signature as X.509 writes it.
#[cfg(feature = "authority")]
pub(crate) fn signature_to_der(signature: &[u8; 64]) -> Option<Vec<u8>> {
    let signature = p256::ecdsa::Signature::from_slice(signature).ok()?;
    Some(signature.to_der().as_bytes().to_vec())
}
