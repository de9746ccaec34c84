"""vitalseal's envelope, built and opened with public Python libraries only.

Nothing here shares code with the Rust crates: that is its purpose. The profile is COSE_Encrypt (RFC 9052) with a
full countersignature (RFC 9338) by the device; docs/adr/0001-envelope-with-countersignature.md draws it.

Every primitive comes from a library:

* `cwt` makes the COSE_Encrypt message (A256GCM), both key agreements (ECDH-ES+A256KW, ECDH-SS+A256KW), the key wrap
  (A256KW) and the countersignature (ES256).
* `cryptography` reads X.509 certificates and key files, and generates keys.
* `cbor2` encodes the SenML payload, and takes a finished message apart where `cwt` gives no access to a part
  (replacing the recipients array, reading the countersignature's protected header).

Three traps, each found by trying:

* `cwt` derives a wrong key unless the KDF context names the key-wrap algorithm, `{"alg": "A256KW"}` (-5), instead of
  the content algorithm.
* `cwt` keeps maps in the order in which they were filled. The profile wants deterministic order (RFC 8949 section
  4.2.1), so the maps below are written in that order and `deterministic_header` is on.
* `cwt` adds the label 3 to a public key map that it decodes, so a decoded message must not be encoded again. Replacing
  recipients therefore starts from the received bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cwt import COSE, COSEKey, COSEMessage, Recipient, Signer

# COSE header labels (RFC 9052 section 3.1, RFC 9338, RFC 9360, RFC 9597) and our private claims.
ALG, CONTENT_TYPE, KID, IV, COUNTERSIGNATURE, CWT_CLAIMS, X5T = 1, 3, 4, 5, 11, 15, 34
ISS, SUB, IAT = 1, 2, 6
BOOT, SEQUENCE, PREVIOUS = -65537, -65538, -65539

# COSE algorithms of the profile; there is nothing to choose.
A256GCM, A256KW, ES256, SHA_256 = 3, -5, -7, -16
ECDH_ES_A256KW, ECDH_SS_A256KW = -31, -34

SENML_CBOR = 112  # CoAP content format of application/senml+cbor (RFC 8428 section 12.3)
KDF_CONTEXT = {"alg": "A256KW"}
EPHEMERAL_KEY, STATIC_KEY, PARTY_U_NONCE = -1, -2, -22

# SenML labels in CBOR (RFC 8428 section 6).
SENML_BASE_TIME, SENML_NAME, SENML_UNIT, SENML_VALUE, SENML_TIME = -3, 0, 1, 2, 6


@dataclass(frozen=True)
class Sealed:
    """One message, and the values in between that test vectors publish."""

    wire: bytes
    content_key: bytes
    iv: bytes
    protected: bytes
    signed: bytes  # the countersigned bytes; their SHA-256 is the chain link to the next message


def senml(readings: list[dict[str, Any]]) -> bytes:
    """Readings as a SenML pack in CBOR: name = LOINC code, unit = UCUM code, time = seconds since the Unix epoch.

    The base time is whole seconds, so an offset keeps microseconds in a float.
    """
    base = int(readings[0]["time"])
    records = []
    for index, reading in enumerate(readings):
        record: dict[int, Any] = {
            SENML_NAME: reading["code"],
            SENML_UNIT: reading["unit"],
            SENML_VALUE: reading["value"],
        }
        offset = reading["time"] - base
        if offset:
            record[SENML_TIME] = round(offset, 6) if isinstance(offset, float) else offset
        if index == 0:
            record[SENML_BASE_TIME] = base
        records.append(record)
    return cbor2.dumps(records)


def from_senml(payload: bytes) -> list[dict[str, Any]]:
    """The readings of a SenML pack that uses the labels which `senml` writes."""
    base, readings = 0, []
    for record in cbor2.loads(payload):
        base = record.get(SENML_BASE_TIME, base)
        readings.append(
            {
                "time": base + record.get(SENML_TIME, 0),
                "code": record[SENML_NAME],
                "value": record[SENML_VALUE],
                "unit": record[SENML_UNIT],
            }
        )
    return readings


def certificate_thumbprint(certificate: x509.Certificate) -> bytes:
    """`x5t` with SHA-256 (RFC 9360): the hash of the certificate's DER."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()


