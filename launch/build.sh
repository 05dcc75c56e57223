#!/usr/bin/env bash
# Configures the preset `default` (or $ANNULUS_PRESET) and builds it into build/.
#   launch/build.sh [TARGET...]      everything, or only the targets named
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${ANNULUS_PRESET:-default}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cmake --preset "$preset" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
cmake --build --preset "$preset" ${1:+--target "$@"}
