"""Checks a file of clone proofs with public Python libraries: `check_clone_proofs.py FILE`.

A proof holds two messages that no single device can have signed, each with its certificate, as
crypto/src/envelope/clone_proof.rs draws it. Whoever trusts the authority must come to the published statement, with
each of two libraries for the countersignatures, and without any decryption key.
"""

import hashlib
import json
import sys
from pathlib import Path

import cbor2
from cryptography import x509

import envelope
import with_cwt
import with_pycose


def statement(proof: bytes, authority: x509.Certificate, library) -> dict:
    """What a proof proves; raises when it proves nothing."""
    magic, version, *evidence = cbor2.loads(proof)
    if (magic, version, len(evidence)) != ("vitalseal clone proof", 1, 4):
        raise ValueError("not a clone proof of version 1")
    claims, hashes = [], []
    for der, message in (evidence[:2], evidence[2:]):
        certificate = x509.load_der_x509_certificate(der)
        certificate.verify_directly_issued_by(authority)
        header = library.verify(message, certificate.public_key(), envelope.certificate_thumbprint(certificate))
        claims.append(header[envelope.CWT_CLAIMS])
        hashes.append(hashlib.sha256(envelope.countersigned(message)).digest())
        [name] = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        if name.value != claims[-1][envelope.ISS]:
            raise ValueError("a message claims another device than its certificate names")
    first, second = claims
    if any(first[label] != second[label] for label in (envelope.ISS, envelope.BOOT)):
        raise ValueError("two devices, or two boots")
    sequences = [first[envelope.SEQUENCE], second[envelope.SEQUENCE]]
    if sequences[0] == sequences[1] and hashes[0] != hashes[1]:
        kind = "same counters"
    elif sequences[0] + 1 == sequences[1] and second.get(envelope.PREVIOUS, hashes[0]) != hashes[0]:
        kind = "broken link"
    else:
        raise ValueError("one device may have signed both")
    return {"device": first[envelope.ISS], "boot": first[envelope.BOOT], "kind": kind, "sequences": sequences,
            "signed_hashes": [digest.hex() for digest in hashes]}


def main() -> int:
    published = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    authority = x509.load_der_x509_certificate(bytes.fromhex(published["issuing_certificate_der"]))
    for library in (with_cwt, with_pycose):
        for vector in published["proofs"]:
            found = statement(bytes.fromhex(vector["proof"]), authority, library)
            assert found == vector["statement"], f"{library.__name__}: {found}"
    print(f"by each of two libraries: {len(published['proofs'])} clone proofs verified")
    return 0


if __name__ == "__main__":
    sys.exit(main())
