"""An S3 server for tests, on a free port of this machine, which it names on stderr. It keeps everything in memory."""

from moto.server import main

main(["-H", "127.0.0.1", "-p", "0"])
