#!/usr/bin/env bash
# Builds, checks and times Annulus on one machine with a GPU (H100 or H200, CUDA 13, PyTorch), in stages of under 8 minutes that
# can be resumed; then writes the tables of benchmarks/results/gpu.md. The machine needs no network and none of Annulus's
# packages: `pack`, run before on a machine that has apt-get and pip, collects them in .gpu-suite/, which is to be copied along.
#   benchmarks/gpu_suite.sh pack
#   benchmarks/gpu_suite.sh [--cpu] [--redo] [STAGE...]     all stages that are not done, or those named
#     --cpu    a rehearsal of every stage on CPUs, with tiny shapes and the program in build/
#     --redo   stages that are done, too
#     --seconds N   ends in time, on a machine that ends commands after N seconds: call it until nothing is left
# `pack` needs what `launch/setup.sh --oracle` installs. GPU_SUITE_PYTHON: a python3 with PyTorch; ANNULUS_ORACLE_PYTHON: where
# nothing was packed one with transformers and safetensors, too. Default: python3.
set -euo pipefail
cd "$(dirname "$0")/.."
carried=$PWD/.gpu-suite

# What Annulus is built with beside CUDA's libraries, and what of these packages' needs a bare machine lacks.
pack() {
  local roots=(openmpi-bin libopenmpi-dev libdnnl-dev nlohmann-json3-dev libcli11-dev libfmt-dev libsentencepiece-dev libgtest-dev)
  local carry='^(openmpi-|libopenmpi|libdnnl|nlohmann|libcli11|libfmt|libsentencepiece|libprotobuf|libgtest|googletest|libhwloc(15|-dev)|libevent-(core|pthreads)|libpmix|ocl-icd-libopencl)'
  rm -rf "$carried"
  mkdir -p "$carried/debs" "$carried/wheels"
  apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "${roots[@]}" |
    grep '^[a-z]' | sed 's/:.*//' | sort -u | grep -E "$carry" >"$carried/packages"
  (cd "$carried/debs" && xargs apt-get download -q <"$carried/packages")
  python3 -m pip download -q --no-deps --only-binary :all: --dest "$carried/wheels" \
    "$(sed -n 's/^set(ANNULUS_CUDNN_FRONTEND \(.*\))$/\1/p' cmake/cudnn.cmake)"
  local oracle  # 20 steps of PyTorch, whose transformers that machine may lack
  oracle=$(tests/oracle.sh)
  "$oracle" tests/pytorch/record_training.py "$carried/training"
  du -sh "$carried"
}

# Unpacked beside the system's own, found by what follows.
use_carried() {
  local root=$carried/root deb
  if [ ! -e "$root/.complete" ]; then
    mkdir -p "$root"
    for deb in "$carried"/debs/*.deb; do dpkg -x "$deb" "$root"; done
    python3 -m zipfile -e "$carried"/wheels/*.whl "$carried/wheels"
    touch "$root/.complete"
  fi
  local libraries=$root/usr/lib/x86_64-linux-gnu
  export PATH=$carried/bin:$PATH
  export LD_LIBRARY_PATH=$libraries:$libraries/openmpi/lib:$libraries/pmix2/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export OPAL_PREFIX=$root/usr OPAL_LIBDIR=$libraries/openmpi/lib OPAL_PKGLIBDIR=$libraries/openmpi/lib/openmpi3
  export OPAL_DATADIR=$root/usr/share OPAL_PKGDATADIR=$root/usr/share/openmpi OPAL_INCLUDEDIR=$libraries/openmpi/include
  export PMIX_INSTALL_PREFIX=$libraries/pmix2 OMPI_MCA_plm_rsh_agent=/bin/false
  export CMAKE_PREFIX_PATH=$root/usr
  mkdir -p "$carried/bin"
  local name
  for name in mpirun mpicxx; do ln -sf "$root/usr/bin/$name.openmpi" "$carried/bin/$name"; done
}

case ${1:-} in
  pack) pack; exit ;;
  -h | --help) sed -n 2,12p "$0"; exit ;;
esac
[ ! -d "$carried/debs" ] || use_carried
source launch/mpi_environment.sh
exec python3 benchmarks/gpu_suite.py "$@"
