"""Five clusters of points in the plane with a sinusoidal value: what each kind of doubt says between them.

python examples/toy_2d/toy.py [--short] [--out FOLDER]

Writes evidential.png, gaussian_process.png and references.png, and prints the numbers of the page as JSON.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import gpytorch
import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from dubito.uncertainty.evidential_loss import (
    NormalInverseGamma,
    error_norm,
    evidence_penalty,
    from_activations,
    negative_log_likelihood,
)

mpl.use("Agg")
import matplotlib.pyplot as plt

Array = NDArray[np.float64]
HERE = Path(__file__).parent
CENTRES = np.array([[-2.0, -2.0], [-2.0, 2.0], [0.0, 0.0], [2.0, -2.0], [2.0, 2.0]])
WIDTH, NOISE = 0.35, 0.1


@dataclass(frozen=True)
class Toy:
    """Points (n, 2) and values (n,), and a grid of g x g points with its masks (g * g,)."""

    x: Array
    y: Array
    grid: Array
    g: int
    inside: NDArray[np.bool_]
    between: NDArray[np.bool_]


def make(n: int, g: int) -> Toy:
    """Draw the points. The noise is the same everywhere, so a true aleatoric map is flat."""
    rng = np.random.default_rng(0)
    x = CENTRES[rng.integers(0, 5, n)] + WIDTH * rng.normal(size=(n, 2))
    y = np.sin(1.5 * x[:, 0]) + np.sin(1.5 * x[:, 1]) + NOISE * rng.normal(size=n)
    axis = np.linspace(-4, 4, g)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    distance = np.linalg.norm(grid[:, None] - CENTRES[None], axis=2).min(axis=1)
    return Toy(x, y, grid, g, distance < WIDTH, (distance > 4 * WIDTH) & (np.abs(grid).max(axis=1) < 2.5))


def network(outputs: int, seed: int) -> nn.Sequential:
    """Return a small network."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs)).double()


def evidential(toy: Toy, steps: int, regulariser: float, seed: int) -> tuple[Array, NormalInverseGamma]:
    """Train a value and its normal-inverse-gamma (d = 1); the first fifth of the steps fits the value alone."""
    model = network(4, seed)
    x, y, grid = (torch.from_numpy(v) for v in (toy.x, toy.y, toy.grid))
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        out = model(x)
        squared = (out[:, 0] - y).square()
        if step < steps // 5:
            loss = squared.mean()
        else:
            given = from_activations(out[:, 1:])
            penalty = evidence_penalty(given, error_norm(squared))
            loss = (negative_log_likelihood(given, squared, dimension=1) + regulariser * penalty).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        out = model(grid)
        return out[:, 0].numpy(), from_activations(out[:, 1:])


def ensemble(toy: Toy, steps: int, members: int) -> Array:
    """Return the deviation (g * g,) of members that differ in their initial weights."""
    x, y, said = torch.from_numpy(toy.x), torch.from_numpy(toy.y), []
    for seed in range(members):
        model = network(1, 100 + seed)
        adam = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(steps):
            adam.zero_grad()
            (model(x)[:, 0] - y).square().mean().backward()
            adam.step()
        with torch.no_grad():
            said.append(model(torch.from_numpy(toy.grid))[:, 0].numpy())
    return np.std(said, axis=0, ddof=1)


class Svgp(gpytorch.models.ApproximateGP):
    """A sparse variational Gaussian process."""

    def __init__(self, inducing: Tensor) -> None:
        q = gpytorch.variational.CholeskyVariationalDistribution(len(inducing))
        super().__init__(gpytorch.variational.VariationalStrategy(self, inducing, q, learn_inducing_locations=True))
        self.mean_module = gpytorch.means.ConstantMean()
        self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        """Return the prior at x."""
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def gaussian_process(toy: Toy, steps: int, mended: bool) -> tuple[Array, Array]:
    """Return the latent deviation (g * g,) in units of the prior's, and the inducing points.

    As found: inputs that are small numbers (as latents are), gpytorch's defaults, inducing points all in one cluster.
    Mended: standardised inputs, a lengthscale from the distances within a cluster, inducing points by k-means.
    """
    unit = 0.05
    mean, scale = (toy.x.mean(axis=0), toy.x.std(axis=0)) if mended else (np.zeros(2), np.full(2, 1 / unit))
    x, grid = (torch.from_numpy((v - mean) / scale) for v in (toy.x, toy.grid))
    y = torch.from_numpy((toy.y - toy.y.mean()) / toy.y.std())
    if mended:
        inducing = torch.from_numpy(KMeans(30, n_init=1, random_state=0).fit(x.numpy()).cluster_centers_)
    else:
        inducing = x[np.argsort(np.linalg.norm(toy.x - CENTRES[0], axis=1))[:30].copy()].clone()
    torch.manual_seed(0)
    model, likelihood = Svgp(inducing).double(), gpytorch.likelihoods.GaussianLikelihood().double()
    if mended:
        model.covar_module.base_kernel.lengthscale = 2 * WIDTH / float(np.mean(scale)) * 1.5
        likelihood.noise = 0.02
    objective = gpytorch.mlls.PredictiveLogLikelihood(likelihood, model, num_data=len(x))
    adam = torch.optim.Adam([*model.parameters(), *likelihood.parameters()], lr=0.02)
    model.train()
    for _ in range(steps):
        adam.zero_grad()
        (-objective(model(x), y)).backward()
        adam.step()
    model.eval()
    with torch.no_grad():
        deviation = model(grid).variance.clamp_min(0).sqrt() / model.covar_module.outputscale.sqrt()
    return deviation.numpy(), model.variational_strategy.inducing_points.detach().numpy() * scale + mean


