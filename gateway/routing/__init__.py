"""Which deployments may answer a call (`plans`), and in which order they are tried: a file a policy."""

from gateway.routing.plan import order_candidates, pinned, plan, plan_path

__all__ = ["order_candidates", "pinned", "plan", "plan_path"]
