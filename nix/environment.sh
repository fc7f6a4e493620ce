# Makes $out: an environment that has the packages of $libraries and the project $src, in editable form.
#
#   libraries=VENV src=CHECKOUT out=FOLDER sh nix/environment.sh
#
# $out/bin has the programs of $libraries, run by a Python that also finds the project; $out/share/astolfo is the checkout,
# with its .venv where envs/snakemake looks for it.
set -eu
packages=$(echo "$libraries"/lib/python3.*/site-packages)
own=$out/lib/$(basename "$(dirname "$packages")")/site-packages
export SOURCE_DATE_EPOCH=315532800 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONFIG_FILE=/dev/null

"$libraries/bin/python" -m venv --without-pip "$out"
echo "$packages" >"$own/libraries.pth"
mkdir -p "$out/share"
cp -R "$src" "$out/share/astolfo"
chmod -R u+w "$out/share/astolfo"
ln -s ../.. "$out/share/astolfo/.venv"
"$out/bin/python" -m pip install --no-index --no-deps --no-build-isolation --no-compile --editable "$out/share/astolfo"

for program in snakemake snakefmt pytest; do
    printf '#!/bin/sh\nexec "%s/bin/python" -m %s "$@"\n' "$out" "$program" >"$out/bin/$program"
    chmod +x "$out/bin/$program"
done
# Digests of files that name $out: `nix build --rebuild` could not compare them (nix/libraries.nix).
rm "$own"/astolfo-*.dist-info/RECORD
ln -s "$libraries/bin/ruff" "$out/bin/ruff"
"$out/bin/python" -m compileall -q --invalidation-mode unchecked-hash "$out/share/astolfo/astolfo"
