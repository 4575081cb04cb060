"""A server process with limits that the command line cannot set: python serve_limits.py JSON."""

from __future__ import annotations

import json
import sys

import gemtp_native as gemtp
from gemtp_native.serve import ServerSettings
from gemtp_native.serve.server import listen, serve

if __name__ == "__main__":
    target, drafter = gemtp.demo_models()
    settings = ServerSettings(port=0, **json.loads(sys.argv[1]))
    sock = listen(settings.host, settings.port)
    model = gemtp.Model(target, drafter=drafter, threads=1, context=2048)
    serve(model, settings, sock, lambda line: print(line, flush=True))
