#!/usr/bin/env bash
# Sets everything up, builds, and runs all tests; where nvcc is, builds and tests the CUDA part, too.
#   tests/run.sh [--without-pytorch] [--preset NAME] [-R REGEX]
#     --without-pytorch   installs no PyTorch; the tests that compare with it are skipped, by name
#     --preset NAME       default, debug, asan or tsan
#     -R REGEX            only the tests whose name matches
set -euo pipefail
cd "$(dirname "$0")/.."

oracle=yes
preset=default
selection=()
while [ $# -gt 0 ]; do
  case $1 in
    --without-pytorch) oracle=no ;;
    --preset) preset=${2:?--preset needs a name}; shift ;;
    -R) selection=(-R "${2:?-R needs an expression}"); shift ;;
    -h | --help) sed -n 2,6p "$0"; exit 0 ;;
    *) echo "run: $1 is no option of mine; see $0 --help" >&2; exit 2 ;;
  esac
  shift
done

if [ $oracle = yes ]; then
  launch/setup.sh --oracle
  ANNULUS_ORACLE_PYTHON=$(tests/oracle.sh)
  export ANNULUS_ORACLE_PYTHON
else
  launch/setup.sh
  unset ANNULUS_ORACLE_PYTHON
fi
ANNULUS_PRESET=$preset launch/build.sh

source launch/mpi_environment.sh
export OMP_WAIT_POLICY=passive # idle threads of one test leave the cores to the ranks of another
results=$(mktemp)
trap 'rm -f "$results"' EXIT
status=0
ctest --preset "$preset" --no-tests=error --output-junit "$results" "${selection[@]}" || status=$?

# The CUDA build, wherever there is a compiler for it, with or without a GPU.
if [ "$preset" = default ] && [ ${#selection[@]} -eq 0 ] && command -v nvcc >/dev/null; then
  ANNULUS_PRESET=cuda launch/build.sh cuda_build || status=$?
  ctest --preset cuda --no-tests=error -R '^cu(da_|dnn)' || status=$?
fi

# The closing line: what ctest itself counted.
count() { sed -n "s/^.*[[:space:]]$1=\"\([0-9]*\)\".*$/\1/p" "$results" | head -n 1; }
ran=$(count tests) failed=$(count failures) skipped=$(count skipped)
echo "$((ran - failed - skipped)) passed, $failed failed, $skipped skipped"
exit $status
