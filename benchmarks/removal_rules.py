"""The removal rule's limit and its alternatives on one-dimensional ridge problems:

    python benchmarks/removal_rules.py

200,000 problems; the removed data have a uniform share of up to 95 % of the curvature.
Prints the error of the removal relative to no removal, for exact Fishers and for
Fishers estimated independently with nu degrees of freedom (medians of three seeds),
and the root mean square of the weights where H0 does not contain Ht.
"""

import numpy as np

PROBLEMS = 200_000
SEEDS = 3
DEGREES = (None, 400, 100, 30)
# The bound of H0 - H as a share of H0 + H, and the weight below it: that of the bound,
# or 1.
RULES = [(0.25, "bound"), (0.05, "bound"), (0.25, "α"), (0.05, "α"), (0.025, "α")]


def weights(h0, h, share, below):
    bound = share * (h0 + h)
    rest = h0 - h
    clamped = rest < bound
    return np.where(
        clamped & (below == "α"), 1.0, (h0 + h) / np.where(clamped, bound, rest)
    )


def relative_errors(seed, degrees):
    """Errors sum h (theta - optimum of the rest)^2 of the rules."""
    random = np.random.default_rng(seed)
    share = random.uniform(0, 0.95, PROBLEMS)
    rest = np.exp(random.normal(0, 1, PROBLEMS))
    h = rest * share / (1 - share)
    h0 = rest + h
    removed, kept = random.normal(0, 1, (2, PROBLEMS))  # optima of the two parts
    joint = (rest * kept + h * removed) / h0
    expert = (h * removed + h0 * joint) / (h + h0)  # with the proximal term
    estimates = [h0, h]
    if degrees:
        estimates = [
            x * random.chisquare(degrees, PROBLEMS) / degrees for x in estimates
        ]

    def error(theta):
        return (rest * (theta - kept) ** 2).sum()

    return [
        error(joint - weights(*estimates, *rule) * (expert - joint)) / error(joint)
        for rule in RULES
    ]


def main():
    random = np.random.default_rng(0)
    h0, h = np.exp(2 * random.normal(0, 1, (2, PROBLEMS)))
    columns = [
        np.median([relative_errors(seed, nu) for seed in range(SEEDS)], axis=0)
        for nu in DEGREES
    ]
    print(
        "| denominator below | weight there | exact | ν = 400 | ν = 100 | ν = 30 | not"
    )
    print("|---|---|--:|--:|--:|--:|--:|")
    for i, (share, below) in enumerate(RULES):
        errors = " | ".join(f"{column[i]:.2f}" for column in columns)
        spread = np.sqrt((weights(h0, h, share, below) ** 2).mean())
        print(f"| {share} | {below} | {errors} | {spread:.1f} |")


if __name__ == "__main__":
    main()
