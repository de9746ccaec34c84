"""paho-mqtt as a device, or as a display. The order of steps, and what is printed, is in tests/system/clients.rs.

    client.py device HOST PORT CA CERT KEY ID VERSION DIR     VERSION: 4 (v3.1.1) or 5; DIR holds the messages 0, 1, 2
    client.py listen HOST PORT CA CERT KEY ID VERSION TOPIC
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE_S = 20


class Client:
    """One client, whose callbacks are waited for."""

    def __init__(self, host: str, port: str, ca: str, cert: str, key: str, name: str, version: str) -> None:
        self.address, self.v5 = (host, int(port)), version == "5"
        options: dict[str, Any] = {} if self.v5 else {"clean_session": False}
        protocol = mqtt.MQTTv5 if self.v5 else mqtt.MQTTv311
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=protocol, **options)
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(cert, key)
        self.client.tls_set_context(context)
        self.changed, self.said = threading.Condition(), {}
        self.client.on_connect = lambda _c, _u, flags, reason, _p: self._say("connected", (flags, reason))
        self.client.on_disconnect = lambda _c, _u, _f, reason, _p: self._say("gone", reason)
        self.client.on_subscribe = lambda _c, _u, mid, reasons, _p: self._say(("subscribed", mid), reasons[0])
        self.client.on_publish = lambda _c, _u, mid, reason, _p: self._say(("published", mid), reason)
        self.client.on_message = lambda _c, _u, message: self._say(("message", message.topic), message)

    def _say(self, what: Any, value: Any) -> None:
        with self.changed:
            self.said[what] = value
            self.changed.notify_all()

    def wait(self, *whats: Any) -> Any:
        """What was said of the first of these that anything is said of."""
        with self.changed:
            if not self.changed.wait_for(lambda: any(what in self.said for what in whats), PATIENCE_S):
                raise TimeoutError(str(whats))
            return next(self.said[what] for what in whats if what in self.said)

    def connect(self) -> bool:
        """Connects and says whether there was a session."""
        self.said.clear()
        properties = None
        if self.v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 300
        options: dict[str, Any] = {"clean_start": False, "properties": properties} if self.v5 else {}
        self.client.connect(*self.address, keepalive=30, **options)
        self.client.loop_start()
        flags, reason = self.wait("connected")
        if reason.is_failure:
            raise ConnectionError(str(reason))
        return bool(flags.session_present)

    def disconnect(self) -> None:
        self.client.disconnect()
        self.wait("gone")
        self.client.loop_stop()

    def subscribe(self, topic: str) -> bool:
        """Whether it was granted."""
        return not self.wait(("subscribed", self.client.subscribe(topic, qos=1)[1])).is_failure


def device(client: Client, name: str, messages: Path) -> dict[str, Any]:
    told: dict[str, Any] = {"present": [client.connect()]}
    told["granted"] = [client.subscribe(t) for t in (f"v1/d/{name}/down", "v1/d/other/down", "v1/#", "v1/recipient")]
    recipient = client.wait(("message", "v1/recipient"))
    told["recipient"], told["retained"] = recipient.payload.decode(), recipient.retain
    for qos in range(3):
        sent = client.client.publish(f"v1/d/{name}/vitals", (messages / str(qos)).read_bytes(), qos=qos)
        reason = client.wait(("published", sent.mid))
        if reason.is_failure:
            raise ConnectionError(str(reason))
    client.disconnect()
    told["present"].append(client.connect())
    sent = client.client.publish("v1/d/other/vitals", b"x", qos=1)
    refused = client.wait(("published", sent.mid), "gone")
    told["refused"] = refused.is_failure
    client.client.loop_stop()
    return told


def main() -> int:
    what, *address, last = sys.argv[1:]
    client = Client(*address)
    if what == "device":
        print(json.dumps(device(client, address[5], Path(last))))
        return 0
    client.connect()
    if not client.subscribe(last):
        return 1
    print("listening", flush=True)
    print(client.wait(("message", last)).payload.decode())
    client.disconnect()
    return 0


if __name__ == "__main__":
    sys.exit(main())
