-- Version 3 to 4: the catalog as snapshots of the set of files. Never changed again: a later version adds a step of its own.

CREATE TABLE snapshots (
  id     BIGINT PRIMARY KEY,
  change TEXT   NOT NULL UNIQUE,
  kind   TEXT   NOT NULL CHECK (kind IN ('flush', 'compaction', 'vacuum', 'retention', 'repair')),
  at_us  BIGINT NOT NULL
);

ALTER TABLE data_files RENAME TO data_files_3;

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

-- A planned file has no figures yet, so neither has it a kind.
INSERT INTO data_files (file, state, written_at_us, tbl, kind, level, encrypted, size, row_count, messages, readings,
  first_at_us, last_at_us, received_first_at_us, received_last_at_us, begin_snapshot)
SELECT file, state, planned_at_us, 'vitals', 'rows', 0, 0, size, messages, messages, readings,
  first_at_us, last_at_us, received_first_at_us, received_last_at_us, 0
FROM data_files_3 WHERE state = 'live';
INSERT INTO data_files (file, state, written_at_us)
SELECT file, state, planned_at_us FROM data_files_3 WHERE state = 'planned';
DROP TABLE data_files_3;

CREATE TABLE watermarks (
  inbox TEXT   PRIMARY KEY,
  high  BIGINT NOT NULL
);
INSERT INTO watermarks (inbox, high) SELECT '1', high FROM inbox_watermark;
DROP TABLE inbox_watermark;

CREATE TABLE tombstones (
  subject       TEXT   PRIMARY KEY REFERENCES patients (subject),
  erased_at_us  BIGINT NOT NULL,
  cleared       BIGINT,
  dropped_at_us BIGINT
);
INSERT INTO tombstones (subject, erased_at_us) SELECT subject, erased_at_us FROM patients WHERE state = 'erased';

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
