"""vitalseal's envelope, built and opened with public Python libraries only.

Nothing here shares code with the Rust crates: that is its purpose. The profile is COSE_Encrypt (RFC 9052) with a
full countersignature (RFC 9338) by the device; docs/adr/0001-envelope-with-countersignature.md draws it.

Here stands what the profile asks of any COSE library: its labels, its protected header, the commitment to the content
key, naming a sender's key by `-3`, SenML. The COSE messages themselves are made and opened twice, by libraries that
know nothing of each other:

* `with_cwt`: `cwt`, which also makes and checks the countersignature.
* `with_pycose`: `pycose`, with the countersignature by `cryptography` alone.

Both offer `Sealer`, `verify`, `content_key`, `open_wire`, `open_at_rest` and `rewrap`.
"""

from __future__ import annotations

import hashlib
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

# COSE header labels (RFC 9052 section 3.1, RFC 9338, RFC 9360, RFC 9597) and our private claims.
ALG, CONTENT_TYPE, KID, IV, COUNTERSIGNATURE, CWT_CLAIMS, X5T = 1, 3, 4, 5, 11, 15, 34
ISS, SUB, IAT = 1, 2, 6
BOOT, SEQUENCE, PREVIOUS = -65537, -65538, -65539

# COSE algorithms of the profile; there is nothing to choose.
A256GCM, A256KW, ES256, SHA_256 = 3, -5, -7, -16
ECDH_ES_A256KW, ECDH_SS_A256KW = -31, -34

SENML_CBOR = 112  # CoAP content format of application/senml+cbor (RFC 8428 section 12.3)
EPHEMERAL_KEY, STATIC_KEY, STATIC_KEY_ID, PARTY_U_NONCE = -1, -2, -3, -22

# How the content key reaches the server: -31; -34 with the sender's key in full; -34 with that key's thumbprint.
MODES = ("es", "ss", "named")

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


def key_thumbprint(cose_key: dict[int, Any]) -> bytes:
    """The COSE Key Thumbprint (RFC 9679) with SHA-256; `cose_key` holds the required labels and no other."""
    return hashlib.sha256(cbor2.dumps(cose_key, canonical=True)).digest()


def content_key_thumbprint(content_key: bytes) -> bytes:
    """What a protected header commits to."""
    return key_thumbprint({1: 4, -1: content_key})


def cose_ec2(key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) -> dict[int, Any]:
    """A P-256 key as a COSE_Key (RFC 9053 section 7.1.1)."""
    private = isinstance(key, ec.EllipticCurvePrivateKey)
    point = (key.public_key() if private else key).public_numbers()
    cose: dict[int, Any] = {1: 2, -1: 1, -2: point.x.to_bytes(32, "big"), -3: point.y.to_bytes(32, "big")}
    if private:
        cose[-4] = key.private_numbers().private_value.to_bytes(32, "big")
    return cose


class Sealer(ABC):
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
        if mode not in MODES:
            raise ValueError(f"no such key agreement: {mode}")
        self.device, self.patient, self.mode = device, patient, mode
        self.key, self.thumbprint = key, thumbprint
        self.server_key, self.server_kid = server_key, server_kid
        # Not for `es`: one key for the whole run. Each message still has its own wrap key, through the PartyU nonce.
        self.session_key = session_key or ec.generate_private_key(ec.SECP256R1())

    @abstractmethod
    def encrypt(self, payload: bytes, content_key: bytes, protected: dict[int, Any], iv: bytes, nonce: int) -> bytes:
        """The COSE_Encrypt message with one recipient, without a countersignature."""

    @abstractmethod
    def countersign(self, message: bytes) -> bytes:
        """The message with this device's countersignature, in place of one that it may already carry."""

    def seal(
        self,
        payload: bytes,
        issued_at: int,
        boot: int,
        sequence: int,
        previous: bytes | None = None,
    ) -> Sealed:
        """One envelope; `previous` is the SHA-256 of the countersigned bytes of the message before it."""
        content_key, iv = secrets.token_bytes(32), secrets.token_bytes(12)
        claims: dict[int, Any] = {
            ISS: self.device,
            SUB: self.patient,
            IAT: issued_at,
            BOOT: boot,
            SEQUENCE: sequence,
        }
        if previous is not None:
            claims[PREVIOUS] = previous
        # Maps are filled in deterministic order (RFC 8949 section 4.2.1), which both libraries keep.
        protected = {
            ALG: A256GCM,
            CONTENT_TYPE: SENML_CBOR,
            KID: content_key_thumbprint(content_key),
            CWT_CLAIMS: claims,
        }
        wire = self.countersign(self.encrypt(payload, content_key, protected, iv, sequence))
        if self.mode == "named":
            wire = name_sender(wire)
        return Sealed(wire, content_key, iv, cbor2.loads(wire).value[0], countersigned(wire))


def countersigned(message: bytes) -> bytes:
    """The Countersign_structure (RFC 9338 section 3.3), from the bytes as they are in the message.

    That is any form of it: on the wire, at rest, or as evidence without recipients (COSE_Encrypt0).
    """
    protected, unprotected, ciphertext, *_ = cbor2.loads(message).value
    sign_protected = unprotected[COUNTERSIGNATURE][0]
    return cbor2.dumps(["CounterSignature", protected, sign_protected, b"", ciphertext])


# --- `-3`: neither library looks a sender's key up. The recipients are neither signed nor bound by the key derivation
# --- (which binds their protected header), so the key and its name are put in each other's place outside the library.


def name_sender(wire: bytes) -> bytes:
    """The message with its sender's key named by thumbprint (`-3`) instead of given in full (`-2`)."""
    message = cbor2.loads(wire)
    header = message.value[3][0][1]
    header[STATIC_KEY_ID] = key_thumbprint(header.pop(STATIC_KEY))
    header[PARTY_U_NONCE] = header.pop(PARTY_U_NONCE)  # last again
    return cbor2.dumps(message)


def introduced_sender(wire: bytes) -> dict[bytes, dict[int, Any]]:
    """The sender's key that a message gives in full, under its thumbprint."""
    key = cbor2.loads(wire).value[3][0][1].get(STATIC_KEY)
    return {} if key is None else {key_thumbprint(key): key}


def resolve_sender(wire: bytes, senders: dict[bytes, dict[int, Any]]) -> bytes:
    """The message with its sender's key in full, for a library to open. Others are returned as they are."""
    message = cbor2.loads(wire)
    header = message.value[3][0][1]
    if STATIC_KEY_ID not in header:
        return wire
    header[STATIC_KEY] = senders[header.pop(STATIC_KEY_ID)]
    return cbor2.dumps(message)
