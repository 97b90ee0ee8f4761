#!/bin/sh
# Snakemake runs this in a new conda environment (`--sdm conda`), from the campaign's folder: puts dubito itself into it.
# Editable, from the checkout whose workflow runs here: rules and package stay in step.
set -eu
checkout=${DUBITO_SOURCE:-$(python -c 'import os; print(os.path.dirname(os.path.realpath("Snakefile")))')}
if [ ! -f "$checkout/pyproject.toml" ]; then
  echo "dubito: $checkout is not a checkout of dubito (it has no pyproject.toml), so it can't be installed into the" \
    "conda environment. Start in a campaign folder made by 'dubito new', or name the checkout: DUBITO_SOURCE=/path/to/it" >&2
  exit 2
fi
python -m pip install --disable-pip-version-check --no-deps --editable "$checkout"
python -c 'import dubito; print("dubito", dubito.__version__, "in", dubito.__file__)'
