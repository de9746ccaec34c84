"""Reads a data file with pyarrow, by the store key alone: `read_parquet.py FILE`.

FILE is JSON: `file` (path), `store_keys` (hex, by kid). What the file's key metadata say is all that pyarrow is told: its
KMS client unwraps the file's key (RFC 3394) with the store key that they name. Prints the rows as JSON: bytes in
hexadecimal, times in microseconds. Without the key, the file must not open.
"""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap


class StoreKeys(pe.KmsClient):
    """Unwraps what a store key wrapped; wraps nothing."""

    def __init__(self, keys):
        super().__init__()
        self.keys = keys

    def wrap_key(self, key_bytes, master_key_identifier):
        raise NotImplementedError

    def unwrap_key(self, wrapped_key, master_key_identifier):
        wrapped = wrapped_key.decode() if isinstance(wrapped_key, bytes) else wrapped_key
        return aes_key_unwrap(self.keys[master_key_identifier], bytes.fromhex(wrapped))


def main() -> int:
    told = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    keys = {kid: bytes.fromhex(key) for kid, key in told["store_keys"].items()}
    factory = pe.CryptoFactory(lambda config: StoreKeys(keys))
    decryption = factory.file_decryption_properties(pe.KmsConnectionConfig(), pe.DecryptionConfiguration())
    table = pq.ParquetFile(told["file"], decryption_properties=decryption).read()
    try:
        pq.ParquetFile(told["file"])
    except OSError:
        pass
    else:
        raise AssertionError("it opens without a key")
    columns = {name: [shown(value) for value in plain(table.column(name))] for name in table.column_names}
    json.dump(columns, sys.stdout)
    return 0


def plain(column):
    return (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()


def shown(value):
    return value.hex() if isinstance(value, bytes) else value


if __name__ == "__main__":
    sys.exit(main())
