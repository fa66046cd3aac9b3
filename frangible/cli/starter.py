"""What `frangible init` writes. Every file passes `frangible validate` as it is."""

__all__ = ["FILES"]

CONFIGURATION = """\
# Where the parts of this estate are. Commands find this file from the working directory upwards;
# `frangible --config FOLDER ...` or FRANGIBLE_CONFIG=FOLDER names it from elsewhere. Paths are relative to this file.

inventory: inventory # a file, or a folder of files that are read as one
hypotheses: [hypotheses] # known beside the shipped ones
experiments: [experiments] # `frangible run NAME` finds NAME.yaml here first, then among the shipped ones

# Runs are kept in frangible's home unless you say otherwise. A team shares one PostgreSQL; the password belongs
# into ~/.pgpass, or the whole URL into FRANGIBLE_JOURNAL and FRANGIBLE_LEDGER.
# journal: postgresql+psycopg://frangible@db.example.com/frangible
# ledger: postgresql+psycopg://frangible@db.example.com/frangible
"""

INVENTORY = """\
# The environments that frangible may judge. `frangible validate .` checks this file and names the line of every problem.

environments:
  - name: example-parent
    region: london
    tier: staging # faults are injected in staging only; `production` is refused in code
    owner: {team: example-team, contact: example-team@example.com}
    exchanges: [XLON] # ISO 10383

    platform:
      kind: hosts
      # Lease copies lie here, one folder a node: whoever finds one can revert the fault, even without our ledger.
      # The folder must outlive what a fault takes down. Lock files keep two runs off the same machines.
      root: /var/lib/frangible/targets
      locks: /var/lib/frangible/locks
      # How a node loses its power and gets it back: any commands (IPMI, Redfish, your cloud). They run without a shell;
      # {node} becomes the node's name; `state` prints `on` or `off`.
      power:
        driver: command
        "on": [node-power, "on", "{node}"]
        "off": [node-power, "off", "{node}"]
        state: [node-power, state, "{node}"]

    prometheus:
      url: http://prometheus.example.com:9090
      scrape-interval: 1s # lets `frangible validate` say whether a verdict can be reached at all
      # A token is never written here: name the file, or the variable, that holds it.
      # bearer: {file: /run/secrets/prometheus}

    # Prometheus matchers that select exactly this environment's series; ${labels} in a hypothesis becomes them.
    labels: {environment: example-parent}

    nodes:
      - {name: app-1, roles: [gateway, execution], cpus: 4}
      - {name: app-2, roles: [gateway, execution], cpus: 4}
      - {name: core-1, roles: [broker], cpus: 4}
    services:
      - {name: gateway, version: "1.0", role: gateway}
    middleware:
      - {name: nats, version: "2.15", nodes: [core-1]}

    # How much one run may take away at once.
    limits: {nodes-at-once: 1, share-of-role: 0.5}

  # A child inherits every key that it does not give: here only its name, its labels and its nodes differ.
  # A run on a child keeps runs off its parent, and the other way round.
  - name: example-child
    parent: example-parent
    labels: {environment: example-child}
    nodes:
      - {name: child-app-1, roles: [gateway, execution], cpus: 2}
      - {name: child-app-2, roles: [gateway, execution], cpus: 2}
    services:
      - {name: gateway, version: "1.0", role: gateway}
    middleware: []
"""

HYPOTHESIS = """\
# What steady state means: indicators, each with a bound that it must keep. Success is counted where the user stands.
name: example-orders
title: Orders are acknowledged in time

# Below this load a run shows nothing, and its verdict is `inconclusive: not exercised`.
requires:
  metric: orders_offered_total{${labels}}
  at-least: 20 # a second

indicators:
  # A ratio of two counters: good events among all valid ones. Prefer it to latencies and queue depths: it says how sure it is.
  - name: acknowledged
    good: order_outcomes_total{${labels},outcome="in_time"}
    valid: order_outcomes_total{${labels}}
    bound: {at-least: 0.99}
    tolerated-share: 0.15 # of the events while the fault is in force
    when-absent: broken # a series that disappears while Prometheus is well counts as broken

  # A value: what it is at any moment.
  - name: queue-depth
    kind: gauge
    query: max(queue_depth{${labels}})
    lookback: 1s
    bound: {at-most: 1000}
    when-absent: ignore
    waived-during-effect: true # may grow while the fault lasts, must be small again afterwards

recovery: {within: 30s, steady-for: 5s}
"""

EXPERIMENT = """\
# A Chaos Toolkit experiment: `frangible run lose-a-gateway --environment example-parent`, or `chaos run` with this file.
title: Orders flow on when a gateway's node is lost
description: One node of the role gateway loses its power for 30 s, then gets it back.
tags: [node]

# Without this control nothing injects: it admits the run and lives through the windows.
controls:
  - name: frangible
    provider: {type: python, module: frangible.control}

# How long the environment must have been steady before, and how long after a revert to look again.
extensions:
  - name: frangible
    baseline: 30s
    baseline-limit: 120s
    settle: 1s

steady-state-hypothesis:
  title: Orders are acknowledged in time
  probes:
    - type: probe
      name: example-orders
      tolerance: true
      provider:
        type: python
        module: frangible.probes.steady_state
        func: steady_state
        arguments: {hypothesis: example-orders}

method:
  - type: action
    name: lose-a-gateway
    provider:
      type: python
      module: frangible.actions.node_loss
      func: lose_nodes
      arguments: {role: gateway, count: 1, hold: 30.0}

rollbacks: [] # the fault carries its own revert

runtime:
  rollbacks: {strategy: always}
"""

README = """\
# Our estate

Which of our environments are fragile, to what, and since when: asked with frangible.

| file | what to do with it |
|---|---|
| `frangible.yaml` | says where the others are; leave it |
| `inventory/environments.yaml` | **start here**: replace the two examples by your environments |
| `hypotheses/example-orders.yaml` | what steady state means: put your metrics and bounds in |
| `experiments/lose-a-gateway.yaml` | what is tried |

In this order; only the last line changes anything:

    frangible validate .                                            # all problems at once
    frangible validate lose-a-gateway --environment example-parent  # can it run there, and can `held` be reached at all?
    frangible doctor --environment example-parent                   # can everything be reached?
    frangible run lose-a-gateway --environment example-parent --dry-run
    frangible run lose-a-gateway --environment example-parent

Names: an experiment is called what its file is called, a hypothesis what its `name` says. One with the name of a shipped one
hides that, and frangible says so. Faults are injected in environments of tier `staging` only.
"""

FILES = {
    "frangible.yaml": CONFIGURATION,
    "README.md": README,
    "inventory/environments.yaml": INVENTORY,
    "hypotheses/example-orders.yaml": HYPOTHESIS,
    "experiments/lose-a-gateway.yaml": EXPERIMENT,
}
"""Path inside the folder to text."""
