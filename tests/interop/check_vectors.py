"""Checks a file of envelope vectors with Python's COSE libraries: `check_vectors.py FILE`.

Every valid message must verify, open to its readings, and re-wrap to the very bytes given; the at-rest form must
verify with the same signature and open under the patient's KEK. Every invalid message must fail one of these steps,
except those that only the profile forbids (COSE itself allows them), which are listed and counted apart.
"""

import json
import sys
from pathlib import Path

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

import envelope

# Allowed by COSE, refused by our profile: a COSE library alone says nothing against them.
PROFILE_ONLY = {"two recipients", "trailing byte"}


def main() -> int:
    vectors = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    certificate = x509.load_der_x509_certificate(bytes.fromhex(vectors["device_certificate_der"]))
    key, thumbprint = certificate.public_key(), envelope.certificate_thumbprint(certificate)
    server_key = ec.derive_private_key(int(vectors["server_private_scalar"], 16), ec.SECP256R1())
    server_kid = bytes.fromhex(vectors["server_kid"])
    kek, kek_kid = bytes.fromhex(vectors["patient_kek"]), bytes.fromhex(vectors["patient_kek_kid"])

    def open_fully(wire: bytes) -> bytes:
        header = envelope.verify(wire, key, thumbprint)
        if header[envelope.ALG] != envelope.A256GCM:
            raise ValueError("content algorithm")
        if header[envelope.CWT_CLAIMS][envelope.ISS] != vectors["device"]:
            raise ValueError("issuer")
        return envelope.open_wire(wire, server_key, server_kid)

    for vector in vectors["valid"]:
        wire, at_rest = bytes.fromhex(vector["wire"]), bytes.fromhex(vector["at_rest"])
        payload = open_fully(wire)
        assert payload.hex() == vector["payload"], f"payload of {vector['sequence']}"
        assert envelope.from_senml(payload) == vector["readings"], f"readings of {vector['sequence']}"
        content_key = bytes.fromhex(vector["content_key"])
        assert envelope.rewrap(wire, content_key, kek, kek_kid) == at_rest, f"re-wrap of {vector['sequence']}"
        assert envelope.verify(at_rest, key, thumbprint) == envelope.verify(wire, key, thumbprint)
        assert envelope.open_at_rest(at_rest, kek, kek_kid) == payload, f"at rest {vector['sequence']}"
        signed = cbor2.loads(bytes.fromhex(vector["to_be_signed"]))
        assert signed[0] == "CounterSignature" and signed[1].hex() == vector["protected"]

    refused = skipped = 0
    for vector in vectors["invalid"]:
        if vector["name"] in PROFILE_ONLY:
            skipped += 1
            continue
        try:
            open_fully(bytes.fromhex(vector["wire"]))
        except Exception:  # noqa: BLE001 -- any refusal will do, each library has its own exceptions
            refused += 1
        else:
            raise AssertionError(f"accepted: {vector['name']}")
    print(f"{len(vectors['valid'])} valid messages opened and re-wrapped, {refused} invalid ones refused, "
          f"{skipped} left to the profile")
    return 0


if __name__ == "__main__":
    sys.exit(main())
