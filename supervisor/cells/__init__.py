"""Durable requests that outlive their front: other fronts find them by a NATS server (DESIGN.md).

Only `nats_store` imports the client of NATS. A front without `cells_nats` imports nothing of this
package.
"""
