#!/usr/bin/env bash
# Measure vLLM on a box with one H100, in parts that end within ten minutes each and go on where they were left. The
# minutes below are estimates.
#
#   scripts/measure_h100.sh [OPTIONS] PART...
#
#   add DIR   takes carried parts of wheels from DIR (part-NN, parts.json: scripts/fetch_wheels.sh); once for each lot
#   restore DIR   takes results of earlier calls from DIR (NAME.tar.gz.NN), to go on with them on another box
#   setup     joins them, makes environments for engine and tuner beside the box's own torch, and a model without weights
#   smoke     vLLM starts, streams, stops, and its memory is back; time of each start-up phase        (2 minutes)
#   steps     what single steps take, alone and mixed: the data of a calibration                      (5 minutes)
#   study     a study of 25 minutes; goes on in the background, so call it again until it has ended   (25 minutes)
#   budgets   token budgets 256 to 8192 at two loads                                                  (14 minutes)
#
#   --work DIR         for everything made here (default $GOODTUNE_BOX, else ~/goodtune-box); results in DIR/results
#   --limit SECONDS    nothing new is begun so long after the call began (default 540)
#   --where WHAT       gpu (default), cpu, or served: a simulation; for a try
#   --model DIR        (default: the one that `setup` makes) --engine-bin PATH and --python PATH likewise
#   --weights auto     read the model's weights instead of making them up
#   --slo SLO --budget TIME --rates "4 12" --quick      less of everything, for a try
#
# Results of the parts that were asked for are also packed into $OUT, if that is set, whatever becomes of them.
# shellcheck disable=SC2329  # parts are called by their names
set -euo pipefail
shopt -s nullglob

here=$(cd "$(dirname "$0")" && pwd)
fail() { echo "measure_h100.sh: $*" >&2; exit 2; }

work=${GOODTUNE_BOX:-$HOME/goodtune-box}
limit=540 where=gpu weights=dummy slo=$here/box/chat.yaml budget=25m rates="4 12"
model='' engine='' python='' quick=() parts=() knobs=()
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=(--quick) ;;
        --work | --limit | --where | --model | --engine-bin | --python | --weights | --slo | --budget | --rates)
            [ $# -gt 1 ] || fail "$1: what?"
            case $1 in
                --work) work=$2 ;; --limit) limit=$2 ;; --where) where=$2 ;; --model) model=$(realpath "$2") ;;
                --engine-bin) engine=$2 ;; --python) python=$2 ;; --weights) weights=$2 ;; --slo) slo=$2 ;;
                --budget) budget=$2 ;; --rates) rates=$2 ;;
            esac
            shift ;;
        add | restore) [ $# -gt 1 ] || fail "$1: which folder?"; parts+=("$1 $(realpath "$2")"); shift ;;
        setup | smoke | steps | study | budgets) parts+=("$1") ;;
        *) fail "$1: no such option or part; the head of $0 lists them" ;;
    esac
    shift
