"""The six scenarios of failure-policy.md §3 as experiments, and the readiness report over what they measured."""
