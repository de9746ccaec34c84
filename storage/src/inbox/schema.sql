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
  PRIMARY KEY (device, boot, sequence)
) WITHOUT ROWID;

-- body is sealed; NULL when there was none to keep, or after the erasure of the patient that it names.
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
  subject        TEXT,
  body           BLOB
);
-- A device repeats what was not acknowledged: the same refusal is one row.
CREATE UNIQUE INDEX quarantine_once ON quarantine (device, boot, sequence, reason)
  WHERE boot IS NOT NULL AND sequence IS NOT NULL;

PRAGMA application_id = 1448296270; -- "VSLN"
PRAGMA user_version = 2;
