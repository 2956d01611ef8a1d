#!/usr/bin/env python3
"""Policies on the real server, over the mock backend with a recorded step table, beside the simulator.

Saturation is measured closed-loop with fcfs. Then, for every seed and load, each policy gets the same arrivals, each
from a server of its own, all at the same time; they mostly sleep. The simulator gets the same arrivals and the same
table, with the time between two steps that the closed-loop run showed.

  run.py --build build/release --table steps.csv --out FOLDER [--seeds 1,2,3] [--rho 0.7,0.9] [--requests N]
  run.py --build build/release --cpu-model model.gguf --out FOLDER ...
"""
import argparse
import contextlib
import csv
import json
import math
import os
import random
import socket
import statistics
import subprocess
import time
import urllib.request

SEATS, TOKEN_BUDGET, BLOCK = 16, 512, 16
KV_TOKENS, HOST_CACHES = 5152, 4
STEP_US = 5000.0  # on top of the table, so that a step takes 5 to 20 ms
# The lengths of setup S, shortened so that thousands of requests take minutes.
INPUT, OUTPUT, MAX_INPUT, MAX_TOTAL = (70, 1.45), (150, 1.05), 450, 900
MLFQ = {"use": "mlfq", "quantum_ms": 15.0, "alpha_s": 10.0}
POLICIES = {"fcfs": {"use": "fcfs"}, "mlfq": MLFQ}


def lognormal(rng, mean, cv):
    variance = math.log(1 + cv * cv)
    return max(1, round(rng.lognormvariate(math.log(mean) - variance / 2, math.sqrt(variance))))


def workload(seed, rate, n):
    rng, at, rows = random.Random(seed), 0.0, []
    for _ in range(n):
        at += rng.expovariate(1)
        while True:
            a, b = lognormal(rng, *INPUT), lognormal(rng, *OUTPUT)
            if a <= MAX_INPUT and a + b <= MAX_TOTAL:
                break
        rows.append((at / rate, a, b))
    return rows


def write_trace(path, rows):
    with open(path, "w") as f:
        f.writelines(f"{at:.6f},{a},{b}\n" for at, a, b in rows)


def toml(table):
    def value(v):
        return json.dumps(v) if isinstance(v, str) else str(v).lower() if isinstance(v, bool) else repr(v)
    return "{ " + ", ".join(f"{k} = {value(v)}" for k, v in table.items()) + " }"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, args, policy, name):
        self.port, self.args = free_port(), args
        path = os.path.join(args.out, f"{name}.toml")
        backend = {"use": "mock", "script": "text", "tokens": "100", "check_kv": False, "step_us": STEP_US, "max_context": 2 * MAX_TOTAL,
                "kv_tokens": KV_TOKENS, "host_kv_tokens": HOST_CACHES * KV_TOKENS, "step_table": args.table}
        if args.cpu_model:
            backend = {"use": "cpu"}
        with open(path, "w") as f:
            f.write(f"[server]\nport = {self.port}\nmax_queued = 8192\nlog_level = \"warn\"\n\n[models.test]\n"
                    f"path = {json.dumps(args.model)}\nbackend = {toml(backend)}\nscheduler = {toml(POLICIES[policy])}\n"
                    f"samplers = [\"greedy\"]\nmax_seqs = {SEATS}\ntoken_budget = {TOKEN_BUDGET}\n"
                    f"kv = {{ blocks = {KV_TOKENS // BLOCK}, block_size = {BLOCK}, prefix_cache = false }}\n")
        self.log = open(os.path.join(args.out, f"{name}.log"), "w")
        self.process = subprocess.Popen(args.under + [args.sluice, "serve", path], stdout=self.log, stderr=self.log)
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/ready", timeout=2).close()
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise SystemExit(f"the server of {name} did not become ready; see {self.log.name}")

    def metric(self, name):
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10).read().decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        self.log.close()


def load_command(args, server):
    return args.under + [args.load, "--port", str(server.port), "--any-text", "1" if args.cpu_model else "0"]


