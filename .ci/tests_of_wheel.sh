# The quick tests on the package that is installed in the environment $1, from a copy of the checkout without the package:
# what is imported, also by processes that tests start there, is the installed one, to which a link leads.
set -eu
venv=$(cd "$1" && pwd)
copy=$venv/copy
rm -rf "$copy"
mkdir "$copy"
cp -r tests .ci docs benchmarks notebooks README.md CHANGELOG.md CITATION.cff LICENSE pyproject.toml package.json tsconfig.json constraints-*.txt Makefile "$copy"
cd "$copy"
package=$("$venv/bin/python" -c "import induction_kernel, pathlib; print(pathlib.Path(induction_kernel.__file__).parent)")
case $package in "$venv"/*) ;; *) echo "$package is not in $venv"; exit 1 ;; esac
ln -s "$package" induction_kernel
"$venv/bin/python" -m pip list 2>/dev/null | grep -iE '^(transformer-lens|transformers|torch|numpy|pandas|xarray) '
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$venv/bin/python" -m pytest -n ${WORKERS:-2} -q -m "not slow and not in_turn and not real and not browser" ${TESTS:-tests}
