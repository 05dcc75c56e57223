#!/usr/bin/env bash
# Shows the whole of Annulus on two cores: installs what is missing, builds, makes a corpus of the C++ standard library's headers,
# tokenizes it, and trains one model twice from the same weights: on a tensor- and sequence-parallel mesh, then on a ring.
#   launch/demo.sh [--no-install] [--steps N]
set -euo pipefail
cd "$(dirname "$0")/.."

steps=120
setup=()
while [ $# -gt 0 ]; do
  case $1 in
    --no-install) setup=(--no-install) ;;
    --steps) steps=${2:?--steps needs a number}; shift ;;
    -h | --help) sed -n 2,4p "$0"; exit 0 ;;
    *) echo "demo: $1 is no option of mine; see $0 --help" >&2; exit 2 ;;
  esac
  shift
done

say() { printf '\n== %s (%d s)\n' "$1" $SECONDS; }

say "set-up"
launch/setup.sh "${setup[@]}"
say "build"
launch/build.sh annulus
source launch/mpi_environment.sh

folder=runs/demo
rm -rf "$folder"
mkdir -p "$folder"
# The folder of the headers, as the compiler itself tells: that of <vector>.
headers=$(dirname "$(echo '#include <vector>' | g++ -E -x c++ - | sed -n 's/^# [0-9]* "\(.*\/vector\)".*/\1/p' | head -n 1)")
say "corpus and tokenizer: $headers"
build/annulus tokenize "$folder/corpus.tokens" --text "$headers/**" --tokenizer sentencepiece --vocabulary 4096

say "hardware profile"
mpirun -n 2 build/annulus calibrate --output "$folder/profile.json"

train() { # NAME SETTINGS...
  local name=$1
  shift
  say "training on 2 ranks: $name"
  mpirun -n 2 build/annulus train launch/recipes/demo.json --set log.profile="$folder/profile.json" --set output.folder="$folder/$name" \
    --set training.steps="$steps" "$@"
}
train tp2 --set parallel.tp=2 --set parallel.sequence_parallel=true
train cp2 --set parallel.cp=2 --set parallel.layout=zigzag

say "the two loss curves"
python3 launch/compare_runs.py "$folder/tp2" "$folder/cp2" --tolerance 1e-4
say "done"
