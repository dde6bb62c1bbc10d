#!/usr/bin/env bash
# The main job on an embedded set (scikit-learn digits, 8x8): plan, fit, sample, evaluate, verify, report.
set -euo pipefail
out=demo
rm -rf "$out"
mkdir "$out"
say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

say veilset plan dp-moments --data digits --epsilon 5
say veilset fit dp-moments --data digits --epsilon 5 --out "$out/run"
say veilset sample "$out/run" -n 1000 --out "$out/release"
say veilset evaluate "$out/run" --against digits -n 5000 --seeds 3 --metrics gen2real-logreg,gen2real-cnn,fd-gabor
say veilset verify "$out/release"
say veilset report "$out/run" --out "$out/report.html"
python - <<'PY'
from pathlib import Path

from veilset import PublicInfo
from veilset.core.pictures import read_images
from veilset.privacy.receipt import read_receipt

folder = Path("demo/release")
images = read_images(folder, PublicInfo.from_json(read_receipt(folder).facts["data"]))
images.grid(per_class=20).save("demo/samples.png")
PY
printf '\nThe picture: %s\nThe page:    %s\n' "$out/samples.png" "$out/report.html"
