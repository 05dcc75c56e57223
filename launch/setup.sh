#!/usr/bin/env bash
# Installs what Annulus is built with, from Debian's or Ubuntu's packages, where something is missing.
#   launch/setup.sh [--no-install] [--oracle] [--cuda]
#     --no-install   only say what is missing (exit code 1)
#     --oracle       also what the comparison with PyTorch needs (tests/run.sh asks for it)
#     --cuda         also cuDNN, NCCL and pip, which the CUDA build needs beside CUDA's toolkit (launch/demo.sh asks for it
#                    where there is a GPU)
set -euo pipefail

packages=(g++ cmake make ninja-build pkg-config openmpi-bin libopenmpi-dev libdnnl-dev nlohmann-json3-dev libcli11-dev libfmt-dev libsentencepiece-dev libgtest-dev libbenchmark-dev python3)
install=yes
# Whether the compiler, or one with CUDA's folder, finds it.
has_header() { echo "#include <$1>" | g++ -E -x c++ -I /usr/local/cuda/include - >/dev/null 2>&1; }
for argument in "$@"; do
  case $argument in
    --no-install) install=no ;;
    --oracle) packages+=(python3-venv python3-pip python3-torch python3-numpy) ;;
    --cuda)
      packages+=(python3-pip)
      # From NVIDIA's packages, unless they are here in another way.
      has_header nccl.h || packages+=(libnccl2 libnccl-dev)
      has_header cudnn.h || packages+=(libcudnn9-cuda-13 libcudnn9-dev-cuda-13)
      ;;
    -h | --help) sed -n 2,7p "$0"; exit 0 ;;
    *) echo "setup: $argument is no option of mine; see $0 --help" >&2; exit 2 ;;
  esac
done

give_up() {
  echo "setup: $1" >&2
  echo "setup: install these packages (Debian's and Ubuntu's names), then run this again:" >&2
  echo "  ${missing[*]}" >&2
  exit 1
}

missing=()
if command -v dpkg-query >/dev/null; then
  installed=" $(dpkg-query -W -f '${db:Status-Abbrev}${Package} ' "${packages[@]}" 2>/dev/null | tr -s ' ' || true)"
  for package in "${packages[@]}"; do
    [[ $installed == *"ii $package "* ]] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || exit 0
else
  missing=("${packages[@]}")
  # Elsewhere the packages have other names; cmake looks for what they hold and names what it does not find.
  for tool in g++ cmake ninja mpirun python3; do
    command -v $tool >/dev/null || give_up "$tool is missing, and this system has no dpkg"
  done
  exit 0
fi

[ $install = yes ] || give_up "packages are missing, and --no-install was given"
command -v apt-get >/dev/null || give_up "packages are missing, and there is no apt-get"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null && sudo -n true 2>/dev/null ||
    give_up "packages are missing, and installing them needs root (or sudo without a password)"
  as_root=(sudo -n)
fi

echo "setup: installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" >>"$log" 2>&1; }
if ! { apt update && apt install -y --no-install-recommends "${missing[@]}"; }; then
  tail -n 20 "$log" >&2
  give_up "apt-get failed (its last lines stand above)"
fi
