"""Reads what a store holds, with Python's COSE libraries: `read_stored.py FILE`.

FILE is JSON: `certificates` by device id (DER), `patient_keks` by kid, `stored` (the at-rest envelopes) and `readings`,
what all of them together must say. Each of `cwt` and `pycose` must verify every envelope under the certificate of the
device that it names, and open it under the KEK that it names; neither needs anything else.
"""

import json
import sys
from pathlib import Path

import cbor2
from cryptography import x509

import envelope
import with_cwt
import with_pycose


def main() -> int:
    store = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    stored = [bytes.fromhex(message) for message in store["stored"]]
    for library in (with_cwt, with_pycose):
        readings = []
        for message in stored:
            protected, _, _, [[_, recipient, _]] = cbor2.loads(message).value
            device = cbor2.loads(protected)[envelope.CWT_CLAIMS][envelope.ISS]
            certificate = x509.load_der_x509_certificate(bytes.fromhex(store["certificates"][device]))
            library.verify(message, certificate.public_key(), envelope.certificate_thumbprint(certificate))
            kid = recipient[envelope.KID]
            payload = library.open_at_rest(message, bytes.fromhex(store["patient_keks"][kid.hex()]), kid)
            readings += envelope.from_senml(payload)
        assert in_order(readings) == in_order(store["readings"]), f"readings by {library.__name__}"
    print(f"by each of two libraries: {len(stored)} stored messages verified and opened")
    return 0


def in_order(readings):
    return sorted(readings, key=lambda reading: (reading["time"], reading["code"]))


if __name__ == "__main__":
    sys.exit(main())
