#!/usr/bin/env bash
# Shows the whole of Annulus on two cores, or on GPUs where there is one and nvcc: installs what is missing, builds, makes a corpus
# of the C++ standard library's headers, tokenizes it, and trains one model twice from the same weights: on a tensor- and
# sequence-parallel mesh, then on a ring.
#   launch/demo.sh [--no-install] [--steps N] [--cpu]
set -euo pipefail
cd "$(dirname "$0")/.."

steps=120
setup=()
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU ' || true)
command -v nvcc >/dev/null || gpus=0
while [ $# -gt 0 ]; do
  case $1 in
    --no-install) setup=(--no-install) ;;
    --steps) steps=${2:?--steps needs a number}; shift ;;
    --cpu) gpus=0 ;;
    -h | --help) sed -n 2,5p "$0"; exit 0 ;;
    *) echo "demo: $1 is no option of mine; see $0 --help" >&2; exit 2 ;;
  esac
  shift
done

say() { printf '\n== %s (%d s)\n' "$1" $SECONDS; }

program=build/annulus
device=() calibration=()
if [ "$gpus" -gt 0 ]; then
  say "on GPUs, of which there are $gpus, since nvcc is here, too (--cpu: on CPUs)"
  program=build-cuda/annulus
  setup+=(--cuda)
  export ANNULUS_PRESET=cuda
  device=(--set device.kind=cuda) calibration=(--device cuda)
fi
if [ "$gpus" -eq 1 ]; then
  echo "one GPU for two ranks: they share it, and exchange through the host's memory"
  device+=(--set device.share_gpu=true --set device.communication=staged) calibration+=(--share-gpu --communication staged)
fi

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
"$program" tokenize "$folder/corpus.tokens" --text "$headers/**" --tokenizer sentencepiece --vocabulary 4096

say "hardware profile"
mpirun -n 2 "$program" calibrate --output "$folder/profile.json" "${calibration[@]}"

train() { # NAME SETTINGS...
  local name=$1
  shift
  say "training on 2 ranks: $name"
  mpirun -n 2 "$program" train launch/recipes/demo.json --set log.profile="$folder/profile.json" --set output.folder="$folder/$name" \
    --set training.steps="$steps" "${device[@]}" "$@"
}
train tp2 --set parallel.tp=2 --set parallel.sequence_parallel=true
train cp2 --set parallel.cp=2 --set parallel.layout=zigzag

say "the two loss curves"
python3 launch/compare_runs.py "$folder/tp2" "$folder/cp2" --tolerance 1e-4
say "done"
