-- The audit log. Rows are only ever added; the triggers stop mistakes, the signed tree reveals intent.
CREATE TABLE record (
    seq   INTEGER PRIMARY KEY,              -- from 0, without gaps
    at_us INTEGER NOT NULL,                 -- copy of the record's time, microseconds UTC, to find a window quickly
    leaf  TEXT    NOT NULL                  -- canonical JSON: the very bytes that were hashed
) STRICT;
CREATE INDEX record_at ON record (at_us);

CREATE TABLE hash (
    idx  INTEGER PRIMARY KEY,               -- stored_hash_index(level, n): Crosby and Wallach's dense order
    hash BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE TABLE head (
    id   INTEGER PRIMARY KEY CHECK (id = 0),
    note TEXT    NOT NULL                   -- the signed checkpoint over everything above, written in the same commit
) STRICT;

CREATE TRIGGER record_keeps_rows  BEFORE DELETE ON record BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER record_keeps_text  BEFORE UPDATE ON record BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER hash_keeps_rows    BEFORE DELETE ON hash   BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER hash_keeps_values  BEFORE UPDATE ON hash   BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

PRAGMA user_version = 1;
