"""A device that is not our code: seals readings with `cwt` or `pycose` and publishes them with `paho-mqtt`.

    device.py --device ID --key key.pem --csr device.csr
        makes a P-256 key and a certificate request with `openssl`, and stops

    device.py --device ID --patient PSEUDONYM --key key.pem --cert cert.pem --recipient recipient.pem --ca ca.pem
              --readings readings.json (--mqtt HOST:PORT | --dry-run OUT)
              [--library cwt|pycose] [--mode es|ss|named] [--per-message N] [--boot N] [--mqtt-version 4|5]

READINGS is a JSON list of {"code", "unit", "value", "time"}, with the time in seconds since the Unix epoch. Exits with 0
only after the server has acknowledged every message, and then prints one JSON object that says what was sent. With
--dry-run nothing is sent: the envelopes are written to OUT, OUT.1, OUT.2, ...

Exit codes: 0 all acknowledged, 1 a message was refused or not acknowledged, 2 wrong use.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import envelope
import with_cwt
import with_pycose

LIBRARIES = {"cwt": with_cwt, "pycose": with_pycose}
CONNECT_TIMEOUT_S = 15
ACK_TIMEOUT_S = 30


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="a vitalseal device made of public Python libraries")
    parser.add_argument("--device", required=True, help="device id: MQTT client id and certificate CN")
    parser.add_argument("--key", required=True, type=Path, help="the device's private key, PEM")
    parser.add_argument("--csr", type=Path, help="make --key and this certificate request, and stop")
    parser.add_argument("--cert", type=Path, help="the device's certificate, PEM")
    parser.add_argument("--ca", type=Path, help="the CA bundle that the server gave out, PEM")
    parser.add_argument("--recipient", type=Path, help="the server's current envelope certificate, PEM")
    parser.add_argument("--patient", help="pseudonym of the patient whom the device measures")
    parser.add_argument("--readings", type=Path, help="JSON list of readings")
    parser.add_argument("--library", choices=tuple(LIBRARIES), default="cwt", help="what makes the COSE messages")
    parser.add_argument("--mode", choices=envelope.MODES, default="es",
                        help="key agreement; named = ss with the session key in full in the first message only")
    parser.add_argument("--per-message", type=int, default=60, help="readings in one envelope")
    parser.add_argument("--boot", type=int, default=time.time_ns() // 10**6,
                        help="boot counter; default: the time in ms, far below 2^53")
    parser.add_argument("--mqtt", help="HOST:PORT of the server")
    parser.add_argument("--mqtt-version", type=int, choices=(4, 5), default=5, help="4 = v3.1.1")
    parser.add_argument("--dry-run", type=Path, metavar="OUT", help="write the envelopes here, send nothing")
    args = parser.parse_args()
    if not args.csr:
        for name in ("cert", "ca", "recipient", "patient", "readings"):
            if getattr(args, name) is None:
                parser.error(f"--{name} is required")
        if not args.mqtt and not args.dry_run:
            parser.error("one of --mqtt and --dry-run is required")
    return args


def new_key_and_csr(device: str, key: Path, csr: Path) -> None:
    """What someone does who has never heard of vitalseal: a key and a certificate request by openssl."""
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(key)],
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)
    subprocess.run(
        ["openssl", "req", "-new", "-sha256", "-key", str(key), "-subj", f"/CN={device}", "-out", str(csr)],
        check=True,
        capture_output=True,
    )


def trusted_recipient(recipient_pem: bytes, ca_pem: bytes) -> x509.Certificate:
    """The server's envelope certificate, after checking that the CA issued it and that it is valid now."""
    certificate = x509.load_pem_x509_certificate(recipient_pem)
    now = time.time()
    if not certificate.not_valid_before_utc.timestamp() <= now <= certificate.not_valid_after_utc.timestamp():
        raise ValueError("the recipient certificate is not valid now")
    for issuer in x509.load_pem_x509_certificates(ca_pem):
        try:
            certificate.verify_directly_issued_by(issuer)
            return certificate
        except Exception:  # noqa: BLE001 -- another certificate of the bundle may be the issuer
            continue
    raise ValueError("the recipient certificate was not issued by the CA")


