#!/usr/bin/env bash
# Make requirements.lock anew: the newest versions that pyproject.toml allows, transitive ones included.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.11}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder"
# torch first: a package that asks for any torch must find this one.
"$folder/bin/pip" install --quiet "$(sed -n 's/^  "\(torch==[^"]*\)",$/\1/p' pyproject.toml)"
"$folder/bin/pip" install --quiet ".[development]"
{
  echo "# Every package, transitive ones included. torch carries no local tag and its CUDA packages are"
  echo "# left to torch's own pins, so that one file serves a laptop and a GPU node. Made by: make lock"
  "$folder/bin/pip" freeze --all \
    | sed 's/^nvidia-ml-py=/@&/' \
    | grep -v -i -E '^(pip|wheel|sensorium_models|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*|triton)[= ]' \
    | sed -e 's/^@//' -e 's/+c[pu][a-z0-9]*$//'
} > requirements.lock
