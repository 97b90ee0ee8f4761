#!/usr/bin/env bash
# Make the environments of the programs dubito is compared with: make_environments.sh [nequip] [mace]
# They lie in $DUBITO_PEERS, or beside this file. What is there already, with these versions, is left alone.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="${DUBITO_PEERS:-$here}"
python="${PYTHON:-python3.11}"
mkdir -p "$root"

for name in "${@:-nequip mace}"; do
  for peer in $name; do
    requirements="$here/requirements-$peer.txt"
    if [ ! -f "$requirements" ]; then
      echo "There is no requirements-$peer.txt; the peers are: nequip mace." >&2
      exit 2
    fi
    venv="$root/.venv-$peer"
    # The stamp is a copy of what was installed, written last: a killed or outdated installation is taken up again.
    if cmp -s "$requirements" "$venv/.installed"; then
      echo "$peer: $venv is up to date"
      continue
    fi
    echo "$peer: installing into $venv (minutes; about 1.5 GB) ..."
    rm -f "$venv/.installed"
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check "$(grep -E '^torch==' "$requirements")"
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$venv/.installed"
    echo "$peer: installed"
  done
done
