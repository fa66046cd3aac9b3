"""May this be injected? Facts in, decision out. Pure.

CONTRACT
@dataclass(frozen=True) class Facts: environment, tier, halt (Stop | None), stop_for_run (Stop | None), open_leases of other runs (tuple[str, ...]), targets (tuple[str, ...]), nodes_in_role/total,
   nodes_in_force (tuple[str, ...]), limits, observers (mapping what -> where: 'prometheus' -> node or 'outside', 'runner' -> ..), unanswered (tuple[str, ...]: guards that could not get their answer)
@dataclass(frozen=True) class Decision: allowed: bool, reasons: tuple[str, ...], not_configured: tuple[str, ...]  ('trading sessions', 'freezes', 'alerts' -> "not configured")
decide(facts: Facts) -> Decision
"""