def figures(path):
    with open(path) as f:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]
    cut = len(rows) // 10
    rows = rows[cut:len(rows) - cut]
    jct = sorted(r["jct_s"] for r in rows)
    return {"jct": statistics.fmean(jct), "p99": jct[int(0.99 * len(jct))],
            "s/token": statistics.fmean(r["jct_s"] / r["output"] for r in rows),
            "ttft": statistics.fmean(r["ttft_s"] for r in rows), "pause": max(r["longest_pause_s"] for r in rows),
            "late": max(r["late_s"] for r in rows)}


def simulate(args, trace, n, between_us, policies):
    path = trace + ".sim.toml"
    with open(path, "w") as f:
        f.write(f"requests = {n}\n[load]\narrivals = \"trace\"\ntrace = {json.dumps(trace)}\n[lengths]\n"
                f"max_input = {MAX_INPUT}\nmax_total = {MAX_TOTAL}\n[device]\nstep_table = {json.dumps(args.table)}\n"
                f"between_steps_us = {between_us}\nkv_tokens = {KV_TOKENS}\nblock_size = {BLOCK}\nbytes_per_token = 1\n"
                f"host_pool = {HOST_CACHES}.0\ntransfer_bytes_per_s = 1_000_000_000_000\n[engine]\nmax_seqs = {SEATS}\n"
                f"token_budget = {TOKEN_BUDGET}\nmax_live = 100_000\n")
        for name in policies:
            f.write("[[policies]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in POLICIES[name].items()))
    out = trace + ".sim.json"
    subprocess.run([args.sluice, "sim", path, "--json", out], check=True, stdout=subprocess.DEVNULL)
    result = {}
    with open(out) as f:
        for p in json.load(f)["loads"][0]["policies"]:
            m = p["mean"]
            result[p["name"]] = {"jct": m["jct_s"]["mean"], "p99": m["jct_s"]["p99"], "s/token": m["jct_per_token_s"]["mean"],
                                 "ttft": m["ttft_s"]["mean"], "pause": m["longest_pause_s"]["max"], "end_s": m["end_s"]}
    return result


def closed_loop(args):
    """Requests/s when there is always somebody waiting, and the time between steps that is not the table's."""
    rows = workload(1000, 1, args.closed_requests)
    trace = os.path.join(args.out, "closed.csv")
    write_trace(trace, rows)
    server = Server(args, "fcfs", "closed")
    began = time.monotonic()
    text = subprocess.run(load_command(args, server) + ["--trace", trace, "--closed", str(4 * SEATS)],
                          check=True, capture_output=True, text=True).stdout
    elapsed, steps = time.monotonic() - began, server.metric("sluice_engine_steps_total")
    server.stop()
    return float(text.split()[0]), elapsed, steps


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--table")
    parser.add_argument("--out", required=True)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--rho", default="0.7,0.9")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--closed-requests", type=int, default=1200)
    parser.add_argument("--cpu-model", help="this model on the CPU backend instead of the mock, one run after the other")
    parser.add_argument("--report-only", action="store_true", help="of runs that are there already")
    parser.add_argument("--under", default="", help="put in front of servers and load generators, such as 'chrt -r 1'")
    args = parser.parse_args()
    args.under = args.under.split()
    if not args.table and not args.cpu_model:
        parser.error("one of --table and --cpu-model is required")
    args.out, args.table = os.path.abspath(args.out), os.path.abspath(args.table or "")
    os.makedirs(args.out, exist_ok=True)
    args.sluice = os.path.join(args.build, "bin/sluice")
    args.load = os.path.join(args.build, "tests/bench/policy_load/policy_load")
    args.model = os.path.abspath(args.cpu_model or os.path.join(args.out, "tiny.gguf"))
    if not args.report_only:
        run_all(args)
    report(args)