done
[ ${#parts[@]} -gt 0 ] || fail "which part? The head of $0 lists them"

mkdir -p "$work"
work=$(cd "$work" && pwd)
results=$work/results
model=${model:-$work/qwen-7b} engine=${engine:-$work/vllm-env} python=${python:-$work/tune-env/bin/python}
cd "$here/.."
# What the tuner learns of the engine belongs to the results.
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 XDG_DATA_HOME=$results/learned
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_NO_USAGE_STATS=1
common=(--slo "$slo" --where "$where" --engine-bin "$engine" --weights "$weights" "${quick[@]}")
left() { echo $((limit - SECONDS)); }

add() { mkdir -p "$work/parts"; cp "$1"/part-* "$1"/parts.json "$work/parts"; ls -s "$work/parts"; }

restore() {
    local first
    mkdir -p "$results"
    for first in "$1"/*.tar.gz.00; do
        cat "${first%00}"* | tar -C "$results" -xz
        echo "restored: ${first##*/}"
    done
}

setup() {
    local box folder
    if [ ! -d "$work/wheels" ]; then
        python3 scripts/pack_wheels.py join "$work/parts" "$work/wheels.partial"
        mv "$work/wheels.partial" "$work/wheels"
    fi
    # The box's Python may itself be that of an environment, whose packages `--system-site-packages` would not show.
    box=$(python3 -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])')
    for folder in vllm tuner; do
        local env=$work/${folder/tuner/tune}-env
        [ ! -e "$env/complete" ] || continue
        python3 -m venv --without-pip "$env"
        echo "$box" >"$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/box.pth"
        "$env/bin/python" -m pip --disable-pip-version-check install --quiet --no-index --no-deps --no-cache-dir \
            --ignore-installed "$work/wheels/$folder"/*.whl
        touch "$env/complete"
    done
    "$python" scripts/make_dummy_model.py "$model"
    "$work/vllm-env/bin/python" -c 'import torch, transformers; print("torch", torch.__version__, "transformers",
        transformers.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'
    "$work/vllm-env/bin/vllm" --version
}

smoke() { "$python" scripts/measure_start.py "$model" "$results/smoke" "${common[@]}" --limit "$(left)"; }

steps() { "$python" scripts/measure_steps.py "$model" "$results/steps" "${common[@]}" --limit "$(left)"; }

# shellcheck disable=SC2086  # several rates
budgets() { "$python" scripts/measure_budgets.py "$model" "$results/budgets" "${common[@]}" --limit "$(left)" --rates $rates; }

# In a session of its own: it outlives the call that began it, and a later call finds it under way, ended, or killed.
study() {
    local out=$results/study resume=() status
    mkdir -p "$results"
    case $where in gpu) knobs+=(--gpus 1) ;; cpu) knobs+=(--gpu cpu) ;; served) knobs+=(--simulate served --gpus 1) ;; esac
    [ "$weights" = auto ] || knobs+=(--set load-format=dummy)
    [ -n "${quick[*]}" ] || knobs+=(--knob token_budget=256..4096 --knob max_batch_size=64..1024 --knob prefix_caching=on
        --knob gpu_memory_utilization=0.92 --knob performance_mode=balanced)
    if ! is_studying; then
        if [ -e "$results/study.status" ] && [ "$(cat "$results/study.status")" != killed ]; then
            cat "$results/study.txt"
            return
        fi
        [ ! -e "$out/plan.yaml" ] || resume=(--resume)
        echo killed >"$results/study.status"
        # shellcheck disable=SC2016  # the inner shell's own
        setsid bash -c 'echo $$ >"$1/study.pid"; shift
            "${@:2}" >"$1/study.txt.partial" 2>>"$1/study.log" && status=0 || status=$?
            mv "$1/study.txt.partial" "$1/study.txt"; echo "$status" >"$1/study.status"; rm -f "$1/study.pid"' \
            study "$results" "$results" "$python" -m tuner --model "$model" --slo "$slo" --attainment 0.9 --seeds 2 \
            --budget "$budget" --engine-bin "$engine" --out "$out" --plain "${knobs[@]}" "${resume[@]}" \
            </dev/null >/dev/null 2>&1 &
        sleep 1
    fi
    while is_studying && [ "$SECONDS" -lt "$limit" ]; do sleep 1; done
    tail -n 12 "$results/study.log"
    is_studying && { echo "the study goes on; call this part again"; return; }
    cat "$results/study.txt"
    status=$(cat "$results/study.status")
    case $status in 0 | 3 | 4) ;; *) echo "the study ended with $status" >&2; return 1 ;; esac
}

is_studying() { [ -e "$results/study.pid" ] && kill -0 "$(cat "$results/study.pid")" 2>/dev/null; }

# In pieces of 15 MB, for places that take no larger files; `cat NAME.tar.gz.* | tar xz` puts them together. Never a process's
# number: elsewhere it is another's.
keep() {
    local name=$1 files=("$results/$1"* "$results/learned")
    [ -n "${OUT:-}" ] && [ -e "${files[0]}" ] || return 0
    tar -C "$results" --exclude '*.pid' --exclude .lock --ignore-failed-read -cz "${files[@]#"$results"/}" 2>/dev/null | split -b 15M -d - "$OUT/$name.tar.gz."
}

status=0
for part in "${parts[@]}"; do
    read -r job folder <<<"$part"
    printf '\n=== %s\n' "$part"
    # Each in a shell of its own: a part that fails does not keep the next from being tried.
    set +e
    (set -e; "$job" ${folder:+"$folder"})
    failed=$?
    set -e
    echo "$job: ended $SECONDS s after the call began"
    keep "$job"
    [ "$failed" = 0 ] || { echo "$job failed ($failed)" >&2; status=1; }
done
exit $status
