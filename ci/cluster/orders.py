"""Wait until a Prometheus has seen every target of the named environments, and orders acknowledged in time. usage: orders.py ADDRESS ENVIRONMENT..."""

import json
import sys
import time
import urllib.parse
import urllib.request

WITHIN = 120.0
SEEN = """
sum by (environment) (rate(order_outcomes_total{outcome="in_time"}[10s])) > 5
  and sum by (environment) (1 - up{environment!=""}) == 0
"""


def environments_with_orders(address: str) -> set[str]:
    """Ask once; nothing is seen while Prometheus does not answer."""
    query = urllib.parse.urlencode({"query": SEEN})
    try:
        with urllib.request.urlopen(f"{address}/api/v1/query?{query}", timeout=3) as response:  # noqa: S310
            found = json.load(response)["data"]["result"]
    except (OSError, ValueError, KeyError):
        return set()
    return {series["metric"]["environment"] for series in found}


def main(address: str, *wanted: str) -> int:
    """Return 0 once all flow, 1 when time has run out."""
    deadline = time.monotonic() + WITHIN
    while missing := set(wanted) - environments_with_orders(address):
        if time.monotonic() > deadline:
            sys.stderr.write(f"no orders in time after {WITHIN:.0f} s in {', '.join(sorted(missing))}, says {address}; read the logs of its pods\n")
            return 1
        time.sleep(0.5)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
