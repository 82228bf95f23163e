"""Step 7b: which deployments may answer a call (`plans`), and in which order they are tried: a file a policy."""

from gateway.routing.plan import pinned, plan, plan_path, standing

__all__ = ["pinned", "plan", "plan_path", "standing"]
