#!/usr/bin/env bash
# From a fresh clone to an age strip: virtual environment, installation, landmark predictor, strip
# of a public-domain portrait. Arguments go to scripts/inference_side_by_side.py, for example
#   bash scripts/quickstart.sh --data_path my_photo.jpg
# The strip goes to results/, since examples/ holds what is committed.
started_in=$PWD
source "$(dirname "$0")/environment.sh" run .
repository=$PWD
cd "$started_in"  # paths among the arguments count from there
python "$repository/scripts/download_weights.py" landmarks
python "$repository/scripts/inference_side_by_side.py" --exp_dir results "$@"