def seal_all(args: argparse.Namespace) -> tuple[list[bytes], list[dict[str, Any]]]:
    """The readings as envelopes, each linked to the one before, and what to say about them."""
    readings = json.loads(args.readings.read_text(encoding="utf-8"))
    key = serialization.load_pem_private_key(args.key.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    # The file holds the chain, leaf first; the leaf is the one that signs.
    certificate = x509.load_pem_x509_certificates(args.cert.read_bytes())[0]
    recipient = trusted_recipient(args.recipient.read_bytes(), args.ca.read_bytes())
    sealer = LIBRARIES[args.library].Sealer(
        args.device,
        args.patient,
        key,
        envelope.certificate_thumbprint(certificate),
        recipient.public_key(),
        envelope.recipient_kid(recipient),
        args.mode,
    )
    wires, told, previous = [], [], None
    for sequence, start in enumerate(range(0, len(readings), args.per_message), start=1):
        if args.mode == "named":  # the server must have met the key before it can look its name up
            sealer.mode = "ss" if sequence == 1 else "named"
        part = readings[start : start + args.per_message]
        sealed = sealer.seal(envelope.senml(part), int(time.time()), args.boot, sequence, previous)
        previous = hashlib.sha256(sealed.signed).digest()
        wires.append(sealed.wire)
        told.append({"sequence": sequence, "readings": len(part), "bytes": len(sealed.wire), "signed": previous.hex()})
    return wires, told


class Publisher:
    """One MQTT connection over mutual TLS that publishes with QoS 1 and waits for each PUBACK."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.host, _, port = args.mqtt.rpartition(":")
        self.port = int(port)
        self.topic = f"v1/d/{args.device}/vitals"
        self.connected = threading.Event()
        self.refused: str | None = None
        self.acks: dict[int, Any] = {}
        self.acked = threading.Condition()
        version = mqtt.MQTTv5 if args.mqtt_version == 5 else mqtt.MQTTv311
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=args.device, protocol=version)
        context = ssl.create_default_context(cafile=str(args.ca))
        context.load_cert_chain(str(args.cert), str(args.key))
        self.client.tls_set_context(context)
        self.client.on_connect = self._on_connect
        self.client.on_publish = self._on_publish

    def _on_connect(self, _client: Any, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.refused = str(reason) if reason.is_failure else None
        self.connected.set()

    def _on_publish(self, _client: Any, _userdata: Any, mid: int, reason: Any, _properties: Any) -> None:
        with self.acked:
            self.acks[mid] = reason
            self.acked.notify_all()

    def publish(self, wires: list[bytes]) -> list[str]:
        """Publishes all and returns the reason of each PUBACK; raises when one does not come."""
        self.client.connect(self.host, self.port, keepalive=30)
        self.client.loop_start()
        try:
            if not self.connected.wait(CONNECT_TIMEOUT_S):
                raise TimeoutError("no CONNACK")
            if self.refused:
                raise ConnectionError(f"connection refused: {self.refused}")
            # The first one alone: a session key may be named once the message that carries it is acknowledged.
            mids = [mid for part in (wires[:1], wires[1:]) for mid in self._acknowledged(part)]
            failures = [str(self.acks[mid]) for mid in mids if self.acks[mid].is_failure]
            if failures:
                raise ConnectionError(f"refused by PUBACK: {', '.join(failures)}")
            return [str(self.acks[mid]) for mid in mids]
        finally:
            self.client.disconnect()
            self.client.loop_stop()

    def _acknowledged(self, wires: list[bytes]) -> list[int]:
        mids = [self.client.publish(self.topic, wire, qos=1).mid for wire in wires]
        with self.acked:
            done = self.acked.wait_for(lambda: all(mid in self.acks for mid in mids), ACK_TIMEOUT_S)
        if not done:
            raise TimeoutError(f"{sum(mid not in self.acks for mid in mids)} of {len(mids)} messages not acknowledged")
        return mids


def main() -> int:
    args = arguments()
    if args.csr:
        new_key_and_csr(args.device, args.key, args.csr)
        return 0
    wires, told = seal_all(args)
    if args.dry_run:
        for index, wire in enumerate(wires):
            Path(f"{args.dry_run}.{index}" if index else args.dry_run).write_bytes(wire)
    else:
        try:
            for entry, reason in zip(told, Publisher(args).publish(wires), strict=True):
                entry["puback"] = reason
        except (OSError, TimeoutError) as error:
            print(f"device.py: {error}", file=sys.stderr)
            return 1
    print(json.dumps({"device": args.device, "patient": args.patient, "boot": args.boot,
                      "library": args.library, "mode": args.mode, "sent": not args.dry_run, "messages": told}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
