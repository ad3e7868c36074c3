"""Call git_status once through the command given; print the reply. argv: FILE COMMAND ARGS..."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
params = {"name": "git_status", "arguments": {"repo_path": "repo"}, "_meta": META}
request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
done = subprocess.run(
    sys.argv[2:], input=json.dumps(request) + "\n", capture_output=True, text=True, check=True
)
Path(sys.argv[1]).write_text(done.stdout)
print(done.stdout)  # noqa: T201 - what the script looks at
