"""Verifies the device's countersignature on a stored envelope: `verify.py FILE --cert device.pem [--ca ca.pem]`.

Needs no decryption key, and nothing of vitalseal: a COSE library and the device's certificate are enough. Works on the
message as it was sent and as it rests. Prints what the signature vouches for; exits with 1 when it does not hold.
"""

import argparse
import json
import sys
from pathlib import Path

from cryptography import x509

import envelope
import with_cwt


def main() -> int:
    parser = argparse.ArgumentParser(description="verify the countersignature of an envelope")
    parser.add_argument("file", type=Path, help="the envelope, CBOR")
    parser.add_argument("--cert", type=Path, required=True, help="the certificate of the device that signed, PEM")
    parser.add_argument("--ca", type=Path, help="also check that this CA issued the certificate, PEM bundle")
    args = parser.parse_args()

    certificate = x509.load_pem_x509_certificates(args.cert.read_bytes())[0]
    if args.ca:
        issuers = x509.load_pem_x509_certificates(args.ca.read_bytes())
        issuer = next((ca for ca in issuers if ca.subject == certificate.issuer), None)
        if issuer is None:
            print("verify.py: the certificate's issuer is not in the CA bundle", file=sys.stderr)
            return 1
        certificate.verify_directly_issued_by(issuer)
    try:
        header = with_cwt.verify(
            args.file.read_bytes(), certificate.public_key(), envelope.certificate_thumbprint(certificate)
        )
    except Exception as error:  # noqa: BLE001 -- any refusal is one answer here
        print(f"verify.py: the signature does not hold: {error}", file=sys.stderr)
        return 1
    claims = header[envelope.CWT_CLAIMS]
    names = [name.value for name in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    if names != [claims[envelope.ISS]]:
        print("verify.py: the message claims another device than the certificate names", file=sys.stderr)
        return 1
    print(json.dumps({
        "device": claims[envelope.ISS],
        "patient": claims[envelope.SUB],
        "issued_at": claims[envelope.IAT],
        "boot": claims[envelope.BOOT],
        "sequence": claims[envelope.SEQUENCE],
    }))
    return 0


if __name__ == "__main__":
    sys.exit(main())
