-- Registry, key tree and catalog. Instants are microseconds since the Unix epoch, UTC. Every key here is wrapped or
-- sealed. SQLite and PostgreSQL take the same text: see src/database.

-- store_id is random: key snapshots and backups name it, so that those of two stores are never joined.
CREATE TABLE store (
  id            BIGINT PRIMARY KEY CHECK (id = 1),
  store_id      TEXT   NOT NULL,
  created_at_us BIGINT NOT NULL
);

-- Key tree ----------------------------------------------------------------------------------------------------------

-- blob is what the provider needs beside its own key to load the root again; worth nothing without that key.
CREATE TABLE root_epochs (
  epoch           BIGINT PRIMARY KEY,
  state           TEXT   NOT NULL CHECK (state IN ('current', 'retiring', 'destroyed')),
  provider        TEXT   NOT NULL,
  blob            BLOB   NOT NULL,
  started_at_us   BIGINT NOT NULL,
  destroyed_at_us BIGINT
);
CREATE UNIQUE INDEX root_epochs_one_current ON root_epochs (state) WHERE state = 'current';

-- purpose 'patients' holds KEKs (about 1000, column keks), 'service' seals secrets, 'quarantine' seals refused bodies.
-- generation grows with every change to the KEKs of the page or to its key: key snapshots tell pages by it.
CREATE TABLE key_pages (
  page          BIGINT PRIMARY KEY,
  purpose       TEXT   NOT NULL CHECK (purpose IN ('patients', 'service', 'quarantine')),
  keks          BIGINT NOT NULL,
  generation    BIGINT NOT NULL,
  root_epoch    BIGINT NOT NULL REFERENCES root_epochs (epoch),
  wrapped       BLOB   NOT NULL,
  created_at_us BIGINT NOT NULL
);

-- An erased patient stays as a tombstone: the pseudonym without a key and without an identity.
CREATE TABLE patients (
  subject       TEXT   PRIMARY KEY,
  state         TEXT   NOT NULL CHECK (state IN ('active', 'erased')),
  identity      BLOB,
  created_at_us BIGINT NOT NULL,
  erased_at_us  BIGINT
);

-- One current KEK for each active patient, and those that a rotation retired, on the same page: stored envelopes are
-- still wrapped under them.
CREATE TABLE keks (
  kid           BLOB   PRIMARY KEY,
  subject       TEXT   NOT NULL REFERENCES patients (subject),
  page          BIGINT NOT NULL REFERENCES key_pages (page),
  wrapped       BLOB   NOT NULL,
  created_at_us BIGINT NOT NULL,
  retired_at_us BIGINT
);
CREATE INDEX keks_by_subject ON keks (subject);
CREATE INDEX keks_by_page ON keks (page);
CREATE UNIQUE INDEX keks_one_current ON keks (subject) WHERE retired_at_us IS NULL;

CREATE TABLE secrets (
  name   TEXT PRIMARY KEY,
  sealed BLOB NOT NULL
);

-- The private part is wrapped under a key of the root provider that is this epoch's alone: once that is destroyed, no
-- copy of this table gives it back. Both columns go when that end was recorded, the certificate stays.
CREATE TABLE recipients (
  epoch         BIGINT PRIMARY KEY,
  kid           BLOB   NOT NULL UNIQUE,
  certificate   BLOB   NOT NULL,
  not_before_us BIGINT NOT NULL,
  not_after_us  BIGINT NOT NULL,
  wrapped       BLOB,
  blob          BLOB
);

-- kek_kids: the ids of the destroyed KEKs in hexadecimal, with spaces between.
CREATE TABLE erasure_ledger (
  erasure_id           TEXT   PRIMARY KEY,
  subject              TEXT   NOT NULL UNIQUE REFERENCES patients (subject),
  erased_at_us         BIGINT NOT NULL,
  root_epoch_destroyed BIGINT NOT NULL,
  root_epoch           BIGINT NOT NULL,
  page                 BIGINT NOT NULL,
  keks_rewrapped       BIGINT NOT NULL,
  pages_rewrapped      BIGINT NOT NULL,
  kek_kids             TEXT   NOT NULL,
  root_provider        TEXT   NOT NULL,
  completed_at_us      BIGINT
);

-- Places that took a key snapshot: one that has none any more is away, and not new.
CREATE TABLE snapshot_places (
  place TEXT PRIMARY KEY
);

-- What key snapshots brought into this registry and the audit log does not have yet; see keys::snapshot::joined.
CREATE TABLE joins (
  id                BIGINT PRIMARY KEY CHECK (id = 1),
  snapshot          TEXT   NOT NULL,
  root_epoch        BIGINT NOT NULL,
  serial            BIGINT NOT NULL,
  taken_at_us       BIGINT NOT NULL,
  erasures_replayed BIGINT NOT NULL,
  patients_added    BIGINT NOT NULL,
  devices_revoked   BIGINT NOT NULL,
  patients          BIGINT NOT NULL
);

-- Devices -----------------------------------------------------------------------------------------------------------

CREATE TABLE device_certificates (
  thumbprint     BLOB   PRIMARY KEY,
  device         TEXT   NOT NULL,
  der            BLOB   NOT NULL,
  enrolled_at_us BIGINT NOT NULL
);

CREATE TABLE devices (
  device         TEXT   PRIMARY KEY,
  state          TEXT   NOT NULL CHECK (state IN ('active', 'suspended', 'revoked')),
  certificate    BLOB   NOT NULL REFERENCES device_certificates (thumbprint),
  enrolled_at_us BIGINT NOT NULL,
  state_since_us BIGINT NOT NULL,
  state_reason   TEXT
);

