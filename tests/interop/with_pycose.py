"""The envelope by `pycose`: COSE_Encrypt, both key agreements and the key wrap.

`pycose` knows no RFC 9338, so the countersignature is made and checked here with `cryptography` over the
Countersign_structure. Two traps, each found by trying:

* `pycose` draws a content key of its own unless the recipient's payload already holds one.
* Setting `recipients` of a message adds to them; replacing them means assigning to the list that is there.
"""

from __future__ import annotations

from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from pycose import headers
from pycose.algorithms import A256GCM
from pycose.keys import CoseKey, SymmetricKey
from pycose.messages import EncMessage
from pycose.messages.recipient import KeyAgreementWithKeyWrap, KeyWrap

import envelope
from envelope import A256KW, ALG, COUNTERSIGNATURE, ECDH_ES_A256KW, ECDH_SS_A256KW, ES256, IV, KID, SHA_256, X5T


class Sealer(envelope.Sealer):
    """A device that speaks COSE through `pycose`."""

    def encrypt(self, payload: bytes, content_key: bytes, protected: dict[int, Any], iv: bytes, nonce: int) -> bytes:
        if self.mode == "es":
            recipient = KeyAgreementWithKeyWrap({ALG: ECDH_ES_A256KW}, {KID: self.server_kid}, content_key)
        else:
            recipient = KeyAgreementWithKeyWrap(
                {ALG: ECDH_SS_A256KW},
                {
                    KID: self.server_kid,
                    envelope.STATIC_KEY: envelope.cose_ec2(self.session_key.public_key()),
                    envelope.PARTY_U_NONCE: nonce,
                },
                content_key,
                key=_ec2(self.session_key),
            )
        recipient.local_attrs = {headers.StaticKey: _ec2(self.server_key)}
        return EncMessage(protected, {IV: iv}, payload, recipients=[recipient]).encode()

    def countersign(self, message: bytes) -> bytes:
        unsigned = cbor2.loads(message)
        signer = cbor2.dumps({ALG: ES256, X5T: [SHA_256, self.thumbprint]})
        unsigned.value[1][COUNTERSIGNATURE] = [signer, {}, b""]
        signature = self.key.sign(envelope.countersigned(cbor2.dumps(unsigned)), ec.ECDSA(hashes.SHA256()))
        r, s = decode_dss_signature(signature)
        unsigned.value[1][COUNTERSIGNATURE][2] = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return cbor2.dumps(unsigned)


def verify(message: bytes, key: ec.EllipticCurvePublicKey, thumbprint: bytes) -> dict[int, Any]:
    """Checks the device's countersignature on a message, wire, at rest or evidence, and returns its protected header.

    Needs no decryption key. Raises when the message does not name this certificate, or the signature is wrong.
    """
    protected, unprotected, *_ = cbor2.loads(message).value
    signer, _, signature = unprotected[COUNTERSIGNATURE]
    if cbor2.loads(signer) != {ALG: ES256, X5T: [SHA_256, thumbprint]}:
        raise ValueError("the countersignature names another certificate")
    if len(signature) != 64:
        raise ValueError("no ES256 signature")
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    key.verify(der, envelope.countersigned(message), ec.ECDSA(hashes.SHA256()))
    return cbor2.loads(protected)


def content_key(wire: bytes, server_key: ec.EllipticCurvePrivateKey, server_kid: bytes) -> bytes:
    """The content key of a wire message, unwrapped with the server's envelope key."""
    return _unwrap(_message(wire), _ec2(server_key), server_kid)


def open_wire(wire: bytes, server_key: ec.EllipticCurvePrivateKey, server_kid: bytes) -> bytes:
    """The payload of a wire message, opened with the server's envelope key."""
    return _open(wire, _ec2(server_key), server_kid)


def open_at_rest(message: bytes, kek: bytes, kid: bytes) -> bytes:
    """The payload of an at-rest message, opened with the patient's KEK."""
    return _open(message, SymmetricKey(k=kek), kid)


def rewrap(wire: bytes, content_key: bytes, kek: bytes, kid: bytes) -> bytes:
    """The at-rest form of a wire message: the same bytes but for the recipients array."""
    message = _message(wire)
    message.recipients[:] = [KeyWrap({}, {ALG: A256KW, KID: kid}, content_key, key=SymmetricKey(k=kek))]
    return message.encode(encrypt=False)


def _open(encoded: bytes, key: CoseKey, kid: bytes) -> bytes:
    message = _message(encoded)
    # Unwrapped on its own first: the profile commits to the key by a thumbprint, which COSE does not check.
    if message.get_attr(headers.KID) != envelope.content_key_thumbprint(_unwrap(message, key, kid)):
        raise ValueError("another content key than the one committed to")
    return message.decrypt(message.recipients[0])


def _unwrap(message: EncMessage, key: CoseKey, kid: bytes) -> bytes:
    [recipient] = message.recipients
    if recipient.get_attr(headers.KID) != kid:
        raise ValueError("wrapped for another key")
    recipient.key = key
    return recipient.compute_cek(A256GCM, "decrypt").k


def _message(encoded: bytes) -> EncMessage:
    return EncMessage.decode(encoded)


def _ec2(key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) -> CoseKey:
    return CoseKey.from_dict(envelope.cose_ec2(key))
