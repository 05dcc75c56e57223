#!/usr/bin/env bash
# Makes the virtual environment in which PyTorch is asked for comparison (Debian's PyTorch, with Hugging Face's GPT-2 on top),
# and prints the path of its python3. Needs the packages of `launch/setup.sh --oracle`. Quick where it exists.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$PWD/.venv-oracle
if [ ! -e "$folder/.complete" ]; then
  echo "oracle: making $folder" >&2
  rm -rf "$folder"
  /usr/bin/python3 -m venv --system-site-packages "$folder"
  # The last versions that work with the PyTorch of Debian 12; a newer Python has wheels of newer ones only.
  if /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then
    packages=('transformers==4.40.2' 'tokenizers<0.20' safetensors 'numpy<2')
  else
    packages=('transformers<5' safetensors)
  fi
  "$folder/bin/pip" install -q --disable-pip-version-check "${packages[@]}" >&2
  touch "$folder/.complete"
fi
echo "$folder/bin/python3"