def contrast(toy: Toy, values: Array) -> float:
    """Return the median between the clusters over that inside them."""
    return float(np.median(values[toy.between]) / np.median(values[toy.inside]))


def worst_contrast(toy: Toy, values: Array) -> float:
    """Return the median between the clusters over that inside the cluster that is doubted most."""
    cluster = np.linalg.norm(toy.grid[:, None] - CENTRES[None], axis=2).argmin(axis=1)
    worst = max(np.median(values[toy.inside & (cluster == c)]) for c in range(len(CENTRES)))
    return float(np.median(values[toy.between]) / worst)


def draw(toy: Toy, maps: dict[str, Array], target: Path, inducing: dict[str, Array] | None = None) -> None:
    """Draw maps side by side, with the points."""
    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(2.6 * columns, 2.3 * rows), layout="constrained")
    for panel, (name, values) in zip(np.ravel(panels), maps.items(), strict=True):
        top = np.quantile(values, 0.98)
        shown = panel.imshow(
            values.reshape(toy.g, toy.g), extent=(-4, 4, -4, 4), origin="lower", cmap="viridis", vmax=top
        )
        panel.plot(toy.x[::3, 0], toy.x[::3, 1], ",", color="white")
        if inducing and name in inducing:
            panel.plot(*inducing[name].T, "x", ms=3, mew=0.8, color="#ff7043")
        panel.set(title=name, xticks=[], yticks=[], xlim=(-4, 4), ylim=(-4, 4))
        panel.title.set_fontsize(9)
        figure.colorbar(shown, ax=panel, shrink=0.8).ax.tick_params(labelsize=7)
    figure.savefig(target, dpi=72)
    plt.close(figure)


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a few seconds, for tests; the figures are rough")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    toy = make(150 if options.short else 500, 25 if options.short else 60)
    steps, members = (400, 3) if options.short else (2000, 5)
    numbers: dict[str, float] = {"inside": int(toy.inside.sum()), "between": int(toy.between.sum())}

    density = GaussianMixture(5, random_state=0, reg_covar=1e-4).fit(toy.x)
    score = -density.score_samples(toy.grid)
    nearest = NearestNeighbors(n_neighbors=5).fit(toy.x).kneighbors(toy.grid)[0].mean(axis=1)
    spread = ensemble(toy, steps, members)
    numbers |= {"ensemble": contrast(toy, spread), "neighbors": contrast(toy, nearest)}
    numbers["mixture_auroc"] = float(np.mean(score[toy.between][:, None] > score[toy.inside][None]))
    draw(toy, {"mixture: -ln density": score, "5 nearest: distance": nearest, "ensemble: deviation": spread},
         options.out / "references.png")  # fmt: skip

    maps: dict[str, Array] = {}
    for weight in (0.01, 0.3):
        splits = []
        for seed in (0,) if options.short else (0, 1):
            _, given = evidential(toy, steps, weight, seed)
            parts = {name: getattr(given, name).sqrt().numpy() for name in ("aleatoric", "epistemic", "total")}
            numbers |= {f"{name} {weight} seed {seed}": contrast(toy, value) for name, value in parts.items()}
            numbers[f"aleatoric inside {weight} seed {seed}"] = float(np.median(parts["aleatoric"][toy.inside]))
            numbers[f"total inside {weight} seed {seed}"] = float(np.median(parts["total"][toy.inside]))
            splits.append((given, parts))
        given, parts = splits[0]
        if weight == 0.01:
            maps = {"nu (log10)": np.log10(given.nu.numpy()), "alpha - 1 (log10)": np.log10(given.alpha.numpy() - 1),
                    "beta (log10)": np.log10(given.beta.numpy())}  # fmt: skip
            maps |= {f"{name} (log10)": np.log10(value) for name, value in parts.items()}
    draw(toy, maps, options.out / "evidential.png")

    found, points = gaussian_process(toy, steps // 4, mended=False)
    mended, placed = gaussian_process(toy, steps // 4, mended=True)
    numbers |= {"svgp as found": worst_contrast(toy, found), "svgp mended": worst_contrast(toy, mended)}
    draw(toy, {"SVGP as found": found, "SVGP mended": mended}, options.out / "gaussian_process.png",
         {"SVGP as found": points, "SVGP mended": placed})  # fmt: skip
    print(json.dumps({key: round(value, 3) for key, value in numbers.items()}))


if __name__ == "__main__":
    main()
