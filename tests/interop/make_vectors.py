"""Writes new envelope vectors, made by Python libraries alone: `make_vectors.py OUT`.

Same JSON form as crypto/tests/vectors/envelope.json, so that `VITALSEAL_VECTORS=OUT cargo test -p vitalseal-crypto
--test vectors` holds the Rust code against messages that it did not make, with fresh keys at every run.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import random
import secrets
import sys
from pathlib import Path
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

import envelope
import with_cwt
import with_pycose

DEVICE, BOOT, START = "python-001", 3, 1_767_312_000
LIBRARIES = {"cwt": with_cwt, "pycose": with_pycose}
SIGNALS = [("8867-4", "/min"), ("59408-5", "%"), ("9279-1", "/min"), ("8310-5", "Cel"), ("8480-6", "mm[Hg]")]
USUAL = {"8867-4": (55, 120), "59408-5": (90, 99), "9279-1": (10, 20), "8310-5": (36.0, 38.0), "8480-6": (100, 160)}


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def scalar(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_numbers().private_value.to_bytes(32, "big").hex()


def certificate(name: str, key: Any, issuer: str, issuer_key: Any, is_ca: bool) -> x509.Certificate:
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def der_hex(value: x509.Certificate) -> str:
    return value.public_bytes(serialization.Encoding.DER).hex()


def some_readings(count: int, start: int) -> list[dict[str, Any]]:
    readings = []
    for index in range(count):
        code, unit = SIGNALS[index % len(SIGNALS)]
        low, high = USUAL[code]
        value = random.randint(low, high) if isinstance(low, int) else round(random.uniform(low, high), 1)
        readings.append({"time": start + index // len(SIGNALS), "code": code, "value": value, "unit": unit})
    return readings


class Scene:
    """One device, one server, one patient."""

    def __init__(self) -> None:
        self.ca_key, self.key, self.server, self.session = new_key(), new_key(), new_key(), new_key()
        self.ca = certificate("vector CA", self.ca_key, "vector CA", self.ca_key, True)
        self.certificate = certificate(DEVICE, self.key, "vector CA", self.ca_key, False)
        self.server_kid, self.kek, self.kek_kid = secrets.token_bytes(8), secrets.token_bytes(32), secrets.token_bytes(16)
        self.patient = "p" + secrets.token_hex(16)

    def sealer(self, mode: str, library: str = "cwt", device: str = DEVICE,
               key: ec.EllipticCurvePrivateKey | None = None) -> envelope.Sealer:
        thumbprint = envelope.certificate_thumbprint(self.certificate)
        return LIBRARIES[library].Sealer(device, self.patient, key or self.key, thumbprint, self.server.public_key(),
                                         self.server_kid, mode, self.session)

    def valid(self, library: str, mode: str, sequence: int, count: int,
              previous: bytes | None) -> tuple[dict[str, Any], envelope.Sealed]:
        issued_at = START + 1000 * (sequence - 1)
        readings = some_readings(count, issued_at)
        payload = envelope.senml(readings)
        sealed = self.sealer(mode, library).seal(payload, issued_at, BOOT, sequence, previous)
        # Derived again from the server's side, so that these values do not come from what a library did when sealing.
        [recipient_protected, recipient, _] = cbor2.loads(sealed.wire).value[3][0]
        point = self.session.public_key()
        if ephemeral := recipient.get(envelope.EPHEMERAL_KEY):
            x, y = (int.from_bytes(ephemeral[label], "big") for label in (-2, -3))
            point = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        shared_secret = self.server.exchange(ec.ECDH(), point)
        kdf_info = cbor2.dumps([
            envelope.A256KW,
            [None, recipient.get(envelope.PARTY_U_NONCE), None],
            [None, None, None],
            [256, recipient_protected],
        ])
        wrap_key = HKDF(hashes.SHA256(), 32, None, kdf_info).derive(shared_secret)
        return {
            "library": library,
            "mode": mode,
            "boot": BOOT,
            "sequence": sequence,
            "issued_at": issued_at,
            "content_key": sealed.content_key.hex(),
            "iv": sealed.iv.hex(),
            "content_key_thumbprint": envelope.content_key_thumbprint(sealed.content_key).hex(),
            "protected": sealed.protected.hex(),
            "content_aad": cbor2.dumps(["Encrypt", sealed.protected, b""]).hex(),
            "kdf_info": kdf_info.hex(),
            "shared_secret": shared_secret.hex(),
            "wrap_key": wrap_key.hex(),
            "to_be_signed": sealed.signed.hex(),
            "payload": payload.hex(),
            "wire": sealed.wire.hex(),
            "at_rest": with_cwt.rewrap(sealed.wire, sealed.content_key, self.kek, self.kek_kid).hex(),
            "readings": readings,
        }, sealed

    def invalid(self) -> list[dict[str, str]]:
        payload = envelope.senml(some_readings(5, START))

        sealer = self.sealer("es")
        good = sealer.seal(payload, START, BOOT, 900).wire
        stranger = self.sealer("es", key=new_key())
        impostor = self.sealer("es", device="python-002")

        def changed(change: Any) -> bytes:
            message = cbor2.loads(good)
            change(message.value)
            return cbor2.dumps(message)

        def signed_with(label: int, value: Any) -> bytes:
            def change(message: list[Any]) -> None:
                header = cbor2.loads(message[0])
                header[label] = value
                message[0] = cbor2.dumps(header)

            return sealer.countersign(changed(change))

        def flip(data: bytes, at: int = -1) -> bytes:
            copy = bytearray(data)
            copy[at] ^= 1
            return bytes(copy)

        def set_recipient(value: list[Any], index: int, to: Any) -> None:
            value[3][0][index] = to

        def set_signature(value: list[Any]) -> None:
            value[1][envelope.COUNTERSIGNATURE][2] = flip(value[1][envelope.COUNTERSIGNATURE][2])

        cases: list[tuple[str, str, bytes]] = [
            ("ciphertext bit", "signature", changed(lambda m: m.__setitem__(2, flip(m[2], 0)))),
            ("tag bit", "signature", changed(lambda m: m.__setitem__(2, flip(m[2])))),
            ("iv changed", "open", changed(lambda m: m[1].__setitem__(envelope.IV, flip(m[1][envelope.IV])))),
            ("signature bit", "signature", changed(set_signature)),
            ("signed by a stranger", "signature", stranger.countersign(good)),
            ("no countersignature", "shape", changed(lambda m: m[1].pop(envelope.COUNTERSIGNATURE))),
            ("no recipient", "shape", changed(lambda m: m[3].clear())),
            ("two recipients", "shape", changed(lambda m: m[3].append(m[3][0]))),
            ("wrapped key bit", "unwrap", changed(lambda m: set_recipient(m, 2, flip(m[3][0][2])))),
            ("recipient algorithm none", "algorithm", changed(lambda m: set_recipient(m, 0, cbor2.dumps({1: 0})))),
            ("content algorithm A128GCM, signed by the device", "algorithm", signed_with(envelope.ALG, 1)),
            ("issuer of another device, signed by the device", "identity", impostor.seal(payload, START, BOOT, 900).wire),
            ("content key thumbprint of another key, signed by the device", "commitment or open",
             signed_with(envelope.KID, envelope.content_key_thumbprint(bytes(32)))),
            ("trailing byte", "shape", good + b"\0"),
            ("truncated", "shape", good[:-1]),
            ("untagged", "shape", cbor2.dumps(cbor2.loads(good).value)),
            ("empty", "shape", b""),
        ]
        return [{"name": name, "why": why, "wire": wire.hex()} for name, why, wire in cases]


def main() -> int:
    scene = Scene()
    valid, previous = [], None
    kinds = [(library, mode) for mode in envelope.MODES for library in LIBRARIES]
    for sequence, (library, mode) in enumerate(kinds, start=1):
        vector, sealed = scene.valid(library, mode, sequence, 1 + 59 * (sequence - 1), previous)
        previous = hashlib.sha256(sealed.signed).digest()
        valid.append(vector)
    vectors = {
        "about": "COSE_Encrypt + RFC 9338 countersignature vectors, made with Python's cwt, pycose and cryptography",
        "device": DEVICE,
        "pseudonym": scene.patient,
        "ca_certificate_der": der_hex(scene.ca),
        "device_certificate_der": der_hex(scene.certificate),
        "device_private_scalar": scalar(scene.key),
        "server_private_scalar": scalar(scene.server),
        "server_kid": scene.server_kid.hex(),
        "session_private_scalar": scalar(scene.session),
        "patient_kek": scene.kek.hex(),
        "patient_kek_kid": scene.kek_kid.hex(),
        "valid": valid,
        "invalid": scene.invalid(),
    }
    Path(sys.argv[1]).write_text(json.dumps(vectors, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
