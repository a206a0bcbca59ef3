#!/usr/bin/env bash
# Tests the mock: the one in a folder that build.sh filled, or one built for this.
set -euo pipefail
[ $# -le 1 ] || { echo "usage: $0 [DIR]" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
mock=${1:-$temporary}
[ $# = 1 ] || bash "$here/build.sh" "$mock"
g++ -std=c++17 -O1 -Wall -Wextra -o "$temporary/test" "$here/test.cpp" -ldl
"$temporary/test" "$(cd "$mock" && pwd)"