def recipient_kid(certificate: x509.Certificate) -> bytes:
    """The kid of the server's envelope key: the first 8 bytes of the SHA-256 of its certificate's DER."""
    return certificate_thumbprint(certificate)[:8]


def content_key_thumbprint(content_key: bytes) -> bytes:
    """The COSE Key Thumbprint (RFC 9679) of a content key: the hash of the smallest COSE_Key that holds it."""
    return hashlib.sha256(cbor2.dumps({1: 4, -1: content_key})).digest()


def _cose_ec2(key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) -> dict[int, Any]:
    private = isinstance(key, ec.EllipticCurvePrivateKey)
    point = (key.public_key() if private else key).public_numbers()
    cose: dict[int, Any] = {1: 2, -1: 1, -2: point.x.to_bytes(32, "big"), -3: point.y.to_bytes(32, "big")}
    if private:
        cose[-4] = key.private_numbers().private_value.to_bytes(32, "big")
    return cose


def signing_key(key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) -> COSEKey:
    """A P-256 key as cwt wants it for ES256."""
    return COSEKey.new({**_cose_ec2(key), 3: ES256})


def agreement_key(key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey, alg: int, kid: bytes) -> COSEKey:
    """A P-256 key as cwt wants it for one of the two key agreements."""
    return COSEKey.new({**_cose_ec2(key), 2: kid, 3: alg})


class Sealer:
    """A device: seals payloads for one patient under the server's current envelope key, and signs them."""

    def __init__(
        self,
        device: str,
        patient: str,
        key: ec.EllipticCurvePrivateKey,
        thumbprint: bytes,
        server_key: ec.EllipticCurvePublicKey,
        server_kid: bytes,
        mode: str = "es",
        session_key: ec.EllipticCurvePrivateKey | None = None,
    ) -> None:
        self.device, self.patient, self.mode = device, patient, mode
        self.key, self.thumbprint = signing_key(key), thumbprint
        self.server_key, self.server_kid = server_key, server_kid
        # `ss` only: one key for the whole run. Each message still has its own wrap key, through the PartyU nonce.
        self.session_key = session_key or ec.generate_private_key(ec.SECP256R1())

    def _recipient(self, sequence: int) -> Any:
        if self.mode == "es":
            return Recipient.new(
                protected={ALG: ECDH_ES_A256KW},
                unprotected={KID: self.server_kid},
                recipient_key=agreement_key(self.server_key, ECDH_ES_A256KW, self.server_kid),
                context=KDF_CONTEXT,
            )
        return Recipient.new(
            protected={ALG: ECDH_SS_A256KW},
            unprotected={
                KID: self.server_kid,
                STATIC_KEY: _cose_ec2(self.session_key.public_key()),
                PARTY_U_NONCE: sequence,
            },
            sender_key=agreement_key(self.session_key, ECDH_SS_A256KW, b""),
            recipient_key=agreement_key(self.server_key, ECDH_SS_A256KW, self.server_kid),
            context=KDF_CONTEXT,
        )

    def seal(
        self,
        payload: bytes,
        issued_at: int,
        boot: int,
        sequence: int,
        previous: bytes | None = None,
    ) -> Sealed:
        """One envelope; `previous` is the SHA-256 of the countersigned bytes of the message before it."""
        content_key = COSEKey.generate_symmetric_key(alg="A256GCM")
        claims: dict[int, Any] = {
            ISS: self.device,
            SUB: self.patient,
            IAT: issued_at,
            BOOT: boot,
            SEQUENCE: sequence,
        }
        if previous is not None:
            claims[PREVIOUS] = previous
        protected = {
            ALG: A256GCM,
            CONTENT_TYPE: SENML_CBOR,
            KID: content_key_thumbprint(content_key.to_bytes()),
            CWT_CLAIMS: claims,
        }
        iv = content_key.generate_nonce()
        encrypted = COSE.new(deterministic_header=True).encode(
            payload, content_key, protected, {IV: iv}, recipients=[self._recipient(sequence)]
        )
        wire = self.countersign(encrypted)
        return Sealed(wire, content_key.to_bytes(), iv, *_signed(wire))

    def countersign(self, message: bytes) -> bytes:
        """The message with this device's countersignature, in place of one that it may already carry."""
        signer = Signer.new(self.key, protected={ALG: ES256, X5T: [SHA_256, self.thumbprint]})
        unsigned = cbor2.loads(message)
        unsigned.value[1].pop(COUNTERSIGNATURE, None)
        return COSEMessage.loads(cbor2.dumps(unsigned)).countersign(signer).dumps()


