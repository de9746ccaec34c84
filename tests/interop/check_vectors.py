"""Checks a file of envelope vectors with Python's COSE libraries: `check_vectors.py FILE`.

Each of `cwt` and `pycose` must verify every valid message, open it to its readings, and re-wrap it to the very bytes
given; the at-rest form must verify with the same signature, open under the patient's KEK and under no other key. Each
must refuse every invalid message, except for those that only the profile forbids (COSE itself allows them), which are
listed and counted apart.

Whoever made the messages need not publish what happened inside: `content_key`, `protected`, `to_be_signed` and
`readings` are compared where a vector has them.
"""

import json
import sys
from pathlib import Path

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

import envelope
import with_cwt
import with_pycose

# Allowed by COSE, refused by our profile: a COSE library alone says nothing against them.
PROFILE_ONLY = {"two recipients", "trailing byte"}


class Reader:
    """A server that speaks COSE through one library, and a patient's key."""

    def __init__(self, vectors, library) -> None:
        self.library, self.device = library, vectors["device"]
        certificate = x509.load_der_x509_certificate(bytes.fromhex(vectors["device_certificate_der"]))
        self.key, self.thumbprint = certificate.public_key(), envelope.certificate_thumbprint(certificate)
        self.server_key = ec.derive_private_key(int(vectors["server_private_scalar"], 16), ec.SECP256R1())
        self.server_kid = bytes.fromhex(vectors["server_kid"])
        self.kek, self.kek_kid = bytes.fromhex(vectors["patient_kek"]), bytes.fromhex(vectors["patient_kek_kid"])
        self.senders = {}

    def verify(self, message: bytes):
        """The protected header, when the device signed it and says so."""
        header = self.library.verify(message, self.key, self.thumbprint)
        if header[envelope.ALG] != envelope.A256GCM:
            raise ValueError("content algorithm")
        if header[envelope.CWT_CLAIMS][envelope.ISS] != self.device:
            raise ValueError("issuer")
        return header

    def open(self, wire: bytes) -> bytes:
        """The payload of a message from a device."""
        self.verify(wire)
        self.senders |= envelope.introduced_sender(wire)
        return self.library.open_wire(envelope.resolve_sender(wire, self.senders), self.server_key, self.server_kid)

    def take(self, vector) -> None:
        """Holds one valid message against all that its vector says about it."""
        name = f"message {vector['sequence']} by {self.library.__name__}"
        wire, at_rest = bytes.fromhex(vector["wire"]), bytes.fromhex(vector["at_rest"])
        payload = self.open(wire)
        assert payload.hex() == vector["payload"], f"{name}: payload"

        resolved = envelope.resolve_sender(wire, self.senders)
        content_key = self.library.content_key(resolved, self.server_key, self.server_kid)
        assert self.library.rewrap(wire, content_key, self.kek, self.kek_kid) == at_rest, f"{name}: re-wrap"
        assert self.verify(at_rest) == self.verify(wire), f"{name}: header at rest"
        assert envelope.countersigned(at_rest) == envelope.countersigned(wire), f"{name}: signed bytes at rest"
        assert self.library.open_at_rest(at_rest, self.kek, self.kek_kid) == payload, f"{name}: payload at rest"
        refuse(lambda: self.library.open_at_rest(at_rest, bytes(32), self.kek_kid), f"{name}: another KEK")

        inside = {
            "content_key": content_key.hex(),
            "protected": cbor2.loads(wire).value[0].hex(),
            "to_be_signed": envelope.countersigned(wire).hex(),
        }
        for field, found in inside.items():
            assert vector.get(field, found) == found, f"{name}: {field}"
        if "readings" in vector:
            assert envelope.from_senml(payload) == vector["readings"], f"{name}: readings"


def refuse(attempt, name: str) -> None:
    """Expects a failure. Any will do: each library has its own exceptions."""
    try:
        attempt()
    except Exception:  # noqa: BLE001
        return
    raise AssertionError(f"accepted: {name}")


def main() -> int:
    vectors = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    forbidden = [vector for vector in vectors["invalid"] if vector["name"] not in PROFILE_ONLY]
    for library in (with_cwt, with_pycose):
        reader = Reader(vectors, library)
        for vector in vectors["valid"]:
            reader.take(vector)
        for vector in forbidden:
            wire = bytes.fromhex(vector["wire"])
            refuse(lambda: reader.open(wire), f"{vector['name']}, by {library.__name__}")  # noqa: B023
    print(f"by each of two libraries: {len(vectors['valid'])} valid messages opened and re-wrapped, {len(forbidden)} "
          f"invalid ones refused, {len(vectors['invalid']) - len(forbidden)} left to the profile")
    return 0


if __name__ == "__main__":
    sys.exit(main())
