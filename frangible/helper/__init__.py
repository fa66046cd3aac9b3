"""What runs in the pods that act on a node: small programs of their own, one module a job.

Standard library only and no other module of the project but `frangible.burner`. Each carries its own deadline and undoes what it did at the deadline,
on SIGTERM, when its pod is deleted, and when it fails; what it has done stands in a note on the node, so that `frangible.helper.undo` can undo it
when nothing else is left.
"""
