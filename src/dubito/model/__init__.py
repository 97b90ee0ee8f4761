"""The E(3)-equivariant network: NequIP type, on e3nn, members of an ensemble stacked.

Members are the leading dimension of every parameter and channels the innermost of every feature:
features are ``(members, atoms, components, channels)``, where the components of all irreducible
representations of a layer stand side by side (see :class:`dubito.model.irreps.Layout`).
"""
