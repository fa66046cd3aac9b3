"""What steady state means: hypotheses made of indicators, loaded from YAML and rendered for one environment.

CONTRACT
Hypothesis (pydantic, frozen): name, title, description, requires (LeastLoad | None), indicators (tuple[RatioIndicator | GaugeIndicator, ...]),
recovery (Recovery: within seconds, steady_for seconds).
LeastLoad: metric (selector template of a counter), at_least (per second).
Indicator, common: name, title, when_absent ("broken" | "ignore", mandatory), tolerated_share (0..1, default 0), waived_during_effect (bool = False),
abort (AbortCondition | None: worse_than float, for_ seconds (YAML `for`)), block (seconds, default 5).
RatioIndicator: kind "ratio"; good, valid: selector templates of counters; bound (RatioBound: at_least float | None, drop_at_most float | None).
GaugeIndicator: kind "gauge"; query: PromQL template giving one series; lookback seconds; bound (GaugeBound: at_least, at_most, rise_at_most, drop_at_most).
Meaning of the bounds: RatioBound.at_least is the least good share; drop_at_most is relative to the run's own baseline share. tolerated_share: during
the *effect* window only, the further share of events (ratio) or the share of blocks (gauge) that may break the bound.
Durations in YAML are `250ms`, `10s`, `2m`, `1h`; in Python float seconds.
Templates: `${labels}` (mandatory in each selector of a template) becomes the environment's label matchers, escaped; nothing else is filled in.

load_hypotheses(paths) -> Mapping[str, Hypothesis]; shipped_hypotheses() -> Path of frangible.hypotheses' folder; HypothesisError with all problems
render(template, labels) -> str
"""
