"""The placer: a process of its own that has Ray run worker hosts. The only one that loads Ray.

    front                              placer (python -m supervisor.placer)         Ray
    Keeper ──Order, Join──▶ stdin      plan: wanted against found ──▶ actors ──▶ worker hosts
           ◀──Fact──────── stdout      named, detached: found again after a restart

Owns where hosts run. Does not own workers, streams or their health: a host that runs dials the
front by itself, and goes on while the placer or Ray's head is away.
"""