def _signed(message: bytes) -> tuple[bytes, bytes]:
    protected, unprotected, ciphertext, _ = cbor2.loads(message).value
    sign_protected = unprotected[COUNTERSIGNATURE][0]
    return protected, cbor2.dumps(["CounterSignature", protected, sign_protected, b"", ciphertext])


def verify(message: bytes, key: ec.EllipticCurvePublicKey, thumbprint: bytes) -> dict[int, Any]:
    """Checks the device's countersignature on a wire or an at-rest message, and returns its protected header.

    Needs no decryption key. Raises when the message does not name this certificate, or the signature is wrong.
    """
    countersignature = COSEMessage.loads(message).counterverify(signing_key(key))
    named = cbor2.loads(countersignature[0]).get(X5T)
    if named != [SHA_256, thumbprint]:
        raise ValueError("the countersignature names another certificate")
    return cbor2.loads(cbor2.loads(message).value[0])


def open_wire(wire: bytes, server_key: ec.EllipticCurvePrivateKey, server_kid: bytes) -> bytes:
    """The payload of a wire message, opened with the server's envelope key.

    The content key is unwrapped on its own first: the profile commits to it by a thumbprint, which COSE does not check.
    """
    protected, unprotected, ciphertext, [recipient] = cbor2.loads(wire).value
    key = agreement_key(server_key, cbor2.loads(recipient[0])[ALG], server_kid)
    content_key = Recipient.from_list(recipient, context=KDF_CONTEXT).decode(key)
    return _open(protected, unprotected, ciphertext, content_key)


def _open(protected: bytes, unprotected: dict[int, Any], ciphertext: bytes, content_key: bytes) -> bytes:
    if cbor2.loads(protected)[KID] != content_key_thumbprint(content_key):
        raise ValueError("another content key than the one committed to")
    key = COSEKey.from_symmetric_key(content_key, alg="A256GCM")
    return key.decrypt(ciphertext, unprotected[IV], cbor2.dumps(["Encrypt", protected, b""]))


def _key_wrap_key(kek: bytes, kid: bytes) -> COSEKey:
    return COSEKey.from_symmetric_key(kek, alg="A256KW", kid=kid)


def open_at_rest(message: bytes, kek: bytes, kid: bytes) -> bytes:
    """The payload of an at-rest message, opened with the patient's KEK."""
    protected, unprotected, ciphertext, [[_, _, wrapped]] = cbor2.loads(message).value
    return _open(protected, unprotected, ciphertext, _key_wrap_key(kek, kid).unwrap_key(wrapped))


def rewrap(wire: bytes, content_key: bytes, kek: bytes, kid: bytes) -> bytes:
    """The at-rest form of a wire message: the same bytes but for the recipients array."""
    recipient = Recipient.new(unprotected={ALG: A256KW, KID: kid}, sender_key=_key_wrap_key(kek, kid))
    wrapped, _ = recipient.encode(content_key)
    message = cbor2.loads(wire)
    message.value[3] = [wrapped]
    return cbor2.dumps(message)
