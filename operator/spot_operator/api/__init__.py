"""The API `spottraining.io/v1alpha1`: its shape, its rules, and what a spec effectively means.

Invariant: the CRD that the API server enforces and the check that the operator makes come from
the same models (`spec`) and the same table of rules (`rules`). Whatever reaches the operator
past the API server (a lenient client, an older CRD) is refused here in the same words.
"""
