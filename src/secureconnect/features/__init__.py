"""The rules, one room a feature: `model` (what it is), `store` (what it needs kept), `service` (what may be done)."""
