#!/usr/bin/env bash
# Runs a script with the python3 that has PyTorch, which tests/run.sh names; exit code 77 (skipped) where it was refused.
#   tests/pytorch/with_oracle.sh SCRIPT [ARGUMENT...]
set -euo pipefail
if [ -z "${ANNULUS_ORACLE_PYTHON:-}" ]; then
  echo "skipped: no PyTorch; tests/run.sh installs it unless told --without-pytorch (or set ANNULUS_ORACLE_PYTHON)"
  exit 77
fi
exec "$ANNULUS_ORACLE_PYTHON" "$@"
