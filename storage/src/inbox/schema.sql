-- Durable intake. Instants are microseconds since the Unix epoch, UTC.

-- AUTOINCREMENT: a number is never used again after its row was flushed, or the catalog's watermark would hide new rows.
CREATE TABLE inbox (
  id             INTEGER PRIMARY KEY AUTOINCREMENT,
  subject        TEXT    NOT NULL,
  device         TEXT    NOT NULL,
  boot           BIGINT  NOT NULL,
  sequence       BIGINT  NOT NULL,
  received_at_us BIGINT  NOT NULL,
  first_at_us    BIGINT  NOT NULL,
  last_at_us     BIGINT  NOT NULL,
  readings       BIGINT  NOT NULL,
  envelope       BLOB    NOT NULL
);

-- Outlives the flush: a replay is known for ever, and a fork is provable for ever.
CREATE TABLE seen (
  device      TEXT   NOT NULL,
  boot        BIGINT NOT NULL,
  sequence    BIGINT NOT NULL,
  signed_hash BLOB   NOT NULL,
  awaits      BLOB,               -- signed hash that it names as its predecessor's, when that was not here
  PRIMARY KEY (device, boot, sequence)
) WITHOUT ROWID;

-- When the stored messages of a boot were sealed, by the device's own clock (iat): boots do not lie over each other.
CREATE TABLE boots (
  device       TEXT   NOT NULL,
  boot         BIGINT NOT NULL,
  first_iat_us BIGINT NOT NULL,
  last_iat_us  BIGINT NOT NULL,
  PRIMARY KEY (device, boot)
) WITHOUT ROWID;

-- One proof a boot is enough; it holds two signed messages without recipients, so no way to a reading.
CREATE TABLE clone_proofs (
  device      TEXT   NOT NULL,
  boot        BIGINT NOT NULL,
  found_at_us BIGINT NOT NULL,
  proof       BLOB   NOT NULL,
  PRIMARY KEY (device, boot)
) WITHOUT ROWID;

-- Session keys that devices sent in full, in messages that opened: later ones may name them by key_id. point is 04 || x || y.
-- The lowest numbers of a device are forgotten first: no clock says which key is the older one.
CREATE TABLE sender_keys (
  number INTEGER PRIMARY KEY,
  device TEXT NOT NULL,
  key_id BLOB NOT NULL,
  point  BLOB NOT NULL,
  UNIQUE (device, key_id)
);

-- body is sealed under the KEK kid of the patient whom it is about, or, kid being NULL, under the quarantine page key.
-- It is NULL when there was none to keep, after the erasure of its patient, and once the row is settled.
-- digest tells it from others with the same counters: the signed hash of what is kept as it would be stored, which is
-- signed, and else SHA-256 of the bytes that came. signed_hash is there when the device signed it and its place in the chain is not what is wrong with it: the message
-- after it may name it.
CREATE TABLE quarantine (
  id             INTEGER PRIMARY KEY AUTOINCREMENT,
  device         TEXT    NOT NULL,
  boot           BIGINT,
  sequence       BIGINT,
  reason         TEXT    NOT NULL,
  detail         TEXT    NOT NULL,
  received_at_us BIGINT  NOT NULL,
  times          BIGINT  NOT NULL,
  size           BIGINT  NOT NULL,
  digest         BLOB    NOT NULL,
  subject        TEXT,
  kid            BLOB,
  body           BLOB,
  signed_hash    BLOB,
  state          TEXT    NOT NULL CHECK (state IN ('held', 'released', 'dropped')),
  settled_at_us  BIGINT,
  settled_by     TEXT,
  settled_reason TEXT
);
-- A device repeats what was not acknowledged: the same refusal of the same message is one row, and of other bytes under
-- its counters another one. NULLs are never equal, hence two.
CREATE UNIQUE INDEX quarantine_once ON quarantine (device, boot, sequence, reason, digest)
  WHERE boot IS NOT NULL AND sequence IS NOT NULL;
CREATE UNIQUE INDEX quarantine_unread_once ON quarantine (device, reason, digest) WHERE boot IS NULL;
CREATE INDEX quarantine_held ON quarantine (device) WHERE state = 'held';

-- What devices are told, sealed under the quarantine page key, until they acknowledged it. Numbers are not used again:
-- a session goes on after the newest that it sent.
CREATE TABLE downlink (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  device        TEXT    NOT NULL,
  body          BLOB    NOT NULL,
  queued_at_us  BIGINT  NOT NULL,
  expires_at_us BIGINT  NOT NULL
);
CREATE INDEX downlink_of ON downlink (device);

-- MQTT sessions that outlive the process. subscriptions: JSON, [[filter, QoS], …]. left_at_us is NULL while connected.
CREATE TABLE sessions (
  client        TEXT   PRIMARY KEY,
  subscriptions TEXT   NOT NULL,
  expiry_s      BIGINT NOT NULL,
  left_at_us    BIGINT
) WITHOUT ROWID;

-- The journal: every change of the set of files that the registry has, noted before a row that went to a file is deleted
-- here, or a file that ended is removed. A registry that went back gets from it what it lost. id and change as in the
-- registry's snapshots; body: JSON, what the change was; NULL of one that was not noted when it was made. A new store
-- begins without a change.
CREATE TABLE changes (
  id     INTEGER PRIMARY KEY,
  change TEXT    NOT NULL,
  body   TEXT
);
INSERT INTO changes (id, change) VALUES (0, '');

PRAGMA application_id = 1448296270; -- "VSLN"
PRAGMA user_version = 4;
