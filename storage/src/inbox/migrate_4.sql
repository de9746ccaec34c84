-- Version 3 to 4: the journal. Never changed again: a later version adds a step of its own.

CREATE TABLE changes (
  id     INTEGER PRIMARY KEY,
  change TEXT    NOT NULL,
  body   TEXT
);

PRAGMA user_version = 4;
