// MQTT.js over WebSocket as a device, or as a person's browser. The order of steps, and what is printed, is in
// tests/system/clients.rs.
//
//     client.mjs device URL CA CERT KEY ID VERSION DIR       VERSION: 4 (v3.1.1) or 5; DIR holds the messages 0, 1, 2
//     client.mjs listen URL CA CERT KEY ID VERSION TOPIC
//     client.mjs login  URL CA USER TOKEN ID VERSION TOPIC   by name and token, which come without a certificate

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import process from "node:process";

const mqtt = createRequire(`${process.env.VITALSEAL_INTEROP_NODE}/`)("mqtt");

const [what, url, ca, first, second, clientId, version, last] = process.argv.slice(2);
const protocolVersion = Number(version);
const identity =
  what === "login"
    ? { username: first, password: second }
    : { cert: readFileSync(first), key: readFileSync(second) };

function client() {
  const properties = protocolVersion === 5 ? { sessionExpiryInterval: 300 } : undefined;
  return mqtt.connect(url, {
    ...identity, ca: readFileSync(ca), clientId, protocolVersion, properties,
    clean: false, reconnectPeriod: 0, connectTimeout: 20_000,
  });
}

/** Resolves with the arguments of the next event of this name. */
function next(emitter, event) {
  return new Promise((resolve, reject) => {
    emitter.once(event, (...told) => resolve(told));
    if (event !== "error") emitter.once("error", reject);
  });
}

/** Whether each of these was granted. */
async function subscribe(connected, ...topics) {
  const granted = [];
  for (const topic of topics) {
    // MQTT.js calls a refusal an error in v3.1.1 and in v5 alike; what was granted has a QoS below 0x80.
    const answer = await connected.subscribeAsync(topic, { qos: 1 }).catch(() => [{ qos: 0x80 }]);
    granted.push(answer[0].qos < 0x80);
  }
  return granted;
}

async function device() {
  let connected = client();
  const present = [(await next(connected, "connect"))[0].sessionPresent];
  const retained = next(connected, "message");
  const granted = await subscribe(
    connected, `v1/d/${clientId}/down`, "v1/d/other/down", "v1/#", "v1/recipient");
  const [, recipient, packet] = await retained;
  for (const qos of [0, 1, 2]) {
    await connected.publishAsync(`v1/d/${clientId}/vitals`, readFileSync(`${last}/${qos}`), { qos });
  }
  await connected.endAsync();
  connected = client();
  present.push((await next(connected, "connect"))[0].sessionPresent);
  const refused = await Promise.race([
    connected.publishAsync("v1/d/other/vitals", "x", { qos: 1 }).then(() => false, () => true),
    next(connected, "close").then(() => true),
  ]);
  connected.end(true);
  return { present, granted, recipient: recipient.toString(), retained: packet.retain, refused };
}

async function listen() {
  const connected = client();
  await next(connected, "connect");
  const alert = next(connected, "message");
  const granted = await subscribe(connected, last);
  if (!granted[0]) throw new Error("not granted");
  console.log("listening");
  console.log((await alert)[1].toString());
  await connected.endAsync();
}

try {
  if (what === "device") console.log(JSON.stringify(await device()));
  else await listen();
  process.exit(0);
} catch (error) {
  console.error(error);
  process.exit(1);
}
