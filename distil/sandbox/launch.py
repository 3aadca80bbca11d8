"""Starts a program under sandlock with limits that it cannot raise: `python -I -S -B launch.py ORDER` (see confine)."""

import json
import sys

if __name__ == "__main__":
    import resource  # not on Windows, where this is never run

    order = json.loads(sys.argv[1])
    sys.path.append(order["site"])
    for name, value in order["limits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    from sandlock import Sandbox

    sys.exit(Sandbox(**order["policy"]).run_interactive(order["command"]))