-- The newest list of the issuing authority (RFC 5280), which names the certificates of all devices that are not active.
CREATE TABLE revocation_list (
  id  BIGINT PRIMARY KEY CHECK (id = 1),
  der BLOB   NOT NULL
);

CREATE TABLE assignments (
  device   TEXT   NOT NULL REFERENCES devices (device),
  from_us  BIGINT NOT NULL,
  subject  TEXT   NOT NULL REFERENCES patients (subject),
  until_us BIGINT,
  PRIMARY KEY (device, from_us)
);
CREATE UNIQUE INDEX assignments_one_open ON assignments (device) WHERE until_us IS NULL;

-- People ------------------------------------------------------------------------------------------------------------

-- The TOTP secret is the secret 'totp/<name>'.
CREATE TABLE users (
  name           TEXT   PRIMARY KEY,
  role           TEXT   NOT NULL,
  password_hash  TEXT   NOT NULL,
  last_totp_step BIGINT,
  created_at_us  BIGINT NOT NULL
);

CREATE TABLE grants (
  user_name     TEXT   NOT NULL REFERENCES users (name),
  subject       TEXT   NOT NULL REFERENCES patients (subject),
  granted_at_us BIGINT NOT NULL,
  PRIMARY KEY (user_name, subject)
);

CREATE TABLE tokens (
  sha256        BLOB   PRIMARY KEY,
  user_name     TEXT   NOT NULL REFERENCES users (name),
  expires_at_us BIGINT NOT NULL
);

CREATE TABLE user_wards (
  user_name     TEXT   NOT NULL REFERENCES users (name),
  ward          TEXT   NOT NULL,
  granted_at_us BIGINT NOT NULL,
  PRIMARY KEY (user_name, ward)
);

-- Displays and services: 'display:<name>' or 'service:<name>', as in the certificate.
CREATE TABLE subscribers (
  subscriber     TEXT   PRIMARY KEY,
  der            BLOB   NOT NULL,
  enrolled_at_us BIGINT NOT NULL,
  revoked_at_us  BIGINT,
  revoked_reason TEXT
);

-- '+' stands for every ward.
CREATE TABLE subscriber_wards (
  subscriber TEXT NOT NULL REFERENCES subscribers (subscriber),
  ward       TEXT NOT NULL,
  PRIMARY KEY (subscriber, ward)
);

CREATE TABLE incidents (
  id            TEXT   PRIMARY KEY,
  json          TEXT   NOT NULL,
  created_at_us BIGINT NOT NULL,
  updated_at_us BIGINT NOT NULL
);

-- Catalog -----------------------------------------------------------------------------------------------------------

-- One row for each change of the set of files; the highest id is the present. change is random: a commit that is
-- repeated finds it.
CREATE TABLE snapshots (
  id     BIGINT PRIMARY KEY,
  change TEXT   NOT NULL UNIQUE,
  kind   TEXT   NOT NULL CHECK (kind IN ('flush', 'compaction', 'vacuum', 'retention', 'repair')),
  at_us  BIGINT NOT NULL
);

-- 'planned' before the file is written, 'live' once it is durable and its rows may leave the inbox or the files that it
-- replaces, 'ended' when a later file holds its rows; removed, with its row, when no query can read it any more.
-- encrypted 0: written by version 3, in the clear, vitals and waveforms in one.
CREATE TABLE data_files (
  file                 TEXT   PRIMARY KEY,
  state                TEXT   NOT NULL CHECK (state IN ('planned', 'live', 'ended')),
  written_at_us        BIGINT NOT NULL,
  tbl                  TEXT   CHECK (tbl IN ('vitals', 'waveforms')),
  kind                 TEXT   CHECK (kind IN ('rows', 'chunks')),
  level                BIGINT,
  encrypted            BIGINT,
  size                 BIGINT,
  sha256               BLOB,
  footer               BLOB,
  row_count            BIGINT,
  messages             BIGINT,
  readings             BIGINT,
  subject_first        TEXT,
  subject_last         TEXT,
  first_at_us          BIGINT,
  last_at_us           BIGINT,
  received_first_at_us BIGINT,
  received_last_at_us  BIGINT,
  begin_snapshot       BIGINT,
  end_snapshot         BIGINT,
  ended_at_us          BIGINT
);

-- Rows of an inbox up to `high` are in a live file. There is one inbox yet, '1'.
CREATE TABLE watermarks (
  inbox TEXT   PRIMARY KEY,
  high  BIGINT NOT NULL
);
INSERT INTO watermarks (inbox, high) VALUES ('1', 0);

-- Erased patients. As of snapshot `cleared` no live file holds a row of theirs; once no file that ended by then is left
-- either, dropped_at_us is noted.
CREATE TABLE tombstones (
  subject       TEXT   PRIMARY KEY REFERENCES patients (subject),
  erased_at_us  BIGINT NOT NULL,
  cleared       BIGINT,
  dropped_at_us BIGINT
);

-- What was damaged and could not be kept: files, or rows of one. Its bytes are in damaged/<file>. Columns that could not
-- be read are NULL.
CREATE TABLE losses (
  id          BIGINT PRIMARY KEY,
  found_at_us BIGINT NOT NULL,
  file        TEXT   NOT NULL,
  row_number  BIGINT,
  subject     TEXT,
  first_at_us BIGINT,
  last_at_us  BIGINT,
  messages    BIGINT,
  fault       TEXT   NOT NULL
);