def run_all(args):
    if not args.cpu_model:
        subprocess.run([args.sluice, "synth", "--preset", "tiny", "--out", args.model], check=True, stdout=subprocess.DEVNULL)
    saturation, elapsed, steps = closed_loop(args)
    print(f"closed loop, {4 * SEATS} at a time: {saturation:.3f} requests/s, {steps:.0f} steps in {elapsed:.1f} s", flush=True)
    with open(os.path.join(args.out, "closed.json"), "w") as f:
        json.dump({"saturation_per_s": saturation, "elapsed_s": elapsed, "steps": steps}, f)
    runs = []
    for rho, seed, policy, trace, out in all_runs(args):
        if policy == next(iter(POLICIES)):
            write_trace(trace, workload(seed, rho * saturation, args.requests))
        server = Server(args, policy, os.path.basename(out))
        load = subprocess.Popen(load_command(args, server) + ["--trace", trace, "--out", out])
        runs.append((server, load, out))
        if args.cpu_model:  # it computes, so its runs must not share the machine
            load.wait()
            server.stop()
    failed = [out for server, load, out in runs if load.wait() != 0]
    for server, load, out in runs:
        if not args.cpu_model:
            server.stop()
    if failed:
        raise SystemExit(f"failed: {failed}")


def all_runs(args):
    for rho in map(float, args.rho.split(",")):
        for seed in map(int, args.seeds.split(",")):
            trace = os.path.join(args.out, f"rho{rho}-seed{seed}.csv")
            for policy in POLICIES:
                yield rho, seed, policy, trace, f"{trace}.{policy}.csv"


def find_between(args):
    """The time between two steps with which the simulator is done with the closed loop's requests when the server was."""
    with open(os.path.join(args.out, "closed.json")) as f:
        closed = json.load(f)
    trace = os.path.join(args.out, "closed-at-once.csv")
    write_trace(trace, [(0.0, a, b) for _, a, b in workload(1000, 1, args.closed_requests)])
    low, high = 0, 30_000
    while high - low > 20:
        between = (low + high) // 2
        end_s = simulate(args, trace, args.closed_requests, between, ["fcfs"])["fcfs"]["end_s"]
        low, high = (between, high) if end_s < closed["elapsed_s"] else (low, between)
    return (low + high) // 2


def report(args):
    between_us = 0 if args.cpu_model else find_between(args)
    if not args.cpu_model:
        print(f"the simulator is as fast there with {between_us} us between two steps, {STEP_US:.0f} of them the mock's", flush=True)
    names = ["jct", "p99", "s/token", "ttft", "pause"]
    print(f"{'':34}" + "".join(f"{n:>10}" for n in names))
    line = lambda title, f: print(f"{title:34}" + "".join(f"{f[n]:10.4f}" for n in names), flush=True)
    table, simulated = {}, {}
    for rho, seed, policy, trace, out in all_runs(args):
        if args.cpu_model:
            table[rho, seed, policy] = (figures(out),)
            line(f"rho {rho} seed {seed} {policy}", figures(out))
            continue
        if trace not in simulated:
            simulated[trace] = simulate(args, trace, args.requests, between_us, list(POLICIES))
        real, sim = figures(out), simulated[trace][policy]
        table[rho, seed, policy] = real, sim
        line(f"rho {rho} seed {seed} {policy} real", real)
        line(f"rho {rho} seed {seed} {policy} simulated", sim)
        if real["late"] > 0.05:
            print(f"  the generator was up to {real['late']:.3f} s late")
    for rho in sorted({key[0] for key in table}):
        for which, title in enumerate(["real"] if args.cpu_model else ["real", "simulated"]):
            mean = {p: {n: statistics.fmean(table[k][which][n] for k in table if k[0] == rho and k[2] == p) for n in names}
                    for p in POLICIES}
            for p in POLICIES:
                line(f"rho {rho} mean {p} {title}", mean[p])
            line(f"rho {rho} fcfs / mlfq {title}", {n: mean["fcfs"][n] / mean["mlfq"][n] for n in names})


if __name__ == "__main__":
    main()
