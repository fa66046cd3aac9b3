"""What this user may do in a cluster: asked of the API server, one review for each verb and resource, side by side.

https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/self-subject-access-review-v1/
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from frangible.platforms.kubernetes.permissions import LEVELS, Level, Permission, needed, told
from frangible.platforms.kubernetes.survey import Looker

__all__ = ["Access", "granting"]

AT_ONCE = 8
"""Reviews that are asked for side by side; the client keeps at least so many connections."""


@dataclass(frozen=True, slots=True)
class Access:
    """What the user of one environment's cluster may do. Raises `PlatformError`."""

    looker: Looker

    def user(self) -> str:
        """Return who this client is, as the API server knows it."""
        cluster = self.looker.cluster
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        info = cluster.ask(cluster.authentication.create_self_subject_review, body).data["status"]["userInfo"]
        return str(info.get("username", "unknown"))

    def needed(self, primitives: Iterable[str], *, runs: bool) -> tuple[Permission, ...]:
        """Return what these primitives need; `namespace-selector` is looked up in the cluster."""
        return needed(self.looker.environment, self.looker.namespaces(), primitives, runs=runs)

    def missing(self, permissions: Iterable[Permission]) -> tuple[Permission, ...]:
        """Return those that the API server does not allow."""
        asked = tuple(permissions)
        self.looker.cluster.authorization  # noqa: B018 - the client is made once, and not by each thread
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="review") as pool:
            allowed = pool.map(self._allowed, asked)
            return tuple(permission for permission, yes in zip(asked, allowed, strict=True) if not yes)

    def forbidden(self, primitives: Iterable[str]) -> tuple[str, ...]:
        """Return a sentence a level for what a run that injects by these primitives would miss; empty when it may all."""
        missing = self.missing(self.needed(primitives, runs=True))
        who = f"environment {self.looker.environment.name}: {self.user()}" if missing else ""
        by_level = {level: [one for one in missing if one.level is level] for level in LEVELS}
        return tuple(f"{who} may not {told(ones)}; {granting(level)}" for level, ones in by_level.items() if ones)

    def _allowed(self, permission: Permission) -> bool:
        cluster = self.looker.cluster
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": permission.attributes}}
        return bool(cluster.ask(cluster.authorization.create_self_subject_access_review, body).data["status"].get("allowed"))


def granting(level: Level) -> str:
    """Say what grants a level."""
    return f"deploy/access/{level} grants it to whom it is bound (docs/access.md)"
