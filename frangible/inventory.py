"""What the organisation's environments are: models of the inventory files, loading, inheritance, selection.

CONTRACT (the attributes that other modules use; loading etc. follow):

Environment (pydantic, frozen): name, parent (str | None), region, tier, owner (Owner: team, contact), exchanges (tuple[str, ...]),
platform (PlatformSettings), prometheus (PrometheusSettings | None), labels (dict[str, str]: Prometheus matchers of this environment),
nodes (tuple[Node, ...]), services (tuple[Service, ...]), middleware (tuple[Middleware, ...]), shares (tuple[str, ...]),
limits (Limits: nodes_at_once int = 1, share_of_role float = 0.5).
Node: name, roles (tuple[str, ...]), cpus (float | None). Service: name, role, nodes. Middleware: name, version, nodes.
PlatformSettings: kind ("hosts" | "kubernetes"), transport ("local"), root (Path, hosts: folder on the target that holds lease copies,
one folder a node), locks (Path, hosts: folder that holds the lock files of every environment there), power (PowerSettings | None).
PowerSettings: driver "rack" with socket (Path), or driver "command" with on/off/state (argv lists, `{node}` is filled in).
PrometheusSettings: url, ca_file, bearer (Secret), basic (user + Secret), headers (tenant), proxy, timeout seconds = 5, runs_on ("outside" or a node's name).
Secret: file or variable reference only; `.reveal()`; repr and dumps never show the value.

load_inventory(path: Path) -> Inventory           one YAML file or a folder of them; raises InventoryError with all problems
Inventory.environments: Mapping[str, Environment] (inheritance applied); Inventory.get(name) (UsageError with nearest names)
Inventory.select(Selection) -> tuple[Environment, ...]; Selection(names/globs, region, parent, owner, tier, labels)
Inventory.ancestors(name), Inventory.descendants(name)
Inventory.resource_keys(name) -> tuple[str, ...]  sorted: `environment:NAME` for itself, ancestors, descendants, plus `shared:KEY` for shares
find_inventory(explicit: Path | None, home: Home) -> Path   flag, FRANGIBLE_INVENTORY, frangible-inventory.yaml upwards from cwd, the lab's
"""
