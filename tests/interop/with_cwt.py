"""The envelope by `cwt`: COSE_Encrypt, both key agreements, the key wrap and the countersignature.

Three traps, each found by trying:

* `cwt` derives a wrong key unless the KDF context names the key-wrap algorithm, `{"alg": "A256KW"}` (-5), instead of
  the content algorithm.
* `cwt` keeps maps in the order in which they were filled: the profile wants them deterministic, so `deterministic_header`
  is on.
* `cwt` adds the label 3 to a public key map that it decodes, so a decoded message must not be encoded again. Replacing
  recipients therefore starts from the received bytes, with `cbor2`.
"""

from __future__ import annotations

from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cwt import COSE, COSEKey, COSEMessage, Recipient, Signer

import envelope
from envelope import A256KW, ALG, COUNTERSIGNATURE, ECDH_ES_A256KW, ECDH_SS_A256KW, ES256, IV, KID, SHA_256, X5T

KDF_CONTEXT = {"alg": "A256KW"}


class Sealer(envelope.Sealer):
    """A device that speaks COSE through `cwt`."""

    def encrypt(self, payload: bytes, content_key: bytes, protected: dict[int, Any], iv: bytes, nonce: int) -> bytes:
        key = COSEKey.from_symmetric_key(content_key, alg="A256GCM")
        cose = COSE.new(deterministic_header=True)
        return cose.encode(payload, key, protected, {IV: iv}, recipients=[self._recipient(nonce)])

    def _recipient(self, nonce: int) -> Any:
        if self.mode == "es":
            return Recipient.new(
                protected={ALG: ECDH_ES_A256KW},
                unprotected={KID: self.server_kid},
                recipient_key=_agreement_key(self.server_key, ECDH_ES_A256KW, self.server_kid),
                context=KDF_CONTEXT,
            )
        return Recipient.new(
            protected={ALG: ECDH_SS_A256KW},
            unprotected={
                KID: self.server_kid,
                envelope.STATIC_KEY: envelope.cose_ec2(self.session_key.public_key()),
                envelope.PARTY_U_NONCE: nonce,
            },
            sender_key=_agreement_key(self.session_key, ECDH_SS_A256KW, b""),
            recipient_key=_agreement_key(self.server_key, ECDH_SS_A256KW, self.server_kid),
            context=KDF_CONTEXT,
        )

    def countersign(self, message: bytes) -> bytes:
        signer = Signer.new(_signing_key(self.key), protected={ALG: ES256, X5T: [SHA_256, self.thumbprint]})
        unsigned = cbor2.loads(message)
        unsigned.value[1].pop(COUNTERSIGNATURE, None)
        return COSEMessage.loads(cbor2.dumps(unsigned)).countersign(signer).dumps()


def verify(message: bytes, key: ec.EllipticCurvePublicKey, thumbprint: bytes) -> dict[int, Any]:
    """Checks the device's countersignature on a message, wire, at rest or evidence, and returns its protected header.

    Needs no decryption key. Raises when the message does not name this certificate, or the signature is wrong.
    """
    countersignature = COSEMessage.loads(message).counterverify(_signing_key(key))
    named = cbor2.loads(countersignature[0]).get(X5T)
    if named != [SHA_256, thumbprint]:
        raise ValueError("the countersignature names another certificate")
    return cbor2.loads(cbor2.loads(message).value[0])


def content_key(wire: bytes, server_key: ec.EllipticCurvePrivateKey, server_kid: bytes) -> bytes:
    """The content key of a wire message, unwrapped with the server's envelope key."""
    [recipient] = cbor2.loads(wire).value[3]
    key = _agreement_key(server_key, cbor2.loads(recipient[0])[ALG], server_kid)
    return Recipient.from_list(recipient, context=KDF_CONTEXT).decode(key)


def open_wire(wire: bytes, server_key: ec.EllipticCurvePrivateKey, server_kid: bytes) -> bytes:
    """The payload of a wire message, opened with the server's envelope key.

    The content key is unwrapped on its own first: the profile commits to it by a thumbprint, which COSE does not check.
    """
    return _open(wire, content_key(wire, server_key, server_kid))


def open_at_rest(message: bytes, kek: bytes, kid: bytes) -> bytes:
    """The payload of an at-rest message, opened with the patient's KEK."""
    [[_, header, wrapped]] = cbor2.loads(message).value[3]
    if header != {ALG: A256KW, KID: kid}:
        raise ValueError("wrapped under another key")
    return _open(message, _key_wrap_key(kek, kid).unwrap_key(wrapped))


def rewrap(wire: bytes, content_key: bytes, kek: bytes, kid: bytes) -> bytes:
    """The at-rest form of a wire message: the same bytes but for the recipients array."""
    recipient = Recipient.new(unprotected={ALG: A256KW, KID: kid}, sender_key=_key_wrap_key(kek, kid))
    wrapped, _ = recipient.encode(content_key)
    message = cbor2.loads(wire)
    message.value[3] = [wrapped]
    return cbor2.dumps(message)


def _open(message: bytes, content_key: bytes) -> bytes:
    protected, unprotected, ciphertext, _ = cbor2.loads(message).value
    if cbor2.loads(protected)[KID] != envelope.content_key_thumbprint(content_key):
        raise ValueError("another content key than the one committed to")
    key = COSEKey.from_symmetric_key(content_key, alg="A256GCM")
    return key.decrypt(ciphertext, unprotected[IV], cbor2.dumps(["Encrypt", protected, b""]))


def _signing_key(key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) -> COSEKey:
    return COSEKey.new({**envelope.cose_ec2(key), 3: ES256})


def _agreement_key(key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey, alg: int, kid: bytes) -> COSEKey:
    return COSEKey.new({**envelope.cose_ec2(key), 2: kid, 3: alg})


def _key_wrap_key(kek: bytes, kid: bytes) -> COSEKey:
    return COSEKey.from_symmetric_key(kek, alg="A256KW", kid=kid)
