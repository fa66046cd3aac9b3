"""The short form of the crash campaign; `make campaign` runs the long one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.lab, pytest.mark.checkout]


@pytest.mark.timeout(1200)  # on a busy machine each kill can take a minute
def test_nothing_is_left_over_in_the_target_after_kill_9(running_lab):
    """Runs killed at steps of the lease and at random moments, on both start paths, leave nothing behind."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.crash", "--kills", "6", "--seed", "8", "--home", str(running_lab.home.path), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    outcomes = json.loads(done.stdout)["outcomes"] if done.stdout else []
    assert [outcome for outcome in outcomes if outcome["leftovers"]] == [], done.stderr
    assert (len(outcomes), done.returncode) == (6, 0), done.stderr
