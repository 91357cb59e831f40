"""The joint objective of a merge: its gradients, groups and solvers."""
