"""Which deployments may answer a call (`plans`), and in which order they are tried: a file a policy."""

from gateway.routing.plan import able, able_path, head, order_candidates, pinned, plan, plan_path

__all__ = ["able", "able_path", "head", "order_candidates", "pinned", "plan", "plan_path"]
